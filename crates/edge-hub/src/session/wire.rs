//! The two halves of a connection with their buffers. Both are safe to drop and call again at any await.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf, ReadHalf, WriteHalf};
use tokio::time::{Instant, timeout_at};

use mqtt::codec::error::ReadError;
use mqtt::codec::packet::{Packet, Version};
use mqtt::codec::read::{Read, connect_version, read};

/// Bytes that wait to be written to one client before its session stops adding to them.
pub(crate) const OUT_BYTES_MAX: usize = 64 * 1024;

/// How long a client that was sent "nothing follows" may take to close its side.
const DRAIN: Duration = Duration::from_secs(2);

/// What is read at once: from an idle client, and from a busy one.
const READ_BYTES: std::ops::RangeInclusive<usize> = 2 * 1024..=64 * 1024;
/// What is read at once without a buffer of its own.
const SMALL_BYTES: usize = *READ_BYTES.start();
/// A write buffer that grew beyond this is given back when it is empty.
const KEPT_BYTES: usize = 256;

pub(crate) struct Reader<T> {
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
    pub(crate) fn new(half: ReadHalf<T>) -> Self {
        Self { half, buffer: BytesMut::new(), chunk: *READ_BYTES.start(), missing: 0, version: Version::V4 }
    }

    /// The next packet that is here whole.
    pub(crate) fn packet(&mut self, bytes_max: usize) -> Result<Option<Packet>, ReadError> {
        match read(&mut self.buffer, self.version, bytes_max)? {
            Read::Packet(packet) => Ok(Some(packet)),
            Read::Missing(missing) => {
                self.missing = missing;
                Ok(None)
            }
        }
    }

    /// What was read and not taken yet, for a reader of another protocol.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The first byte that was read and not taken yet.
    pub(crate) fn first_byte(&self) -> Option<u8> {
        self.buffer.first().copied()
    }

    /// The version of the CONNECT that is first.
    pub(crate) fn connect_version(&self) -> Option<Version> {
        connect_version(&self.buffer)
    }

    /// Reads what is there; 0 is the end. A client that says little has no buffer while it says nothing.
    pub(crate) async fn fill(&mut self) -> io::Result<usize> {
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
    pub(crate) fn give_back_memory(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
            self.chunk = *READ_BYTES.start();
        }
    }

    /// Reads and throws away until the other side has closed.
    pub(crate) async fn drain(&mut self) {
        loop {
            self.buffer.clear();
            match self.fill().await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}

pub(crate) struct Writer<T> {
    half: WriteHalf<T>,
    /// What waits to be written.
    pub out: BytesMut,
    must_flush: bool,
    /// Bytes written so far.
    pub written: u64,
}

impl<T: AsyncWrite + Unpin> Writer<T> {
    pub(crate) fn new(half: WriteHalf<T>) -> Self {
        Self { half, out: BytesMut::new(), must_flush: false, written: 0 }
    }

    pub(crate) fn has_output(&self) -> bool {
        !self.out.is_empty() || self.must_flush
    }

    /// Writes everything that waits.
    pub(crate) async fn write(&mut self) -> io::Result<()> {
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
    pub(crate) async fn shut_down(&mut self) -> io::Result<()> {
        self.write().await?;
        self.half.shutdown().await
    }
}

/// Writes what waits, says that nothing follows, and reads until the client has closed too, so that no unread byte turns
/// the FIN into a reset.
pub(crate) async fn close<T>(reader: &mut Reader<T>, writer: &mut Writer<T>, deadline: Instant)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    if let Ok(Ok(())) = timeout_at(deadline, writer.shut_down()).await {
        let _ = timeout_at(deadline.min(Instant::now() + DRAIN), reader.drain()).await;
    }
}
