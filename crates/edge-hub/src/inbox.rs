//! The property bag of an IoT Hub topic and the properties of an MQTT 5 packet, each made from the other.
//!
//! ```text
//! content type          $.ct
//! correlation data      $.cid, when it is text
//! user properties       the application's own properties; names that begin with `$.` are left out
//! ```
//!
//! IoT Hub's MQTT 5 preview had other topics; here the topics are those of MQTT 3.1.1, and what a client of MQTT 5 says in
//! properties counts as if it were in the bag. A key that is in the bag already stays.

use schemas::bag::{PropertyBag, system};

use mqtt::codec::packet::PublishProperties;
use mqtt::codec::text::{Text, UserProperties};

/// What the properties of a telemetry message add to its bag.
pub(crate) fn add_to_bag(bag: &mut PropertyBag, properties: &PublishProperties) {
    let mut add = |key: &str, value: &str| {
        if bag.get(key).is_none() {
            bag.set(key, value);
        }
    };
    if let Some(content_type) = &properties.content_type {
        add(system::CONTENT_TYPE, content_type.as_str());
    }
    if let Some(text) = properties.correlation_data.as_deref().and_then(|data| std::str::from_utf8(data).ok())
    {
        add(system::CORRELATION_ID, text);
    }
    for (name, value) in properties.user_properties.iter().filter(|(name, _)| !name.starts_with("$.")) {
        add(name, value);
    }
}

/// The properties of a message to an inbox (`…/messages/devicebound/{bag}`, `…/inputs/{input}/{bag}`).
pub(crate) fn properties(topic: &str) -> Option<Box<PublishProperties>> {
    let (before, bag) = topic.rsplit_once('/')?;
    let is_inbox = topic.starts_with("devices/")
        && (before.ends_with("/messages/devicebound") || before.contains("/inputs/"));
    if !is_inbox || bag.is_empty() {
        return None;
    }
    let bag = PropertyBag::parse(bag);
    let text = |key: &str| bag.get(key).map(Text::from);
    let own = bag.iter().filter(|(key, _)| !key.starts_with("$."));
    let user_properties: UserProperties = own.map(|(key, value)| (key, value.unwrap_or(""))).collect();
    Some(Box::new(PublishProperties {
        content_type: text(system::CONTENT_TYPE),
        correlation_data: bag.get(system::CORRELATION_ID).map(|id| id.to_owned().into()),
        user_properties,
        ..PublishProperties::default()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bag_and_the_properties_of_a_packet_say_the_same() {
        let topic = "devices/d/modules/m/inputs/in/%24.ct=text%2Fplain&%24.cid=c1&a=1&b";
        let properties = properties(topic).unwrap();
        let mut bag = PropertyBag::parse("%24.ct=application%2Fjson");
        add_to_bag(&mut bag, &properties);
        assert_eq!(bag.to_string(), "%24.ct=application%2Fjson&%24.cid=c1&a=1&b=");
        assert_eq!(super::properties("line1/inputs/a/b=c"), None);
        assert_eq!(super::properties("devices/d/messages/devicebound/"), None);
    }
}
