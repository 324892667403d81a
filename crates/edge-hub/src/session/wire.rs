//! The two halves of a connection with their buffers. Both are safe to drop and call again at any await.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf, ReadHalf, WriteHalf};

use mqtt::codec::error::ReadError;
use mqtt::codec::packet::{Packet, Version};
use mqtt::codec::read::{Read, connect_version, read};

/// Bytes that wait to be written to one client before its session stops adding to them.
pub(super) const OUT_BYTES_MAX: usize = 64 * 1024;

/// What is read at once: from an idle client, and from a busy one.
const READ_BYTES: std::ops::RangeInclusive<usize> = 2 * 1024..=64 * 1024;
/// What is read at once without a buffer of its own.
const SMALL_BYTES: usize = *READ_BYTES.start();
/// A write buffer that grew beyond this is given back when it is empty.
const KEPT_BYTES: usize = 256;

pub(super) struct Reader<T> {
    half: ReadHalf<T>,
    buffer: BytesMut,
    /// What the next read asks for; follows how much the last ones gave.
    chunk: usize,
    /// What the packet at the front still lacks.
    missing: usize,
    /// What is read; a CONNECT says it itself.
    pub version: Version,
}

impl<T: AsyncRead + Unpin> Reader<T> {
    pub(super) fn new(half: ReadHalf<T>) -> Self {
        Self { half, buffer: BytesMut::new(), chunk: *READ_BYTES.start(), missing: 0, version: Version::V4 }
    }

    /// The next packet that is here whole.
    pub(super) fn packet(&mut self, bytes_max: usize) -> Result<Option<Packet>, ReadError> {
        match read(&mut self.buffer, self.version, bytes_max)? {
            Read::Packet(packet) => Ok(Some(packet)),
            Read::Missing(missing) => {
                self.missing = missing;
                Ok(None)
            }
        }
    }

    /// The first byte that was read and not taken yet.
    pub(super) fn first_byte(&self) -> Option<u8> {
        self.buffer.first().copied()
    }

    /// The version of the CONNECT that is first.
    pub(super) fn connect_version(&self) -> Option<Version> {
        connect_version(&self.buffer)
    }

    /// Reads what is there; 0 is the end. A client that says little has no buffer while it says nothing.
    pub(super) async fn fill(&mut self) -> io::Result<usize> {
        let needed = self.missing.max(self.chunk);
        if self.buffer.is_empty() && needed <= SMALL_BYTES {
            self.buffer = BytesMut::new();
            return poll_fn(|context| self.poll_small(context)).await;
        }
        // Not all that a large packet lacks at once: its header is only a claim.
        self.buffer.reserve(needed.min(*READ_BYTES.end()));
        let read = self.half.read_buf(&mut self.buffer).await?;
        self.missing = 0;
        let is_more_there = self.buffer.len() == self.buffer.capacity();
        if is_more_there {
            self.chunk = (self.chunk * 2).min(*READ_BYTES.end());
        } else if read < self.chunk / 4 {
            self.chunk = (self.chunk / 2).max(*READ_BYTES.start());
        }
        Ok(read)
    }

    fn poll_small(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut bytes = [MaybeUninit::<u8>::uninit(); SMALL_BYTES];
        let mut read = ReadBuf::uninit(&mut bytes);
        std::task::ready!(Pin::new(&mut self.half).poll_read(context, &mut read))?;
        self.buffer.extend_from_slice(read.filled());
        self.missing = 0;
        if read.remaining() == 0 {
            self.chunk = SMALL_BYTES * 2;
        }
        Poll::Ready(Ok(self.buffer.len()))
    }

    /// Lets an idle client's buffer go; the next read makes a small one.
    pub(super) fn give_back_memory(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
            self.chunk = *READ_BYTES.start();
        }
    }

    /// Reads and throws away until the other side has closed.
    pub(super) async fn drain(&mut self) {
        loop {
            self.buffer.clear();
            match self.fill().await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}

pub(super) struct Writer<T> {
    half: WriteHalf<T>,
    /// What waits to be written.
    pub out: BytesMut,
    must_flush: bool,
    /// Bytes written so far.
    pub written: u64,
}

impl<T: AsyncWrite + Unpin> Writer<T> {
    pub(super) fn new(half: WriteHalf<T>) -> Self {
        Self { half, out: BytesMut::new(), must_flush: false, written: 0 }
    }

    pub(super) fn has_output(&self) -> bool {
        !self.out.is_empty() || self.must_flush
    }

    /// Writes everything that waits.
    pub(super) async fn write(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            let written = self.half.write_buf(&mut self.out).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.must_flush = true;
            self.written += written as u64;
        }
        self.half.flush().await?;
        self.must_flush = false;
        if self.out.capacity() > KEPT_BYTES {
            self.out = BytesMut::new();
        }
        Ok(())
    }

    /// Writes everything that waits and says that nothing follows (TLS close_notify, TCP FIN).
    pub(super) async fn shut_down(&mut self) -> io::Result<()> {
        self.write().await?;
        self.half.shutdown().await
    }
}
