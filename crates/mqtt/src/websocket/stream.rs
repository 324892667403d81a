//! The bytes inside a WebSocket as a stream that a session reads and writes.
//!
//! ```text
//! open ── Close frame received ──> ended: reads give 0
//!   ├─── text, unmasked or malformed frame ──> failing: Close 1003 or 1002 sent, the rest drained ──> ended: an error
//!   └─── shut down ──> Close 1000 sent; reads go on until the client's Close frame
//! ```

use std::io::{self, Cursor};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

/// The longest header (RFC 6455 section 5.2).
const HEADER_BYTES_MAX: usize = 14;
/// The longest payload of a control frame (section 5.5).
const CONTROL_BYTES_MAX: u64 = 125;
/// The largest frame that is written: that of a TLS record.
const FRAME_BYTES_MAX: usize = 16 * 1024;
/// How long a client may take to hear why it is let go.
const LINGER: Duration = Duration::from_secs(2);

/// A WebSocket over a connection, the server's side.
pub struct WebSocket<T> {
    inner: T,
    /// What was read behind the HTTP request.
    ahead: Bytes,
    reading: Reading,
    /// Whether the message is not at its end: continuation frames follow.
    is_in_message: bool,
    /// Frames that wait to be written; a new data frame waits until they are.
    out: Vec<u8>,
    written: usize,
    /// The payload of the latest ping that waits for its pong.
    pong: Option<Vec<u8>>,
    has_sent_close: bool,
}

enum Reading {
    /// The header of the next frame, as far as it is here.
    Header {
        bytes: [u8; HEADER_BYTES_MAX],
        length: usize,
    },
    /// The payload of a binary frame.
    Payload {
        left: u64,
        mask: [u8; 4],
        position: usize,
    },
    /// The payload of a control frame, as far as it is here.
    Control {
        of: Control,
        length: usize,
        mask: [u8; 4],
        payload: Vec<u8>,
    },
    /// The client has broken the protocol and is being sent a close frame.
    Failing {
        why: &'static str,
        until: Pin<Box<Sleep>>,
    },
    Ended,
}

impl Reading {
    const HEADER: Self = Self::Header { bytes: [0; HEADER_BYTES_MAX], length: 0 };
}

/// What a client did wrong, and the close code for it.
struct Wrong(CloseCode, &'static str);

impl<T: AsyncRead + AsyncWrite + Unpin> WebSocket<T> {
    /// After the upgrade; `ahead` is what was read behind its request.
    pub fn new(inner: T, ahead: Bytes) -> Self {
        Self {
            inner,
            ahead,
            reading: Reading::HEADER,
            is_in_message: false,
            out: Vec::new(),
            written: 0,
            pong: None,
            has_sent_close: false,
        }
    }

    /// Reads into `buf` at least a byte, or nothing at the end of the connection.
    fn poll_inner(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let length = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead.split_to(length));
        Poll::Ready(Ok(()))
    }

    /// Writes the frames that wait.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.written == self.out.len() {
                self.written = 0;
                match self.pong.take() {
                    Some(payload) if !self.has_sent_close => {
                        self.out.clear();
                        self.frame(OpCode::Control(Control::Pong), &payload);
                    }
                    _ => {
                        // An idle connection keeps no buffer.
                        self.out = Vec::new();
                        return Poll::Ready(Ok(()));
                    }
                }
            }
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.out[self.written..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
        }
    }

    fn frame(&mut self, opcode: OpCode, payload: &[u8]) {
        let header = FrameHeader { opcode, ..FrameHeader::default() };
        header.format(payload.len() as u64, &mut self.out).expect("writing to memory does not fail");
        self.out.extend_from_slice(payload);
    }

    fn send_close(&mut self, code: CloseCode) {
        if !self.has_sent_close {
            self.frame(OpCode::Control(Control::Close), &u16::from(code).to_be_bytes());
            self.has_sent_close = true;
        }
    }

    /// Takes a header that is here whole.
    fn begin_frame(&mut self, header: &FrameHeader, length: u64) -> Result<(), Wrong> {
        let protocol = |why| Err(Wrong(CloseCode::Protocol, why));
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return protocol("a WebSocket frame of an extension that was not agreed");
        }
        // Section 5.2: the most significant bit must be 0.
        if length > u64::MAX >> 1 {
            return protocol("a WebSocket frame of 2^63 bytes or more");
        }
        let Some(mask) = header.mask else { return protocol("an unmasked WebSocket frame") };
        match header.opcode {
            OpCode::Control(of) if header.is_final && length <= CONTROL_BYTES_MAX => {
                let length = usize::try_from(length).unwrap_or_default();
                self.reading = Reading::Control { of, length, mask, payload: Vec::with_capacity(length) };
                return Ok(());
            }
            OpCode::Control(_) => return protocol("a WebSocket control frame in parts or beyond 125 bytes"),
            OpCode::Data(Data::Binary) if !self.is_in_message => {}
            OpCode::Data(Data::Continue) if self.is_in_message => {}
            OpCode::Data(Data::Text) => {
                return Err(Wrong(CloseCode::Unsupported, "a WebSocket text frame; MQTT is binary"));
            }
            OpCode::Data(_) => return protocol("a WebSocket message within or without another"),
        }
        self.is_in_message = !header.is_final;
        self.reading = Reading::Payload { left: length, mask, position: 0 };
        Ok(())
    }

    /// Takes a control frame that is here whole.
    fn take_control(&mut self, of: Control, payload: Vec<u8>) {
        self.reading = Reading::HEADER;
        match of {
            Control::Ping => self.pong = Some(payload),
            Control::Close => {
                self.send_close(CloseCode::Normal);
                self.reading = Reading::Ended;
            }
            _ => {}
        }
    }

    fn fail(&mut self, Wrong(code, why): Wrong) {
        self.send_close(code);
        self.reading = Reading::Failing { why, until: Box::pin(tokio::time::sleep(LINGER)) };
    }

    /// Reads on: `Some` when `buf` has got something or the stream has ended.
    fn poll_step(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<Option<()>>> {
        match &mut self.reading {
            Reading::Header { bytes, length } => {
                let (mut head, had) = (*bytes, *length);
                let needed = header_length(&head[..had]);
                let mut piece = ReadBuf::new(&mut head[had..needed]);
                ready!(self.poll_inner(cx, &mut piece))?;
                let length = had + piece.filled().len();
                if length == had {
                    return self.cut(had != 0 || self.is_in_message);
                }
                self.reading = Reading::Header { bytes: head, length };
                match FrameHeader::parse(&mut Cursor::new(&head[..length])) {
                    Ok(None) => {}
                    Ok(Some((header, payload))) => match self.begin_frame(&header, payload) {
                        Ok(()) => {}
                        Err(wrong) => self.fail(wrong),
                    },
                    Err(_) => self.fail(Wrong(CloseCode::Protocol, "a WebSocket frame of an unknown kind")),
                }
            }
            Reading::Payload { left: 0, .. } => self.reading = Reading::HEADER,
            Reading::Payload { left, mask, position } => {
                let (left, mask, position) = (*left, *mask, *position);
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(buf.remaining());
                let mut piece = ReadBuf::new(buf.initialize_unfilled_to(most));
                ready!(self.poll_inner(cx, &mut piece))?;
                let payload = piece.filled_mut();
                if payload.is_empty() {
                    return self.cut(true);
                }
                unmask(payload, mask, position);
                let length = payload.len();
                buf.advance(length);
                self.reading =
                    Reading::Payload { left: left - length as u64, mask, position: (position + length) % 4 };
                return Poll::Ready(Ok(Some(())));
            }
            Reading::Control { of, length, mask, payload } if payload.len() == *length => {
                let (of, mask, mut payload) = (*of, *mask, std::mem::take(payload));
                unmask(&mut payload, mask, 0);
                self.take_control(of, payload);
            }
            Reading::Control { length, payload, .. } => {
                let mut bytes = [0; CONTROL_BYTES_MAX as usize];
                let missing = *length - payload.len();
                let mut piece = ReadBuf::new(&mut bytes[..missing]);
                ready!(self.poll_inner(cx, &mut piece))?;
                if piece.filled().is_empty() {
                    return self.cut(true);
                }
                if let Reading::Control { payload, .. } = &mut self.reading {
                    payload.extend_from_slice(piece.filled());
                }
            }
            Reading::Failing { .. } => return self.poll_failing(cx).map(Err),
            Reading::Ended => return Poll::Ready(Ok(Some(()))),
        }
        Poll::Ready(Ok(None))
    }

    /// The connection ended. Between frames that is an end like another: not every client says Close.
    fn cut(&mut self, is_within: bool) -> Poll<io::Result<Option<()>>> {
        self.reading = Reading::Ended;
        if is_within {
            Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()))
        } else {
            Poll::Ready(Ok(Some(())))
        }
    }

    /// Tells the client why it is let go: the Close frame, then the end, and what it still sends is read, so that no
    /// unread byte turns the end into a reset that takes the Close frame with it.
    fn poll_failing(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Reading::Failing { why, until } = &mut self.reading else {
            return Poll::Ready(io::ErrorKind::InvalidData.into());
        };
        let (why, is_over) = (*why, until.as_mut().poll(cx).is_ready());
        let drained = match self.poll_drain(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.inner).poll_shutdown(cx),
            other => other,
        };
        let mut rest = [0; 1024];
        let is_gone = is_over
            || matches!(drained, Poll::Ready(Err(_)))
            || loop {
                let mut piece = ReadBuf::new(&mut rest);
                match self.poll_inner(cx, &mut piece) {
                    Poll::Pending => break false,
                    Poll::Ready(Ok(())) if !piece.filled().is_empty() => {}
                    Poll::Ready(_) => break true,
                }
            };
        if is_gone {
            self.reading = Reading::Ended;
            Poll::Ready(io::Error::new(io::ErrorKind::InvalidData, why))
        } else {
            Poll::Pending
        }
    }
}

/// How long a header is, as far as its first bytes say.
fn header_length(head: &[u8]) -> usize {
    let Some(second) = head.get(1) else { return 2 };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let length = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + length + mask
}

fn unmask(payload: &mut [u8], mask: [u8; 4], position: usize) {
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle().skip(position)) {
        *byte ^= mask;
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            let step = this.poll_step(cx, buf);
            if this.pong.is_some() || !this.out.is_empty() {
                // Whoever reads sends the answers too: nobody else may be writing. What does not fit now waits for the
                // next read or write.
                let _ = Pin::new(&mut *this).poll_flush(cx)?;
            }
            if ready!(step)?.is_some() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.has_sent_close {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(this.poll_drain(cx))?;
        let payload = &buf[..buf.len().min(FRAME_BYTES_MAX)];
        this.frame(OpCode::Data(Data::Binary), payload);
        // It is taken; whether it is also written now, the next call learns.
        let _ = this.poll_drain(cx)?;
        Poll::Ready(Ok(payload.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.send_close(CloseCode::Normal);
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn frames(messages: &[Vec<u8>], mask: [u8; 4]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (place, payload) in messages.iter().enumerate() {
            // One message over all frames.
            let opcode = OpCode::Data(if place == 0 { Data::Binary } else { Data::Continue });
            let is_final = place + 1 == messages.len();
            let header = FrameHeader { opcode, is_final, mask: Some(mask), ..FrameHeader::default() };
            header.format(payload.len() as u64, &mut bytes).unwrap();
            let begin = bytes.len();
            bytes.extend_from_slice(payload);
            unmask(&mut bytes[begin..], mask, 0);
        }
        bytes
    }

    fn run<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn the_bytes_come_out_as_they_went_in_however_they_are_cut(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..6),
            mask in any::<[u8; 4]>(), ahead in 0_usize..40, pipe in 1_usize..50, piece in 1_usize..70,
        ) {
            let bytes = frames(&messages, mask);
            let expected = messages.concat();
            let received = run(async {
                let (near, mut far) = tokio::io::duplex(pipe);
                let ahead = Bytes::copy_from_slice(&bytes[..ahead.min(bytes.len())]);
                let rest = bytes[ahead.len()..].to_vec();
                let mut websocket = WebSocket::new(near, ahead);
                // It closes its side when all is written, which may be after the last byte of the last message: frames
                // without a byte may follow.
                let written = tokio::spawn(async move { far.write_all(&rest).await.unwrap() });
                let mut received = Vec::new();
                while received.len() < expected.len() {
                    let mut buffer = vec![0; piece];
                    let read = websocket.read(&mut buffer).await.unwrap();
                    assert_ne!(read, 0, "the end came too early");
                    received.extend_from_slice(&buffer[..read]);
                }
                let mut nothing = [0];
                assert_eq!(websocket.read(&mut nothing).await.unwrap(), 0);
                written.await.unwrap();
                received
            });
            prop_assert_eq!(received, expected);
        }

        #[test]
        fn whatever_comes_in_ends_in_bytes_an_end_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            run(async {
                let (near, mut far) = tokio::io::duplex(1024);
                far.write_all(&bytes).await.unwrap();
                far.shutdown().await.unwrap();
                let mut received = Vec::new();
                let _ = WebSocket::new(near, Bytes::new()).read_to_end(&mut received).await;
                assert!(received.len() <= bytes.len());
            });
        }
    }
}
