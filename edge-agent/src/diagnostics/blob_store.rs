//! Puts a file into a container of blobs, with the one request that Azure's blob storage and others have for it: an HTTPS PUT.
//! Source: Azure Storage, Put Blob.
//!
//! Guarantees: a store that takes nothing and answers nothing for [`BlobStore::silence_max`] ends the upload. No error shows the URL.

use std::fs::File;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use edge_core::upload::sas_url::SasUrl;
use edge_tls::config::client_config_of_machine;
use edge_tls::error::TlsError;
use futures_util::stream::try_unfold;
use http_body_util::StreamBody;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use mqtt::client::{ByteStream, ConnectError, Destination, Transport, dial};
use tokio::io::AsyncReadExt as _;
use tokio::time::Instant;

use super::spool::Spool;
use crate::config::ProxyChoice;

/// For TCP, proxy and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a store may take no byte and give no answer.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How often within [`SILENCE_MAX`] is seen whether a store took something.
const SILENCE_PARTS: u32 = 12;
/// Bytes that are read from disk and written at once.
const PART_BYTES: usize = 64 * 1024;
/// Where Azure says more than the status does: `AuthenticationFailed`.
const ERROR_CODE: &str = "x-ms-error-code";
const ERROR_CODE_CHARS_MAX: usize = 64;

/// The way to stores. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BlobStore {
    pub proxy: ProxyChoice,
    /// [`SILENCE_MAX`].
    pub silence_max: Duration,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobForm {
    pub content_type: &'static str,
    pub is_gzip: bool,
}

/// Why a file is not in the store.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    #[error("reading the certificate authorities that this machine trusts; install ca-certificates")]
    Trust(#[source] TlsError),
    #[error("connecting to {store}")]
    Connect {
        store: String,
        #[source]
        source: ConnectError,
    },
    #[error("reading the file")]
    File(#[source] io::Error),
    #[error("making the request")]
    Request(#[source] hyper::http::Error),
    #[error("exchanging HTTP with {store}")]
    Http {
        store: String,
        #[source]
        source: hyper::Error,
    },
    #[error("{store} answered {status}{code}")]
    Answered {
        store: String,
        status: u16,
        /// A blank and Azure's code, or nothing.
        code: String,
    },
    #[error("{store} took nothing and did not answer for {} s", silence.as_secs_f32())]
    Silent { store: String, silence: Duration },
}

impl PutError {
    /// Returns true if the same request may succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { source, .. } => !matches!(source, ConnectError::Tls(_)),
            Self::Http { .. } => true,
            Self::Answered { status, .. } => matches!(status, 408 | 429 | 500..),
            Self::Trust(_) | Self::File(_) | Self::Request(_) | Self::Silent { .. } => false,
        }
    }
}

impl BlobStore {
    /// Puts a file under a name, instead of what has this name.
    ///
    /// # Errors
    /// [`PutError`].
    pub async fn put(&self, to: &SasUrl, name: &str, spool: &Spool, form: BlobForm) -> Result<(), PutError> {
        let stream = self.connect(to).await?;
        let sent = Arc::new(AtomicU64::new(0));
        let body = body(spool.reader().map_err(PutError::File)?, sent.clone());
        let request = Request::put(to.target(name))
            .header(HOST, to.authority())
            .header(CONTENT_LENGTH, spool.size_bytes())
            .header(CONTENT_TYPE, form.content_type)
            .header("x-ms-blob-type", "BlockBlob")
            .header("x-ms-blob-content-type", form.content_type);
        // Not `Content-Encoding`: a store that knows only HTTP would unpack the file.
        let request =
            if form.is_gzip { request.header("x-ms-blob-content-encoding", "gzip") } else { request };
        let request = request.body(body).map_err(PutError::Request)?;
        let mut exchange = pin!(exchange(stream, request));
        let (mut sent_before, mut taken) = (0, Instant::now());
        let answer = loop {
            match tokio::time::timeout(self.silence_max / SILENCE_PARTS, &mut exchange).await {
                Ok(answer) => break answer,
                Err(_) => {
                    let sent_now = sent.load(Ordering::Relaxed);
                    if sent_now != sent_before {
                        (sent_before, taken) = (sent_now, Instant::now());
                    } else if taken.elapsed() >= self.silence_max {
                        return Err(PutError::Silent { store: to.to_string(), silence: self.silence_max });
                    }
                }
            }
        };
        let answer = answer.map_err(|source| PutError::Http { store: to.to_string(), source })?;
        if answer.status().is_success() {
            return Ok(());
        }
        let (status, code) = (answer.status().as_u16(), error_code(answer.headers()));
        Err(PutError::Answered { store: to.to_string(), status, code })
    }

    async fn connect(&self, to: &SasUrl) -> Result<ByteStream, PutError> {
        let transport = if to.is_https() {
            let tls = tokio::task::spawn_blocking(client_config_of_machine);
            Transport::Tls(tls.await.expect("it does not panic").map_err(PutError::Trust)?)
        } else {
            Transport::Plain
        };
        // A proxy would look for its own machine.
        let proxy = if to.is_loopback() { None } else { self.proxy.for_server(to.host(), to.port()) };
        let destination = Destination {
            host: to.host(),
            port: to.port(),
            transport: &transport,
            proxy: proxy.as_ref(),
            connect_timeout: CONNECT_TIMEOUT,
        };
        dial(destination).await.map_err(|source| PutError::Connect { store: to.to_string(), source })
    }
}

/// A file as the body of a request; `sent` counts what was read of it.
fn body(file: File, sent: Arc<AtomicU64>) -> impl Body<Data = Bytes, Error = io::Error> + Send {
    let parts = try_unfold(tokio::fs::File::from_std(file), move |mut file| {
        let sent = sent.clone();
        async move {
            let mut part = vec![0; PART_BYTES];
            let length = file.read(&mut part).await?;
            part.truncate(length);
            sent.fetch_add(length as u64, Ordering::Relaxed);
            Ok((length > 0).then(|| (Frame::data(Bytes::from(part)), file)))
        }
    });
    StreamBody::new(parts)
}

/// Sends a request and receives the head of its answer. hyper reads and writes only while its connection is polled.
async fn exchange<B>(stream: ByteStream, request: Request<B>) -> hyper::Result<Response<Incoming>>
where
    B: Body<Data = Bytes, Error = io::Error> + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let (mut answer, connection) = (pin!(sender.send_request(request)), pin!(connection));
    tokio::select! {
        // What was received before the connection ended comes first.
        biased;
        answer = &mut answer => return answer,
        _ = connection => {}
    }
    answer.await
}

/// Azure's code for an error, after a blank. Letters and digits alone: the text of a store is not ours to repeat.
fn error_code(headers: &HeaderMap) -> String {
    let code = headers.get(ERROR_CODE).and_then(|code| code.to_str().ok()).unwrap_or_default();
    let code: String = code.chars().filter(char::is_ascii_alphanumeric).take(ERROR_CODE_CHARS_MAX).collect();
    if code.is_empty() { code } else { format!(" {code}") }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use edge_core::error_chain::chain;
    use serde_json::json;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// Longer than any test waits, except where it means to.
    const PATIENT: Duration = Duration::from_secs(60);

    /// Puts a file of 9 bytes into a store that answers so, and then closes the connection or keeps it open.
    async fn put(
        answer: &'static str,
        is_closed: bool,
        silence_max: Duration,
    ) -> (String, Result<(), PutError>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let store = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"some text") {
                // One that waits for a moment alone may have gone.
                let Ok(byte) = stream.read_u8().await else { break };
                request.push(byte);
            }
            let _is_gone = stream.write_all(answer.as_bytes()).await;
            if !is_closed {
                // Until the client closes it.
                let _ = stream.read_u8().await;
            }
            String::from_utf8(request).unwrap()
        });
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(dir.path(), 0).unwrap();
        spool.write_all(b"some text").unwrap();
        let to = SasUrl::read(Some(&json!(format!("http://127.0.0.1:{port}/s3cr3t?sig=s3cr3t")))).unwrap();
        let form = BlobForm { content_type: "text/plain", is_gzip: true };
        let put =
            BlobStore { proxy: ProxyChoice::None, silence_max }.put(&to, "hub/gw/a.log", &spool, form).await;
        (store.await.unwrap(), put)
    }

    #[tokio::test]
    async fn a_file_is_put_as_a_block_blob_with_its_length() {
        let (request, put) = put("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", false, PATIENT).await;
        put.unwrap();
        assert!(request.starts_with("PUT /s3cr3t/hub/gw/a.log?sig=s3cr3t HTTP/1.1\r\n"), "{request}");
        let lower = request.to_ascii_lowercase();
        for header in [
            "content-length: 9",
            "x-ms-blob-type: blockblob",
            "x-ms-blob-content-type: text/plain",
            "x-ms-blob-content-encoding: gzip",
        ] {
            assert!(lower.contains(&format!("\r\n{header}\r\n")), "{header} in {request}");
        }
        assert!(!lower.contains("\r\ncontent-encoding") && !lower.contains("transfer-encoding"), "{request}");
    }

    #[tokio::test]
    async fn what_a_store_does_wrong_is_named_and_only_what_may_pass_is_tried_again() {
        let moment = Duration::from_millis(200);
        for (answer, is_closed, silence_max, expected, is_transient) in [
            (
                "HTTP/1.1 403 s3cr3t\r\nx-ms-error-code: Auth<Failed>\r\nContent-Length: 6\r\n\r\ns3cr3t",
                false,
                PATIENT,
                " answered 403 AuthFailed",
                false,
            ),
            (
                "HTTP/1.1 302 x\r\nLocation: https://s3cr3t/\r\nContent-Length: 0\r\n\r\n",
                true,
                PATIENT,
                " answered 302",
                false,
            ),
            ("HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n", true, PATIENT, " answered 503", true),
            ("HTTP/1.1 429 x\r\nContent-Length: 0\r\n\r\n", true, PATIENT, " answered 429", true),
            ("", true, PATIENT, "exchanging HTTP with http://127.0.0.1:", true),
            ("SSH-2.0-s3cr3t\r\n\r\n", false, PATIENT, "exchanging HTTP with http://127.0.0.1:", true),
            ("", false, moment, " took nothing and did not answer for 0.2 s", false),
            ("HTTP/1.1 201 Crea", false, moment, " took nothing and did not answer for 0.2 s", false),
        ] {
            let (_, put) = put(answer, is_closed, silence_max).await;
            let error = put.unwrap_err();
            let shown = chain(&error).to_string();
            assert!(shown.contains(expected) && !shown.contains("s3cr3t"), "{answer:?}: {shown}");
            assert_eq!(error.is_transient(), is_transient, "{shown}");
        }
    }

    #[tokio::test]
    async fn a_store_and_a_proxy_that_are_not_there_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::create(dir.path(), 0).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone = listener.local_addr().unwrap();
        drop(listener);
        let proxy = mqtt::client::Proxy::parse(&format!("http://u:s3cr3t@{gone}")).unwrap();
        let store = BlobStore { proxy: ProxyChoice::Named(proxy), silence_max: PATIENT };
        let form = BlobForm { content_type: "text/plain", is_gzip: false };
        for (url, expected) in [
            (format!("http://{gone}/s3cr3t"), format!("connecting to http://{gone}: ")),
            // This machine is reached without the proxy, another one through it.
            (
                "https://store.invalid/s3cr3t".to_owned(),
                format!("connecting to https://store.invalid: proxy http://{gone}: "),
            ),
        ] {
            let to = SasUrl::read(Some(&json!(url))).unwrap();
            let error = store.put(&to, "a", &spool, form).await.unwrap_err();
            let shown = chain(&error).to_string();
            assert!(shown.starts_with(&expected) && !shown.contains("s3cr3t"), "{shown}");
            assert!(error.is_transient(), "{shown}");
        }
    }
}
