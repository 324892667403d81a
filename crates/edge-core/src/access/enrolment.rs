//! Who an enrolling device claims to be, and whether its token proves it. Source: Azure Device Provisioning Service,
//! "Symmetric key attestation" and its MQTT form.

use schemas::names::DeviceId;

use super::error::AccessError;
use super::sas::{self, Token};

/// Who an enrolling device claims to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolmentClaim {
    pub id_scope: String,
    /// What it calls itself.
    pub registration_id: DeviceId,
}

/// Reads `{scope}/registrations/{registration id}/api-version=…`, which has no `?`; `None` for every other user name.
///
/// # Errors
/// [`AccessError`] when the registration id is no device id, or the client id is another.
pub fn claim(client_id: &str, user_name: &str) -> Option<Result<EnrolmentClaim, AccessError>> {
    let (id_scope, rest) = user_name.split_once("/registrations/")?;
    let (id, query) = rest.split_once('/')?;
    let query = query.strip_prefix('?').unwrap_or(query);
    let has_version =
        query.split('&').any(|pair| pair.strip_prefix("api-version=").is_some_and(|v| !v.is_empty()));
    if id_scope.is_empty() || id_scope.contains('/') || !has_version {
        return None;
    }
    if id != client_id {
        let (client_id, user_name) = (client_id.to_owned(), id.to_owned());
        return Some(Err(AccessError::Mismatch { client_id, user_name }));
    }
    Some(match id.parse() {
        Ok(registration_id) => Ok(EnrolmentClaim { id_scope: id_scope.to_owned(), registration_id }),
        Err(why) => Err(AccessError::ClientId { client_id: client_id.to_owned(), why: format!("{why}") }),
    })
}

/// The key of one device of an enrolment group: HMAC-SHA256 of its registration id with the group's key.
pub fn derive_key(group_key: &[u8], registration_id: &DeviceId) -> Vec<u8> {
    sas::sign(group_key, registration_id.as_str().as_bytes())
}

/// Proves an enrolling device's token.
///
/// # Errors
/// [`AccessError`]: no token, another audience, expired, or another key.
pub fn verify(
    token: &str,
    id_scope: &str,
    registration_id: &DeviceId,
    keys: &[&[u8]],
    now_secs: u64,
) -> Result<Token, AccessError> {
    let audience = format!("{id_scope}/registrations/{registration_id}");
    let is_audience = |resource: &[&str]| match resource {
        [scope, registrations, id] => {
            scope.eq_ignore_ascii_case(id_scope)
                && registrations.eq_ignore_ascii_case("registrations")
                && id.eq_ignore_ascii_case(registration_id.as_str())
        }
        _ => false,
    };
    sas::verify_for(token, &audience, is_audience, keys, now_secs)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn a_claim_differs_from_a_devices_user_name() {
        let user = "0ne00A1B2C3/registrations/press-1/api-version=2019-03-31&ClientVersion=py%2F2.14";
        let claimed = claim("press-1", user).unwrap().unwrap();
        assert_eq!((claimed.id_scope.as_str(), claimed.registration_id.as_str()), ("0ne00A1B2C3", "press-1"));
        assert!(matches!(claim("press-2", user), Some(Err(AccessError::Mismatch { .. }))));
        assert!(matches!(
            claim("a b", "s/registrations/a b/api-version=1"),
            Some(Err(AccessError::ClientId { .. }))
        ));
        for other in
            ["hub.net/d/?api-version=2019-10-01", "plc1", "", "s/registrations/d", "s/registrations/d/x=1"]
        {
            assert_eq!(claim("d", other), None, "{other}");
        }
    }

    #[test]
    fn the_documented_example_of_a_derived_key_comes_out() {
        let group = STANDARD.decode(
            "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==",
        );
        let key = derive_key(&group.unwrap(), &"sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6".parse().unwrap());
        assert_eq!(STANDARD.encode(key), "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=");
    }

    #[test]
    fn an_enrolling_device_may_encode_its_id_up_to_twice() {
        let id: DeviceId = "line:1@hall%40".parse().unwrap();
        for resource in [
            "0ne/registrations/line:1@hall%40",
            "0ne%2Fregistrations%2Fline%3A1%40hall%2540",
            "0ne%2Fregistrations%2Fline%253A1%2540hall%252540",
        ] {
            let signature = STANDARD.encode(sas::sign(b"key", format!("{resource}\n2000").as_bytes()));
            let token = format!("SharedAccessSignature sr={resource}&sig={signature}&se=2000");
            let taken = verify(&token, "0ne", &id, &[b"key"], 1000);
            assert_eq!(taken.map(|token| token.expires_at), Ok(2000), "{resource}");
            let other = "line:1@hall".parse().unwrap();
            assert!(matches!(
                verify(&token, "0ne", &other, &[b"key"], 1000),
                Err(AccessError::Audience { .. })
            ));
        }
    }

    #[test]
    fn a_token_proves_its_own_registration_only() {
        let (key, id): (Vec<u8>, DeviceId) = (vec![7; 32], "press-1".parse().unwrap());
        let resource = "0ne%2Fregistrations%2Fpress-1";
        let signature = STANDARD.encode(sas::sign(&key, format!("{resource}\n2000").as_bytes()));
        let signature = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        let token = format!("SharedAccessSignature sr={resource}&sig={signature}&se=2000&skn=registration");
        assert_eq!(verify(&token, "0ne", &id, &[b"x", &key], 1000).unwrap().expires_at, 2000);
        assert!(matches!(
            verify(&token, "0ne", &"other".parse().unwrap(), &[&key], 1000),
            Err(AccessError::Audience { .. })
        ));
        assert!(matches!(verify(&token, "0nf", &id, &[&key], 1000), Err(AccessError::Audience { .. })));
        assert!(matches!(verify(&token, "0ne", &id, &[b"x"], 1000), Err(AccessError::Signature { .. })));
        assert!(matches!(verify(&token, "0ne", &id, &[&key], 9000), Err(AccessError::Expired { .. })));
    }
}
