//! Chains as authorities make them, and as forgers do.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use time::{Duration as Days, OffsetDateTime};

use super::super::proof::Fingerprint;
use super::super::thumbprint::Thumbprint;
use super::*;

/// An authority that gives certificates to devices.
pub(crate) struct Signer {
    params: CertificateParams,
    key: KeyPair,
    pub(crate) der: CertificateDer<'static>,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = OffsetDateTime::now_utc() - Days::days(1);
    params.not_after = OffsetDateTime::now_utc() + Days::days(1);
    params
}

pub(crate) fn now() -> u64 {
    u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap()
}

impl Signer {
    pub(crate) fn new(name: &str, parent: Option<&Signer>) -> Self {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = match parent {
            None => params.self_signed(&key).unwrap(),
            Some(parent) => {
                params.signed_by(&key, &Issuer::from_params(&parent.params, &parent.key)).unwrap()
            }
        };
        Self { der: certificate.der().clone(), params, key }
    }

    pub(crate) fn client(&self, name: &str) -> CertificateDer<'static> {
        module(self, name, &[], Some(ExtendedKeyUsagePurpose::ClientAuth))
    }

    pub(crate) fn device(&self, name: &str) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        params(name).signed_by(&key, &issuer).unwrap().der().clone()
    }
}

#[test]
fn authorities_and_devices_with_keys_on_p521_hold_as_others_do() {
    use rustls_pki_types::pem::PemObject as _;

    let der = |pem: &[u8]| CertificateDer::from_pem_slice(pem).unwrap();
    let ca = der(include_bytes!("../../../testdata/p521/ca.pem"));
    let authorities = Authorities::new(std::slice::from_ref(&ca)).unwrap();
    let device: DeviceId = "device-521".parse().unwrap();
    for pem in [
        include_bytes!("../../../testdata/p521/device.sha256.pem").as_slice(),
        include_bytes!("../../../testdata/p521/device.sha384.pem"),
        include_bytes!("../../../testdata/p521/device.sha512.pem"),
    ] {
        let leaf = der(pem);
        authorities.check(&PresentedChain { leaf: &leaf, intermediates: &[] }, &device, now()).unwrap();
    }
    let stranger = Signer::new("P-521 test authority", None).device("device-521");
    assert!(
        authorities.check(&PresentedChain { leaf: &stranger, intermediates: &[] }, &device, now()).is_err()
    );

    let proof = der(include_bytes!("../../../testdata/p521/proof.pem"));
    check_possession(&ca, &proof, "VERIFICATION-CODE", now()).unwrap();
    let leaf = der(include_bytes!("../../../testdata/p521/device.sha512.pem"));
    assert!(check_possession(&leaf, &proof, "VERIFICATION-CODE", now()).is_err());
    for pem in [
        include_bytes!("../../../testdata/p521/secp256k1.pem").as_slice(),
        include_bytes!("../../../testdata/p521/brainpool.pem"),
    ] {
        let why = Authorities::new(&[der(pem)]).unwrap_err().to_string();
        assert!(why.contains("not supported") && why.contains("P-521"), "{why}");
    }
}

#[test]
fn a_thumbprint_names_one_certificate_however_it_is_written() {
    let ca = Signer::new("ca", None);
    let (one, two) = (ca.device("d"), ca.device("d"));
    let sha256 = Thumbprint::sha256(&one);
    let sha1 = Thumbprint::Sha1(Fingerprint::of(&one).sha1);
    for thumbprint in [sha256, sha1] {
        let text = thumbprint.to_string();
        assert_eq!(text.parse(), Ok(thumbprint));
        assert_eq!(text.to_lowercase().parse(), Ok(thumbprint));
        let pairs: Vec<&str> = (0..text.len() / 2).map(|n| &text[2 * n..2 * n + 2]).collect();
        assert_eq!(pairs.join(":").parse(), Ok(thumbprint));
        assert!(thumbprint.names(&Fingerprint::of(&one)) && !thumbprint.names(&Fingerprint::of(&two)));
    }
    for wrong in ["", "12", "xy", &"z".repeat(64), &"a".repeat(63)] {
        assert!(wrong.parse::<Thumbprint>().is_err(), "{wrong}");
    }
}

#[test]
fn an_authority_vouches_for_the_device_that_it_named_through_what_was_shown() {
    let root = Signer::new("root", None);
    let line = Signer::new("line 1", Some(&root));
    let authorities = Authorities::new(std::slice::from_ref(&root.der)).unwrap();
    let device: DeviceId = "press-1".parse().unwrap();
    let leaf = line.device("press-1");
    let between = [line.der.clone()];
    let check = |leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'static>], now| {
        authorities.check(&PresentedChain { leaf, intermediates }, &device, now)
    };
    let fingerprint = check(&leaf, &between, now()).unwrap();
    assert!(authorities.has(&fingerprint));
    assert!(
        !Authorities::new(std::slice::from_ref(&line.der)).unwrap().has(&fingerprint),
        "another authority"
    );
    assert_eq!(check(&root.device("press-1"), &[], now()), Ok(fingerprint));
    assert!(
        check(&leaf, &[], now()).unwrap_err().to_string().contains("chain"),
        "the one between was not shown"
    );
    assert!(check(&line.device("press-2"), &between, now()).unwrap_err().to_string().contains("press-2"));
    assert!(check(&leaf, &between, now() + 3 * 86_400).unwrap_err().to_string().contains("chain"), "expired");
    assert!(check(&Signer::new("x", None).device("press-1"), &[], now()).is_err());
    assert!(check(&CertificateDer::from(b"no certificate".as_slice()), &[], now()).is_err());
    let none = Authorities::default();
    let shown = PresentedChain { leaf: &leaf, intermediates: &between };
    assert!(none.check(&shown, &device, now()).unwrap_err().to_string().contains("configured"));
}

/// A certificate of a module, or one that would like to be.
fn module(
    signer: &Signer,
    name: &str,
    uris: &[&str],
    usage: Option<ExtendedKeyUsagePurpose>,
) -> CertificateDer<'static> {
    let mut params = params(name);
    params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params.extended_key_usages = usage.into_iter().collect();
    let key = KeyPair::generate().unwrap();
    params.signed_by(&key, &Issuer::from_params(&signer.params, &signer.key)).unwrap().der().clone()
}

#[test]
fn a_module_is_proven_by_the_uri_of_its_own_client_certificate_and_by_no_forged_one() {
    let edge = Signer::new("gw edge CA", None);
    let stranger = Signer::new("gw edge CA", None);
    let authorities = Authorities::new(std::slice::from_ref(&edge.der)).unwrap();
    let filter: Identity = "gw/filter".parse().unwrap();
    let client = Some(ExtendedKeyUsagePurpose::ClientAuth);
    let own = "azureiot://hub.example/devices/gw/modules/filter";
    for (what, leaf, is_proven) in [
        ("its URI", module(&edge, "filter", &[own], client.clone()), true),
        (
            "a host in capitals",
            module(&edge, "x", &["azureiot://HUB.example/devices/gw/modules/filter"], client.clone()),
            true,
        ),
        ("another kind of URI beside it", module(&edge, "x", &[own, "spiffe://x/y"], client.clone()), true),
        ("its client id as common name", module(&edge, "gw/filter", &[], client.clone()), true),
        ("its name alone", module(&edge, "filter", &[], client.clone()), false),
        (
            "a device's URI",
            module(&edge, "gw/filter", &["azureiot://hub.example/devices/gw"], client.clone()),
            false,
        ),
        (
            "another module's URI",
            module(&edge, "gw/filter", &["azureiot://hub.example/devices/gw/modules/other"], client.clone()),
            false,
        ),
        (
            "a name in capitals",
            module(&edge, "x", &["azureiot://hub.example/devices/gw/modules/Filter"], client.clone()),
            false,
        ),
        (
            "another gateway's",
            module(&edge, "x", &["azureiot://hub.example/devices/gw2/modules/filter"], client.clone()),
            false,
        ),
        (
            "another hub's",
            module(&edge, "x", &["azureiot://hub2/devices/gw/modules/filter"], client.clone()),
            false,
        ),
        (
            "a path that goes on",
            module(&edge, "x", &["azureiot://hub.example/devices/gw/modules/filter/x"], client.clone()),
            false,
        ),
        (
            "two modules' URIs",
            module(&edge, "x", &[own, "azureiot://hub.example/devices/gw/modules/other"], client.clone()),
            false,
        ),
        (
            "a server's certificate",
            module(&edge, "x", &[own], Some(ExtendedKeyUsagePurpose::ServerAuth)),
            false,
        ),
        ("one for no use in particular", module(&edge, "x", &[own], None), false),
        ("another authority of that name", module(&stranger, "x", &[own], client.clone()), false),
    ] {
        let shown = PresentedChain { leaf: &leaf, intermediates: &[] };
        let checked = authorities.check_module(&shown, &filter, &["hub.example"], now());
        assert_eq!(checked.is_ok(), is_proven, "{what}: {checked:?}");
        if let Ok(fingerprint) = checked {
            assert!(authorities.has(&fingerprint));
        }
    }
}

#[test]
fn only_the_key_of_an_authority_proves_that_it_is_somebodys() {
    let (ca, other) = (Signer::new("ca", None), Signer::new("ca", None));
    let check = |proof: &[u8], now| check_possession(&ca.der, proof, "CODE", now);
    assert_eq!(check(&ca.device("CODE"), now()), Ok(()));
    assert!(check(&ca.device("OTHER"), now()).unwrap_err().to_string().contains("OTHER"));
    assert!(check(&other.device("CODE"), now()).unwrap_err().to_string().contains("key"));
    assert!(check(&ca.device("CODE"), now() + 3 * 86_400).unwrap_err().to_string().contains("expired"));
    assert!(check(b"no certificate", now()).is_err());
}

#[test]
fn a_certificate_is_good_from_its_first_day_to_its_last() {
    let leaf = Signer::new("ca", None).device("d");
    let until = valid_until(&leaf, now()).unwrap();
    assert!((now() + 86_000..now() + 87_000).contains(&until), "{until}");
    assert!(valid_until(&leaf, now() - 2 * 86_400).unwrap_err().to_string().contains("before"));
    assert!(valid_until(&leaf, now() + 2 * 86_400).unwrap_err().to_string().contains("expired"));
    assert!(valid_until(b"x", 0).is_err());
}
