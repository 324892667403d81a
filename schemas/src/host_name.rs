//! The name or address of a machine, without a port: as in certificates, connection strings and URLs.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A DNS name, an IPv4 address, or an IPv6 address. Prints without brackets; [`HostName::in_url`] writes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

/// Why text is no host name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "found `{found}`: {why}; write a DNS name such as edge1.plant.example, or an IP address, without a port"
)]
pub struct HostNameError {
    found: String,
    why: &'static str,
}

impl HostName {
    /// RFC 1035, section 2.3.4, without the root's dot.
    pub const BYTES_MAX: usize = 253;

    /// As certificates and connection strings have it: an IPv6 address without brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As URLs have it: an IPv6 address in brackets.
    pub fn in_url(&self) -> String {
        if self.0.contains(':') { format!("[{}]", self.0) } else { self.0.clone() }
    }

    /// Returns true for an IP address, which nobody looks up.
    pub fn is_address(&self) -> bool {
        self.0.parse::<IpAddr>().is_ok()
    }
}

/// Splits `host`, `host:port`, `[IPv6]`, `[IPv6]:port` or `IPv6` into the host, without brackets, and the port.
///
/// # Errors
/// [`HostNameError`] if the part after the host is no port.
pub fn split_port(text: &str) -> Result<(&str, Option<u16>), HostNameError> {
    let wrong = || HostNameError { found: text.to_owned(), why: "what follows the host is no port" };
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':').ok_or_else(wrong)?)),
        None if text.parse::<Ipv6Addr>().is_ok() => (text, None),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.map(str::parse).transpose().map_err(|_| wrong())?;
    Ok((host, port))
}

impl FromStr for HostName {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<Self, HostNameError> {
        const LABEL_BYTES_MAX: usize = 63;
        let wrong = |why| Err(HostNameError { found: text.to_owned(), why });
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse::<Ipv6Addr>() {
            return Ok(Self(address.to_string()));
        }
        // `_` is no host name's character for DNS, and common in plants and in Docker.
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
        match text {
            _ if text.trim().is_empty() => return wrong("it is blank"),
            _ if text.contains(char::is_whitespace) => return wrong("it has a blank in it"),
            _ if text.contains('%') => return wrong("an address with a zone is known on one machine only"),
            _ if text.contains("://") || text.contains('/') => return wrong("it is a URL"),
            _ if text.contains(':') => return wrong("it has a port, or is no IPv6 address"),
            _ if !text.chars().all(is_of_name) => {
                return wrong("a name has letters, digits, `-`, `_` and `.`, and others as xn--");
            }
            _ if text.len() > Self::BYTES_MAX => return wrong("a name has at most 253 characters"),
            _ => {}
        }
        let mut labels = text.split('.');
        if labels.clone().any(|label| label.is_empty() || label.len() > LABEL_BYTES_MAX) {
            return wrong("between dots stand 1 to 63 characters");
        }
        if labels.clone().any(|label| label.starts_with('-') || label.ends_with('-')) {
            return wrong("no part of a name begins or ends with `-`");
        }
        // Resolvers take `10.1` and `10.0.0.300` for addresses, each in its own way.
        let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
        if labels.next_back().is_some_and(is_number) && text.parse::<IpAddr>().is_err() {
            return wrong("it is no IPv4 address, and no name ends with a number");
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for HostName {
    type Error = HostNameError;
    fn try_from(text: String) -> Result<Self, HostNameError> {
        text.parse()
    }
}

impl From<HostName> for String {
    fn from(name: HostName) -> String {
        name.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_and_addresses_are_read_and_others_are_refused_with_what_to_write() {
        for (text, bare, in_url) in [
            ("edge", "edge", "edge"),
            ("Edge-1.plant_2.example", "Edge-1.plant_2.example", "Edge-1.plant_2.example"),
            ("192.168.0.10", "192.168.0.10", "192.168.0.10"),
            ("fd00::1", "fd00::1", "[fd00::1]"),
            ("[fd00::1]", "fd00::1", "[fd00::1]"),
            ("FD00:0:0::0001", "fd00::1", "[fd00::1]"),
            ("::", "::", "[::]"),
        ] {
            let name: HostName = text.parse().unwrap();
            assert_eq!((name.as_str(), name.in_url().as_str()), (bare, in_url), "{text}");
        }
        for (text, why) in [
            ("", "blank"),
            ("  ", "blank"),
            ("edge 1", "blank in it"),
            (" edge", "blank in it"),
            ("edge\n", "blank in it"),
            ("edge:8883", "port"),
            ("[fd00::1]:8883", "port"),
            ("fd00::1::2", "no IPv6"),
            ("[edge]", "letters"),
            ("fe80::1%eth0", "zone"),
            ("https://edge", "URL"),
            ("edge/x", "URL"),
            ("bücher.example", "xn--"),
            ("edge.", "1 to 63"),
            (".edge", "1 to 63"),
            ("-edge", "begins or ends"),
            ("10.0.0.300", "no IPv4"),
            ("10.1", "no IPv4"),
            ("123", "no IPv4"),
        ] {
            let error = text.parse::<HostName>().unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("write a DNS name"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_with_and_without_a_port(
            name in prop_oneof!["[a-z]{1,9}(\\.[a-z0-9]{1,5}[a-z]){0,3}",
                any::<[u8; 4]>().prop_map(|b| IpAddr::from(b).to_string()),
                any::<[u8; 16]>().prop_map(|b| IpAddr::from(b).to_string())],
            port in any::<Option<u16>>(),
        ) {
            let host: HostName = name.parse().unwrap();
            prop_assert_eq!(&host.in_url().parse::<HostName>().unwrap(), &host);
            let text = port.map_or_else(|| host.in_url(), |port| format!("{}:{port}", host.in_url()));
            prop_assert_eq!(split_port(&text).unwrap(), (host.as_str(), port));
            prop_assert_eq!(split_port(host.as_str()).unwrap(), (host.as_str(), None));
        }
    }
}
