//! A message: sections in a fixed order, most of them optional (section 3.2).
//!
//! ```text
//! header  delivery-annotations  message-annotations  properties  application-properties  body  footer
//! ```

use bytes::{BufMut as _, Bytes, BytesMut};

use super::composite::composite;
use super::definitions::MessageId;
use super::descriptor;
use super::error::DecodeError;
use super::format_code as code;
use super::limits::ReadLimits;
use super::reader::Reader;
use super::symbol::Symbol;
use super::value::{Map, Timestamp, Value};
use super::wire::Wire;
use super::{value_writer, writer};

composite! {
    /// How a message is to be delivered.
    Header = 0x70 "header" {
        /// It must outlive a failure of those that pass it on.
        default durable "durable": bool = false,
        /// Higher is more urgent.
        default priority "priority": u8 = 4,
        /// Milliseconds that it is worth delivering.
        optional ttl "ttl": u32,
        /// Nobody else has acquired it before.
        default first_acquirer "first-acquirer": bool = false,
        /// Earlier deliveries that failed.
        default delivery_count "delivery-count": u32 = 0,
    }
}

composite! {
    /// The standard properties of a message, which nobody on its path changes.
    Properties = 0x73 "properties" {
        /// Chosen by the sender.
        optional message_id "message-id": MessageId,
        /// Who made the message.
        optional user_id "user-id": Bytes,
        /// Address of the node that it is for.
        optional to "to": String,
        /// What it is about.
        optional subject "subject": String,
        /// Address for answers.
        optional reply_to "reply-to": String,
        /// Id of the message that it answers.
        optional correlation_id "correlation-id": MessageId,
        /// MIME type of the body.
        optional content_type "content-type": Symbol,
        /// MIME content encoding of the body.
        optional content_encoding "content-encoding": Symbol,
        /// When it expires.
        optional absolute_expiry_time "absolute-expiry-time": Timestamp,
        /// When it was made.
        optional creation_time "creation-time": Timestamp,
        /// The group that it belongs to.
        optional group_id "group-id": String,
        /// Place in the group.
        optional group_sequence "group-sequence": u32,
        /// Group for answers.
        optional reply_to_group_id "reply-to-group-id": String,
    }
}

/// What a message carries.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Body {
    /// Nothing: the specification wants one of the others, and peers leave them out.
    #[default]
    Absent,
    /// Sections of bytes, which belong together. They are parts of the frames that they came with.
    Data(Vec<Bytes>),
    /// Sections of lists.
    Sequence(Vec<Vec<Value>>),
    /// The content is one AMQP value (section 3.2.8).
    Value(Value),
}

/// A message of format 0.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Message {
    /// Its defaults hold when it is absent.
    pub header: Option<Header>,
    /// For the next node alone.
    pub delivery_annotations: Map,
    /// For every node on the path.
    pub message_annotations: Map,
    /// The standard properties.
    pub properties: Option<Properties>,
    /// The application's own properties: strings to simple values.
    pub application_properties: Map,
    /// What it carries.
    pub body: Body,
    /// Hashes, signatures and the like.
    pub footer: Map,
}

/// Sections by the numbers of their descriptors, which have the order of the sections.
mod section {
    pub(super) const HEADER: u64 = 0x70;
    pub(super) const DELIVERY_ANNOTATIONS: u64 = 0x71;
    pub(super) const MESSAGE_ANNOTATIONS: u64 = 0x72;
    pub(super) const PROPERTIES: u64 = 0x73;
    pub(super) const APPLICATION_PROPERTIES: u64 = 0x74;
    pub(super) const DATA: u64 = 0x75;
    pub(super) const SEQUENCE: u64 = 0x76;
    pub(super) const VALUE: u64 = 0x77;
    pub(super) const FOOTER: u64 = 0x78;
}

impl Message {
    /// Reads the payload of a delivery: of all its transfers, joined.
    ///
    /// # Errors
    /// [`DecodeError`]: a section is wrong, comes twice, or at a place where it does not belong.
    pub fn read(payload: Bytes, limits: ReadLimits) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload, limits);
        let mut message = Self::default();
        let mut before = 0;
        while !reader.is_at_end() {
            let found = descriptor::read(&mut reader, "section of a message")?;
            let can_repeat = matches!(found, section::DATA | section::SEQUENCE);
            let is_second_kind_of_body = (section::DATA..section::FOOTER).contains(&before)
                && (section::DATA..section::FOOTER).contains(&found)
                && found != before;
            if found < before || (found == before && !can_repeat) || is_second_kind_of_body {
                return Err(DecodeError::Malformed("a section of a message that does not belong there"));
            }
            before = found;
            message.read_section(found, &mut reader)?;
        }
        Ok(message)
    }

    fn read_section(&mut self, found: u64, reader: &mut Reader) -> Result<(), DecodeError> {
        match found {
            section::HEADER => self.header = Some(Header::read_list(reader)?),
            section::DELIVERY_ANNOTATIONS => self.delivery_annotations = content(reader)?,
            section::MESSAGE_ANNOTATIONS => self.message_annotations = content(reader)?,
            section::PROPERTIES => self.properties = Some(Properties::read_list(reader)?),
            section::APPLICATION_PROPERTIES => self.application_properties = content(reader)?,
            section::DATA => {
                let data = content(reader)?;
                match &mut self.body {
                    Body::Data(sections) => sections.push(data),
                    body => *body = Body::Data(vec![data]),
                }
            }
            section::SEQUENCE => {
                let Value::List(list) = content(reader)? else {
                    return Err(DecodeError::Malformed("a sequence that is not a list"));
                };
                match &mut self.body {
                    Body::Sequence(sections) => sections.push(list),
                    body => *body = Body::Sequence(vec![list]),
                }
            }
            section::VALUE => self.body = Body::Value(content(reader)?),
            section::FOOTER => self.footer = content(reader)?,
            other => return Err(descriptor::unexpected(other, "section of a message")),
        }
        Ok(())
    }

    /// Writes the payload of a delivery.
    pub fn write(&self, out: &mut BytesMut) {
        if let Some(header) = &self.header {
            header.write(out);
        }
        write_map(out, section::DELIVERY_ANNOTATIONS, &self.delivery_annotations);
        write_map(out, section::MESSAGE_ANNOTATIONS, &self.message_annotations);
        if let Some(properties) = &self.properties {
            properties.write(out);
        }
        write_map(out, section::APPLICATION_PROPERTIES, &self.application_properties);
        match &self.body {
            Body::Absent => {}
            Body::Data(sections) => {
                for bytes in sections {
                    write_section(out, section::DATA);
                    bytes.write(out);
                }
            }
            Body::Sequence(sections) => {
                for list in sections {
                    write_section(out, section::SEQUENCE);
                    value_writer::list(out, list);
                }
            }
            Body::Value(value) => {
                write_section(out, section::VALUE);
                value.write(out);
            }
        }
        write_map(out, section::FOOTER, &self.footer);
    }
}

/// Reads what a section describes.
fn content<T: Wire>(reader: &mut Reader) -> Result<T, DecodeError> {
    let code = reader.format_code()?;
    reader.nested(|reader| T::read(reader, code))
}

fn write_section(out: &mut BytesMut, section: u64) {
    out.put_u8(code::DESCRIBED);
    writer::ulong(out, section);
}

fn write_map(out: &mut BytesMut, section: u64, map: &Map) {
    if !map.is_empty() {
        write_section(out, section);
        map.write(out);
    }
}
