//! The records of the journal, in prose first.
//!
//! A record is a payload of the log (`edge-buffer` adds length, checksum and sequence). Numbers are unsigned LEB128: seven
//! bits per byte, the lowest first, the high bit set on all but the last. A text or bytes is its length and then itself.
//! An option is 0, or 1 and then the thing. A list is its length and then its items.
//!
//! ```text
//! byte 0   version, 1
//! byte 1   kind; 128 is added when the record is a part of a snapshot
//! ...      the kind's fields
//!
//!  1 opened        session, client id, expiry in seconds
//!  2 left          session, ms of Unix time, expiry in seconds
//!  3 ended         session
//!  4 subscribed    session, filter, options
//!  5 unsubscribed  session, filter
//!  6 published     key, message, retained (0 no, 1 set, 2 cleared), option (session, packet id),
//!                  list of (session, flags, list of subscription identifiers)
//!  7 received      session, packet id
//!  8 released      session, packet id
//!  9 sent          session, list of (key, packet id); key 0 for a message whose body is not needed any more
//! 10 taken         session, packet id
//! 11 settled       session, packet id
//! 12 dropped       session, list of keys
//! 13 last id       session, packet id
//! 14 will          client id, message, delay in seconds
//! 15 will due      client id, ms of Unix time
//! 16 will gone     client id
//! 32 snapshot begun    (no fields)
//! 33 snapshot ended    (no fields)
//! 34 journal opened    (no fields)
//!
//! options   flags (bits 0-1 QoS, 2 no-local, 3 retain as published), option identifier
//! message   flags (bits 0-1 QoS, 2 retain), topic, payload, option expiry in ms of Unix time, option properties
//! properties
//!           option is-UTF-8 (0 or 1), option response topic, option correlation data, option content type,
//!           list of (name, value), option expiry in seconds (of a will: it begins with its publication)
//! flags of a receiver
//!           bits 0-1 QoS, 2 retain
//! ```
//!
//! A snapshot is what is true at the moment of its beginning, as records of the same kinds, with records of what goes on
//! meanwhile between them. Reading, the parts of a snapshot are gathered apart; at its end they take the place of all that
//! was read before it, and what went on meanwhile is done to them. A snapshot without an end is ignored.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::event::{Event, Kept, Published, Target};
use crate::message::Message;
use crate::subscription::Options;
use mqtt::codec::packet::PublishProperties;
use mqtt::codec::text::{Text, UserProperties};

const VERSION: u8 = 1;
const PART: u8 = 128;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    Event(Event),
    Part(Event),
    SnapshotBegun,
    SnapshotEnded,
    Opened,
}

/// Why a record cannot be read. It is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("version {0}, this program reads version 1")]
    Version(u8),
    #[error("kind {0}")]
    Kind(u8),
    #[error("damaged or cut off")]
    Damaged,
}

/// The record of a snapshot's beginning.
pub(super) const SNAPSHOT_BEGUN: Bytes = Bytes::from_static(&[VERSION, 32]);
/// The record of a snapshot's end.
pub(super) const SNAPSHOT_ENDED: Bytes = Bytes::from_static(&[VERSION, 33]);
/// The record of a journal being opened.
pub(super) const OPENED: Bytes = Bytes::from_static(&[VERSION, 34]);

/// The record of an event.
pub(super) fn of_event(event: &Event) -> Bytes {
    encode(event, 0)
}

/// The record of a part of a snapshot.
pub(super) fn of_part(event: &Event) -> Bytes {
    encode(event, PART)
}

fn encode(event: &Event, part: u8) -> Bytes {
    let mut out = BytesMut::with_capacity(128);
    out.put_u8(VERSION);
    put_event(&mut out, event, part);
    out.freeze()
}

fn put_event(out: &mut BytesMut, event: &Event, part: u8) {
    out.put_u8(kind(event) | part);
    match event {
        Event::Opened { session, client_id, expiry_s } => {
            put(out, *session);
            put_bytes(out, client_id.as_bytes());
            put(out, u64::from(*expiry_s));
        }
        Event::Left { session, at_ms, expiry_s } => {
            put(out, *session);
            put(out, *at_ms);
            put(out, u64::from(*expiry_s));
        }
        Event::Ended { session } => put(out, *session),
        Event::Subscribed { session, filter, options } => {
            put(out, *session);
            put_bytes(out, filter.as_bytes());
            put_options(out, options);
        }
        Event::Unsubscribed { session, filter } => {
            put(out, *session);
            put_bytes(out, filter.as_bytes());
        }
        Event::Published(published) => put_published(out, published),
        Event::Received { session, id }
        | Event::Released { session, id }
        | Event::Taken { session, id }
        | Event::Settled { session, id }
        | Event::LastId { session, id } => put_id(out, *session, *id),
        Event::Sent { session, keys } => {
            put(out, *session);
            put(out, keys.len() as u64);
            keys.iter().for_each(|(key, id)| put_id(out, *key, *id));
        }
        Event::Dropped { session, keys } => {
            put(out, *session);
            put(out, keys.len() as u64);
            keys.iter().for_each(|key| put(out, *key));
        }
        Event::Will { client_id, message, delay_s } => {
            put_bytes(out, client_id.as_bytes());
            put_message(out, message);
            put(out, u64::from(*delay_s));
        }
        Event::WillDue { client_id, at_ms } => {
            put_bytes(out, client_id.as_bytes());
            put(out, *at_ms);
        }
        Event::WillGone { client_id } => put_bytes(out, client_id.as_bytes()),
    }
}

/// Byte 1 of an event's record. [`Rest::event`] reads the same numbers; the round trip of every kind is tested.
fn kind(event: &Event) -> u8 {
    match event {
        Event::Opened { .. } => 1,
        Event::Left { .. } => 2,
        Event::Ended { .. } => 3,
        Event::Subscribed { .. } => 4,
        Event::Unsubscribed { .. } => 5,
        Event::Published(_) => 6,
        Event::Received { .. } => 7,
        Event::Released { .. } => 8,
        Event::Sent { .. } => 9,
        Event::Taken { .. } => 10,
        Event::Settled { .. } => 11,
        Event::Dropped { .. } => 12,
        Event::LastId { .. } => 13,
        Event::Will { .. } => 14,
        Event::WillDue { .. } => 15,
        Event::WillGone { .. } => 16,
    }
}

fn put_options(out: &mut BytesMut, options: &Options) {
    let (no_local, as_published) = (u8::from(options.no_local), u8::from(options.retain_as_published));
    out.put_u8(options.qos | (no_local << 2) | (as_published << 3));
    put_option(out, options.id.as_ref(), |out, id| put(out, u64::from(*id)));
}

fn put_published(out: &mut BytesMut, published: &Published) {
    put(out, published.key);
    put_message(out, &published.message);
    out.put_u8(match published.retained {
        Kept::Not => 0,
        Kept::Set => 1,
        Kept::Cleared => 2,
    });
    put_option(out, published.received.as_ref(), |out, (session, id)| put_id(out, *session, *id));
    put(out, published.targets.len() as u64);
    for target in &published.targets {
        put(out, target.session);
        out.put_u8(target.qos | (u8::from(target.retain) << 2));
        let ids = target.ids.as_deref().unwrap_or_default();
        put(out, ids.len() as u64);
        ids.iter().for_each(|id| put(out, u64::from(*id)));
    }
}

fn put(out: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        out.put_u8((number as u8 & 0x7f) | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

fn put_id(out: &mut BytesMut, number: u64, id: u16) {
    put(out, number);
    put(out, u64::from(id));
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_option<T>(out: &mut BytesMut, option: Option<&T>, put: impl FnOnce(&mut BytesMut, &T)) {
    out.put_u8(u8::from(option.is_some()));
    if let Some(thing) = option {
        put(out, thing);
    }
}

fn put_message(out: &mut BytesMut, message: &Message) {
    out.put_u8(message.qos | (u8::from(message.retain) << 2));
    put_bytes(out, &message.topic);
    put_bytes(out, &message.payload);
    put_option(out, message.expires_ms.as_ref(), |out, at| put(out, *at));
    put_option(out, message.properties.as_ref(), |out, properties| {
        put_option(out, properties.is_utf8.as_ref(), |out, is_utf8| out.put_u8(u8::from(*is_utf8)));
        put_option(out, properties.response_topic.as_ref(), |out, text| put_bytes(out, text.bytes()));
        put_option(out, properties.correlation_data.as_ref(), |out, data| put_bytes(out, data));
        put_option(out, properties.content_type.as_ref(), |out, text| put_bytes(out, text.bytes()));
        put(out, properties.user_properties.iter().count() as u64);
        for (name, value) in properties.user_properties.iter() {
            put_bytes(out, name.as_bytes());
            put_bytes(out, value.as_bytes());
        }
        put_option(out, properties.message_expiry.as_ref(), |out, seconds| put(out, u64::from(*seconds)));
    });
}

pub(super) fn decode(record: &Bytes) -> Result<Record, Unreadable> {
    let mut rest = Rest(record.clone());
    let version = rest.byte()?;
    if version != VERSION {
        return Err(Unreadable::Version(version));
    }
    let kind = rest.byte()?;
    let read = match kind {
        32 => Record::SnapshotBegun,
        33 => Record::SnapshotEnded,
        34 => Record::Opened,
        kind if kind & PART != 0 => Record::Part(rest.event(kind & !PART)?),
        kind => Record::Event(rest.event(kind)?),
    };
    if rest.0.is_empty() { Ok(read) } else { Err(Unreadable::Damaged) }
}

/// What is left of a record to be read.
struct Rest(Bytes);

impl Rest {
    fn event(&mut self, kind: u8) -> Result<Event, Unreadable> {
        Ok(match kind {
            1 => Event::Opened { session: self.number()?, client_id: self.text()?, expiry_s: self.small()? },
            2 => Event::Left { session: self.number()?, at_ms: self.number()?, expiry_s: self.small()? },
            3 => Event::Ended { session: self.number()? },
            4 => {
                Event::Subscribed { session: self.number()?, filter: self.text()?, options: self.options()? }
            }
            5 => Event::Unsubscribed { session: self.number()?, filter: self.text()? },
            6 => Event::Published(Box::new(self.published()?)),
            7 => Event::Received { session: self.number()?, id: self.id()? },
            8 => Event::Released { session: self.number()?, id: self.id()? },
            9 => Event::Sent {
                session: self.number()?,
                keys: self.list(|rest| Ok((rest.number()?, rest.id()?)))?,
            },
            10 => Event::Taken { session: self.number()?, id: self.id()? },
            11 => Event::Settled { session: self.number()?, id: self.id()? },
            12 => Event::Dropped { session: self.number()?, keys: self.list(Self::number)? },
            13 => Event::LastId { session: self.number()?, id: self.id()? },
            14 => Event::Will {
                client_id: self.text()?,
                message: Arc::new(self.message()?),
                delay_s: self.small()?,
            },
            15 => Event::WillDue { client_id: self.text()?, at_ms: self.number()? },
            16 => Event::WillGone { client_id: self.text()? },
            kind => return Err(Unreadable::Kind(kind)),
        })
    }

    fn published(&mut self) -> Result<Published, Unreadable> {
        Ok(Published {
            key: self.number()?,
            message: Arc::new(self.message()?),
            retained: match self.byte()? {
                0 => Kept::Not,
                1 => Kept::Set,
                2 => Kept::Cleared,
                _ => return Err(Unreadable::Damaged),
            },
            received: self.option(|rest| Ok((rest.number()?, rest.id()?)))?,
            targets: self.list(|rest| {
                let session = rest.number()?;
                let flags = rest.byte()?;
                let ids = rest.list(Self::small)?;
                let ids = if ids.is_empty() { None } else { Some(ids.into()) };
                Ok(Target { session, qos: qos(flags)?, retain: flags & 4 != 0, ids })
            })?,
        })
    }

    fn message(&mut self) -> Result<Message, Unreadable> {
        let flags = self.byte()?;
        // Copies: a record read from the disk shares its block with many others.
        let topic = Bytes::from(self.text()?.into_string());
        Ok(Message {
            topic,
            payload: Bytes::copy_from_slice(&self.bytes()?),
            qos: qos(flags)?,
            retain: flags & 4 != 0,
            publisher: 0,
            expires_ms: self.option(Self::number)?,
            properties: self.option(Self::properties)?,
        })
    }

    fn properties(&mut self) -> Result<Box<PublishProperties>, Unreadable> {
        let text = |rest: &mut Self| Ok(Text::from(&*rest.text()?));
        let is_utf8 = self.option(Self::byte)?.map(|byte| byte == 1);
        let response_topic = self.option(text)?;
        let correlation_data = self.option(Self::bytes)?.map(|data| Bytes::copy_from_slice(&data));
        let content_type = self.option(text)?;
        let pairs = self.list(|rest| Ok((rest.text()?, rest.text()?)))?;
        let user_properties: UserProperties = pairs.iter().map(|(name, value)| (&**name, &**value)).collect();
        let message_expiry = self.option(Self::small)?;
        Ok(Box::new(PublishProperties {
            message_expiry,
            is_utf8,
            response_topic,
            correlation_data,
            content_type,
            user_properties,
            ..PublishProperties::default()
        }))
    }

    fn options(&mut self) -> Result<Options, Unreadable> {
        let flags = self.byte()?;
        Ok(Options {
            qos: qos(flags)?,
            no_local: flags & 4 != 0,
            retain_as_published: flags & 8 != 0,
            id: self.option(Self::small)?,
        })
    }

    fn byte(&mut self) -> Result<u8, Unreadable> {
        let byte = *self.0.first().ok_or(Unreadable::Damaged)?;
        let _ = self.0.split_to(1);
        Ok(byte)
    }

    fn number(&mut self) -> Result<u64, Unreadable> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if part.leading_zeros() < shift {
                return Err(Unreadable::Damaged);
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Unreadable::Damaged)
    }

    fn small(&mut self) -> Result<u32, Unreadable> {
        u32::try_from(self.number()?).map_err(|_| Unreadable::Damaged)
    }

    fn id(&mut self) -> Result<u16, Unreadable> {
        u16::try_from(self.number()?).map_err(|_| Unreadable::Damaged)
    }

    fn bytes(&mut self) -> Result<Bytes, Unreadable> {
        let length = usize::try_from(self.number()?).map_err(|_| Unreadable::Damaged)?;
        if length > self.0.len() {
            return Err(Unreadable::Damaged);
        }
        Ok(self.0.split_to(length))
    }

    fn text(&mut self) -> Result<Box<str>, Unreadable> {
        let bytes = self.bytes()?;
        std::str::from_utf8(&bytes).map(Box::from).map_err(|_| Unreadable::Damaged)
    }

    fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Unreadable>,
    ) -> Result<Option<T>, Unreadable> {
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(Unreadable::Damaged),
        }
    }

    fn list<T>(&mut self, read: impl Fn(&mut Self) -> Result<T, Unreadable>) -> Result<Vec<T>, Unreadable> {
        let length = self.number()?;
        // An item has a byte at least: the length is only a claim.
        if length > self.0.len() as u64 {
            return Err(Unreadable::Damaged);
        }
        (0..length).map(|_| read(self)).collect()
    }
}

fn qos(flags: u8) -> Result<u8, Unreadable> {
    match flags & 3 {
        3 => Err(Unreadable::Damaged),
        qos => Ok(qos),
    }
}
