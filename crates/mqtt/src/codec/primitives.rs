//! What packets are written of: lengths, texts and the property bags of MQTT 5.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::packet::ReasonProperties;
use super::properties::id;
use super::text::{Text, UserProperties};

/// The largest body of a packet (MQTT 3.1.1 section 2.2.3).
const BODY_BYTES_MAX: usize = 268_435_455;

/// Writes a packet whose length is known only when its body is written.
pub(super) fn packet(out: &mut BytesMut, first: u8, body: impl FnOnce(&mut BytesMut)) {
    let mut bytes = BytesMut::new();
    body(&mut bytes);
    out.reserve(5 + bytes.len());
    out.put_u8(first);
    variable(out, bytes.len());
    out.extend_from_slice(&bytes);
}

/// Bytes behind their two-byte length.
pub(super) fn binary(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u16(u16::try_from(bytes.len()).expect("the caller bounds topics and texts to 65,535 bytes"));
    out.extend_from_slice(bytes);
}

/// A variable byte integer.
pub(super) fn variable(out: &mut BytesMut, value: usize) {
    assert!(value <= BODY_BYTES_MAX, "the caller bounds a packet well below 256 MiB");
    let mut rest = value;
    loop {
        let low = (rest & 0x7f) as u8;
        rest >>= 7;
        if rest == 0 {
            return out.put_u8(low);
        }
        out.put_u8(low | 0x80);
    }
}

/// Bytes of a variable byte integer.
pub(super) fn variable_bytes(value: usize) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}

/// A bag of properties; what is `None` is left out.
#[derive(Default)]
pub(super) struct BagOut(BytesMut);

impl BagOut {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn u16(&mut self, id: u8, value: Option<u16>) {
        if let Some(value) = value {
            self.0.put_u8(id);
            self.0.put_u16(value);
        }
    }

    pub(super) fn u32(&mut self, id: u8, value: Option<u32>) {
        if let Some(value) = value {
            self.0.put_u8(id);
            self.0.put_u32(value);
        }
    }

    pub(super) fn variable(&mut self, id: u8, value: Option<u32>) {
        if let Some(value) = value {
            self.0.put_u8(id);
            variable(&mut self.0, value as usize);
        }
    }

    pub(super) fn flag(&mut self, id: u8, value: Option<bool>) {
        if let Some(value) = value {
            self.0.extend_from_slice(&[id, u8::from(value)]);
        }
    }

    pub(super) fn text(&mut self, id: u8, value: Option<&Text>) {
        self.binary(id, value.map(Text::bytes));
    }

    pub(super) fn binary(&mut self, id: u8, value: Option<&Bytes>) {
        if let Some(value) = value {
            self.0.put_u8(id);
            binary(&mut self.0, value);
        }
    }

    /// Puts the whole bag behind its length.
    pub(super) fn end(self, out: &mut BytesMut, user: &UserProperties) {
        variable(out, self.0.len() + user.wire().len());
        out.extend_from_slice(&self.0);
        out.extend_from_slice(user.wire());
    }
}

/// The bag of most answers.
pub(super) fn reason_properties(out: &mut BytesMut, properties: Option<&ReasonProperties>) {
    let mut bag = BagOut::default();
    match properties {
        None => bag.end(out, &UserProperties::default()),
        Some(properties) => {
            bag.text(id::REASON_STRING, properties.reason_string.as_ref());
            bag.end(out, &properties.user_properties);
        }
    }
}
