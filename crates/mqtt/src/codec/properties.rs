//! The property bags of MQTT 5 (section 2.2.2): identifiers with values, none twice, only those that the packet has.

use bytes::{Bytes, BytesMut};

use super::error::ReadError;
use super::fields::Fields;
use super::packet::{PublishProperties, ReasonProperties};
use super::reason::Reason;
use super::text::{Text, USER_PROPERTY, UserProperties};
use crate::filter;

/// Identifiers (table 2-4).
pub(super) mod id {
    pub(in crate::codec) const PAYLOAD_FORMAT: u8 = 1;
    pub(in crate::codec) const MESSAGE_EXPIRY: u8 = 2;
    pub(in crate::codec) const CONTENT_TYPE: u8 = 3;
    pub(in crate::codec) const RESPONSE_TOPIC: u8 = 8;
    pub(in crate::codec) const CORRELATION_DATA: u8 = 9;
    pub(in crate::codec) const SUBSCRIPTION_ID: u8 = 11;
    pub(in crate::codec) const SESSION_EXPIRY: u8 = 17;
    pub(in crate::codec) const ASSIGNED_CLIENT_ID: u8 = 18;
    pub(in crate::codec) const SERVER_KEEP_ALIVE: u8 = 19;
    pub(in crate::codec) const AUTHENTICATION_METHOD: u8 = 21;
    pub(in crate::codec) const AUTHENTICATION_DATA: u8 = 22;
    pub(in crate::codec) const REQUEST_PROBLEM_INFORMATION: u8 = 23;
    pub(in crate::codec) const WILL_DELAY: u8 = 24;
    pub(in crate::codec) const REQUEST_RESPONSE_INFORMATION: u8 = 25;
    pub(in crate::codec) const RESPONSE_INFORMATION: u8 = 26;
    pub(in crate::codec) const SERVER_REFERENCE: u8 = 28;
    pub(in crate::codec) const REASON_STRING: u8 = 31;
    pub(in crate::codec) const RECEIVE_MAX: u8 = 33;
    pub(in crate::codec) const TOPIC_ALIAS_MAX: u8 = 34;
    pub(in crate::codec) const TOPIC_ALIAS: u8 = 35;
    pub(in crate::codec) const QOS_MAX: u8 = 36;
    pub(in crate::codec) const RETAIN_AVAILABLE: u8 = 37;
    pub(in crate::codec) const PACKET_BYTES_MAX: u8 = 39;
    pub(in crate::codec) const WILDCARDS_AVAILABLE: u8 = 40;
    pub(in crate::codec) const SUBSCRIPTION_IDS_AVAILABLE: u8 = 41;
    pub(in crate::codec) const SHARED_SUBSCRIPTIONS_AVAILABLE: u8 = 42;
}

/// A property that this packet does not have, or that does not exist (section 2.2.2.2).
pub(super) const NOT_HERE: ReadError = ReadError::Malformed("a property that this packet does not have");

fn protocol(why: &'static str) -> ReadError {
    ReadError::Protocol(Reason::PROTOCOL_ERROR, why)
}

/// A bag that is being read.
pub(super) struct Bag {
    whole: Bytes,
    rest: Fields,
    /// One bit for each identifier that was there.
    seen: u64,
    /// The identifier that may be there again.
    repeated: Option<u8>,
    /// Where the user properties stand in `whole`, as long as they stand together.
    run: std::ops::Range<usize>,
    /// Those that do not.
    scattered: BytesMut,
}

impl Bag {
    /// Takes a bag off the front of the fields.
    pub(super) fn open(fields: &mut Fields) -> Result<Self, ReadError> {
        let length = fields.variable()?;
        let whole = fields.bytes(length as usize)?;
        let rest = Fields::new(whole.clone());
        Ok(Self { whole, rest, seen: 0, repeated: None, run: 0..0, scattered: BytesMut::new() })
    }

    /// Lets an identifier come more than once.
    pub(super) fn repeated(mut self, id: u8) -> Self {
        self.repeated = Some(id);
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.whole.is_empty()
    }

    /// The identifier of the next property, the value of which must then be taken. User properties, which every packet
    /// may have any number of, are kept on the way.
    pub(super) fn next(&mut self) -> Result<Option<u8>, ReadError> {
        loop {
            if self.rest.is_empty() {
                return Ok(None);
            }
            let start = self.whole.len() - self.rest.left();
            let id = u8::try_from(self.rest.variable()?).map_err(|_| NOT_HERE)?;
            if id == USER_PROPERTY {
                self.rest.text()?;
                self.rest.text()?;
                self.keep(start..self.whole.len() - self.rest.left());
                continue;
            }
            if id > id::SHARED_SUBSCRIPTIONS_AVAILABLE {
                return Err(NOT_HERE);
            }
            let bit = 1 << id;
            if self.seen & bit != 0 && self.repeated != Some(id) {
                return Err(protocol("a property is there twice"));
            }
            self.seen |= bit;
            return Ok(Some(id));
        }
    }

    fn keep(&mut self, property: std::ops::Range<usize>) {
        if self.run.is_empty() {
            self.run = property;
        } else if self.run.end == property.start && self.scattered.is_empty() {
            self.run.end = property.end;
        } else {
            if self.scattered.is_empty() {
                self.scattered.reserve(self.whole.len());
                self.scattered.extend_from_slice(&self.whole[self.run.clone()]);
            }
            self.scattered.extend_from_slice(&self.whole[property]);
        }
    }

    /// The user properties, when everything else was taken.
    pub(super) fn user_properties(self) -> UserProperties {
        UserProperties::from_wire(if self.scattered.is_empty() {
            self.whole.slice(self.run)
        } else {
            self.scattered.freeze()
        })
    }

    pub(super) fn u16(&mut self) -> Result<u16, ReadError> {
        self.rest.u16()
    }

    pub(super) fn u32(&mut self) -> Result<u32, ReadError> {
        self.rest.u32()
    }

    pub(super) fn text(&mut self) -> Result<Text, ReadError> {
        self.rest.text()
    }

    pub(super) fn binary(&mut self) -> Result<Bytes, ReadError> {
        self.rest.binary()
    }

    pub(super) fn flag(&mut self) -> Result<bool, ReadError> {
        match self.rest.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(protocol("a property that is 0 or 1 is neither")),
        }
    }

    pub(super) fn u16_not_0(&mut self) -> Result<u16, ReadError> {
        match self.rest.u16()? {
            0 => Err(protocol("a property that must not be 0 is 0")),
            value => Ok(value),
        }
    }

    pub(super) fn u32_not_0(&mut self) -> Result<u32, ReadError> {
        match self.rest.u32()? {
            0 => Err(protocol("a property that must not be 0 is 0")),
            value => Ok(value),
        }
    }

    pub(super) fn subscription_id(&mut self) -> Result<u32, ReadError> {
        match self.rest.variable()? {
            0 => Err(protocol("subscription identifier 0")),
            value => Ok(value),
        }
    }

    pub(super) fn topic_alias(&mut self) -> Result<u16, ReadError> {
        match self.rest.u16()? {
            // MQTT-3.3.2-8.
            0 => Err(ReadError::Protocol(Reason::TOPIC_ALIAS_INVALID, "topic alias 0")),
            alias => Ok(alias),
        }
    }

    /// Takes a property that a PUBLISH and a will share; gives whether it is one.
    pub(super) fn message_property(
        &mut self,
        id: u8,
        properties: &mut PublishProperties,
    ) -> Result<bool, ReadError> {
        match id {
            id::PAYLOAD_FORMAT => properties.is_utf8 = Some(self.flag()?),
            id::MESSAGE_EXPIRY => properties.message_expiry = Some(self.u32()?),
            id::CONTENT_TYPE => properties.content_type = Some(self.text()?),
            id::RESPONSE_TOPIC => {
                let topic = self.text()?;
                // MQTT-3.3.2-14.
                filter::check_topic(topic.as_str())
                    .map_err(|_| protocol("the response topic is no topic name"))?;
                properties.response_topic = Some(topic);
            }
            id::CORRELATION_DATA => properties.correlation_data = Some(self.binary()?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// The bag of most answers: a reason string and user properties. `None` when there is neither.
pub(super) fn reason_properties(fields: &mut Fields) -> Result<Option<Box<ReasonProperties>>, ReadError> {
    let mut bag = Bag::open(fields)?;
    if bag.is_empty() {
        return Ok(None);
    }
    let mut reason_string = None;
    while let Some(id) = bag.next()? {
        match id {
            id::REASON_STRING => reason_string = Some(bag.text()?),
            _ => return Err(NOT_HERE),
        }
    }
    Ok(Some(Box::new(ReasonProperties { reason_string, user_properties: bag.user_properties() })))
}

/// The bag of SUBSCRIBE and UNSUBSCRIBE, the latter of which has no subscription identifier.
pub(super) fn request(
    fields: &mut Fields,
    may_have_id: bool,
) -> Result<(Option<u32>, UserProperties), ReadError> {
    let mut bag = Bag::open(fields)?;
    let mut subscription_id = None;
    while let Some(id) = bag.next()? {
        match id {
            id::SUBSCRIPTION_ID if may_have_id => subscription_id = Some(bag.subscription_id()?),
            _ => return Err(NOT_HERE),
        }
    }
    Ok((subscription_id, bag.user_properties()))
}
