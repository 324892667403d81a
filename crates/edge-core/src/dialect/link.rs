//! The topics on which a gateway and central speak of named identities; schemas::link has the payloads.
//!
//! | topic | from | payload |
//! |---|---|---|
//! | `devices/…/messages/events/…` | gateway | telemetry, with `$.ls-queue`, `$.ls-seq`, `$.ls-ms` in the bag |
//! | `$ls/hello` | gateway | schemas::link::Hello |
//! | `$ls/reported/{id}` | gateway | the whole reported section of an identity, `$version` included |
//! | `$ls/presence` | gateway | schemas::link::Presence |
//! | `$ls/answer/{command id}` | gateway | `Result<MethodResponse, MethodFailure>` as `{"Ok":…}` or `{"Err":…}` |
//! | `$ls/settled/{device}/{sequence}` | gateway | schemas::cloud_message::Settlement |
//! | `$ls/losses` | gateway | schemas::link::Losses |
//! | `$ls/stored` | central | schemas::link::Stored |
//! | `$ls/time` | central | schemas::link::CentralTime, to a gateway that requests it in its hello |
//! | `$ls/children` | central | schemas::link::Children |
//! | `$ls/desired/{id}` | central | the whole desired section of an identity, `$version` included |
//! | `$ls/command/{command id}/{id}` | central | schemas::link::CommandDown |
//! | `$ls/commands` | central | schemas::link::TakenCommands |
//! | `$ls/enrol/{request id}` | gateway | schemas::provisioning::Enrolment |
//! | `$ls/enrolled/{request id}` | central | schemas::provisioning::EnrolmentAnswer |
//! | `$ls/purges` | central | schemas::link::Purges |
//! | `$ls/message/{device}/{sequence}` | central | schemas::link::MessageDown |
//!
//! `{id}` is `device` or `device/module`. All are QoS 1. Central sends how far it has what the gateway's queues hold, the
//! children, every desired section, the purges, every cloud-to-device message and every command that waits when the gateway
//! subscribes to `$ls/#`, and last the commands that the gateway has taken; the first and the last once, of the others afterwards
//! what changed. A gateway says hello first. A gateway sends telemetry when it knows how far.
//!
//! What a queue has lost is reported until central has acknowledged it, and central keeps a loss of one queue and number once.
//!
//! The sequences of cloud-to-device messages ascend per device: a gateway knows what it has taken before, and central
//! takes the first settlement of a message. A gateway tells a settlement until central has acknowledged it.

use std::fmt;

use schemas::names::{DeviceId, Identity};

/// What a gateway tells central.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkUp {
    /// Which version of the link the gateway speaks.
    Hello,
    /// The reported section of an identity.
    Reported(Identity),
    Presence,
    /// The answer to a command.
    Answer {
        /// As the command carried it.
        command_id: String,
    },
    /// How a cloud-to-device message ended.
    Settled {
        /// Whom it was for.
        device: DeviceId,
        /// As the message carried it.
        sequence: u64,
    },
    /// What a queue has lost.
    Losses,
    /// A device that was added on the gateway was removed there.
    Removed,
    /// A device enrols itself through the gateway.
    Enrol {
        /// Returned in the answer.
        request_id: String,
    },
}

/// What central tells a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkDown {
    /// How far central has what the gateway's queues hold.
    Stored,
    /// The leaf devices behind the gateway.
    Children,
    /// The desired section of an identity.
    Desired(Identity),
    /// A command for an identity.
    Command {
        /// Chosen by central; a repeated one is answered again and not run again.
        command_id: String,
        /// Whom it is for.
        target: Identity,
    },
    /// The commands that the gateway has taken and that have not ended.
    TakenCommands,
    /// The answer to a device that enrols itself.
    Enrolled { request_id: String },
    /// The cloud-to-device messages that operators took back.
    Purges,
    /// central's time, in answer to a question.
    Time,
    Message {
        /// Whom it is for.
        device: DeviceId,
        /// Chosen by central; ascends per device.
        sequence: u64,
    },
}

fn device_and_sequence(text: &str) -> Option<(DeviceId, u64)> {
    let (device, sequence) = text.split_once('/')?;
    Some((device.parse().ok()?, sequence.parse().ok()?))
}

impl LinkUp {
    /// Reads a topic; `None` when it is not one of these.
    pub fn parse(topic: &str) -> Option<Self> {
        let rest = topic.strip_prefix("$ls/")?;
        match rest.split_once('/') {
            None if rest == "hello" => Some(Self::Hello),
            None if rest == "presence" => Some(Self::Presence),
            None if rest == "losses" => Some(Self::Losses),
            None if rest == "removed" => Some(Self::Removed),
            Some(("reported", id)) => Some(Self::Reported(id.parse().ok()?)),
            Some(("answer", id)) if !id.is_empty() => Some(Self::Answer { command_id: id.to_owned() }),
            Some(("enrol", id)) if !id.is_empty() => Some(Self::Enrol { request_id: id.to_owned() }),
            Some(("settled", rest)) => {
                device_and_sequence(rest).map(|(device, sequence)| Self::Settled { device, sequence })
            }
            _ => None,
        }
    }
}

impl fmt::Display for LinkUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reported(identity) => write!(f, "$ls/reported/{identity}"),
            Self::Hello => f.write_str("$ls/hello"),
            Self::Presence => f.write_str("$ls/presence"),
            Self::Losses => f.write_str("$ls/losses"),
            Self::Removed => f.write_str("$ls/removed"),
            Self::Answer { command_id } => write!(f, "$ls/answer/{command_id}"),
            Self::Enrol { request_id } => write!(f, "$ls/enrol/{request_id}"),
            Self::Settled { device, sequence } => write!(f, "$ls/settled/{device}/{sequence}"),
        }
    }
}

impl LinkDown {
    /// Reads a topic; `None` when it is not one of these.
    pub fn parse(topic: &str) -> Option<Self> {
        let rest = topic.strip_prefix("$ls/")?;
        match rest.split_once('/') {
            None if rest == "stored" => Some(Self::Stored),
            None if rest == "children" => Some(Self::Children),
            None if rest == "purges" => Some(Self::Purges),
            None if rest == "time" => Some(Self::Time),
            None if rest == "commands" => Some(Self::TakenCommands),
            Some(("enrolled", id)) if !id.is_empty() => Some(Self::Enrolled { request_id: id.to_owned() }),
            Some(("message", rest)) => {
                device_and_sequence(rest).map(|(device, sequence)| Self::Message { device, sequence })
            }
            Some(("desired", id)) => Some(Self::Desired(id.parse().ok()?)),
            Some(("command", rest)) => {
                let (command_id, target) = rest.split_once('/')?;
                Some(Self::Command { command_id: command_id.to_owned(), target: target.parse().ok()? })
            }
            _ => None,
        }
    }
}

impl fmt::Display for LinkDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored => f.write_str("$ls/stored"),
            Self::Children => f.write_str("$ls/children"),
            Self::Desired(identity) => write!(f, "$ls/desired/{identity}"),
            Self::Command { command_id, target } => write!(f, "$ls/command/{command_id}/{target}"),
            Self::TakenCommands => f.write_str("$ls/commands"),
            Self::Enrolled { request_id } => write!(f, "$ls/enrolled/{request_id}"),
            Self::Purges => f.write_str("$ls/purges"),
            Self::Time => f.write_str("$ls/time"),
            Self::Message { device, sequence } => write!(f, "$ls/message/{device}/{sequence}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_link_topic_reads_back_as_it_prints() {
        for topic in [
            "$ls/reported/gw1/$edgeAgent",
            "$ls/reported/press-1",
            "$ls/hello",
            "$ls/presence",
            "$ls/losses",
            "$ls/removed",
            "$ls/answer/5f-1",
            "$ls/settled/press-1/1795450312250",
            "$ls/enrol/7f",
        ] {
            assert_eq!(LinkUp::parse(topic).unwrap().to_string(), topic);
        }
        for topic in [
            "$ls/stored",
            "$ls/children",
            "$ls/desired/gw1/$edgeHub",
            "$ls/command/5f-1/gw1/sensor",
            "$ls/command/1/press-1",
            "$ls/commands",
            "$ls/purges",
            "$ls/time",
            "$ls/enrolled/7f",
            "$ls/message/press-1/1795450312250",
        ] {
            assert_eq!(LinkDown::parse(topic).unwrap().to_string(), topic);
        }
        for topic in [
            "$ls/",
            "$ls/answer/",
            "$ls/reported/",
            "$ls/presence/x",
            "$ls/settled/d",
            "$ls/settled/d/x",
            "devices/d",
        ] {
            assert_eq!(LinkUp::parse(topic), None, "{topic}");
        }
    }
}
