//! Who and what: device ids, module names, and the identity a client connects as. Parsed once, right for ever.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a name was refused. The message says what was found and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No characters at all.
    #[error("found an empty name; write 1 to 128 characters of {allowed}")]
    Empty {
        /// The alphabet, in words.
        allowed: &'static str,
    },
    /// More than 128 characters (IoT Hub's limit for device and module ids).
    #[error("found {length} characters; a name has at most 128")]
    TooLong {
        /// How many there were.
        length: usize,
    },
    /// A character outside the alphabet.
    #[error("found `{found}` in `{name}`; allowed are {allowed}")]
    Character {
        /// The first character that is not allowed.
        found: char,
        /// The whole name.
        name: String,
        /// The alphabet, in words.
        allowed: &'static str,
    },
}

/// IoT Hub's identity alphabet (IoT Hub identity registry, "deviceId"), less `+` and `#`: those are MQTT's wildcards,
/// and a device named `+` could neither publish under its own topics nor be told from a filter for all of them.
const ALLOWED: &str = "letters, digits and - : . % _ * ? ! ( ) , = @ $ '";

fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { allowed: ALLOWED });
    }
    let length = name.chars().count();
    if length > 128 {
        return Err(NameError::TooLong { length });
    }
    match name.chars().find(|c| !(c.is_ascii_alphanumeric() || "-:.%_*?!(),=@$'".contains(*c))) {
        Some(found) => Err(NameError::Character { found, name: name.to_owned(), allowed: ALLOWED }),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as it stands on the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                check(name)?;
                Ok(Self(name.to_owned()))
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                check(&name)?;
                Ok(Self(name))
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// The id of a gateway or of a leaf device: 1 to 128 characters of IoT Hub's identity alphabet, case-sensitive.
    DeviceId
}
name! {
    /// The id of a module on a gateway, `$edgeAgent` and `$edgeHub` included.
    ModuleId
}

impl ModuleId {
    /// `$edgeAgent`: the module whose desired properties are the deployment.
    pub fn edge_agent() -> Self {
        Self("$edgeAgent".to_owned())
    }

    /// `$edgeHub`: the module whose desired properties are the routes.
    pub fn edge_hub() -> Self {
        Self("$edgeHub".to_owned())
    }

    /// Whether this is one of the two modules that are part of the runtime itself.
    pub fn is_system(&self) -> bool {
        self.0.starts_with('$')
    }
}

/// Who a client is: a device, or a module of a device. Prints as its MQTT client id: `device` or `device/module`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// The device, or the gateway on which the module runs.
    pub device: DeviceId,
    /// The module, when the client is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<ModuleId>,
}

impl Identity {
    /// A device as itself.
    pub fn device(device: DeviceId) -> Self {
        Self { device, module: None }
    }

    /// A module of a device.
    pub fn module(device: DeviceId, module: ModuleId) -> Self {
        Self { device, module: Some(module) }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.module {
            None => write!(f, "{}", self.device),
            Some(module) => write!(f, "{}/{}", self.device, module),
        }
    }
}

impl FromStr for Identity {
    type Err = NameError;

    /// Reads `device` or `device/module`, the two forms of an IoT Hub MQTT client id.
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            None => Ok(Self::device(text.parse()?)),
            Some((device, module)) => Ok(Self::module(device.parse()?, module.parse()?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_as_it_prints() {
        for text in ["press-1", "gw1/filter", "gw1/$edgeAgent"] {
            assert_eq!(text.parse::<Identity>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_wrong_name_is_refused_with_what_was_found_and_what_is_allowed() {
        assert_eq!(
            "a b".parse::<DeviceId>().unwrap_err().to_string(),
            format!("found ` ` in `a b`; allowed are {ALLOWED}")
        );
        assert!("".parse::<DeviceId>().unwrap_err().to_string().contains("empty"));
        assert!("x".repeat(129).parse::<DeviceId>().unwrap_err().to_string().contains("129"));
        assert!("a/b/c".parse::<Identity>().is_err());
    }
}
