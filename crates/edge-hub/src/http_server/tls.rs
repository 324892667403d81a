//! TLS of an HTTP listener: the handshake, and the answer to a client that speaks plain HTTP.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::stall::StallTimeout;

/// Type of the TLS record that begins a handshake (RFC 8446, section 5.1). No HTTP method begins with it.
const HANDSHAKE: u8 = 22;

const PLAIN_REFUSED: &str = "this port speaks HTTPS, and the request came over plain HTTP: write https:// instead of http://. \
     Whoever can read this network can have read the request and its token\n";

/// How a connection to a TLS listener began.
pub(super) enum Opened {
    Tls(Box<TlsStream<StallTimeout<TcpStream>>>),
    /// The client began with something else than a handshake, which is not read yet.
    Plain(TcpStream),
    /// The client closed it before it sent a byte, as health checks do.
    Closed,
}

/// Waits for the client's first byte, and for its handshake, until `deadline`.
pub(super) async fn open(
    tls: Arc<ServerConfig>,
    stream: TcpStream,
    stall_timeout: Duration,
    deadline: Instant,
) -> io::Result<Opened> {
    let opening = async {
        let mut first = [0];
        match stream.peek(&mut first).await? {
            0 => Ok(Opened::Closed),
            _ if first[0] != HANDSHAKE => Ok(Opened::Plain(stream)),
            _ => {
                let stream = StallTimeout::new(stream, stall_timeout);
                Ok(Opened::Tls(Box::new(TlsAcceptor::from(tls).accept(stream).await?)))
            }
        }
    };
    timeout_at(deadline, opening).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Answers every request with 400 and the reason.
pub(super) fn plain_refused() -> Router {
    Router::new().fallback(async || (StatusCode::BAD_REQUEST, PLAIN_REFUSED))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use edge_tls::config::{client_config, https_config_for};
    use edge_tls::issue::{issue_ca, issue_server};
    use edge_tls::served::ServedCertificate;
    use rustls::ClientConfig;
    use rustls::pki_types::ServerName;
    use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpSocket};
    use tokio::time::timeout;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;
    use tokio_util::sync::CancellationToken;

    use super::super::{HttpLimits, HttpServer};
    use super::*;

    const STEP: Duration = Duration::from_secs(20);

    /// Where a client leaves its connection.
    #[derive(Debug, Clone, Copy)]
    enum Left {
        Silent,
        RecordBegun,
        HelloHalf,
        HelloWhole,
        HandshakeDone,
        HeadHalf,
    }

    const LEFT: [Left; 6] = [
        Left::Silent,
        Left::RecordBegun,
        Left::HelloHalf,
        Left::HelloWhole,
        Left::HandshakeDone,
        Left::HeadHalf,
    ];

    struct Served {
        address: SocketAddr,
        client: Arc<ClientConfig>,
        stop: CancellationToken,
        running: tokio::task::JoinHandle<()>,
    }

    async fn serve(limits: HttpLimits, per_address: usize) -> Served {
        let ca = issue_ca("works").unwrap();
        let issued = issue_server(&ca, &["central.test".to_owned()]).unwrap();
        let served = ServedCertificate::new(issued.chain_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
        let tls = https_config_for(Arc::new(served)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let api = Router::new().route("/", get(async || "hello"));
        let server =
            HttpServer::new("test", limits).serve_tcp(listener, per_address, Some(tls), api, stop.clone());
        let client = client_config(ca.cert_pem.as_bytes()).unwrap();
        Served { address, client, stop, running: tokio::spawn(server) }
    }

    impl Served {
        async fn connect(&self, host: u8) -> TcpStream {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::from(([127, 0, 0, host], 0))).unwrap();
            socket.connect(self.address).await.unwrap()
        }

        async fn handshake(
            &self,
            host: u8,
            name: &str,
            protocols: &[&str],
        ) -> io::Result<TlsStream<TcpStream>> {
            let mut client = ClientConfig::clone(&self.client);
            client.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
            let name = ServerName::try_from(name.to_owned()).unwrap();
            let connecting = TlsConnector::from(Arc::new(client)).connect(name, self.connect(host).await);
            timeout(STEP, connecting).await.unwrap()
        }

        async fn ask(&self, host: u8) -> String {
            let mut stream = self.handshake(host, "central.test", &[]).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            timeout(STEP, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
            answer
        }

        /// A client's connection that goes on no further.
        async fn leave(&self, host: u8, left: Left) -> io::Result<Box<dyn Connection>> {
            let name = "central.test";
            if matches!(left, Left::HandshakeDone | Left::HeadHalf) {
                let mut stream = self.handshake(host, name, &[]).await?;
                if matches!(left, Left::HeadHalf) {
                    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").await?;
                }
                return Ok(Box::new(stream));
            }
            let name = ServerName::try_from(name).unwrap();
            let mut hello = Vec::new();
            rustls::ClientConnection::new(self.client.clone(), name).unwrap().write_tls(&mut hello).unwrap();
            let sent = match left {
                Left::Silent => &hello[..0],
                Left::RecordBegun => &hello[..1],
                Left::HelloHalf => &hello[..hello.len() / 2],
                _ => &hello,
            };
            let mut stream = self.connect(host).await;
            stream.write_all(sent).await?;
            Ok(Box::new(stream))
        }

        async fn end(self) {
            self.stop.cancel();
            timeout(STEP, self.running).await.unwrap().unwrap();
        }
    }

    trait Connection: AsyncRead + AsyncWrite + Unpin {}
    impl<T: AsyncRead + AsyncWrite + Unpin> Connection for T {}

    /// Waits until the server has closed a connection; what it sent before.
    async fn read_to_close(stream: &mut Box<dyn Connection>) -> Vec<u8> {
        let mut read = Vec::new();
        // Ended in order or not.
        let _ = timeout(STEP, stream.read_to_end(&mut read)).await.expect("it is closed");
        read
    }

    /// Bounds that no test waits for.
    fn limits(connections_max: usize) -> HttpLimits {
        HttpLimits { connections_max, head_timeout: STEP * 10, ..HttpLimits::default() }
    }

    #[tokio::test]
    async fn handshakes_left_at_any_step_keep_neither_their_own_address_nor_others_out() {
        for left in LEFT {
            let served = serve(limits(4), 2).await;
            let mut held = Vec::new();
            for _ in 0..12 {
                held.push(served.leave(7, left).await.unwrap());
            }
            for host in [7, 8] {
                let answer = served.ask(host).await;
                assert!(
                    answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"),
                    "{left:?}: {answer}"
                );
            }
            read_to_close(&mut held[0]).await;
            served.end().await;
        }
    }

    #[tokio::test]
    async fn handshake_and_head_together_have_the_time_of_a_head() {
        let short = HttpLimits { head_timeout: Duration::from_secs(2), ..HttpLimits::default() };
        let served = serve(short, 8).await;
        let ends = LEFT.map(|left| {
            let served = &served;
            async move {
                // On a machine that is slow enough the handshake itself is cut.
                let Ok(mut stream) = served.leave(7, left).await else { return };
                let read = read_to_close(&mut stream).await;
                assert!(!read.starts_with(b"HTTP/1.1 200"), "{left:?}");
            }
        });
        futures_util::future::join_all(ends).await;
        served.end().await;
    }

    #[tokio::test]
    async fn a_stop_waits_for_no_handshake() {
        let served = serve(limits(8), 8).await;
        let mut held = Vec::new();
        for left in LEFT {
            held.push(served.leave(7, left).await.unwrap());
        }
        served.end().await;
    }

    #[tokio::test]
    async fn plain_http_is_answered_with_400_and_what_to_write_instead() {
        let served = serve(limits(8), 8).await;
        for request in [
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "PUT /api/devices/a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
            "G",
        ] {
            let mut stream = served.connect(7).await;
            stream.write_all(request.as_bytes()).await.unwrap();
            if request == "G" {
                stream.write_all(b"ET / HTTP/1.0\r\n\r\n").await.unwrap();
            }
            let answer = read_to_close(&mut (Box::new(stream) as Box<dyn Connection>)).await;
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.0 400"), "{answer}");
            assert!(answer.contains("https://") && !answer.contains("hello"), "{answer}");
        }
        served.end().await;
    }

    #[tokio::test]
    async fn a_client_gets_http_1_1_under_the_certificates_name_and_no_other() {
        let served = serve(limits(8), 8).await;
        let both = served.handshake(7, "central.test", &["h2", "http/1.1"]).await.unwrap();
        assert_eq!(both.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
        assert!(served.handshake(7, "central.test", &["h2"]).await.is_err());
        let wrong = served.handshake(7, "other.test", &[]).await.unwrap_err().to_string();
        assert!(wrong.contains("other.test"), "{wrong}");
        assert!(served.ask(7).await.starts_with("HTTP/1.1 200"));
        served.end().await;
    }
}
