//! Certificates of both programs, and the files that hold them.
//!
//! | Module | Does |
//! |---|---|
//! | [`issue`] | makes a site's own certificate authority, and certificates that it signs |
//! | [`keep`] | reloads the server certificate when its files change, and renews the site's own before it expires |
//! | [`trust`] | reloads the certificate authorities of client certificates |
//! | [`inspect`], [`pem`] | read certificates |
//! | [`config`], [`served`] | configure rustls for servers and clients |
//! | [`input_file`] | reads a file that an operator names, up to a size limit |
//! | [`new_files`] | writes files that belong together, such as a certificate and its key: all of them or none |
//!
//! When a certificate is due, and which identity a client certificate proves, are decisions of `edge-core` (`certificate`,
//! `access::x509`); this crate does the I/O around them.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod client_certificate;
mod clock;
pub mod config;
pub mod error;
pub mod input_file;
pub mod inspect;
pub mod issue;
pub mod keep;
pub mod new_files;
#[cfg(test)]
mod p521_test;
pub mod pem;
mod provider;
pub mod served;
pub mod trust;
pub mod watch;
