//! Topics of a broker that knows nothing of devices: made from a template and from who sent a message.
//!
//! ```text
//! site/{gateway}/{device}/{module}/{output}
//! ```
//!
//! | placeholder | is |
//! |---|---|
//! | `{gateway}` | the gateway's device id |
//! | `{device}` | the device that sent the message; the gateway for its modules |
//! | `{module}`, `{output}` | of a module's message |
//! | `{topic}` | the free topic of a message that was routed from one, with its levels |
//! | `{property:NAME}` | an application property |
//!
//! A level that has nothing in it but placeholders without a value is left out. In values `/`, `+`, `#`, `%` and control
//! characters are percent-encoded, so that a name never makes another level; only `{topic}` keeps its own.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use schemas::bag::{PropertyBag, system};
use schemas::names::{DeviceId, Identity};

use crate::route::TOPIC_PROPERTY;

const ENCODED: &AsciiSet = &CONTROLS.add(b'/').add(b'+').add(b'#').add(b'%');
/// The longest topic of MQTT.
const TOPIC_BYTES_MAX: usize = 65_535;

/// A template that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicTemplate {
    text: String,
    levels: Vec<Vec<Part>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Gateway,
    Device,
    Module,
    Output,
    Topic,
    Property(String),
}

/// Why text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("found nothing; write for example site/{{gateway}}/{{device}}/{{module}}/{{output}}")]
    Empty,
    /// `{` without `}`, or the other way round.
    #[error("found `{found}`: a placeholder is written {{NAME}}")]
    Brace { found: String },
    /// A placeholder that there is not.
    #[error("found {{{found}}}; there are gateway, device, module, output, topic and property:NAME")]
    Unknown { found: String },
    /// What no topic may hold.
    #[error("found `{found}`; a topic to publish on has no wildcards, no U+0000, and does not begin with $")]
    NotATopic { found: String },
}

/// Why a message has no topic by a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoTopic {
    /// Every placeholder was without a value.
    #[error("the topic template comes to nothing for this message")]
    Empty,
    /// Over MQTT's limit.
    #[error("the topic would be {bytes} bytes; 65,535 are allowed")]
    TooLong { bytes: usize },
}

impl TopicTemplate {
    /// The topic of a message.
    ///
    /// # Errors
    /// [`NoTopic`].
    pub fn topic(&self, gateway: &DeviceId, from: &Identity, bag: &PropertyBag) -> Result<String, NoTopic> {
        let mut topic = String::new();
        for level in &self.levels {
            let mut text = String::new();
            for part in level {
                let value = match part {
                    Part::Text(fixed) => {
                        text.push_str(fixed);
                        continue;
                    }
                    Part::Gateway => Some(gateway.as_str()),
                    Part::Device => Some(from.device.as_str()),
                    Part::Module => from.module.as_ref().map(schemas::names::ModuleId::as_str),
                    Part::Output => bag.get(system::OUTPUT_NAME),
                    Part::Property(name) => bag.get(name),
                    Part::Topic => {
                        text.push_str(bag.get(TOPIC_PROPERTY).unwrap_or_default());
                        continue;
                    }
                };
                text.extend(utf8_percent_encode(value.unwrap_or_default(), ENCODED));
            }
            if text.is_empty() {
                continue;
            }
            if !topic.is_empty() {
                topic.push('/');
            }
            topic.push_str(&text);
        }
        match topic.len() {
            0 => Err(NoTopic::Empty),
            bytes if bytes > TOPIC_BYTES_MAX => Err(NoTopic::TooLong { bytes }),
            _ => Ok(topic),
        }
    }
}

impl FromStr for TopicTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(TemplateError::Empty);
        }
        // MQTT keeps topics with `$` in front for the server (MQTT 3.1.1, section 4.7.2).
        if text.starts_with('$') {
            return Err(TemplateError::NotATopic { found: text.to_owned() });
        }
        let levels = text.split('/').map(level).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), levels })
    }
}

fn level(text: &str) -> Result<Vec<Part>, TemplateError> {
    let brace = || TemplateError::Brace { found: text.to_owned() };
    let (mut parts, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let (fixed, behind) = match rest.split_once('{') {
            Some((fixed, behind)) => (fixed, Some(behind)),
            None => (rest, None),
        };
        if fixed.contains('}') {
            return Err(brace());
        }
        if fixed.contains(['+', '#', '\0']) {
            return Err(TemplateError::NotATopic { found: text.to_owned() });
        }
        if !fixed.is_empty() {
            parts.push(Part::Text(fixed.to_owned()));
        }
        let Some(behind) = behind else { break };
        let (name, behind) = behind.split_once('}').ok_or_else(brace)?;
        parts.push(match name {
            "gateway" => Part::Gateway,
            "device" => Part::Device,
            "module" => Part::Module,
            "output" => Part::Output,
            "topic" => Part::Topic,
            _ => match name.strip_prefix("property:").filter(|property| !property.is_empty()) {
                Some(property) => Part::Property(property.to_owned()),
                None => return Err(TemplateError::Unknown { found: name.to_owned() }),
            },
        });
        rest = behind;
    }
    Ok(parts)
}

impl fmt::Display for TopicTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn topic(template: &str, from: &str, bag: &str) -> Result<String, NoTopic> {
        let template: TopicTemplate = template.parse().unwrap();
        template.topic(&"gw".parse().unwrap(), &from.parse().unwrap(), &PropertyBag::parse(bag))
    }

    #[test]
    fn a_topic_says_who_sent_the_message_and_leaves_out_what_it_has_not() {
        let site = "site/{gateway}/{device}/{module}/{output}";
        assert_eq!(topic(site, "press-1", "a=b").unwrap(), "site/gw/press-1");
        assert_eq!(topic(site, "gw/filter", "%24.on=alarms").unwrap(), "site/gw/gw/filter/alarms");
        assert_eq!(topic(site, "gw/filter", "%24.on=a%2Fb%23").unwrap(), "site/gw/gw/filter/a%2Fb%23");
        assert_eq!(topic("{property:line}-{device}/x", "press-1", "line=4").unwrap(), "4-press-1/x");
        assert_eq!(topic("up/{topic}", "press-1", "mqtt-topic=line1%2Ftemp").unwrap(), "up/line1/temp");
        assert_eq!(topic("{module}", "press-1", ""), Err(NoTopic::Empty));
        let long = format!("k={}", "x".repeat(70_000));
        assert_eq!(topic("{property:k}", "press-1", &long), Err(NoTopic::TooLong { bytes: 70_000 }));
    }

    #[test]
    fn a_wrong_template_is_refused_with_what_was_found() {
        for (text, part) in [
            ("", "nothing"),
            ("a/{devise}", "{devise}"),
            ("a/{property:}", "{property:}"),
            ("a/{device", "`{device`"),
            ("a/device}", "`device}`"),
            ("a/+/b", "wildcards"),
            ("a/#", "wildcards"),
            ("$SYS/x", "$"),
        ] {
            let error = text.parse::<TopicTemplate>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_name_makes_a_wildcard_or_another_level(output in "\\PC{0,12}", property in "\\PC{0,12}") {
            let template: TopicTemplate = "s/{output}x/{property:p}y".parse().unwrap();
            let mut bag = PropertyBag::new();
            bag.set(system::OUTPUT_NAME, output);
            bag.set("p", property);
            let topic = template.topic(&"gw".parse().unwrap(), &"d".parse().unwrap(), &bag).unwrap();
            prop_assert_eq!(topic.split('/').count(), 3);
            prop_assert!(!topic.contains(['+', '#']));
        }
    }
}
