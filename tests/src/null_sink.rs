//! An upstream that takes everything and keeps nothing: MQTT 5 over TLS, every PUBLISH acknowledged at once. What a gateway
//! can send when nobody stores it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::raw;

/// The largest packet that it takes.
const PACKET_BYTES_MAX: usize = 1 << 20;

/// A running sink; it ends when it is dropped.
pub struct NullSink {
    acknowledged: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
    stop: tokio::sync::watch::Sender<bool>,
}

/// What it proves itself by, under the name `localhost`.
pub struct NullCertificate {
    key: rcgen::KeyPair,
    certificate: rcgen::Certificate,
}

impl NullCertificate {
    /// Makes one, and writes what a gateway must trust to `ca`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn make(ca: &Path) -> Result<Self> {
        let key = rcgen::KeyPair::generate()?;
        let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?;
        std::fs::write(ca, certificate.pem())?;
        Ok(Self { key, certificate })
    }
}

impl NullSink {
    /// Listens on a port of loopback, on a thread of its own.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(port: u16, by: &NullCertificate) -> Result<Self> {
        let NullCertificate { key, certificate } = by;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )?;
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).context("the null sink's port")?;
        listener.set_nonblocking(true)?;
        let acknowledged = Arc::new(AtomicU64::new(0));
        let (stop, mut stopped) = tokio::sync::watch::channel(false);
        let counted = acknowledged.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("null sink".into()).spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = TcpListener::from_std(listener) else { return };
                loop {
                    let stream = tokio::select! {
                        accepted = listener.accept() => match accepted {
                            Ok((stream, _)) => stream,
                            Err(_) => return,
                        },
                        _ = stopped.wait_for(|stopped| *stopped) => return,
                    };
                    let (acceptor, counted) = (acceptor.clone(), counted.clone());
                    tokio::spawn(async move {
                        if let Err(why) = serve(acceptor, stream, &counted).await {
                            println!("null sink: {why:#}");
                        }
                    });
                }
            });
        })?;
        Ok(Self { acknowledged, thread: Some(thread), stop })
    }

    /// Messages that it has acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }
}

impl Drop for NullSink {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(acceptor: TlsAcceptor, stream: tokio::net::TcpStream, counted: &AtomicU64) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = acceptor.accept(stream).await.context("TLS handshake")?;
    let (mut buffer, mut answers) = (Vec::with_capacity(256 * 1024), Vec::new());
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        let (mut done, mut messages) = (0, 0);
        while let Some((first, body, length)) = next(&buffer[done..])? {
            done += length;
            match first >> 4 {
                1 => answers.extend([0x20, 3, 0, 0, 0]),
                3 => {
                    let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                    answers.extend([0x40, 2, body[2 + topic], body[3 + topic]]);
                    messages += 1;
                }
                // What central says to a gateway that subscribes: that it has nothing of its queues.
                8 => {
                    answers.extend([0x90, 4, body[0], body[1], 0, 1]);
                    // The zero is its length of properties.
                    answers.extend(raw::publish("$ls/stored", 1, 1, b"\0{\"queues\":{}}"));
                }
                12 => answers.extend([0xd0, 0]),
                14 => return Ok(()),
                _ => {}
            }
        }
        buffer.drain(..done);
        stream.write_all(&answers).await?;
        stream.flush().await?;
        answers.clear();
        counted.fetch_add(messages, Ordering::Relaxed);
    }
}

/// The first packet: its first byte, its body, and its whole length; `None` when it is not all there.
fn next(bytes: &[u8]) -> Result<Option<(u8, &[u8], usize)>> {
    let (mut length, mut at) = (0_usize, 1);
    loop {
        let Some(byte) = bytes.get(at) else { return Ok(None) };
        length |= usize::from(byte & 0x7f) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
        if at > 4 {
            bail!("a length of more than four bytes");
        }
    }
    if length > PACKET_BYTES_MAX {
        bail!("a packet of {length} bytes");
    }
    Ok(bytes.get(at..at + length).map(|body| (bytes[0], body, at + length)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn packets_are_taken_apart_and_one_that_is_cut_waits() {
        let one = raw::publish("a/b", 1, 7, &[0; 300]);
        let both = [one.clone(), vec![0xc0, 0]].concat();
        let (first, body, length) = next(&both).unwrap().unwrap();
        assert_eq!((first, body.len(), length), (0x32, 307, one.len()));
        assert_eq!(next(&both[length..]).unwrap().unwrap(), (0xc0, &[][..], 2));
        assert_eq!(next(&one[..one.len() - 1]).unwrap(), None);
        assert!(next(&[0x32, 0xff, 0xff, 0xff, 0xff, 1]).is_err());
    }
}
