//! Why a client is not let in. Nothing secret is ever part of an error.

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
    #[error("client id says {client_id}, user name says {user_name}")]
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
    Certificate { identity: String, why: String },
}
