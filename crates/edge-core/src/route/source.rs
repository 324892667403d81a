//! What a route takes: the part behind FROM.
//!
//! Sources match by segment, where Azure's edgeHub matches by prefix and takes module `camera1` for `cam`. A `*` is
//! for a whole segment, at the end for all that follows; at the end of a name it makes a prefix of it.
//!
//! | source | takes |
//! |---|---|
//! | `/*` | telemetry of leaf devices and modules, and twin changes |
//! | `/messages/*` | telemetry of leaf devices and modules |
//! | `/messages/modules/*` | of every module |
//! | `/messages/modules/m/*` | of module `m`, whatever its output |
//! | `/messages/modules/m/outputs/*` | of module `m`, from any output |
//! | `/messages/modules/m/outputs/o` | of module `m`, from output `o`, and from those whose names begin with `o/` |
//! | `/messages/modules/cam*` | of modules whose names begin with `cam` |
//! | `/messages/modules/m/outputs/o*` | of module `m`, from outputs whose names begin with `o` |
//! | `/messages/modules/m/outputs/v1/sb` | of module `m`, from output `v1/sb`: the name of an output may have slashes |
//! | `/twinChangeNotifications` | reported properties that a device or module has changed |
//! | `/modules/m` | nothing: IoT Edge takes it, and no message has this source |
//! | `/mqtt/a/+/b`, `/mqtt/#` | ours: messages on free topics, by MQTT's filters. No other source takes those |

use crate::condition::Wrong;
use crate::dialect::client::{Subscribe, parse_subscribe};
use mqtt::filter;

use super::message::{Kind, Message};

/// What a route takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// Telemetry and twin changes.
    All,
    /// Telemetry of leaf devices and modules.
    Messages,
    Modules {
        /// `None`: any.
        module: Option<Name>,
        output: Output,
    },
    /// Reported properties that changed.
    TwinChanges,
    /// Messages on free topics that this filter matches.
    Free(String),
    /// No message: a source that IoT Edge takes and never has.
    Nothing,
}

/// A name, or the beginning of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    Whole(String),
    Prefix(String),
}

impl Name {
    /// `None` for any. A `*` inside is no name.
    fn parse(segment: &str) -> Option<Self> {
        match segment.strip_suffix('*') {
            Some("") => None,
            Some(prefix) => Some(Self::Prefix(prefix.to_owned())),
            None => Some(Self::Whole(segment.to_owned())),
        }
    }

    fn takes(&self, name: &str) -> bool {
        match self {
            Self::Whole(own) => own.eq_ignore_ascii_case(name),
            Self::Prefix(own) => {
                name.split_at_checked(own.len()).is_some_and(|(start, _)| start.eq_ignore_ascii_case(own))
            }
        }
    }
}

/// Which of a module's messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Output {
    /// With an output or without.
    Any,
    Some,
    /// With one whose name begins with these segments, `None` for any.
    Named(Vec<Option<Name>>),
}

impl Output {
    fn takes(&self, name: Option<&str>) -> bool {
        match (self, name) {
            (Self::Any, _) => true,
            (Self::Some, name) => name.is_some(),
            (Self::Named(segments), name) => name.is_some_and(|name| {
                let mut found = name.split('/');
                segments.iter().all(|segment| {
                    let found = found.next();
                    found.is_some_and(|found| segment.as_ref().is_none_or(|own| own.takes(found)))
                })
            }),
        }
    }
}

const SOURCES: &str = "sources are /*, /messages/*, /messages/modules/NAME/*, /messages/modules/NAME/outputs/NAME with * \
                       for any NAME or the rest of one, /twinChangeNotifications, and /mqtt/FILTER for free topics";
const MQTT: &str =
    "behind /mqtt/ goes an MQTT filter of free topics, with + for one level and # for all that follow";

impl Source {
    /// Reads one; `offset` is its place in the route.
    pub(super) fn parse(text: &str, offset: usize) -> Result<Self, Wrong> {
        let refused = || {
            let found = if text.is_empty() { "the end".to_owned() } else { format!("source {text:?}") };
            Wrong::new(offset, found, SOURCES)
        };
        if let Some((slash_mqtt, topics)) = text.split_at_checked("/mqtt/".len())
            && slash_mqtt.eq_ignore_ascii_case("/mqtt/")
        {
            return free(topics, offset + slash_mqtt.len());
        }
        let mut segments: Vec<&str> = text.strip_prefix('/').ok_or_else(refused)?.split('/').collect();
        // edgeHub trims `*` and `/` at the end too: `/messages`, `/messages/` and `/messages/*` are one.
        while segments.last().is_some_and(|last| last.is_empty() || *last == "*") {
            segments.pop();
        }
        // `/messages/modules*` is `/messages/modules/*`.
        if let Some(last) = segments.last_mut()
            && let Some(word) = last.strip_suffix('*')
            && ["messages", "modules", "outputs"].iter().any(|known| known.eq_ignore_ascii_case(word))
        {
            *last = word;
        }
        if let [one] = segments[..]
            && one.eq_ignore_ascii_case("twinChangeNotifications")
        {
            return Ok(Self::TwinChanges);
        }
        let is =
            |at: usize, word: &str| segments.get(at).is_none_or(|found| found.eq_ignore_ascii_case(word));
        let is_shape = is(0, "messages") && is(1, "modules") && is(3, "outputs");
        if segments.first().is_some_and(|first| first.eq_ignore_ascii_case("modules")) && segments.len() > 1 {
            return Ok(Self::Nothing);
        }
        // A `*` behind a name makes a prefix of it, as in edgeHub, at the end only.
        let is_name = |(at, segment): (usize, &&str)| {
            let name = if at + 1 == segments.len() { segment.strip_suffix('*') } else { None };
            *segment == "*" || (!segment.is_empty() && !name.unwrap_or(segment).contains('*'))
        };
        if !is_shape || !segments.iter().enumerate().all(is_name) {
            return Err(refused());
        }
        let module = segments.get(2).and_then(|module| Name::parse(module));
        Ok(match segments.len() {
            0 => Self::All,
            1 => Self::Messages,
            2 | 3 => Self::Modules { module, output: Output::Any },
            4 => Self::Modules { module, output: Output::Some },
            _ => Self::Modules {
                module,
                output: Output::Named(segments[4..].iter().map(|segment| Name::parse(segment)).collect()),
            },
        })
    }

    /// Whether it takes this message. Names are compared without regard to case, as edgeHub does; topics with.
    pub(super) fn takes(&self, message: &Message<'_>) -> bool {
        match (self, message.kind) {
            (Self::Free(filter), Kind::Free { topic }) => filter::matches(filter, topic),
            (Self::Free(_), _) | (_, Kind::Free { .. }) => false,
            (Self::All, _)
            | (Self::Messages, Kind::Telemetry)
            | (Self::TwinChanges, Kind::TwinChange { .. }) => true,
            (Self::Modules { module, output }, Kind::Telemetry) => message.module().is_some_and(|from| {
                module.as_ref().is_none_or(|module| module.takes(from)) && output.takes(message.output())
            }),
            _ => false,
        }
    }
}

fn free(topics: &str, offset: usize) -> Result<Source, Wrong> {
    match (filter::check_filter(topics), parse_subscribe(topics)) {
        (Ok(()), Ok(Subscribe::Free)) => Ok(Source::Free(topics.to_owned())),
        (Err(why), _) => Err(Wrong::new(offset, format!("filter {topics:?}: {why}"), MQTT)),
        (Ok(()), _) => Err(Wrong::new(offset, format!("filter {topics:?} of a reserved topic"), MQTT)),
    }
}
