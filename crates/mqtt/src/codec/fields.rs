//! The fields that packets are made of, taken off the front of a packet's body one by one.

use bytes::{Buf as _, Bytes};

use super::error::ReadError;
use super::reason::Reason;
use super::text::Text;

/// What is left of a body.
pub(super) struct Fields(Bytes);

const TOO_SHORT: ReadError = ReadError::Malformed("a field is longer than the packet");

impl Fields {
    pub(super) fn new(body: Bytes) -> Self {
        Self(body)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn left(&self) -> usize {
        self.0.len()
    }

    pub(super) fn u8(&mut self) -> Result<u8, ReadError> {
        self.0.try_get_u8().map_err(|_| TOO_SHORT)
    }

    pub(super) fn u16(&mut self) -> Result<u16, ReadError> {
        self.0.try_get_u16().map_err(|_| TOO_SHORT)
    }

    pub(super) fn u32(&mut self) -> Result<u32, ReadError> {
        self.0.try_get_u32().map_err(|_| TOO_SHORT)
    }

    /// A variable byte integer (MQTT 5.0 section 1.5.5).
    pub(super) fn variable(&mut self) -> Result<u32, ReadError> {
        match variable(&self.0)? {
            Variable::Whole { value, bytes, is_minimal: true } => {
                self.0.advance(bytes);
                Ok(value)
            }
            // MQTT-1.5.5-1.
            Variable::Whole { .. } => Err(ReadError::Malformed("a variable byte integer is not minimal")),
            Variable::Cut => Err(TOO_SHORT),
        }
    }

    /// So many bytes.
    pub(super) fn bytes(&mut self, count: usize) -> Result<Bytes, ReadError> {
        if count > self.0.len() {
            return Err(TOO_SHORT);
        }
        Ok(self.0.split_to(count))
    }

    /// Binary data: bytes behind their two-byte length.
    pub(super) fn binary(&mut self) -> Result<Bytes, ReadError> {
        let length = self.u16()?;
        self.bytes(usize::from(length))
    }

    pub(super) fn text(&mut self) -> Result<Text, ReadError> {
        Text::new(self.binary()?)
    }

    pub(super) fn string(&mut self) -> Result<String, ReadError> {
        Ok(self.text()?.as_str().to_owned())
    }

    /// A packet identifier (MQTT-2.3.1-1; MQTT 5.0: MQTT-2.2.1-3).
    pub(super) fn packet_id(&mut self) -> Result<u16, ReadError> {
        match self.u16()? {
            0 => Err(ReadError::Protocol(Reason::PROTOCOL_ERROR, "packet id 0")),
            id => Ok(id),
        }
    }

    /// Everything that is left.
    pub(super) fn rest(self) -> Bytes {
        self.0
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<(), ReadError> {
        if self.0.is_empty() { Ok(()) } else { Err(ReadError::Malformed("bytes behind the last field")) }
    }
}

/// Result of reading a variable byte integer from the front of some bytes.
pub(super) enum Variable {
    Whole { value: u32, bytes: usize, is_minimal: bool },
    Cut,
}

pub(super) fn variable(bytes: &[u8]) -> Result<Variable, ReadError> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Variable::Whole { value, bytes: at + 1, is_minimal: at == 0 || *byte != 0 });
        }
    }
    if bytes.len() < 4 {
        Ok(Variable::Cut)
    } else {
        Err(ReadError::Malformed("a variable byte integer of more than four bytes"))
    }
}
