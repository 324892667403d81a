//! Why a client is not admitted. Nothing secret is ever part of an error.

use x509_parser::error::X509Error;

use super::p521::UnsupportedKey;
use super::thumbprint::Thumbprint;

/// Why a client is not who it says. The text is for the log; the client only learns "not authorised".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The client id is no `device` or `device/module`.
    #[error("client id `{client_id}` is not device or device/module: {why}")]
    ClientId {
        client_id: String,
        /// What is wrong with it.
        why: String,
    },
    /// The user name is not `host/device[/module]/?api-version=…`.
    #[error("user name `{user_name}` is not host/device[/module]/?api-version=…")]
    UserName { user_name: String },
    /// User name and client id speak of different identities.
    #[error("the client id is {client_id}, the user name is {user_name}")]
    Mismatch {
        /// From the client id.
        client_id: String,
        /// From the user name.
        user_name: String,
    },
    /// The password is no SAS token.
    #[error("the password is not a SharedAccessSignature with sr, sig and se")]
    NotAToken,
    /// The token is for somebody or somewhere else.
    #[error("the token is for `{found}`, not for {expected}")]
    Audience { found: String, expected: String },
    /// The token is too old.
    #[error("the token expired {seconds} s ago; renew it and check both clocks")]
    Expired {
        /// Without the allowed clock skew.
        seconds: u64,
    },
    /// No key of the identity makes this signature.
    #[error("the signature was made with another key than {identity}'s")]
    Signature { identity: String },
    /// No certificate, or one that does not prove this identity.
    #[error("{identity} is not proven by certificate: {why}")]
    Certificate { identity: String, why: CertificateError },
}

/// Why a certificate does not prove what it was presented for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// A certificate, or one of its extensions, is not what X.509 says.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    #[error("certificate {number} cannot be an authority: {why}")]
    NoAuthority {
        /// Counted from 1.
        number: usize,
        why: Box<CertificateError>,
    },
    #[error(transparent)]
    Key(#[from] UnsupportedKey),
    /// Nobody is trusted to issue certificates.
    #[error("no authority that could have made it is configured")]
    NothingTrusted,
    /// Signature, dates or constraints of the chain are wrong.
    #[error("its chain does not hold: {0}")]
    Chain(webpki::Error),
    /// Its extended key usage lacks `clientAuth`.
    #[error("it is not made for clients (clientAuth)")]
    NotForClients,
    #[error("its URI is {uri}, which names another module")]
    OtherUri { uri: String },
    #[error("it has {count} URIs azureiot://…; write the module's alone")]
    Uris { count: usize },
    #[error("its common name is `{found}`")]
    OtherName { found: String },
    #[error("it has {count} common names; write {expected} as the only one")]
    Names {
        count: usize,
        /// For example "the device id".
        expected: &'static str,
    },
    /// Of a proof of possession.
    #[error("it was not signed with the key of the certificate that is to be verified")]
    NotSigned,
    #[error("it is not valid before {begins}")]
    NotYetValid { begins: String },
    #[error("it expired on {ended}")]
    Expired { ended: String },
    #[error("its thumbprint {found} is not one of those registered")]
    NotRegistered { found: Thumbprint },
    /// The client presented none.
    #[error("{0}")]
    Missing(&'static str),
}

impl From<X509Error> for CertificateError {
    fn from(error: X509Error) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl From<x509_parser::nom::Err<X509Error>> for CertificateError {
    fn from(error: x509_parser::nom::Err<X509Error>) -> Self {
        Self::Unreadable(error.to_string())
    }
}
