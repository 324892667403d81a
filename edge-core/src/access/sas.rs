//! SAS tokens: whether one proves who a client says it is, and how one is made.
//!
//! Source: IoT Hub "Control access with shared access signatures"; edgeHub's rules for audiences (docs/protocol.md).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use schemas::names::Identity;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::error::AccessError;
use super::proof::Mark;

/// Clocks may differ by this much: edgeHub's five minutes.
const CLOCK_SKEW_SECS: u64 = 300;

/// Characters that a SAS resource keeps as they are: RFC 3986 "unreserved".
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A token that proves its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// As it stands in the token, in seconds since the Unix epoch.
    pub expires_at: u64,
    /// Of the key that it was made with.
    pub key: Mark,
}

impl Token {
    /// When nobody accepts it any more, clock skew included; seconds since the Unix epoch.
    pub fn ends_at(&self) -> u64 {
        self.expires_at.saturating_add(CLOCK_SKEW_SECS)
    }
}

/// Proves a SAS token for `identity`.
///
/// `hosts` are the names that the token's resource may carry (compared without case); `keys` are tried in order.
/// A module may present a token for itself, or one for its device.
///
/// # Errors
/// [`AccessError`]: no token, another audience, another key, or expired by more than five minutes. `Expired` is only said of
/// a token that one of `keys` made.
pub fn verify(
    token: &str,
    identity: &Identity,
    hosts: &[&str],
    keys: &[&[u8]],
    now_secs: u64,
) -> Result<Token, AccessError> {
    let of_device = format!("devices/{}", identity.device);
    let of_module = identity.module.as_ref().map(|module| format!("{of_device}/modules/{module}"));
    let is_audience = |resource: &str| {
        let (host, path) = resource.split_once('/').unwrap_or((resource, ""));
        hosts.iter().any(|h| h.eq_ignore_ascii_case(host))
            && (path.eq_ignore_ascii_case(&of_device)
                || of_module.as_ref().is_some_and(|module| path.eq_ignore_ascii_case(module)))
    };
    verify_for(token, &identity.to_string(), is_audience, keys, now_secs)
}

/// Proves a SAS token for any resource; `who` is for the error only.
///
/// # Errors
/// As [`verify`].
pub fn verify_for(
    token: &str,
    who: &str,
    is_audience: impl Fn(&str) -> bool,
    keys: &[&[u8]],
    now_secs: u64,
) -> Result<Token, AccessError> {
    let fields = token.strip_prefix("SharedAccessSignature ").ok_or(AccessError::NotAToken)?;
    let field = |name: &str| {
        fields.split('&').find_map(|pair| pair.split_once('=').filter(|(k, _)| *k == name)).map(|(_, v)| v)
    };
    let (Some(resource), Some(signature), Some(expiry)) = (field("sr"), field("sig"), field("se")) else {
        return Err(AccessError::NotAToken);
    };
    let expires_at: u64 = expiry.parse().map_err(|_| AccessError::NotAToken)?;
    let decoded = percent_decode_str(resource).decode_utf8().map_err(|_| AccessError::NotAToken)?;
    if !is_audience(&decoded) {
        return Err(AccessError::Audience { found: decoded.into_owned(), expected: who.to_owned() });
    }
    let signature = percent_decode_str(signature).decode_utf8().map_err(|_| AccessError::NotAToken)?;
    let signature = STANDARD.decode(signature.as_bytes()).map_err(|_| AccessError::NotAToken)?;
    let signed = format!("{resource}\n{expiry}");
    // The signature first: `Expired` then says that only time speaks against the token, which a caller may wait for.
    let key = keys.iter().find(|key| bool::from(sign(key, signed.as_bytes()).ct_eq(&signature)));
    let Some(key) = key else { return Err(AccessError::Signature { identity: who.to_owned() }) };
    if expires_at.saturating_add(CLOCK_SKEW_SECS) < now_secs {
        return Err(AccessError::Expired { seconds: now_secs - expires_at });
    }
    Ok(Token { expires_at, key: Mark::of(key) })
}

/// Makes a SAS token for `identity` at `host`, valid until `expires_at` (seconds since the Unix epoch).
pub fn token(host: &str, identity: &Identity, key: &[u8], expires_at: u64) -> String {
    let resource = format!("{host}/{}", schemas::topics::identity_prefix(identity));
    let resource = utf8_percent_encode(&resource, ENCODED).to_string();
    let signature = STANDARD.encode(sign(key, format!("{resource}\n{expires_at}").as_bytes()));
    format!(
        "SharedAccessSignature sr={resource}&sig={}&se={expires_at}",
        utf8_percent_encode(&signature, ENCODED)
    )
}

/// HMAC-SHA256, as SAS signatures and the workload API's `sign` use it.
pub fn sign(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn id(text: &str) -> Identity {
        text.parse().unwrap()
    }

    #[test]
    fn a_token_proves_its_own_identity_only() {
        let made = token("hub.net", &id("d"), b"key", NOW + 60);
        let proven = Ok(Token { expires_at: NOW + 60, key: Mark::of(b"key") });
        let verify =
            |who: &str, hosts: &[&str], keys: &[&[u8]], now| super::verify(&made, &id(who), hosts, keys, now);
        assert_eq!(verify("d", &["HUB.net"], &[b"other", b"key"], NOW), proven);
        assert_eq!(verify("d/m", &["hub.net"], &[b"key"], NOW), proven, "a module may use its device's");
        assert!(matches!(verify("e", &["hub.net"], &[b"key"], NOW), Err(AccessError::Audience { .. })));
        assert!(matches!(verify("d", &["gw"], &[b"key"], NOW), Err(AccessError::Audience { .. })));
        assert!(matches!(verify("d", &["hub.net"], &[b"other"], NOW), Err(AccessError::Signature { .. })));
        assert!(matches!(verify("d", &["hub.net"], &[], NOW), Err(AccessError::Signature { .. })));
        assert_eq!(verify("d", &["hub.net"], &[b"key"], NOW + 60 + 300), proven);
        assert_eq!(
            verify("d", &["hub.net"], &[b"key"], NOW + 361),
            Err(AccessError::Expired { seconds: 301 })
        );
    }

    #[test]
    fn only_a_token_that_a_known_key_made_is_called_expired() {
        let made = token("hub", &id("d"), b"key", NOW);
        let verify = |token: &str, key: &[u8], now| super::verify(token, &id("d"), &["hub"], &[key], now);
        let later = NOW + 1_000;
        assert_eq!(verify(&made, b"key", later), Err(AccessError::Expired { seconds: 1_000 }));
        let other_key = Err(AccessError::Signature { identity: "d".into() });
        assert_eq!(verify(&made, b"other", later), other_key);
        // Neither does a token come back to life by another expiry.
        let stretched = made.replace(&format!("se={NOW}"), &format!("se={later}"));
        assert_eq!(verify(&stretched, b"key", later), other_key);
        let unreadable = made.replace("&sig=", "&sig=!");
        assert_eq!(verify(&unreadable, b"key", later), Err(AccessError::NotAToken));
    }

    #[test]
    fn a_token_may_carry_its_fields_in_any_order_and_a_broken_one_is_refused() {
        let made = token("hub", &id("d/m"), b"key", NOW);
        let fields: Vec<&str> = made.strip_prefix("SharedAccessSignature ").unwrap().split('&').collect();
        let turned = format!("SharedAccessSignature {}&skn=&{}&{}", fields[2], fields[1], fields[0]);
        assert_eq!(verify(&turned, &id("d/m"), &["hub"], &[b"key"], NOW).map(|t| t.expires_at), Ok(NOW));
        for broken in
            ["", "password", "SharedAccessSignature sr=hub", "SharedAccessSignature sr=a&sig=b&se=soon"]
        {
            assert_eq!(
                verify(broken, &id("d"), &["hub"], &[b"key"], NOW),
                Err(AccessError::NotAToken),
                "{broken}"
            );
        }
    }
}
