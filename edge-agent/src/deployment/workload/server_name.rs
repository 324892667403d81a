//! The names that a module may serve under: what its request for a server certificate may name.
//!
//! A client compares the name with bytes that it cuts, prints or splits in its own way: a NUL, a line break or a `CN=` in it means
//! something else to each. So nothing is certified that is not a name.

use schemas::host_name::HostName;
use schemas::names::{DeviceId, ModuleId};

/// What a request's `commonName` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ServerName {
    /// A DNS name, also one whose first part is `*`, or an address.
    Host(String),
    /// The module itself, as `{module}` or `{gateway}/{module}`, which is no DNS name.
    Own(String),
}

impl ServerName {
    /// Reads the `commonName` that `module` of `gateway` sent; `None` when it is no name. Without a `gateway` the second form of the
    /// module's own name is none.
    pub(super) fn parse(text: &str, module: &ModuleId, gateway: Option<&DeviceId>) -> Option<Self> {
        let is_own = |(device, name): (&str, &str)| {
            gateway.is_some_and(|gateway| gateway.as_str() == device) && name == module.as_str()
        };
        if let Ok(host) = text.parse::<HostName>() {
            return Some(Self::Host(host.as_str().to_owned()));
        }
        if text == module.as_str() || text.split_once('/').is_some_and(is_own) {
            return Some(Self::Own(text.to_owned()));
        }
        let host = text.strip_prefix("*.")?.parse::<HostName>().ok()?;
        // No client takes a `*` before an address.
        (!host.is_address() && text.len() <= HostName::BYTES_MAX).then(|| Self::Host(text.to_owned()))
    }

    pub(super) fn common_name(&self) -> &str {
        match self {
            Self::Host(name) | Self::Own(name) => name,
        }
    }

    /// The name as a subject alternative name, if it is one that may be there.
    pub(super) fn alternative_name(&self) -> Option<&str> {
        match self {
            Self::Host(name) => Some(name),
            Self::Own(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Option<ServerName> {
        let (gateway, module) = ("gw".parse().unwrap(), "filter=1".parse().unwrap());
        ServerName::parse(text, &module, Some(&gateway))
    }

    #[test]
    fn names_that_modules_ask_for_are_taken_and_what_is_no_name_is_not() {
        for (text, alternative) in [
            ("localhost", Some("localhost")),
            ("Edge-1.plant_2.example", Some("Edge-1.plant_2.example")),
            ("10.0.0.7", Some("10.0.0.7")),
            ("::1", Some("::1")),
            ("[fd00::1]", Some("fd00::1")),
            ("*.plant.example", Some("*.plant.example")),
            ("filter=1", None),
            ("gw/filter=1", None),
        ] {
            let name = parsed(text).unwrap_or_else(|| panic!("{text} is a name"));
            assert_eq!(name.alternative_name(), alternative, "{text}");
        }
        let too_long = format!("*.{}", ["a"; 127].join("."));
        for text in [
            "",
            " ",
            "-",
            ".",
            "..",
            "*",
            "*.",
            "*.*",
            "**.example",
            "a.*.example",
            "*.10.0.0.7",
            "a b",
            " edge",
            "edge ",
            "\n",
            "edge\n",
            "x\0y",
            "edge\0.evil.example",
            "\u{7f}",
            "\u{202e}egde",
            "ä.example",
            "CN=x",
            "x,y",
            "edge:8883",
            "https://edge",
            "gw/",
            "/filter=1",
            "gw/other",
            "other/filter=1",
            "gw/filter=1/x",
            "gw\0/filter=1",
            "edge.",
            "10.1",
            &too_long,
            &"a".repeat(64),
            &"a".repeat(10_000),
        ] {
            assert_eq!(parsed(text), None, "{text:?}");
        }
    }

    proptest! {
        /// Text of all characters, mostly of those that mean something in a name, a subject, a URL or C.
        #[test]
        fn a_name_that_is_taken_has_only_characters_of_names(text in r"([a-z0-9.*/\-]|[\x00-\x20=,:@\[\]%_\\]|\PC){0,12}") {
            if let Some(name) = parsed(&text) {
                let rest = match name.alternative_name() {
                    Some(host) => host.strip_prefix("*.").unwrap_or(host),
                    None => return Ok(()),
                };
                prop_assert!(rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte)), "{text:?}");
                prop_assert!(!rest.is_empty() && !rest.contains(".."), "{text:?}");
            }
        }
    }
}
