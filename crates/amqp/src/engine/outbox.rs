//! Bytes on their way to the client.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::codec::frame::{self, FRAME_BYTES_MIN, FrameKind};
use crate::codec::performative::{Performative, Transfer};
use crate::codec::sasl::SaslFrame;

#[derive(Debug)]
pub(super) struct Outbox {
    bytes: BytesMut,
    /// What the client takes.
    frame_bytes_max: usize,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self { bytes: BytesMut::new(), frame_bytes_max: FRAME_BYTES_MIN as usize }
    }

    /// As the client's open says.
    pub(super) fn set_frame_bytes_max(&mut self, bytes: u32) {
        self.frame_bytes_max = bytes as usize;
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn take(&mut self) -> Bytes {
        self.bytes.split().freeze()
    }

    pub(super) fn header(&mut self, header: [u8; 8]) {
        self.bytes.extend_from_slice(&header);
    }

    pub(super) fn sasl(&mut self, sasl: &SaslFrame) {
        frame::write(&mut self.bytes, FrameKind::Sasl, 0, |out| sasl.write(out));
    }

    pub(super) fn keep_alive(&mut self) {
        frame::write(&mut self.bytes, FrameKind::Amqp, 0, |_| ());
    }

    pub(super) fn performative(&mut self, channel: u16, performative: &Performative) {
        frame::write(&mut self.bytes, FrameKind::Amqp, channel, |out| performative.write(out));
    }

    /// Writes one transfer with as much of the payload as fits, and takes that off. More follows if some is left.
    pub(super) fn transfer(&mut self, channel: u16, transfer: &mut Transfer, payload: &mut Bytes) {
        let start = self.bytes.len();
        transfer.more = false;
        self.performative(channel, &Performative::Transfer(transfer.clone(), Bytes::new()));
        if self.bytes.len() - start + payload.len() > self.frame_bytes_max {
            self.bytes.truncate(start);
            transfer.more = true;
            self.performative(channel, &Performative::Transfer(transfer.clone(), Bytes::new()));
        }
        let fits = self.frame_bytes_max.saturating_sub(self.bytes.len() - start).min(payload.len());
        self.bytes.put_slice(&payload[..fits]);
        payload.advance(fits);
        let size =
            u32::try_from(self.bytes.len() - start).expect("a frame is no larger than its limit of 32 bits");
        self.bytes[start..start + 4].copy_from_slice(&size.to_be_bytes());
    }
}
