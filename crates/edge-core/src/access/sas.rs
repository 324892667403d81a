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
use super::proof::KeyFingerprint;

/// Clocks may differ by this much: edgeHub's five minutes.
const CLOCK_SKEW_SECS: u64 = 300;

/// How every token begins.
const PREFIX: &str = "SharedAccessSignature ";

/// Characters that a SAS resource keeps as they are: RFC 3986 "unreserved".
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A token that proves its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// As written in the token, in seconds since the Unix epoch.
    pub expires_at: u64,
    /// Of the key that it was made with.
    pub key: KeyFingerprint,
}

impl Token {
    /// When nobody accepts it any more, clock skew included; seconds since the Unix epoch.
    pub fn ends_at(&self) -> u64 {
        self.expires_at.saturating_add(CLOCK_SKEW_SECS)
    }
}

/// Whom a token that is not proven yet names, and at which host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audience {
    pub host: String,
    pub identity: Identity,
}

/// The devices and modules that a token may name, by its resource: more than one if an id has percent signs, since SDKs encode ids
/// differently. Empty if it is no token, or one for something else. Nothing is proven.
pub fn audiences(token: &str) -> Vec<Audience> {
    let Some(resource) = token.strip_prefix(PREFIX).and_then(|fields| field(fields, "sr")) else {
        return Vec::new();
    };
    let mut found: Vec<Audience> = Vec::new();
    for reading in readings(resource) {
        if let Some(audience) = audience(&reading).filter(|audience| !found.contains(audience)) {
            found.push(audience);
        }
    }
    found
}

fn audience(segments: &[String]) -> Option<Audience> {
    let [host, devices, device, module @ ..] = segments else { return None };
    if host.contains('/') {
        return None;
    }
    let device = device.parse().ok().filter(|_| devices.eq_ignore_ascii_case("devices"))?;
    let identity = match module {
        [] => Identity::device(device),
        [modules, id] if modules.eq_ignore_ascii_case("modules") => {
            Identity::module(device, id.parse().ok()?)
        }
        _ => return None,
    };
    Some(Audience { host: host.clone(), identity })
}

/// The value of a field of a token, as it is written.
fn field<'f>(fields: &'f str, name: &str) -> Option<&'f str> {
    fields.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name)).map(|(_, v)| v)
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
    let is_audience = |resource: &[&str]| {
        let is = |segment: &str, expected: &str| segment.eq_ignore_ascii_case(expected);
        let [host, devices, device, module @ ..] = resource else { return false };
        let is_module = match (module, &identity.module) {
            ([], _) => true,
            ([modules, id], Some(module)) => is(modules, "modules") && is(id, module.as_str()),
            _ => false,
        };
        let is_host = hosts.iter().any(|known| is(host, known));
        is_host && is(devices, "devices") && is(device, identity.device.as_str()) && is_module
    };
    verify_for(token, &identity.to_string(), is_audience, keys, now_secs)
}

/// Proves a SAS token for any resource; `who` is for the error only.
///
/// `is_audience` is given the resource in its segments, as each of [`readings`].
///
/// # Errors
/// As [`verify`].
pub fn verify_for(
    token: &str,
    who: &str,
    is_audience: impl Fn(&[&str]) -> bool,
    keys: &[&[u8]],
    now_secs: u64,
) -> Result<Token, AccessError> {
    let fields = token.strip_prefix(PREFIX).ok_or(AccessError::NotAToken)?;
    let field = |name: &str| field(fields, name);
    let (Some(resource), Some(signature), Some(expiry)) = (field("sr"), field("sig"), field("se")) else {
        return Err(AccessError::NotAToken);
    };
    let expires_at: u64 = expiry.parse().map_err(|_| AccessError::NotAToken)?;
    let is_meant =
        |reading: &Vec<String>| is_audience(&reading.iter().map(String::as_str).collect::<Vec<_>>());
    if !readings(resource).iter().any(is_meant) {
        let found = decoded(resource).unwrap_or_else(|| resource.to_owned());
        return Err(AccessError::Audience { found, expected: who.to_owned() });
    }
    let signature = percent_decode_str(signature).decode_utf8().map_err(|_| AccessError::NotAToken)?;
    let signature = STANDARD.decode(signature.as_bytes()).map_err(|_| AccessError::NotAToken)?;
    // The signature covers the resource as it was written, still encoded.
    let signed = format!("{resource}\n{expiry}");
    // The signature first: `Expired` then says that only time speaks against the token, which a caller may wait for.
    // Compared in constant time: the sender can measure how long the answer takes.
    let key = keys.iter().find(|key| bool::from(sign(key, signed.as_bytes()).ct_eq(&signature)));
    let Some(key) = key else { return Err(AccessError::Signature { identity: who.to_owned() }) };
    if expires_at.saturating_add(CLOCK_SKEW_SECS) < now_secs {
        return Err(AccessError::Expired { seconds: now_secs - expires_at });
    }
    Ok(Token { expires_at, key: KeyFingerprint::of(key) })
}

/// A token's resource, in segments, decoded as often as a client may have encoded it: not at all, the whole once (Python,
/// Node), or each id and then the whole (C#).
///
/// Segments are split where the first `/` appears, so that an id never becomes two of them: the device `a%2Fmodules%2Fb` is
/// not the module `a/b`. `a%2540` names the device `a%40` in one reading and `a@` in another; the signature decides, since
/// each identity has a key of its own.
fn readings(resource: &str) -> Vec<Vec<String>> {
    const DECODINGS_MAX: usize = 2;
    let mut readings = Vec::with_capacity(DECODINGS_MAX + 1);
    let mut segments = vec![resource.to_owned()];
    for decodings in 0..=DECODINGS_MAX {
        if decodings > 0 {
            let Some(next) = segments.iter().map(|segment| decoded(segment)).collect() else { break };
            segments = next;
        }
        if let [whole] = &segments[..] {
            segments = whole.split('/').map(str::to_owned).collect();
        }
        readings.push(segments.clone());
    }
    readings
}

fn decoded(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
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
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn id(text: &str) -> Identity {
        text.parse().unwrap()
    }

    #[test]
    fn a_token_proves_its_own_identity_only() {
        let made = token("hub.net", &id("d"), b"key", NOW + 60);
        let proven = Ok(Token { expires_at: NOW + 60, key: KeyFingerprint::of(b"key") });
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
    fn a_token_names_its_audience_however_its_ids_are_encoded() {
        let names = |token: &str| {
            audiences(token)
                .into_iter()
                .map(|found| (found.host, found.identity.to_string()))
                .collect::<Vec<_>>()
        };
        let at_hub = |who: &str| ("hub.net".to_owned(), who.to_owned());
        for who in ["d", "d/m", "a@b", "gw/$edgeHub"] {
            assert_eq!(names(&token("hub.net", &id(who), b"key", NOW)), [at_hub(who)], "{who}");
        }
        let written = |resource: &str| names(&format!("SharedAccessSignature sr={resource}&sig=x&se=1"));
        assert_eq!(written("hub.net/devices/d"), [at_hub("d")], "not encoded");
        assert_eq!(written("hub.net%2fDevices%2fd%2fModules%2fm"), [at_hub("d/m")]);
        // The client for C# encodes the id and then the whole: the signature tells which of the two it is.
        assert_eq!(written("hub.net%2Fdevices%2Fa%2540"), [at_hub("a%40"), at_hub("a@")]);
        for other in
            ["hub.net", "hub.net/devices", "hub.net/devices/a b", "hub.net/devices/d/m", "sb://x/y/z"]
        {
            assert_eq!(written(other), [], "{other}");
        }
        assert_eq!(names("Bearer x"), []);
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

    /// A token whose resource is written as it stands here.
    fn token_of(resource: &str, key: &[u8]) -> String {
        let signature = STANDARD.encode(sign(key, format!("{resource}\n{NOW}").as_bytes()));
        format!("SharedAccessSignature sr={resource}&sig={}&se={NOW}", encoded(&signature))
    }

    fn encoded(text: &str) -> String {
        utf8_percent_encode(text, ENCODED).to_string()
    }

    /// The resource of an identity in every form that SDKs send.
    fn forms(host: &str, identity: &Identity) -> Vec<String> {
        let path = |form: &dyn Fn(&str) -> String| match &identity.module {
            None => format!("{host}/devices/{}", form(identity.device.as_str())),
            Some(module) => {
                format!("{host}/devices/{}/modules/{}", form(identity.device.as_str()), form(module.as_str()))
            }
        };
        let (raw, ids) = (path(&str::to_owned), path(&encoded));
        vec![
            encoded(&raw),
            encoded(&ids),
            encoded(&encoded(&raw)),
            path(&|id| encoded(&encoded(id))),
            ids,
            raw,
        ]
    }

    #[test]
    fn a_token_of_the_csharp_sdk_with_an_id_encoded_twice_proves_it() {
        for (resource, who) in [
            ("hub.net%2Fdevices%2Fline%253A1%2540hall%253D2", "line:1@hall=2"),
            ("hub.net%2fdevices%2fline%253a1", "line:1"),
            ("hub.net%2Fdevices%2Fgw%2540hall%2Fmodules%2Fa%253Db", "gw@hall/a=b"),
            ("hub.net%2Fdevices%2Fgw%2540hall", "gw@hall/a=b"),
        ] {
            let made = token_of(resource, b"key");
            assert_eq!(verify(&made, &id(who), &["hub.net"], &[b"key"], NOW).map(|t| t.expires_at), Ok(NOW));
        }
    }

    #[test]
    fn an_encoded_slash_makes_no_module_of_a_device_even_with_one_key_for_both() {
        let (device, module) = (id("gw%2Fmodules%2Fm"), id("gw/m"));
        for (of, other) in [(&device, &module), (&module, &device)] {
            for resource in forms("hub", of) {
                let made = token_of(&resource, b"key");
                assert!(verify(&made, of, &["hub"], &[b"key"], NOW).is_ok(), "{resource}");
                let refused = verify(&made, other, &["hub"], &[b"key"], NOW);
                assert!(matches!(refused, Err(AccessError::Audience { .. })), "{resource}");
            }
        }
        for forged in [
            "hub/devices/gw%2Fmodules%2Fm",
            "hub/devices%2Fgw",
            "hub%2Fdevices%252Fgw",
            "hub%252525252Fdevices",
        ] {
            assert!(
                verify(&token_of(forged, b"key"), &module, &["hub"], &[b"key"], NOW).is_err(),
                "{forged}"
            );
        }
    }

    /// Ids of IoT Hub's whole alphabet, with text among them that looks encoded.
    fn any_id() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            "[-a-zA-Z0-9:._*?!(),=@$'%]",
            prop::sample::select(vec!["%25", "%40", "%2F", "%2540", "%252F", "%00", "%FF", "%zz", "/"])
                .prop_map(str::to_owned),
        ];
        let text = prop::collection::vec(part, 1..6).prop_map(|parts| parts.concat());
        text.prop_filter("a valid id", |text| text.parse::<Identity>().is_ok())
    }

    /// Whom a reader might take `identity` for that decodes too often or too rarely.
    fn lookalikes(identity: &Identity) -> Vec<Identity> {
        let text = identity.to_string();
        let decoded = |text: &str| super::decoded(text).unwrap_or_default();
        let every = [
            decoded(&text),
            decoded(&decoded(&text)),
            encoded(&text),
            encoded(&encoded(&text)),
            text.replace('/', "%2Fmodules%2F"),
            text.replace("%2F", "/"),
            identity.device.to_string(),
            format!("{text}x"),
        ];
        every.iter().filter_map(|text| text.parse().ok()).filter(|other| other != identity).collect()
    }

    proptest! {
        #[test]
        fn a_token_encoded_up_to_twice_is_taken_for_its_id_and_for_no_other(text in any_id()) {
            let key = |identity: &Identity| format!("key of {identity}").into_bytes();
            let identity = id(&text);
            for resource in forms("hub.net", &identity) {
                let made = token_of(&resource, &key(&identity));
                prop_assert!(verify(&made, &identity, &["hub.net"], &[&key(&identity)], NOW).is_ok(), "{resource}");
                for other in lookalikes(&identity) {
                    prop_assert!(verify(&made, &other, &["hub.net"], &[&key(&other)], NOW).is_err(), "{other}");
                }
            }
        }

        #[test]
        fn an_id_without_percent_signs_differs_from_all_others_by_the_audience_alone(
            one in any_id(), other in any_id(),
        ) {
            let (Ok(one), Ok(other)) = (one.replace('%', "").parse(), other.replace('%', "").parse::<Identity>()) else {
                return Ok(());
            };
            let one: Identity = one;
            // Ids differ by more than case here, and a module may use its device's token.
            prop_assume!(!one.to_string().eq_ignore_ascii_case(&other.to_string()));
            prop_assume!(one.module.is_some() || !one.device.as_str().eq_ignore_ascii_case(other.device.as_str()));
            for resource in forms("hub.net", &one) {
                let taken = verify(&token_of(&resource, b"key"), &other, &["hub.net"], &[b"key"], NOW);
                prop_assert!(matches!(taken, Err(AccessError::Audience { .. })), "{resource} for {other}");
            }
        }
    }
}
