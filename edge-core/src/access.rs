//! Who a client claims to be, and whether its SAS token proves it.
//!
//! Sources: IoT Hub "Control access with shared access signatures"; edgeHub's rules for user names and audiences
//! (docs/protocol.md). Nothing secret is ever part of an error.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use schemas::names::Identity;
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Clocks may differ by this much: edgeHub's five minutes.
const CLOCK_SKEW_SECS: u64 = 300;

/// Characters that a SAS resource keeps as they are: RFC 3986 "unreserved".
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why a client is not who it says. The text is for the log; the client only learns "not authorised".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The client id is no `device` or `device/module`.
    #[error("client id `{client_id}` is not device or device/module: {why}")]
    ClientId {
        /// As it came.
        client_id: String,
        /// What is wrong with it.
        why: String,
    },
    /// The user name is not `host/device[/module]/?api-version=…`.
    #[error("user name `{user_name}` is not host/device[/module]/?api-version=…")]
    UserName {
        /// As it came.
        user_name: String,
    },
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
    Audience {
        /// The token's resource.
        found: String,
        /// Who connects.
        expected: String,
    },
    /// The token is too old.
    #[error("the token expired {seconds} s ago; renew it and check both clocks")]
    Expired {
        /// Without the allowed clock skew.
        seconds: u64,
    },
    /// No key of the identity makes this signature.
    #[error("the signature was made with another key than {identity}'s")]
    Signature {
        /// Who connects.
        identity: String,
    },
}

/// Who a CONNECT claims to be, from its client id and user name.
///
/// # Errors
/// [`AccessError`] when either cannot be read or they differ. The user name's host is not compared with anything
/// (edgeHub does not either: SDKs put the hub there, Node with X.509 the gateway).
pub fn claim(client_id: &str, user_name: Option<&str>) -> Result<Identity, AccessError> {
    let identity: Identity = client_id
        .parse()
        .map_err(|why| AccessError::ClientId { client_id: client_id.to_owned(), why: format!("{why}") })?;
    let user_name = user_name.unwrap_or("");
    let wrong = || AccessError::UserName { user_name: user_name.to_owned() };
    // SDK user agents carry percent-encoded text after the first `/?`; older ones put the query without `?`.
    let (path, query) = match user_name.split_once("/?") {
        Some(parts) => parts,
        None => user_name
            .rsplit_once('/')
            .filter(|(_, query)| query.contains("api-version="))
            .ok_or_else(wrong)?,
    };
    let has_version =
        query.split('&').any(|pair| pair.strip_prefix("api-version=").is_some_and(|v| !v.is_empty()));
    let (_host, id) = path.split_once('/').filter(|_| has_version).ok_or_else(wrong)?;
    match id == client_id {
        true => Ok(identity),
        false => Err(AccessError::Mismatch { client_id: client_id.to_owned(), user_name: id.to_owned() }),
    }
}

/// Proves a SAS token for `identity` and gives its expiry in seconds since the Unix epoch.
///
/// `hosts` are the names that the token's resource may carry (compared without case); `keys` are tried in order.
/// A module may present a token for itself, or one for its device.
///
/// # Errors
/// [`AccessError`]: no token, another audience, expired by more than five minutes, or another key.
pub fn verify_sas(
    token: &str,
    identity: &Identity,
    hosts: &[&str],
    keys: &[&[u8]],
    now_secs: u64,
) -> Result<u64, AccessError> {
    let fields = token.strip_prefix("SharedAccessSignature ").ok_or(AccessError::NotAToken)?;
    let field = |name: &str| {
        fields.split('&').find_map(|pair| pair.split_once('=').filter(|(k, _)| *k == name)).map(|(_, v)| v)
    };
    let (Some(resource), Some(signature), Some(expiry)) = (field("sr"), field("sig"), field("se")) else {
        return Err(AccessError::NotAToken);
    };
    let expires_at: u64 = expiry.parse().map_err(|_| AccessError::NotAToken)?;
    let decoded = percent_decode_str(resource).decode_utf8().map_err(|_| AccessError::NotAToken)?;
    let (host, path) = decoded.split_once('/').unwrap_or((&decoded, ""));
    let of_device = format!("devices/{}", identity.device);
    let of_module = identity.module.as_ref().map(|module| format!("{of_device}/modules/{module}"));
    let is_audience = hosts.iter().any(|h| h.eq_ignore_ascii_case(host))
        && (path.eq_ignore_ascii_case(&of_device)
            || of_module.is_some_and(|module| path.eq_ignore_ascii_case(&module)));
    if !is_audience {
        return Err(AccessError::Audience { found: decoded.into_owned(), expected: identity.to_string() });
    }
    if expires_at.saturating_add(CLOCK_SKEW_SECS) < now_secs {
        return Err(AccessError::Expired { seconds: now_secs - expires_at });
    }
    let signature = percent_decode_str(signature).decode_utf8().map_err(|_| AccessError::NotAToken)?;
    let signature = STANDARD.decode(signature.as_bytes()).map_err(|_| AccessError::NotAToken)?;
    let signed = format!("{resource}\n{expiry}");
    match keys.iter().any(|key| bool::from(sign(key, signed.as_bytes()).ct_eq(&signature))) {
        true => Ok(expires_at),
        false => Err(AccessError::Signature { identity: identity.to_string() }),
    }
}

/// Makes a SAS token for `identity` at `host`, valid until `expires_at` (seconds since the Unix epoch).
pub fn sas_token(host: &str, identity: &Identity, key: &[u8], expires_at: u64) -> String {
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
    fn user_names_of_the_azure_sdks_are_understood() {
        for (client_id, user_name) in [
            ("d", "hub.net/d/?api-version=2019-10-01&DeviceClientType=py%2F2.14%3B%28x%23%29"),
            ("d/m", "hub.net/d/m/?api-version=2021-04-12&model-id=dtmi:a;1"),
            ("d", "gateway/d/api-version=2016-11-14"),
        ] {
            assert_eq!(claim(client_id, Some(user_name)), Ok(id(client_id)), "{user_name}");
        }
        assert!(matches!(claim("d", Some("hub/e/?api-version=1")), Err(AccessError::Mismatch { .. })));
        assert!(matches!(claim("d", Some("hub/d/?api-version=")), Err(AccessError::UserName { .. })));
        assert!(matches!(claim("d", None), Err(AccessError::UserName { .. })));
        assert!(matches!(claim("a b", Some("hub/a b/?api-version=1")), Err(AccessError::ClientId { .. })));
    }

    #[test]
    fn a_token_proves_its_own_identity_only() {
        let token = sas_token("hub.net", &id("d"), b"key", NOW + 60);
        let verify =
            |who: &str, hosts: &[&str], keys: &[&[u8]], now| verify_sas(&token, &id(who), hosts, keys, now);
        assert_eq!(verify("d", &["HUB.net"], &[b"other", b"key"], NOW), Ok(NOW + 60));
        assert_eq!(
            verify("d/m", &["hub.net"], &[b"key"], NOW),
            Ok(NOW + 60),
            "a module may use its device's"
        );
        assert!(matches!(verify("e", &["hub.net"], &[b"key"], NOW), Err(AccessError::Audience { .. })));
        assert!(matches!(verify("d", &["gw"], &[b"key"], NOW), Err(AccessError::Audience { .. })));
        assert!(matches!(verify("d", &["hub.net"], &[b"other"], NOW), Err(AccessError::Signature { .. })));
        assert!(matches!(verify("d", &["hub.net"], &[], NOW), Err(AccessError::Signature { .. })));
        assert_eq!(verify("d", &["hub.net"], &[b"key"], NOW + 60 + 300), Ok(NOW + 60));
        assert_eq!(
            verify("d", &["hub.net"], &[b"key"], NOW + 361),
            Err(AccessError::Expired { seconds: 301 })
        );
    }

    #[test]
    fn a_token_may_carry_its_fields_in_any_order_and_a_broken_one_is_refused() {
        let token = sas_token("hub", &id("d/m"), b"key", NOW);
        let fields: Vec<&str> = token.strip_prefix("SharedAccessSignature ").unwrap().split('&').collect();
        let turned = format!("SharedAccessSignature {}&skn=&{}&{}", fields[2], fields[1], fields[0]);
        assert_eq!(verify_sas(&turned, &id("d/m"), &["hub"], &[b"key"], NOW), Ok(NOW));
        for broken in
            ["", "password", "SharedAccessSignature sr=hub", "SharedAccessSignature sr=a&sig=b&se=soon"]
        {
            assert_eq!(
                verify_sas(broken, &id("d"), &["hub"], &[b"key"], NOW),
                Err(AccessError::NotAToken),
                "{broken}"
            );
        }
    }
}
