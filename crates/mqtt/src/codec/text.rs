//! Texts of a packet, as slices of the bytes that were read: nothing is copied until somebody keeps it.

use std::fmt;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::error::ReadError;

/// The property identifier that opens each user property on the wire (MQTT 5.0 table 2-4).
pub(super) const USER_PROPERTY: u8 = 38;

/// UTF-8 of at most 65,535 bytes, without U+0000.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Text(Bytes);

impl Text {
    /// Checks the bytes.
    ///
    /// # Errors
    /// When they are no UTF-8, hold U+0000, or are too many (MQTT-1.5.3-1 and -2; MQTT 5.0: MQTT-1.5.4-1 and -2).
    pub fn new(bytes: Bytes) -> Result<Self, ReadError> {
        check_text(&bytes)?;
        Ok(Self(bytes))
    }

    /// The text, borrowed. It costs a look at every byte: the bytes are checked anew.
    #[inline]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("new() lets only UTF-8 through")
    }

    /// Its UTF-8 bytes, shared.
    #[inline]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Its UTF-8 bytes.
    #[inline]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// A copy that does not keep the packet in memory.
    #[must_use]
    #[inline]
    pub fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }
}

/// The text, cut to what a packet can hold, without U+0000.
impl From<&str> for Text {
    fn from(text: &str) -> Self {
        let mut end = text.len().min(usize::from(u16::MAX));
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        if text[..end].contains('\0') {
            Self(text[..end].replace('\0', "").into())
        } else {
            Self(Bytes::copy_from_slice(&text.as_bytes()[..end]))
        }
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Checks a UTF-8 encoded string of a packet.
pub(super) fn check_text(bytes: &[u8]) -> Result<&str, ReadError> {
    if bytes.len() > usize::from(u16::MAX) {
        return Err(ReadError::Malformed("a text of more than 65,535 bytes"));
    }
    // Rust's UTF-8 has no surrogates either.
    let text = std::str::from_utf8(bytes).map_err(|_| ReadError::Malformed("a text is not UTF-8"))?;
    if bytes.contains(&0) { Err(ReadError::Malformed("a text holds U+0000")) } else { Ok(text) }
}

/// The user properties of a packet, in their order, encoded as on the wire.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct UserProperties(Bytes);

impl UserProperties {
    /// Takes checked properties as they stand in a packet, identifiers included.
    pub(super) fn from_wire(encoded: Bytes) -> Self {
        Self(encoded)
    }

    /// As they stand in a packet.
    pub(super) fn wire(&self) -> &Bytes {
        &self.0
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Name and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (_identifier, after) = rest.split_first()?;
            let (name, after) = split_text(after)?;
            let (value, after) = split_text(after)?;
            rest = after;
            Some((name, value))
        })
    }

    /// A copy that does not keep the packet in memory.
    #[must_use]
    #[inline]
    pub fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }
}

fn split_text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

impl<'a> FromIterator<(&'a str, &'a str)> for UserProperties {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        let mut encoded = BytesMut::new();
        for (name, value) in pairs {
            encoded.put_u8(USER_PROPERTY);
            for text in [Text::from(name), Text::from(value)] {
                encoded.put_u16(u16::try_from(text.0.len()).expect("a text is at most 65,535 bytes"));
                encoded.extend_from_slice(&text.0);
            }
        }
        Self(encoded.freeze())
    }
}

impl fmt::Debug for UserProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
