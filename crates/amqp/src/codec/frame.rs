//! What a connection's bytes are cut into: one protocol header of eight bytes, then frames (sections 2.2, 2.3).
//!
//! ```text
//! header  "AMQP"  protocol  1  0  0
//! frame   size (4 bytes, itself included)  offset of the body (in 4 bytes)  type  channel (2 bytes)  extended header  body
//! ```

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::error::DecodeError;

/// Bytes of a frame before its extended header, which nobody uses and every reader skips.
const HEADER_BYTES: usize = 8;
/// Every peer takes frames of this size, before and after open (section 2.3.1).
pub const FRAME_BYTES_MIN: u32 = 512;

/// What a client asks for with the first bytes of a connection, and again after SASL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Frames of a connection.
    Amqp,
    /// TLS within the connection (section 5.2.1).
    Tls,
    /// Frames of SASL, then a header again.
    Sasl,
}

/// The first bytes are not those of AMQP 1.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection does not begin with a protocol header of AMQP 1.0")]
pub struct UnknownProtocol;

impl Protocol {
    /// The eight bytes.
    pub fn header(self) -> [u8; 8] {
        let id = match self {
            Self::Amqp => 0,
            Self::Tls => 2,
            Self::Sasl => 3,
        };
        [b'A', b'M', b'Q', b'P', id, 1, 0, 0]
    }

    /// Takes the header off the buffer; `None` if bytes of it are missing.
    ///
    /// # Errors
    /// [`UnknownProtocol`] as soon as one byte is wrong, so that a client of another protocol need not send eight.
    pub fn read(buffer: &mut BytesMut) -> Result<Option<Self>, UnknownProtocol> {
        let begins =
            |protocol: &Self| buffer.iter().zip(protocol.header()).all(|(found, byte)| *found == byte);
        let Some(protocol) = [Self::Amqp, Self::Tls, Self::Sasl].into_iter().find(begins) else {
            return Err(UnknownProtocol);
        };
        if buffer.len() < HEADER_BYTES {
            return Ok(None);
        }
        buffer.advance(HEADER_BYTES);
        Ok(Some(protocol))
    }
}

/// Which layer a frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// Type 0: its body is a performative, or empty to keep the connection alive.
    Amqp,
    /// Of a SASL exchange: frame type 1 (section 5.3.1).
    Sasl,
}

/// A frame without its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Which layer it belongs to.
    pub kind: FrameKind,
    /// Of a session. SASL has no channels: there it has no meaning.
    pub channel: u16,
    /// What is behind both headers.
    pub body: Bytes,
}

/// Result of [`read`].
#[derive(Debug, PartialEq, Eq)]
pub enum ReadFrame {
    /// A whole frame; it is off the buffer.
    Whole(Frame),
    /// At least so many bytes are missing.
    Missing(usize),
}

/// Takes the first frame off the buffer. `bytes_max` bounds a frame with its header: it is checked before the rest is awaited.
///
/// # Errors
/// [`DecodeError`]: the buffer is of no more use.
pub fn read(buffer: &mut BytesMut, bytes_max: u32) -> Result<ReadFrame, DecodeError> {
    let Some(header) = buffer.first_chunk::<HEADER_BYTES>() else {
        return Ok(ReadFrame::Missing(HEADER_BYTES - buffer.len()));
    };
    let [s0, s1, s2, s3, offset, kind, c0, c1] = *header;
    let size = u32::from_be_bytes([s0, s1, s2, s3]);
    if size > bytes_max {
        return Err(DecodeError::FrameTooLarge { size, limit: bytes_max });
    }
    let (bytes, body_at) = (size as usize, 4 * usize::from(offset));
    if body_at < HEADER_BYTES {
        return Err(DecodeError::Malformed("the body of a frame begins inside its header"));
    }
    if bytes < body_at {
        return Err(DecodeError::Malformed("a frame is smaller than its header"));
    }
    let kind = match kind {
        0 => FrameKind::Amqp,
        1 => FrameKind::Sasl,
        _ => return Err(DecodeError::Malformed("a frame type that is neither AMQP nor SASL")),
    };
    if buffer.len() < bytes {
        return Ok(ReadFrame::Missing(bytes - buffer.len()));
    }
    let mut body = buffer.split_to(bytes).freeze();
    body.advance(body_at);
    Ok(ReadFrame::Whole(Frame { kind, channel: u16::from_be_bytes([c0, c1]), body }))
}

/// Writes a frame around what `body` writes. The caller keeps within what the peer takes.
pub fn write(out: &mut BytesMut, kind: FrameKind, channel: u16, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32(0);
    out.put_u8(2);
    out.put_u8(match kind {
        FrameKind::Amqp => 0,
        FrameKind::Sasl => 1,
    });
    out.put_u16(channel);
    body(out);
    let size = u32::try_from(out.len() - start).expect("the peer's largest frame is below 4 GiB");
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
}
