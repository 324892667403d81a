//! What a device or module means by the topic it publishes to or subscribes to.

use schemas::bag::PropertyBag;
use schemas::names::{Identity, NameError};

use super::link::LinkUp;
use super::provisioning;
use super::query::query_value;
use mqtt::filter;

/// The meaning of a PUBLISH from a client.
#[derive(Debug, Clone, PartialEq)]
pub enum Publish {
    /// Telemetry of an identity. It may only be the client's own, or one that it may speak for.
    Telemetry {
        /// The identity that the topic names.
        from: Identity,
        /// The property bag at the topic's end.
        bag: PropertyBag,
    },
    /// Asks for the client's own twin.
    TwinGet {
        /// Returned in the answer.
        request_id: String,
    },
    /// Patches the client's own reported section.
    TwinReported {
        /// Returned in the answer; without one there is no answer.
        request_id: Option<String>,
    },
    /// Answers a method call.
    MethodResponse {
        /// The method's own status.
        status: i64,
        request_id: String,
    },
    /// A gateway speaking to central.
    Link(LinkUp),
    /// A device that enrols itself.
    Provisioning(provisioning::Request),
    /// Whether a bridge of mosquitto is connected, below [`BRIDGES`]. Only clients of the same account see it.
    BridgeState,
    /// Any other topic: free publish/subscribe.
    Free,
}

/// Where mosquitto's bridges tell whether they are connected, by a will and a retained message (mosquitto.conf,
/// `notification_topic`).
pub const BRIDGES: &str = "$SYS/broker/connection/";

/// The meaning of a SUBSCRIBE filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subscribe {
    /// Messages to an identity (cloud-to-device, or module inputs). It may only be the client's own.
    Inbox {
        /// The identity that the filter names.
        of: Identity,
    },
    /// Method calls to the client.
    MethodCalls,
    /// Answers to the client's twin requests.
    TwinResponses,
    /// Desired patches to the client.
    TwinDesired,
    /// What central tells a gateway.
    Link,
    /// Answers to a device that enrols itself.
    Provisioning,
    /// States of bridges of the client's own account.
    BridgeState,
    /// Any other filter: free publish/subscribe.
    Free,
}

impl Subscribe {
    /// Returns true when messages between clients arrive by it, not those of the program.
    pub fn is_between_clients(&self) -> bool {
        matches!(self, Self::Free | Self::BridgeState)
    }
}

/// Why a topic or filter has no meaning. The client is refused; nothing is dropped silently.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialectError {
    /// Empty, with a wildcard in a topic, with NUL, or a misplaced wildcard in a filter (MQTT 3.1.1 section 4.7).
    #[error("`{0}` is not a valid topic or filter: {1}")]
    Malformed(String, &'static str),
    /// In a reserved tree (`devices/`, `$…`) but not one of its topics.
    #[error("`{0}` is not a topic of this dialect; see docs/protocol.md")]
    Unknown(String),
    /// A name in the topic is wrong.
    #[error("`{topic}`: {why}")]
    Name {
        topic: String,
        /// What is wrong with the name.
        why: NameError,
    },
}

/// Reads the topic of a PUBLISH.
///
/// # Errors
/// [`DialectError`] when the topic is malformed, or lies in a reserved tree without being one of its topics.
pub fn parse_publish(topic: &str) -> Result<Publish, DialectError> {
    filter::check_topic(topic).map_err(|why| DialectError::Malformed(topic.to_owned(), why))?;
    let unknown = || DialectError::Unknown(topic.to_owned());
    if let Some(rest) = topic.strip_prefix("devices/") {
        let (from, rest) = parse_identity(topic, rest)?;
        let bag = match rest.strip_prefix("messages/events") {
            Some("") => "",
            Some(bag) => bag.strip_prefix('/').ok_or_else(unknown)?,
            None => return Err(unknown()),
        };
        return Ok(Publish::Telemetry { from, bag: PropertyBag::parse(bag) });
    }
    if let Some(rest) = topic.strip_prefix("$iothub/") {
        let (path, query) = rest.split_once("/?").unwrap_or((rest.trim_end_matches('/'), ""));
        let request_id = query_value(query, "$rid");
        return match path {
            "twin/GET" => Ok(Publish::TwinGet { request_id: request_id.ok_or_else(unknown)? }),
            "twin/PATCH/properties/reported" => Ok(Publish::TwinReported { request_id }),
            _ => {
                let status = path.strip_prefix("methods/res/").ok_or_else(unknown)?;
                Ok(Publish::MethodResponse {
                    // A status that is no integer is IoT Edge's 400000 (edgeHub's method response parsing).
                    status: status.parse().unwrap_or(400_000),
                    request_id: request_id.ok_or_else(unknown)?,
                })
            }
        };
    }
    if topic.starts_with("$ls/") {
        return LinkUp::parse(topic).map(Publish::Link).ok_or_else(unknown);
    }
    if let Some(rest) = topic.strip_prefix("$dps/") {
        return provisioning::parse(rest).map(Publish::Provisioning).ok_or_else(unknown);
    }
    if topic.strip_prefix(BRIDGES).is_some_and(|rest| !rest.is_empty()) {
        return Ok(Publish::BridgeState);
    }
    if topic.starts_with('$') {
        return Err(unknown());
    }
    Ok(Publish::Free)
}

/// Reads a SUBSCRIBE filter (without `$share/`).
///
/// # Errors
/// [`DialectError`] when the filter is malformed, or lies in a reserved tree without being one of its filters.
pub fn parse_subscribe(text: &str) -> Result<Subscribe, DialectError> {
    filter::check_filter(text).map_err(|why| DialectError::Malformed(text.to_owned(), why))?;
    let unknown = || DialectError::Unknown(text.to_owned());
    if let Some(rest) = text.strip_prefix("devices/") {
        let (of, rest) = parse_identity(text, rest)?;
        let is_inbox = match of.module {
            None => rest == "messages/devicebound/#",
            // The last one is asked for by Azure's Java SDK, for a module that knows of no gateway: IoT Hub takes it
            // and sends nothing there, and the SDK does not open without it.
            Some(_) => matches!(rest, "inputs/#" | "#" | "messages/devicebound/#"),
        };
        return if is_inbox { Ok(Subscribe::Inbox { of }) } else { Err(unknown()) };
    }
    match text {
        schemas::topics::METHOD_CALLS => Ok(Subscribe::MethodCalls),
        schemas::topics::TWIN_RESPONSES => Ok(Subscribe::TwinResponses),
        schemas::topics::TWIN_DESIRED => Ok(Subscribe::TwinDesired),
        schemas::topics::LINK => Ok(Subscribe::Link),
        provisioning::RESPONSES => Ok(Subscribe::Provisioning),
        _ if text.strip_prefix(BRIDGES).is_some_and(|rest| !rest.is_empty()) => Ok(Subscribe::BridgeState),
        _ if text.starts_with('$') => Err(unknown()),
        _ => Ok(Subscribe::Free),
    }
}

/// Reads `{device}/…` or `{device}/modules/{module}/…` and gives the identity and what follows it.
fn parse_identity<'a>(topic: &str, rest: &'a str) -> Result<(Identity, &'a str), DialectError> {
    let name = |why| DialectError::Name { topic: topic.to_owned(), why };
    let unknown = || DialectError::Unknown(topic.to_owned());
    let (device, rest) = rest.split_once('/').ok_or_else(unknown)?;
    let device = device.parse().map_err(name)?;
    match rest.strip_prefix("modules/") {
        None => Ok((Identity::device(device), rest)),
        Some(rest) => {
            let (module, rest) = rest.split_once('/').ok_or_else(unknown)?;
            Ok((Identity::module(device, module.parse().map_err(name)?), rest))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn telemetry(from: &str, bag: &str) -> Publish {
        Publish::Telemetry { from: from.parse().unwrap(), bag: PropertyBag::parse(bag) }
    }

    #[test]
    fn publishes_of_the_azure_sdks_are_understood() {
        for (topic, meaning) in [
            ("devices/d/messages/events/", telemetry("d", "")),
            ("devices/d/messages/events", telemetry("d", "")),
            ("devices/d/messages/events/%24.ct=a&k=v", telemetry("d", "%24.ct=a&k=v")),
            ("devices/d/modules/m/messages/events/%24.on=o/", telemetry("d/m", "%24.on=o")),
            ("$iothub/twin/GET/?$rid=1-2", Publish::TwinGet { request_id: "1-2".into() }),
            (
                "$iothub/twin/PATCH/properties/reported/?$rid=7",
                Publish::TwinReported { request_id: Some("7".into()) },
            ),
            ("$iothub/twin/PATCH/properties/reported/", Publish::TwinReported { request_id: None }),
            (
                "$iothub/methods/res/200/?$rid=a",
                Publish::MethodResponse { status: 200, request_id: "a".into() },
            ),
            (
                "$iothub/methods/res/x/?$rid=a",
                Publish::MethodResponse { status: 400_000, request_id: "a".into() },
            ),
            ("$SYS/broker/connection/plant.b1/state", Publish::BridgeState),
            ("line1/press/temperature", Publish::Free),
        ] {
            assert_eq!(parse_publish(topic), Ok(meaning), "{topic}");
        }
    }

    #[test]
    fn a_reserved_topic_without_a_meaning_is_refused_not_dropped() {
        for topic in [
            "devices/d/other",
            "devices/d",
            "$iothub/twin/POST/?$rid=1",
            "$SYS/x",
            "$SYS/broker/connection",
            "$SYS/broker/connection/",
            "$ls/nothing",
            "a/#",
            "",
            "a\0b",
        ] {
            assert!(parse_publish(topic).is_err(), "{topic}");
        }
        for filter in [
            "devices/#",
            "devices/+/messages/devicebound/#",
            "$iothub/#",
            "$SYS/#",
            "$SYS/broker/+/b1/state",
            "$SYS/broker/connection/",
            "a#",
            "devices/d/modules/m/messages/#",
        ] {
            assert!(parse_subscribe(filter).is_err(), "{filter}");
        }
    }

    #[test]
    fn subscriptions_of_the_azure_sdks_are_understood() {
        let inbox = |of: &str| Subscribe::Inbox { of: of.parse().unwrap() };
        for (filter, meaning) in [
            ("devices/d/messages/devicebound/#", inbox("d")),
            ("devices/d/modules/m/inputs/#", inbox("d/m")),
            ("devices/d/modules/m/#", inbox("d/m")),
            ("devices/d/modules/m/messages/devicebound/#", inbox("d/m")),
            ("$iothub/methods/POST/#", Subscribe::MethodCalls),
            ("$iothub/twin/res/#", Subscribe::TwinResponses),
            ("$iothub/twin/PATCH/properties/desired/#", Subscribe::TwinDesired),
            ("$SYS/broker/connection/+/state", Subscribe::BridgeState),
            ("line1/+/temperature", Subscribe::Free),
            ("#", Subscribe::Free),
        ] {
            assert_eq!(parse_subscribe(filter), Ok(meaning), "{filter}");
        }
    }
}
