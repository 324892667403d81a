//! TLS for the server and the link: who serves with which certificate, who is trusted, and the certificates that a site
//! without its own authority makes for itself.

mod client_certificate;
mod config;
mod error;
mod inspect;
mod issue;
pub mod keep;
#[cfg(test)]
mod p521_test;
mod pem;
mod provider;
mod served;
pub mod together;
pub mod trust;
mod watch;

pub use config::{client_config, client_config_showing, https_config_for, server_config, server_config_for};
pub use error::TlsError;
pub use inspect::{inspect, not_after_secs};
pub use issue::{Authority, Issued, Purpose, SERVER_LIFETIME, Wanted, issue, issue_ca, issue_server};
pub use pem::certificates;
pub use served::ServedCertificate;
pub use watch::WatchError;
