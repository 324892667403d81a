//! Why a client was refused, from the texts of this project's listeners.

/// Why a client was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// An operator blocked the device.
    Blocked,
    /// It waits for an operator's approval.
    NotApproved,
    /// The signature of its token was made with another key.
    WrongKey,
    /// Its token is too old.
    Expired,
    /// Its token is for another host or device.
    Audience,
    /// Its password or user name has not the form that is expected.
    Form,
    /// Its certificate is missing, unknown, expired or another one's.
    Certificate,
    /// The listener does not know the device.
    Unknown,
    /// It enrols itself, and may not.
    Enrolment,
    /// It tries too often.
    Throttled,
    Other,
}

/// An attempt to connect that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub refusal: Refusal,
    /// The listener's text.
    pub why: String,
    pub from: String,
    /// `central`, or the gateway.
    pub at: String,
    /// When last, in milliseconds since the Unix epoch.
    pub last_ms: u64,
    pub count: u64,
    /// Fingerprint of what it showed.
    pub proof: Option<String>,
}

impl Attempt {
    pub fn text(&self) -> String {
        let Self { why, from, at, count, proof, .. } = self;
        let times = if *count == 1 { String::new() } else { format!(", {count} times") };
        let shown = proof.as_ref().map(|proof| format!("; it showed {proof}")).unwrap_or_default();
        format!("refused at {at}, from {from}{times}: {why}{shown}")
    }
}

impl Refusal {
    /// Reads a listener's text.
    pub fn of(why: &str) -> Self {
        let has = |part: &str| why.contains(part);
        // The order counts: some texts have parts by which several kinds are known.
        if has("operator's approval") {
            Self::NotApproved
        } else if has("blocked") || has("disabled") {
            Self::Blocked
        } else if has("made with another key") {
            Self::WrongKey
        } else if has("the token expired") {
            Self::Expired
        } else if has("the token is for") {
            Self::Audience
        } else if has("not proven by certificate") || has("certificate") {
            Self::Certificate
        } else if has("not a SharedAccessSignature") || has("user name") || has("client id") {
            Self::Form
        } else if has("is not registered") || has("is not known") || has("unknown device") {
            Self::Unknown
        } else if has("too many") || has("too often") {
            Self::Throttled
        } else if has("enrol") || has("ID scope") {
            Self::Enrolment
        } else {
            Self::Other
        }
    }

    /// The id of the cause, its sentence, and what mends it.
    pub(super) fn texts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Blocked => ("blocked", "An operator blocked it.", "Unblock it."),
            Self::NotApproved => {
                ("waiting-for-approval", "It waits for an operator's approval.", "Approve it.")
            }
            Self::WrongKey => (
                "wrong-key",
                "It signs with another key than the one that is registered.",
                "Put the primary or secondary key of its connect page into the device, or register the key that it has.",
            ),
            Self::Expired => (
                "token-expired",
                "Its token has expired.",
                "Have it make a new token before the old one ends, and check both clocks.",
            ),
            Self::Audience => (
                "token-audience",
                "Its token is for another host or device.",
                "Make the token for the host name and device id of its connect page.",
            ),
            Self::Form => (
                "credentials-form",
                "Its user name, client id or password has not the form that is expected.",
                "Take the values of its connect page unchanged.",
            ),
            Self::Certificate => (
                "certificate",
                "Its certificate is not accepted: unknown, expired, or not its own.",
                "Register the thumbprint that it shows, or give it a certificate of an authority that is trusted here.",
            ),
            Self::Unknown => (
                "unknown-device",
                "The listener that it reaches does not know it.",
                "Register it under this id, and attach it to the gateway that it connects to.",
            ),
            Self::Enrolment => (
                "enrolment-refused",
                "It enrols itself, and was refused.",
                "Check its ID scope, the key or certificate of its group, and that the group is enabled.",
            ),
            Self::Throttled => (
                "throttled",
                "It tries to connect more often than is allowed.",
                "Have it wait longer after each failure, up to a minute, with some chance.",
            ),
            Self::Other => ("refused", "It was refused.", "The evidence has the listener's message."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_core::access::error::{AccessError, CertificateError};

    #[test]
    fn every_refusal_of_a_listener_is_read_as_what_it_is() {
        let text = || String::from("x");
        for (error, refusal) in [
            (AccessError::ClientId { client_id: text(), why: text() }, Refusal::Form),
            (AccessError::UserName { user_name: text() }, Refusal::Form),
            (AccessError::Mismatch { client_id: text(), user_name: text() }, Refusal::Form),
            (AccessError::NotAToken, Refusal::Form),
            (AccessError::Audience { found: text(), expected: text() }, Refusal::Audience),
            (AccessError::Expired { seconds: 5 }, Refusal::Expired),
            (AccessError::Signature { identity: text() }, Refusal::WrongKey),
            (
                AccessError::Certificate { identity: text(), why: CertificateError::NothingTrusted },
                Refusal::Certificate,
            ),
        ] {
            assert_eq!(Refusal::of(&error.to_string()), refusal, "{error}");
        }
        assert_eq!(Refusal::of("device `d` is not registered"), Refusal::Unknown);
        assert_eq!(Refusal::of("device `d` is blocked by an operator"), Refusal::Blocked);
        assert_eq!(Refusal::of("something new"), Refusal::Other);
    }
}
