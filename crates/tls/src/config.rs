//! Configurations of rustls for each end of a connection: TLS versions, trusted authorities, certificates to present.

use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig};

use crate::client_certificate::OptionalClientCertificate;
use crate::error::TlsError;
use crate::pem::certificates;
use crate::provider::provider;
use crate::served::ServedCertificate;

/// Server end with a certificate that is never replaced. See [`server_config_for`].
///
/// # Errors
/// [`TlsError`] when the PEM cannot be read, or certificate and key do not fit.
pub fn server_config(cert_pem: &[u8], key_pem: &[u8]) -> Result<Arc<ServerConfig>, TlsError> {
    server_config_for(Arc::new(ServedCertificate::new(cert_pem, key_pem)?))
}

/// Server end for MQTT: TLS 1.2 (the newest that Azure's Python SDK offers) and 1.3. Clients may present a certificate; which
/// identity it proves is decided at CONNECT.
///
/// # Errors
/// [`TlsError::Unusable`] when the crypto library offers no such protocol version.
pub fn server_config_for(certificate: Arc<ServedCertificate>) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let clients = OptionalClientCertificate::new(provider.signature_verification_algorithms);
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(clients))
        .with_cert_resolver(certificate);
    Ok(Arc::new(config))
}

/// Server end for HTTPS: HTTP/1.1 by ALPN, TLS 1.2 and 1.3. Requests no client certificate, because browsers would show their
/// users a dialog to choose one.
///
/// # Errors
/// As for [`server_config_for`].
pub fn https_config_for(certificate: Arc<ServedCertificate>) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Client end that trusts only the authorities in `ca_pem` and presents no certificate.
///
/// # Errors
/// [`TlsError`] when the PEM holds no usable certificate.
pub fn client_config(ca_pem: &[u8]) -> Result<Arc<ClientConfig>, TlsError> {
    Ok(Arc::new(trusting(ca_pem)?.with_no_client_auth()))
}

/// Client end that trusts the authorities that this machine trusts: its certificate store, or `SSL_CERT_FILE` and `SSL_CERT_DIR`. They
/// are read anew each time.
///
/// # Errors
/// [`TlsError::NoCertificate`] when the machine trusts nobody.
pub fn client_config_of_machine() -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    // One that cannot be read is missed by the server that needs it alone.
    let (used, _ignored) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if used == 0 {
        return Err(TlsError::NoCertificate);
    }
    Ok(Arc::new(trusting_roots(roots)?.with_no_client_auth()))
}

/// As [`client_config`], and presents a certificate with its chain.
///
/// # Errors
/// [`TlsError`] when the PEM holds no usable certificate or key, or they are no pair.
pub fn client_config_showing(
    ca_pem: &[u8],
    cert_pem: &[u8],
    key_pem: &[u8],
) -> Result<Arc<ClientConfig>, TlsError> {
    let key = PrivateKeyDer::from_pem_slice(key_pem)?;
    Ok(Arc::new(trusting(ca_pem)?.with_client_auth_cert(certificates(cert_pem)?, key)?))
}

fn trusting(ca_pem: &[u8]) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca_pem)? {
        roots.add(certificate)?;
    }
    trusting_roots(roots)
}

fn trusting_roots(roots: RootCertStore) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issue::{issue_ca, issue_server};

    #[test]
    fn a_made_chain_serves_and_a_wrong_key_does_not() {
        let ca = issue_ca("site").unwrap();
        let names = ["gw1".to_owned(), "127.0.0.1".to_owned()];
        let issued = issue_server(&ca, &names).unwrap();
        assert_eq!(certificates(issued.chain_pem.as_bytes()).unwrap().len(), 2);
        server_config(issued.chain_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
        client_config(ca.cert_pem.as_bytes()).unwrap();
        let other = issue_server(&ca, &names).unwrap();
        assert!(matches!(
            server_config(issued.chain_pem.as_bytes(), other.key_pem.as_bytes()),
            Err(TlsError::Unusable(_))
        ));
        assert!(matches!(client_config(b"nothing"), Err(TlsError::NoCertificate)));
    }
}
