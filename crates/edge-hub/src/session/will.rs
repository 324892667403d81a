//! The will that a CONNECT brings.

use mqtt::codec::packet;
use schemas::names::Identity;

use super::publish::passed_on;
use crate::bridge_state;
use crate::message::Message;

/// The will of a CONNECT as a message that is published later.
pub(super) fn message_of(will: packet::Will, identity: &Identity) -> Message {
    let properties = will.properties.map(|properties| {
        // The expiry of a will counts from its publication (MQTT 5, 3.1.3.2.4), so it is not one of the message yet.
        let message_expiry = properties.message_expiry;
        let mut properties = passed_on(Some(properties)).unwrap_or_default();
        properties.message_expiry = message_expiry;
        properties
    });
    Message {
        topic: bridge_state::kept(identity, &will.topic).unwrap_or(will.topic).into(),
        payload: will.payload,
        qos: will.qos,
        retain: will.retain,
        publisher: 0,
        expires_ms: None,
        properties,
    }
}
