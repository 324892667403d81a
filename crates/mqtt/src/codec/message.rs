//! Writes PUBLISH. What a message costs is its topic, its payload and its properties, copied once.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::packet::{Publish, PublishProperties, Version};
use super::primitives::{binary, variable, variable_bytes};
use super::properties::id;
use super::text::Text;

/// A PUBLISH to write: a message, and how this receiver gets it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Message<'a> {
    /// A topic name, UTF-8 of at most 65,535 bytes; empty only with an alias that the receiver knows.
    pub topic: &'a [u8],
    /// Any bytes; what they mean is between publisher and subscriber.
    pub payload: &'a [u8],
    /// 0, 1 or 2.
    pub qos: u8,
    /// 0 with QoS 0, else not 0.
    pub id: u16,
    /// Whether it may have been sent before. Never with QoS 0.
    pub dup: bool,
    /// As the receiver is to see it.
    pub retain: bool,
    /// MQTT 5: as published. Its topic alias, subscription identifiers and expiry are not written: they are another
    /// connection's; those of this one stand below.
    pub properties: Option<&'a PublishProperties>,
    /// MQTT 5: seconds left.
    pub message_expiry: Option<u32>,
    /// MQTT 5: an alias to use for the topic from now on, or in its place.
    pub topic_alias: Option<u16>,
    /// MQTT 5: of the receiver's subscriptions that match.
    pub subscription_ids: &'a [u32],
}

impl<'a> From<&'a Publish> for Message<'a> {
    fn from(publish: &'a Publish) -> Self {
        let properties = publish.properties.as_deref();
        Self {
            topic: &publish.topic,
            payload: &publish.payload,
            qos: publish.qos,
            id: publish.id,
            dup: publish.dup,
            retain: publish.retain,
            properties,
            message_expiry: properties.and_then(|p| p.message_expiry),
            topic_alias: properties.and_then(|p| p.topic_alias),
            subscription_ids: properties.map_or(&[], |p| &p.subscription_ids),
        }
    }
}

impl Message<'_> {
    /// Adds the packet to the buffer.
    pub fn write(&self, out: &mut BytesMut, version: Version) {
        let properties = match version {
            Version::V4 => 0,
            Version::V5 => self.property_bytes(),
        };
        let body = self.body_bytes(version, properties);
        out.reserve(5 + body);
        out.put_u8(0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain));
        variable(out, body);
        binary(out, self.topic);
        if self.qos != 0 {
            out.put_u16(self.id);
        }
        if version == Version::V5 {
            variable(out, properties);
            self.write_properties(out);
        }
        out.extend_from_slice(self.payload);
    }

    /// Bytes of the whole packet, to be held against the receiver's maximum.
    pub fn packet_bytes(&self, version: Version) -> usize {
        let body = self.body_bytes(version, self.property_bytes());
        1 + variable_bytes(body) + body
    }

    fn body_bytes(&self, version: Version, properties: usize) -> usize {
        let bag = match version {
            Version::V4 => 0,
            Version::V5 => variable_bytes(properties) + properties,
        };
        2 + self.topic.len() + if self.qos == 0 { 0 } else { 2 } + bag + self.payload.len()
    }

    fn property_bytes(&self) -> usize {
        let binary = |bytes: Option<&Bytes>| bytes.map_or(0, |bytes| 3 + bytes.len());
        let ids = self.subscription_ids.iter().map(|&id| 1 + variable_bytes(id as usize)).sum::<usize>();
        let own = ids + self.message_expiry.map_or(0, |_| 5) + self.topic_alias.map_or(0, |_| 3);
        let Some(p) = self.properties else { return own };
        own + p.is_utf8.map_or(0, |_| 2)
            + binary(p.response_topic.as_ref().map(Text::bytes))
            + binary(p.correlation_data.as_ref())
            + binary(p.content_type.as_ref().map(Text::bytes))
            + p.user_properties.wire().len()
    }

    fn write_properties(&self, out: &mut BytesMut) {
        if let Some(seconds) = self.message_expiry {
            out.put_u8(id::MESSAGE_EXPIRY);
            out.put_u32(seconds);
        }
        if let Some(alias) = self.topic_alias {
            out.put_u8(id::TOPIC_ALIAS);
            out.put_u16(alias);
        }
        for &subscription in self.subscription_ids {
            out.put_u8(id::SUBSCRIPTION_ID);
            variable(out, subscription as usize);
        }
        let Some(p) = self.properties else { return };
        if let Some(is_utf8) = p.is_utf8 {
            out.extend_from_slice(&[id::PAYLOAD_FORMAT, u8::from(is_utf8)]);
        }
        for (id, bytes) in [
            (id::RESPONSE_TOPIC, p.response_topic.as_ref().map(Text::bytes)),
            (id::CORRELATION_DATA, p.correlation_data.as_ref()),
            (id::CONTENT_TYPE, p.content_type.as_ref().map(Text::bytes)),
        ] {
            if let Some(bytes) = bytes {
                out.put_u8(id);
                binary(out, bytes);
            }
        }
        out.extend_from_slice(p.user_properties.wire());
    }
}
