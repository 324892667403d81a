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
        /// The alphabet, as text.
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
        /// The alphabet, as text.
        allowed: &'static str,
    },
    /// `.` or `..`: as a file name it would lead out of its directory.
    #[error("found `{name}`; a name does not consist of dots alone")]
    Dots {
        /// The whole name.
        name: String,
    },
    /// A beginning that is kept for local users, or for devices that enrol themselves.
    #[error("found `{name}`; names that begin with `$user:` or `$dps:` are the gateway's own")]
    Reserved {
        /// The whole name.
        name: String,
    },
}

/// IoT Hub's identity alphabet (IoT Hub identity registry, "deviceId"), less `+` and `#`: those are MQTT's wildcards,
/// and a device named `+` could neither publish under its own topics nor be distinguished from a filter for all of them.
const ALLOWED: &str = "letters, digits and - : . % _ * ? ! ( ) , = @ $ '";

/// How the device part of a local user's identity begins; no device id may.
const USER: &str = "$user:";

/// How the identity of a device that enrols itself begins; no device id may.
const ENROLLING: &str = "$dps:";

/// Whether a name has dots alone: in a path, or as a file, it leads to another place than it says.
pub fn is_dots(name: &str) -> bool {
    name.chars().all(|c| c == '.')
}

fn check(name: &str) -> Result<(), NameError> {
    if name.starts_with(USER) || name.starts_with(ENROLLING) {
        return Err(NameError::Reserved { name: name.to_owned() });
    }
    check_text(name)
}

fn check_text(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { allowed: ALLOWED });
    }
    let length = name.chars().count();
    if length > 128 {
        return Err(NameError::TooLong { length });
    }
    if is_dots(name) {
        return Err(NameError::Dots { name: name.to_owned() });
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
            /// The name as sent on the wire.
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

    /// Whether routes, which compare names without regard to case, mean the same module by both.
    pub fn is_alike(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }

    /// Whether this is one of the two modules that are part of the runtime itself.
    pub fn is_system(&self) -> bool {
        self.0.starts_with('$')
    }
}

/// The name of a local user: a plain MQTT client that proves itself by a password. 1 to 64 letters, digits and `-._@`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserName(String);

impl UserName {
    /// The name as sent on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        const ALLOWED: &str = "letters, digits and - . _ @";
        match name.chars().find(|c| !(c.is_ascii_alphanumeric() || "-._@".contains(*c))) {
            Some(found) => Err(NameError::Character { found, name: name.to_owned(), allowed: ALLOWED }),
            None if name.is_empty() => Err(NameError::Empty { allowed: ALLOWED }),
            None if name.len() > 64 => Err(NameError::TooLong { length: name.len() }),
            None if is_dots(name) => Err(NameError::Dots { name: name.to_owned() }),
            None => Ok(Self(name.to_owned())),
        }
    }
}

impl TryFrom<String> for UserName {
    type Error = NameError;
    fn try_from(name: String) -> Result<Self, NameError> {
        name.parse()
    }
}

impl From<UserName> for String {
    fn from(name: UserName) -> String {
        name.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who a client is: a device, or a module of a device. Prints as its MQTT client id: `device` or `device/module`.
///
/// A local user's client has one too, `$user:{name}/{client id}`, which no device or module can have, so that whatever
/// is kept by identity is kept apart. It never leaves the program: it does not read back from its text.
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

    /// A client of a local user. Each of its client ids, which are free, is an identity of its own; characters that a
    /// module id cannot hold are percent-encoded.
    ///
    /// # Errors
    /// [`NameError`] when there is no client id, or it is too long for a name (128 characters, encoded).
    pub fn user(user: &UserName, client_id: &str) -> Result<Self, NameError> {
        let mut encoded = String::with_capacity(client_id.len());
        for byte in client_id.bytes() {
            // Neither `%`, which begins an escape, nor `$`, with which the names of system modules begin.
            let is_plain = byte.is_ascii_alphanumeric() || b"-:._*?!(),=@'".contains(&byte);
            if is_plain { encoded.push(char::from(byte)) } else { encoded.push_str(&format!("%{byte:02X}")) }
        }
        check(&encoded)?;
        Ok(Self { device: DeviceId(format!("{USER}{user}")), module: Some(ModuleId(encoded)) })
    }

    /// The client id with which this connects.
    pub fn client_id(&self) -> String {
        match &self.module {
            Some(encoded) if self.is_user() => {
                percent_encoding::percent_decode_str(encoded.as_str()).decode_utf8_lossy().into_owned()
            }
            _ => self.to_string(),
        }
    }

    /// All clients of a local user together: it covers each of them.
    pub fn account(user: &UserName) -> Self {
        Self::device(DeviceId(format!("{USER}{user}")))
    }

    /// Returns true for itself, and when this is a device or an account, for its modules or clients.
    pub fn covers(&self, other: &Self) -> bool {
        self.device == other.device && (self.module.is_none() || self.module == other.module)
    }

    /// The local user, when this is a client of one.
    pub fn user_name(&self) -> Option<UserName> {
        self.device.as_str().strip_prefix(USER).map(|name| UserName(name.to_owned()))
    }

    /// A device that enrols itself: it is no device yet, and shares neither connection nor session with the one that it
    /// becomes.
    pub fn enrolling(registration_id: &DeviceId) -> Self {
        Self::device(DeviceId(format!("{ENROLLING}{registration_id}")))
    }

    /// Reads back the text of any identity, of a local user's client too. For the program's own records only: what a client
    /// says of itself is never read by this.
    pub fn of_session(text: &str) -> Option<Self> {
        let (device, module) = match text.split_once('/') {
            None => (text, None),
            Some((device, module)) => (device, Some(module)),
        };
        // The beginning is one that names must not have, so only the rest is checked as a name.
        let device = match device.strip_prefix(USER).or_else(|| device.strip_prefix(ENROLLING)) {
            Some(rest) => check_text(rest).map(|()| DeviceId(device.to_owned())),
            None => device.parse(),
        };
        Some(Self { device: device.ok()?, module: module.map(str::parse).transpose().ok()? })
    }

    /// What a device that enrols itself calls itself, when this is one.
    pub fn registration_id(&self) -> Option<DeviceId> {
        self.device.as_str().strip_prefix(ENROLLING).map(|id| DeviceId(id.to_owned()))
    }

    /// Whether this is a client that only this program knows: a local user's, or a device that enrols itself.
    pub fn is_local(&self) -> bool {
        self.is_user() || self.device.as_str().starts_with(ENROLLING)
    }

    /// Whether this is a client of a local user.
    pub fn is_user(&self) -> bool {
        self.device.as_str().starts_with(USER)
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
    fn a_local_users_clients_are_distinguished_and_no_device_or_module_can_be_one() {
        let plc: UserName = "plc1".parse().unwrap();
        let identity = |client_id: &str| Identity::user(&plc, client_id);
        assert_eq!(identity("press-1").unwrap().to_string(), "$user:plc1/press-1");
        assert_eq!(identity("a b/c%").unwrap().to_string(), "$user:plc1/a%20b%2Fc%25");
        assert_ne!(identity("a b"), identity("a%20b"));
        assert_eq!(identity("x").unwrap().user_name(), Some(plc.clone()));
        assert!(identity("").is_err() && identity(&"x".repeat(129)).is_err());
        assert!("$user:plc1/press-1".parse::<Identity>().is_err());
        assert!("$user:plc1".parse::<DeviceId>().is_err());
        let enrolling = Identity::enrolling(&"press-1".parse().unwrap());
        assert_eq!((enrolling.to_string().as_str(), enrolling.is_local()), ("$dps:press-1", true));
        assert_eq!(enrolling.registration_id(), Some("press-1".parse().unwrap()));
        assert!("$dps:press-1".parse::<DeviceId>().is_err());
        assert!(!"press-1".parse::<Identity>().unwrap().is_user());
        for text in ["$user:plc1/a%20b%2Fc%25", "$dps:press-1", "press-1", "gw/filter"] {
            assert_eq!(
                Identity::of_session(text).map(|identity| identity.to_string()),
                Some(text.to_owned())
            );
        }
        for text in ["", "$user:", "a/b/c", "$user:plc1/", "a b"] {
            assert_eq!(Identity::of_session(text), None, "{text}");
        }
        let account = Identity::account(&plc);
        assert!(account.covers(&identity("x").unwrap()) && !account.covers(&"plc1".parse().unwrap()));
        assert_eq!(Identity::of_session(&account.to_string()), Some(account));
        let (gateway, module): (Identity, Identity) = ("gw".parse().unwrap(), "gw/filter".parse().unwrap());
        assert!(gateway.covers(&module) && module.covers(&module) && !module.covers(&gateway));
        for name in ["", "a/b", "a b", "$user", &"x".repeat(65)] {
            assert!(name.parse::<UserName>().is_err(), "{name}");
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
