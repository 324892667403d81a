//! Keys on the curve P-521 at both ends of TLS, ours and OpenSSL's.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, Stream,
    SupportedProtocolVersion,
};

use crate::client_certificate::OptionalClientCertificate;
use crate::config::{client_config_showing, server_config};
use crate::issue::{Authority, issue_ca, issue_server};
use crate::pem::certificates;
use crate::provider::provider;

const CA: &[u8] = include_bytes!("../../edge-core/testdata/p521/ca.pem");
const SERVER: &[u8] = include_bytes!("../../edge-core/testdata/p521/server.pem");
const SERVER_KEY: &[u8] = include_bytes!("../../edge-core/testdata/p521/server.key.pem");
const SERVER_KEY_SEC1: &[u8] = include_bytes!("../../edge-core/testdata/p521/server.sec1.pem");
const DEVICE: &[u8] = include_bytes!("../../edge-core/testdata/p521/device.sha512.pem");
const DEVICE_KEY: &[u8] = include_bytes!("../../edge-core/testdata/p521/device.key.pem");

static VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// A client of one version with a certificate.
fn client(version: &'static SupportedProtocolVersion, cert: &[u8], key: &[u8]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificates(CA).unwrap().remove(0)).unwrap();
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key).unwrap();
    builder.with_root_certificates(roots).with_client_auth_cert(certificates(cert).unwrap(), key).unwrap()
}

/// Performs a handshake without a network; returns the certificates that the client presented.
fn handshake(
    client: ClientConfig,
    server: Arc<ServerConfig>,
) -> Result<Vec<CertificateDer<'static>>, rustls::Error> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name)?;
    let mut server = ServerConnection::new(server)?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut sent = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut sent).unwrap();
        }
        let mut sent = sent.as_slice();
        while !sent.is_empty() {
            server.read_tls(&mut sent).unwrap();
            server.process_new_packets()?;
        }
        let mut sent = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut sent).unwrap();
        }
        let mut sent = sent.as_slice();
        while !sent.is_empty() {
            client.read_tls(&mut sent).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(server.peer_certificates().unwrap_or_default().to_vec())
}

#[test]
fn a_server_and_a_client_with_keys_on_p521_prove_themselves_to_each_other_in_both_versions_of_tls() {
    for version in VERSIONS {
        for key in [SERVER_KEY, SERVER_KEY_SEC1] {
            let server = server_config(SERVER, key).unwrap();
            let shown = handshake(client(version, DEVICE, DEVICE_KEY), server).unwrap();
            assert_eq!(shown, certificates(DEVICE).unwrap(), "{version:?}");
        }
    }
    client_config_showing(CA, DEVICE, DEVICE_KEY).unwrap();
    assert!(server_config(SERVER, DEVICE_KEY).is_err(), "another key than the certificate's");
}

#[test]
fn a_client_whose_signature_is_on_another_curve_than_its_certificate_is_rejected() {
    // The certificate of a P-521 key, and a signature of a P-256 key.
    let own = issue_ca("other").unwrap();
    let key = PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes()).unwrap();
    let key = provider().key_provider.load_private_key(key).unwrap();
    let certified = rustls::sign::CertifiedKey::new(certificates(DEVICE).unwrap(), key);
    for version in VERSIONS {
        let mut client = client(version, DEVICE, DEVICE_KEY);
        client.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified.clone()));
        assert!(handshake(client, server_config(SERVER, SERVER_KEY).unwrap()).is_err(), "{version:?}");
    }
}

#[test]
fn an_authority_on_p521_signs_nothing_and_the_error_names_the_curve() {
    let text = |pem: &[u8]| String::from_utf8(pem.to_vec()).unwrap();
    let key = include_bytes!("../../edge-core/testdata/p521/ca.key.pem");
    let authority = Authority { cert_pem: text(CA), key_pem: text(key) };
    for error in [authority.check().err(), issue_server(&authority, &["gw".to_owned()]).err()] {
        let why = error.unwrap().to_string();
        assert!(why.contains("P-521") && why.contains("P-256"), "{why}");
    }
}

#[test]
fn a_client_certificate_with_a_key_that_nothing_checks_is_refused_with_its_curve() {
    let of_k1 = include_bytes!("../../edge-core/testdata/p521/secp256k1.pem");
    let verifier = OptionalClientCertificate::new(provider().signature_verification_algorithms);
    let der = certificates(of_k1).unwrap().remove(0);
    let now = rustls::pki_types::UnixTime::now();
    let refused = rustls::server::danger::ClientCertVerifier::verify_client_cert(&verifier, &der, &[], now);
    let why = refused.unwrap_err().to_string();
    assert!(why.contains("secp256k1") && why.contains("P-521"), "{why}");
}

#[test]
fn openssl_accepts_our_signature_on_p521_and_we_accept_its_own() {
    if Command::new("openssl").arg("version").output().is_err() {
        println!("skipped: there is no openssl on this machine");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let (ca, cert, key) = (path("ca", CA), path("cert", DEVICE), path("key", DEVICE_KEY));
    for version in ["-tls1_2", "-tls1_3"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut openssl = Command::new("openssl")
            .args(["s_client", version, "-verify_return_error", "-quiet", "-ign_eof", "-connect", &address])
            .arg("-CAfile")
            .arg(&ca)
            .arg("-cert")
            .arg(&cert)
            .arg("-key")
            .arg(&key)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut socket, _) = listener.accept().unwrap();
        let mut server = ServerConnection::new(server_config(SERVER, SERVER_KEY).unwrap()).unwrap();
        let written = Stream::new(&mut server, &mut socket).write_all(b"proven\n");
        assert!(written.is_ok(), "{version}: {written:?}");
        // OpenSSL adds the authority in TLS 1.2.
        assert_eq!(server.peer_certificates().unwrap()[0], certificates(DEVICE).unwrap()[0], "{version}");
        server.send_close_notify();
        let _ = Stream::new(&mut server, &mut socket).flush();
        drop(socket);
        let mut heard = String::new();
        openssl.stdout.take().unwrap().read_to_string(&mut heard).unwrap();
        openssl.wait().unwrap();
        assert_eq!(heard, "proven\n", "{version}");
    }
}
