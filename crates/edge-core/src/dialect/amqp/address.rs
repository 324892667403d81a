//! What a link is for, by its address and by which end sends.

use amqp::codec::definitions::Role;
use percent_encoding::percent_decode_str;
use schemas::names::{Identity, NameError};

use super::error_condition::ErrorCondition;

/// Node of claims-based security: tokens go there, and answers come from there.
pub const CBS: &str = "$cbs";

/// What a link is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// The client sends requests with tokens.
    TokenRequests,
    /// The client receives the answers to them.
    TokenAnswers,
    /// The client sends telemetry of an identity, or of one of its outputs.
    Telemetry {
        /// The identity that the address names.
        from: Identity,
    },
}

/// Why a link is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// IoT Hub has no such node.
    #[error("`{0}` is not an address of this dialect; see docs/protocol.md")]
    Unknown(String),
    /// IoT Hub has it, and it is served over MQTT only.
    #[error("`{0}` is not served over AMQP; use MQTT for it")]
    NotServed(String),
    /// A name in the address is wrong.
    #[error("`{address}`: {why}")]
    Name {
        address: String,
        /// What is wrong with the name.
        why: NameError,
    },
}

impl AddressError {
    /// ErrorCondition that the client is sent.
    pub fn condition(&self) -> ErrorCondition {
        match self {
            Self::Unknown(_) | Self::Name { .. } => ErrorCondition::NotFound,
            Self::NotServed(_) => ErrorCondition::NotImplemented,
        }
    }
}

/// Reads the address of a link on which the client has this role: of the target if it sends, of the source if it receives. SDKs write
/// `amqps://{host}/path`, `/path` or `path`, percent-encode ids, and differ in upper and lower case.
///
/// # Errors
/// [`AddressError`].
pub fn parse(role: Role, address: &str) -> Result<Purpose, AddressError> {
    let path = path(address);
    if path.eq_ignore_ascii_case(CBS) {
        return Ok(match role {
            Role::Sender => Purpose::TokenRequests,
            Role::Receiver => Purpose::TokenAnswers,
        });
    }
    let unknown = || AddressError::Unknown(address.to_owned());
    let segments: Vec<&str> = path.split('/').collect();
    let ["devices", device, rest @ ..] = &lower_keywords(&segments)[..] else { return Err(unknown()) };
    let (module, node) = match rest {
        ["modules", module, node @ ..] => (Some(*module), node),
        node => (None, node),
    };
    match (node, role) {
        (["messages", "events"], Role::Sender) => {
            let name = |why| AddressError::Name { address: address.to_owned(), why };
            let from = identity(device, module).ok_or_else(unknown)?.map_err(name)?;
            Ok(Purpose::Telemetry { from })
        }
        (["messages", "devicebound"] | ["twin"] | ["methods", "devicebound"], _)
        | (["messages", "events"], Role::Receiver) => Err(AddressError::NotServed(address.to_owned())),
        _ => Err(unknown()),
    }
}

/// The path of an address, without host and leading slash.
fn path(address: &str) -> &str {
    let path = match address.split_once("://") {
        Some((scheme, rest))
            if scheme.eq_ignore_ascii_case("amqps") || scheme.eq_ignore_ascii_case("amqp") =>
        {
            rest.split_once('/').map_or("", |(_host, path)| path)
        }
        _ => address,
    };
    path.strip_prefix('/').unwrap_or(path)
}

/// The same segments, those that are keywords at their place in lower case. Ids keep theirs: `Twin` may be a device.
fn lower_keywords<'s>(segments: &[&'s str]) -> Vec<&'s str> {
    const KEYWORDS: [&str; 7] =
        ["devices", "modules", "messages", "events", "devicebound", "methods", "twin"];
    let mut is_id = false;
    let lower = |segment: &&'s str| {
        if std::mem::take(&mut is_id) {
            return *segment;
        }
        let keyword = KEYWORDS.into_iter().find(|keyword| keyword.eq_ignore_ascii_case(segment));
        is_id = matches!(keyword, Some("devices" | "modules"));
        keyword.unwrap_or(segment)
    };
    segments.iter().map(lower).collect()
}

/// An identity of percent-encoded ids; `None` if they are no text.
pub(super) fn identity(device: &str, module: Option<&str>) -> Option<Result<Identity, NameError>> {
    let decoded = |id: &str| percent_decode_str(id).decode_utf8().ok().map(std::borrow::Cow::into_owned);
    let (device, module) = (decoded(device)?, module.map(decoded));
    let module = match module {
        None => None,
        Some(module) => Some(module?),
    };
    Some(device.parse().and_then(|device| match module {
        None => Ok(Identity::device(device)),
        Some(module) => module.parse().map(|module| Identity::module(device, module)),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_azure_sdks_are_understood() {
        let telemetry = |from: &str| Ok(Purpose::Telemetry { from: from.parse().unwrap() });
        for (address, purpose) in [
            ("/devices/d/messages/events", telemetry("d")),
            ("devices/d/messages/events", telemetry("d")),
            ("amqps://gateway.local/devices/d/messages/events", telemetry("d")),
            ("amqps://gateway.local:5671/devices/a%40b/Modules/m/messages/events", telemetry("a@b/m")),
            ("/devices/gw/modules/%24edgeHub/messages/Events", telemetry("gw/$edgeHub")),
            ("/devices/Devices/modules/Twin/messages/events", telemetry("Devices/Twin")),
            ("$cbs", Ok(Purpose::TokenRequests)),
            ("amqps://gateway.local/$cbs", Ok(Purpose::TokenRequests)),
        ] {
            assert_eq!(parse(Role::Sender, address), purpose, "{address}");
        }
        assert_eq!(parse(Role::Receiver, "$cbs"), Ok(Purpose::TokenAnswers));
    }

    #[test]
    fn an_address_that_is_not_served_is_not_an_unknown_one() {
        for (role, address) in [
            (Role::Receiver, "/devices/d/messages/deviceBound"),
            (Role::Receiver, "/devices/d/modules/m/messages/events"),
            (Role::Sender, "/devices/d/twin"),
            (Role::Receiver, "/devices/d/modules/m/methods/devicebound"),
        ] {
            let error = parse(role, address).unwrap_err();
            assert_eq!(error, AddressError::NotServed(address.to_owned()));
            assert_eq!(error.condition().name(), "amqp:not-implemented");
        }
        for address in [
            "",
            "/",
            "devices",
            "devices/d",
            "devices/d/messages",
            "devices/d/messages/events/x",
            "a",
            "amqps://h",
        ] {
            assert_eq!(parse(Role::Sender, address), Err(AddressError::Unknown(address.to_owned())));
        }
        for address in
            ["devices//messages/events", "devices/a b/messages/events", "devices/%2F/messages/events"]
        {
            assert!(matches!(parse(Role::Sender, address), Err(AddressError::Name { .. })), "{address}");
        }
        assert!(parse(Role::Sender, "devices/%ff/messages/events").is_err());
    }
}
