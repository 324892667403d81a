//! TLS as clients meet it: with and without a certificate of their own, old and new, and while the server's changes.

use std::sync::Arc;

use edge_hub::settings::MqttServerSettings;
use edge_tls::config::server_config_for;
use edge_tls::issue::{Authority, Issued, issue_ca, issue_server};
use edge_tls::served::ServedCertificate;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme, SupportedProtocolVersion, version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::site::{PATIENCE, Site};
use crate::wire::{CONNACK, connect};

/// Self-signed by `openssl x509 -req -signkey`: X.509 version 1. Certificate, then key.
const V1_DEVICE: &[u8] = include_bytes!("x509-v1-device.pem");

/// The first certificate of a PEM text.
fn first(pem: &[u8]) -> &str {
    const END: &str = "-----END CERTIFICATE-----\n";
    let text = std::str::from_utf8(pem).unwrap();
    &text[..text.find(END).unwrap() + END.len()]
}

pub(crate) fn issue(ca: &Authority) -> Issued {
    issue_server(ca, &["localhost".to_owned()]).unwrap()
}

/// Shows a certificate as it is told; rustls itself would look at it first.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A client that trusts `ca` and shows the certificate of `device` (certificates and key, PEM).
pub(crate) fn client(
    ca: &Authority,
    version: &'static SupportedProtocolVersion,
    device: Option<&[u8]>,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.cert_pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let Some(pem) = device else { return config.with_no_client_auth() };
    let chain = CertificateDer::pem_slice_iter(pem).map(Result::unwrap).collect();
    let key = any_supported_type(&PrivateKeyDer::from_pem_slice(pem).unwrap()).unwrap();
    config.with_client_cert_resolver(Arc::new(Shows(Arc::new(CertifiedKey::new(chain, key)))))
}

pub(crate) async fn handshake(site: &Site, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(site.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    timeout(PATIENCE, TlsConnector::from(Arc::new(config)).connect(name, stream)).await.unwrap()
}

/// Connects as MQTT client `d1`.
async fn open(site: &Site, config: ClientConfig) -> TlsStream<TcpStream> {
    let mut stream = handshake(site, config).await.unwrap();
    stream.write_all(&connect(0)).await.unwrap();
    answers(&mut stream, &CONNACK).await;
    stream
}

pub(crate) async fn answers(stream: &mut TlsStream<TcpStream>, expected: &[u8]) {
    let mut answer = vec![0; expected.len()];
    timeout(PATIENCE, stream.read_exact(&mut answer)).await.expect("no answer").unwrap();
    assert_eq!(answer, expected);
}

async fn site(ca: &Authority) -> (Site, Arc<ServedCertificate>) {
    let issued = issue(ca);
    let served = ServedCertificate::new(issued.chain_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
    let served = Arc::new(served);
    let config = server_config_for(served.clone()).unwrap();
    (Site::open_with(MqttServerSettings::default(), Some(config)).await, served)
}

#[tokio::test]
async fn a_client_may_show_a_certificate_of_anybody_or_none_in_both_versions_of_tls() {
    let ca = issue_ca("site").unwrap();
    let stranger = issue(&issue_ca("somebody else").unwrap());
    let stranger = format!("{}{}", stranger.chain_pem, stranger.key_pem);
    let (site, _) = site(&ca).await;
    for version in [&version::TLS12, &version::TLS13] {
        for (device, certificates) in [(None, 0), (Some(stranger.as_bytes()), 2), (Some(V1_DEVICE), 1)] {
            let client = open(&site, client(&ca, version, device)).await;
            let shown = site.program.shown.lock().unwrap().clone();
            assert_eq!(shown.as_ref().map_or(0, |shown| 1 + shown.intermediates().len()), certificates);
            let own = device.map(|pem| CertificateDer::from_pem_slice(pem).unwrap().to_vec());
            assert_eq!(shown.map(|shown| shown.leaf().to_vec()), own);
            drop(client);
        }
    }
    site.close().await;
}

#[tokio::test]
async fn a_certificate_without_its_key_ends_the_handshake() {
    let ca = issue_ca("site").unwrap();
    let (site, _) = site(&ca).await;
    let own_key = issue(&ca).key_pem;
    let stolen = issue(&ca).chain_pem;
    for stolen in [V1_DEVICE, stolen.as_bytes()] {
        let thief = format!("{}{own_key}", first(stolen));
        for version in [&version::TLS12, &version::TLS13] {
            let config = client(&ca, version, Some(thief.as_bytes()));
            // In TLS 1.3 the client is done before the server has looked.
            let ended = match handshake(&site, config).await {
                Err(error) => error,
                Ok(mut stream) => {
                    stream.write_all(&connect(0)).await.unwrap();
                    timeout(PATIENCE, stream.read_u8()).await.expect("not refused").unwrap_err()
                }
            };
            assert!(ended.to_string().contains("alert"), "{ended}");
        }
    }
    assert!(site.program.shown.lock().unwrap().is_none());
    site.close().await;
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections_and_the_old_ones_go_on() {
    let (old_ca, new_ca) = (issue_ca("old").unwrap(), issue_ca("new").unwrap());
    let (site, served) = site(&old_ca).await;
    let mut before = open(&site, client(&old_ca, &version::TLS13, None)).await;
    let new = issue(&new_ca);
    assert!(served.replace(new.chain_pem.as_bytes(), new.key_pem.as_bytes()).unwrap());
    assert!(!served.replace(new.chain_pem.as_bytes(), new.key_pem.as_bytes()).unwrap(), "the same one");
    // What cannot be used changes nothing.
    assert!(served.replace(new.chain_pem.as_bytes(), issue(&new_ca).key_pem.as_bytes()).is_err());
    assert!(served.replace(b"half a fi", new.key_pem.as_bytes()).is_err());

    before.write_all(b"\xc0\0").await.unwrap();
    answers(&mut before, b"\xd0\0").await;
    handshake(&site, client(&new_ca, &version::TLS13, None)).await.unwrap();
    assert!(handshake(&site, client(&old_ca, &version::TLS13, None)).await.is_err());
    drop(before);
    site.close().await;
}
