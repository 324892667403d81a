//! A program's configuration: a TOML file, and the environment variables that override its keys.
//!
//! A variable is `PREFIX__SECTION__KEY`, in any case. What its text means is decided by the type of its key, so `123` is a text where a text
//! is wanted and a number where a number is. A list is written with commas. An empty text leaves an optional key out. A key that does not
//! exist is an error, in the file and in the environment: a typing mistake must not become a default.

pub mod keys;
mod value;

use std::ffi::OsString;
use std::path::Path;

use serde::de::DeserializeOwned;

use self::value::{Origin, Value};

/// Why a configuration cannot be used. The message names the file and line, or the variable, and the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigFileError {
    /// The file is no TOML. Its text is not shown: it may hold a key.
    #[error("{file}: line {line}: {why}")]
    Syntax {
        file: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        why: String,
    },
    /// A key that does not exist, is missing, or has a wrong value.
    #[error("{place}: `{key}`: {why}")]
    Key {
        /// The file and line, or the variable.
        place: String,
        /// For example `mqtt.mqtts`.
        key: String,
        /// What was found and what is allowed.
        why: String,
    },
    /// A variable that no key can have.
    #[error("{variable}: {why}")]
    Variable {
        variable: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// Reads a configuration of type `T` from the text of `file` and the variables that begin with `prefix`.
///
/// # Errors
/// [`ConfigFileError`] for the first mistake.
pub fn read<T: DeserializeOwned>(
    file: &Path,
    text: &str,
    prefix: &str,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<T, ConfigFileError> {
    let named =
        if file.as_os_str().is_empty() { "configuration".to_owned() } else { file.display().to_string() };
    let mut table = Value::parse(text).map_err(|(line, why)| {
        let file = named.clone();
        ConfigFileError::Syntax { file, line, why }
    })?;
    for (variable, value) in variables {
        // Others' variables may be anything.
        let Some(name) = variable.to_str().and_then(|variable| variable.strip_prefix(prefix)) else {
            continue;
        };
        let failed = |why| ConfigFileError::Variable { variable: format!("{prefix}{name}"), why };
        let value = value.into_string().map_err(|_| failed("its value is not UTF-8"))?;
        table.set(&name.to_ascii_lowercase(), &format!("{prefix}{name}"), value).map_err(failed)?;
    }
    T::deserialize(table).map_err(|fault| {
        let (key, why) = (fault.key(), fault.why);
        let place = match fault.origin {
            None => named,
            Some(Origin::Line(line)) => format!("{named}: line {line}"),
            Some(Origin::Variable(variable)) => variable,
        };
        ConfigFileError::Key { place, key, why }
    })
}

/// The most connections of anything that a key may allow; more files than that no system opens.
const CONNECTIONS_MAX: u64 = 1_000_000;

/// Reads how many connections there may be: at least one, or nobody could ask why.
///
/// # Errors
/// The type's own, and for what is out of range.
pub fn connections<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::Deserialize<'de> + Copy + TryInto<u64>,
{
    let number = T::deserialize(deserializer)?;
    check_connections(number).map(|()| number).map_err(serde::de::Error::custom)
}

/// As [`connections`], of a key that may be left out.
///
/// # Errors
/// As there.
pub fn optional_connections<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::Deserialize<'de> + Copy + TryInto<u64>,
{
    let number = <Option<T> as serde::Deserialize>::deserialize(deserializer)?;
    number.map_or(Ok(()), check_connections).map(|()| number).map_err(serde::de::Error::custom)
}

#[derive(Debug, thiserror::Error)]
#[error("write a whole number from 1 to {CONNECTIONS_MAX}")]
struct NoConnections;

fn check_connections<T: TryInto<u64>>(number: T) -> Result<(), NoConnections> {
    let is_right = number.try_into().is_ok_and(|number| (1..=CONNECTIONS_MAX).contains(&number));
    is_right.then_some(()).ok_or(NoConnections)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::os::unix::ffi::OsStringExt as _;
    use std::path::PathBuf;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Top {
        name: String,
        #[serde(default)]
        inner: Inner,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Inner {
        text: Option<String>,
        number: Option<u16>,
        signed: i64,
        ratio: f64,
        flag: bool,
        list: Vec<PathBuf>,
        address: Option<SocketAddr>,
        kind: Kind,
        either: Option<Either>,
        deeper: std::collections::BTreeMap<String, Deeper>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Kind {
        #[default]
        First,
        SecondOne,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(String),
        More(Vec<String>),
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Deeper {
        bytes: u64,
    }

    fn read(text: &str, variables: &[(&str, &str)]) -> Result<Top, String> {
        let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        super::read(Path::new("a.toml"), text, "A__", variables).map_err(|error| error.to_string())
    }

    /// The same value by file and by variable is the same, whatever it looks like.
    #[test]
    fn a_variable_means_what_its_keys_type_says() {
        for (key, in_file, in_variable) in [
            ("name", "\"123\"", "123"),
            ("name", "\"true\"", "true"),
            ("name", "\" a, b\"", " a, b"),
            ("name", "\"[1]\"", "[1]"),
            ("inner.text", "\"1.5\"", "1.5"),
            ("inner.number", "65535", "65535"),
            ("inner.signed", "-7", "-7"),
            ("inner.ratio", "2.5", "2.5"),
            ("inner.ratio", "3", "3"),
            ("inner.flag", "true", "true"),
            ("inner.list", "[\"/a\", \"5\"]", "/a, 5"),
            ("inner.list", "[]", ""),
            ("inner.address", "\"[::1]:5\"", "[::1]:5"),
            ("inner.kind", "\"second-one\"", "second-one"),
            ("inner.either", "\"7\"", "7"),
            ("inner.deeper.x.bytes", "18446744073709", "18446744073709"),
        ] {
            let base = if key == "name" { "" } else { "name = \"n\"\n" };
            let by_file = read(&format!("{base}{key} = {in_file}"), &[]).unwrap();
            let variable = format!("A__{}", key.replace('.', "__").to_uppercase());
            let by_variable = read(base, &[(&variable, in_variable)]);
            assert_eq!(by_variable, Ok(by_file), "{variable}={in_variable}");
        }
        let left_out =
            read("name = \"n\"\n[inner]\nnumber = 5\ntext = \"x\"", &[("A__INNER__NUMBER", "")]).unwrap();
        assert_eq!((left_out.inner.number, left_out.inner.text.as_deref()), (None, Some("x")));
    }

    #[test]
    fn a_mistake_is_reported_with_its_place_and_its_key() {
        let named = "name = \"n\"\n";
        for (text, variables, expected) in [
            ("", vec![], "a.toml: `name`: it is missing"),
            ("name = 5", vec![], "a.toml: line 1: `name`: invalid type: integer `5`"),
            ("name = \"n\"\n[inner]\nnumbr = 1", vec![], "a.toml: line 3: `inner.numbr`: no such key"),
            (
                "name = \"n\"\n\n[iner]",
                vec![],
                "a.toml: line 3: `iner`: no such key; there are `name`, `inner`",
            ),
            (
                "name = \"n\"\n[inner]\nnumber = 65536",
                vec![],
                "a.toml: line 3: `inner.number`: invalid value",
            ),
            (
                "name = \"n\"\n[inner]\nlist = [\n\"a\", 5]",
                vec![],
                "a.toml: line 4: `inner.list`: invalid type",
            ),
            (
                "name = \"n\"\n[inner]\ntext = 1979-05-27",
                vec![],
                "a.toml: line 3: `inner.text`: found a date",
            ),
            ("name = \"n\"\nname = \"m\"", vec![], "a.toml: line 2: "),
            ("name = \"SECRET", vec![], "a.toml: line 1: "),
            (named, vec![("A__INNER__NUMBR", "1")], "A__INNER__NUMBR: `inner.numbr`: no such key"),
            (
                named,
                vec![("A__INNER__NUMBER", "x")],
                "A__INNER__NUMBER: `inner.number`: found `x`; write a whole number",
            ),
            (named, vec![("A__INNER__NUMBER", "65536")], "A__INNER__NUMBER: `inner.number`: found `65536`"),
            (
                named,
                vec![("A__INNER__RATIO", "x")],
                "A__INNER__RATIO: `inner.ratio`: found `x`; write a number",
            ),
            (
                named,
                vec![("A__INNER__FLAG", "yes")],
                "A__INNER__FLAG: `inner.flag`: found `yes`; write true or false",
            ),
            (
                named,
                vec![("A__INNER__KIND", "third")],
                "A__INNER__KIND: `inner.kind`: unknown variant `third`",
            ),
            (named, vec![("A__INNER__ADDRESS", "5")], "A__INNER__ADDRESS: `inner.address`: "),
            (named, vec![("A__INNER", "5")], "A__INNER: `inner`: invalid type"),
            (
                named,
                vec![("A__NAME__X", "5")],
                "A__NAME__X: the part before a `__` names a key, not a section",
            ),
            (named, vec![("A__X__Y", "5")], "A__X__Y: `x`: no such key"),
        ] {
            let message = read(text, &variables).unwrap_err();
            assert!(
                message.starts_with(expected) && !message.contains("SECRET"),
                "{message}\nnot: {expected}"
            );
        }
    }

    #[test]
    fn variables_that_are_no_text_are_reported_where_they_are_ours_and_passed_over_elsewhere() {
        let bytes = || OsString::from_vec(vec![0xff]);
        let read = |name: OsString| {
            super::read::<Top>(Path::new(""), "name = \"n\"", "A__", [(name, bytes())])
                .map_err(|e| e.to_string())
        };
        assert_eq!(read("A__NAME".into()), Err("A__NAME: its value is not UTF-8".to_owned()));
        assert!(read("LC_ALL".into()).is_ok() && read(bytes()).is_ok());
    }
}
