use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edge_core::access::{enrolment, sas};

use rusqlite::Connection;
use schemas::names::{DeviceId, Identity};
use schemas::provisioning::{Enrolment, EnrolmentAnswer, EnrolmentRequest};

use super::proving::Site;
use super::registration::{APPROVAL_WAIT_MS, Registered, register, status};
use crate::access::admission::Admission;
use crate::access::authorize::{Statement, authorize};
use crate::clock::now_ms;
use crate::error::ServiceError;
use crate::new_device::new_device;
use crate::store::devices::Keys;
use crate::store::devices::X509;
use crate::store::devices::{self, Device};
use crate::store::enrollments;
use crate::store::enrollments::{Group, GroupAttestation, SigningCertificate, SigningCertificates};
use crate::store::relationships::{self, Relationship};
use crate::store::schema;
use crate::store::twins::{self, Half};
use serde_json::json;

const GROUP_KEY: [u8; 32] = [7; 32];
const OWN_KEY: [u8; 32] = [9; 32];

/// What a device shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// A token that is newer than every one before.
    Token,
    /// The token that it enrolled with before.
    UsedToken,
    Certificate,
    /// A token made with another key.
    StrangersToken,
    /// A certificate of another authority, with the right name.
    StrangersCertificate,
}

impl Proof {
    const ALL: [Self; 5] =
        [Self::Token, Self::UsedToken, Self::Certificate, Self::StrangersToken, Self::StrangersCertificate];

    fn is_certificate(self) -> bool {
        matches!(self, Self::Certificate | Self::StrangersCertificate)
    }

    fn is_strangers(self) -> bool {
        matches!(self, Self::StrangersToken | Self::StrangersCertificate)
    }
}

/// The gateway that it enrols through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Via {
    Central,
    /// One that the certificate group lists.
    Listed,
    Unlisted,
}

impl Via {
    const ALL: [Self; 3] = [Self::Central, Self::Listed, Self::Unlisted];

    fn gateway(self) -> Option<DeviceId> {
        match self {
            Self::Central => None,
            Self::Listed => Some(id("listed")),
            Self::Unlisted => Some(id("unlisted")),
        }
    }
}

/// What central knows of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Unknown,
    /// Claimed by another gateway.
    Claimed,
    /// Claimed by the gateway that it enrols through.
    ClaimedHere,
    /// An operator registered it, with a key or a certificate of its own.
    Registered,
    PlacedHere,
    PlacedElsewhere,
    EnrolledHere,
    /// At central, or through another gateway by token.
    EnrolledElsewhereBound,
    /// Through another listed gateway by certificate.
    EnrolledElsewhereByClaim,
}

impl State {
    const ALL: [Self; 9] = [
        Self::Unknown,
        Self::Claimed,
        Self::ClaimedHere,
        Self::Registered,
        Self::PlacedHere,
        Self::PlacedElsewhere,
        Self::EnrolledHere,
        Self::EnrolledElsewhereBound,
        Self::EnrolledElsewhereByClaim,
    ];

    fn is_operators(self) -> bool {
        matches!(self, Self::Registered | Self::PlacedHere | Self::PlacedElsewhere)
    }
}

fn id(text: &str) -> DeviceId {
    text.parse().unwrap()
}

struct Ca(rcgen::CertificateParams, rcgen::KeyPair);

impl Ca {
    fn new() -> Self {
        let mut params = Self::params("devices");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self(params, rcgen::KeyPair::generate().unwrap())
    }

    fn params(name: &str) -> rcgen::CertificateParams {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params
    }

    fn der(&self) -> String {
        STANDARD.encode(self.0.self_signed(&self.1).unwrap().der())
    }

    /// A device's certificate; its key is thrown away, since nobody who sends certificates needs it.
    fn leaf(&self, name: &str) -> Vec<u8> {
        let key = rcgen::KeyPair::generate().unwrap();
        let issuer = rcgen::Issuer::from_params(&self.0, &self.1);
        Self::params(name).signed_by(&key, &issuer).unwrap().der().to_vec()
    }
}

struct World {
    c: Connection,
    site: Site,
    ca: Ca,
    stranger: Ca,
    _dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let c = schema::open(&dir.path().join("central.db")).unwrap();
        // What is written here need not outlive the test.
        c.execute_batch("PRAGMA synchronous = OFF").unwrap();
        for gateway in ["listed", "listed-2", "unlisted", "claimant", "other"] {
            devices::put(&c, &Device { is_gateway: true, revision: 1, ..new_device(id(gateway)) }).unwrap();
        }
        let site = Site { id_scope: "0ne".into(), trust: Arc::default(), now_ms: now_ms() };
        let world = Self { c, site, ca: Ca::new(), stranger: Ca::new(), _dir: dir };
        let key = STANDARD.encode(GROUP_KEY);
        let keys = GroupAttestation::Keys(Keys { primary: key.clone(), secondary: key });
        let primary = Some(SigningCertificate { certificate: world.ca.der(), is_verified: true, code: None });
        let x509 = GroupAttestation::X509(SigningCertificates { primary, secondary: None });
        for (name, attestation, gateways) in
            [("keys", keys, Vec::new()), ("certificates", x509, vec![id("listed"), id("listed-2")])]
        {
            let group = Group {
                auto_approve: true,
                id: name.into(),
                display_name: name.into(),
                enabled: true,
                is_edge: false,
                attestation,
                gateways,
                revision: 1,
            };
            enrollments::put_group(&world.c, &group).unwrap();
        }
        world
    }

    fn shown(&self, device: &str, token: String, certificate: Option<&[u8]>) -> Enrolment {
        Enrolment {
            id_scope: self.site.id_scope.clone(),
            registration_id: id(device),
            token,
            certificates: certificate.map(|der| STANDARD.encode(der)).into_iter().collect(),
            request: EnrolmentRequest::Register,
        }
    }

    fn token(&self, device: &str, key: &[u8], lifetime_secs: u64) -> Enrolment {
        let resource = format!("0ne%2Fregistrations%2F{device}");
        let expires_at = self.site.now_ms / 1000 + lifetime_secs;
        let signature = STANDARD.encode(sas::sign(key, format!("{resource}\n{expires_at}").as_bytes()));
        let signature = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        let token = format!("SharedAccessSignature sr={resource}&sig={signature}&se={expires_at}");
        self.shown(device, token, None)
    }

    fn group_token(&self, device: &str, lifetime_secs: u64) -> Enrolment {
        self.token(device, &enrolment::derive_key(&GROUP_KEY, &id(device)), lifetime_secs)
    }

    /// As the store does it: what failed changes nothing.
    fn register(&self, shown: &Enrolment, via: Option<&DeviceId>) -> Result<Registered, ServiceError> {
        let transaction = self.c.unchecked_transaction().unwrap();
        let registered = register(&transaction, shown, &self.site, via)?;
        transaction.commit().unwrap();
        Ok(registered)
    }

    fn device(&self, device: &str) -> Option<Device> {
        devices::get(&self.c, &id(device)).unwrap()
    }

    fn attach(&self, gateway: &DeviceId, device: &str) {
        let relationship = Relationship {
            id: device.to_owned(),
            name: "line 4".into(),
            source: gateway.clone(),
            target: id(device),
        };
        relationships::put(&self.c, &relationship).unwrap();
    }

    fn claim(&self, gateway: &DeviceId, device: &str) {
        authorize(&self.c, gateway, &Identity::device(id(device)), Statement::Telemetry, None).unwrap();
    }

    /// Brings a device into a state; `None` when there is no such case.
    fn prepare(&self, device: &str, proof: Proof, leaf: &[u8], via: Via, state: State) -> Option<()> {
        let before = if proof.is_certificate() {
            self.shown(device, String::new(), Some(leaf))
        } else {
            self.group_token(device, 1800)
        };
        if state.is_operators() {
            let key = STANDARD.encode(OWN_KEY);
            let keys = Some(Keys { primary: key.clone(), secondary: key });
            let thumbprint = edge_core::access::thumbprint::Thumbprint::sha256(leaf).to_string();
            let x509 = X509 { primary: Some(thumbprint), ..X509::default() };
            let x509 = proof.is_certificate().then_some(x509);
            devices::put(&self.c, &Device { keys, x509, revision: 1, ..new_device(id(device)) }).unwrap();
        }
        match state {
            State::Unknown | State::Registered => {}
            State::Claimed => self.claim(&id("claimant"), device),
            State::ClaimedHere => self.claim(&via.gateway()?, device),
            State::PlacedHere => self.attach(&via.gateway()?, device),
            State::PlacedElsewhere => self.attach(&id("other"), device),
            State::EnrolledHere if proof.is_certificate() && via == Via::Unlisted => return None,
            State::EnrolledHere => drop(self.register(&before, via.gateway().as_ref()).unwrap()),
            State::EnrolledElsewhereBound if proof.is_certificate() => {
                via.gateway()?;
                self.register(&before, None).unwrap();
            }
            State::EnrolledElsewhereBound => drop(self.register(&before, Some(&id("other"))).unwrap()),
            State::EnrolledElsewhereByClaim if proof.is_certificate() => {
                self.register(&before, Some(&id("listed-2"))).unwrap();
            }
            State::EnrolledElsewhereByClaim => return None,
        }
        Some(())
    }
}

fn may_enrol(proof: Proof, via: Via, state: State) -> bool {
    match (proof, via) {
        (Proof::StrangersToken | Proof::StrangersCertificate, _) => false,
        (Proof::Token, Via::Central) | (Proof::Certificate, Via::Central) => true,
        (Proof::Token, _) => state != State::PlacedElsewhere,
        (Proof::UsedToken, Via::Central) => state != State::EnrolledElsewhereBound,
        (Proof::UsedToken, _) => !matches!(state, State::PlacedElsewhere | State::EnrolledElsewhereBound),
        (Proof::Certificate, Via::Unlisted) => state == State::PlacedHere,
        (Proof::Certificate, Via::Listed) => {
            !matches!(state, State::Registered | State::PlacedElsewhere | State::EnrolledElsewhereBound)
        }
    }
}

#[test]
fn every_proof_through_every_gateway_enrols_a_device_of_every_state_or_leaves_it_as_it_is() {
    let world = World::new();
    let mut cases = 0;
    for proof in Proof::ALL {
        for via in Via::ALL {
            for state in State::ALL {
                let name = format!("device-{proof:?}-{via:?}-{state:?}");
                let leaf = world.ca.leaf(&name);
                if world.prepare(&name, proof, &leaf, via, state).is_none() {
                    continue;
                }
                cases += 1;
                let before = world.device(&name);
                let shown = match proof {
                    Proof::Token | Proof::UsedToken => {
                        let lifetime_secs = if proof == Proof::Token { 3600 } else { 1800 };
                        if state.is_operators() {
                            world.token(&name, &OWN_KEY, lifetime_secs)
                        } else {
                            world.group_token(&name, lifetime_secs)
                        }
                    }
                    Proof::Certificate => world.shown(&name, String::new(), Some(&leaf)),
                    Proof::StrangersToken => world.token(&name, b"a stranger's key", 3600),
                    Proof::StrangersCertificate => {
                        world.shown(&name, String::new(), Some(&world.stranger.leaf(&name)))
                    }
                };
                let registered = world.register(&shown, via.gateway().as_ref());
                let expected = may_enrol(proof, via, state);
                let error = registered.as_ref().err();
                assert_eq!(error.is_none(), expected, "{name}: {error:?}");
                let after = world.device(&name);
                if !expected {
                    assert!(matches!(error, Some(ServiceError::Forbidden(_))), "{name}: {error:?}");
                    assert!(after == before, "{name} was changed by a refused enrolment");
                    continue;
                }
                let after = after.unwrap();
                let gateway = match state {
                    State::PlacedElsewhere => Some(id("other")),
                    _ => via.gateway(),
                };
                assert_eq!((after.gateway, after.is_claim), (gateway, false), "{name}");
                let notified = registered.unwrap().gateways;
                let former = before.and_then(|before| before.gateway);
                for concerned in
                    via.gateway().iter().chain(&former).filter(|_| state != State::PlacedElsewhere)
                {
                    assert!(notified.contains(concerned), "{name}: {concerned} is not told");
                }
                assert!(!proof.is_strangers());
            }
        }
    }
    assert!(cases > 100, "{cases}");
}

#[test]
fn a_gateway_does_not_enrol_a_device_by_its_public_certificate_unless_the_group_lists_it() {
    let world = World::new();
    let shown = world.shown("press", String::new(), Some(&world.ca.leaf("press")));
    let refused = world.register(&shown, Some(&id("unlisted"))).err().unwrap();
    let text = refused.to_string();
    assert!(matches!(refused, ServiceError::Forbidden(_)), "{text}");
    assert!(text.contains("`unlisted`") && text.contains("`gateways`") && text.contains("`certificates`"));
    assert!(world.device("press").is_none());
    world.register(&shown, Some(&id("listed"))).unwrap();
    assert_eq!(world.device("press").unwrap().gateway, Some(id("listed")));

    // The next gateway of that id is another one.
    devices::delete(&world.c, &id("listed")).unwrap();
    devices::put(&world.c, &Device { is_gateway: true, revision: 1, ..new_device(id("listed")) }).unwrap();
    let lathe = world.shown("lathe", String::new(), Some(&world.ca.leaf("lathe")));
    assert!(world.register(&lathe, Some(&id("listed"))).is_err());
    world.register(&lathe, Some(&id("listed-2"))).unwrap();
}

#[test]
fn an_enrolment_through_a_gateway_does_not_move_a_device_that_an_operator_placed() {
    let world = World::new();
    for (device, shown) in [
        ("by-key", world.group_token("by-key", 3600)),
        (
            "by-certificate",
            world.shown("by-certificate", String::new(), Some(&world.ca.leaf("by-certificate"))),
        ),
    ] {
        world.register(&shown, None).unwrap();
        world.attach(&id("other"), device);
        let later = if device == "by-key" { world.group_token(device, 7200) } else { shown };
        for gateway in ["listed", "unlisted"] {
            let refused = world.register(&later, Some(&id(gateway))).err().unwrap();
            assert!(matches!(refused, ServiceError::Forbidden(_)), "{refused}");
            assert_eq!(world.device(device).unwrap().gateway, Some(id("other")));
        }
        world.register(&later, Some(&id("other"))).unwrap();
    }
}

#[test]
fn a_gateway_that_kept_a_devices_token_does_not_take_it_back() {
    let world = World::new();
    let kept = world.group_token("press", 1800);
    world.register(&kept, Some(&id("listed"))).unwrap();
    world.register(&world.group_token("press", 3600), Some(&id("other"))).unwrap();
    assert_eq!(world.device("press").unwrap().gateway, Some(id("other")));
    for via in [Some(id("listed")), None] {
        assert!(world.register(&kept, via.as_ref()).is_err());
        assert_eq!(world.device("press").unwrap().gateway, Some(id("other")));
    }
    // Nor when an operator took it from behind the other gateway.
    relationships::delete(&world.c, &id("other"), "to-press").unwrap();
    assert!(world.register(&kept, Some(&id("listed"))).is_err());
}

#[test]
fn an_enrolment_ends_a_gateways_claim_and_what_the_gateway_stored_under_it() {
    let world = World::new();
    world.claim(&id("claimant"), "press");
    let identity = Identity::device(id("press"));
    let section = schemas::twin::Section { version: 9, ..Default::default() };
    twins::write(&world.c, &identity, Half::Reported, &section, 1).unwrap();
    let claimed = world.device("press").unwrap();
    assert!(claimed.is_claim && claimed.keys.is_none());
    let registered = world.register(&world.group_token("press", 3600), None).unwrap();
    assert_eq!(registered.gateways, [id("claimant")], "who claimed it is told");
    let press = world.device("press").unwrap();
    assert!(!press.is_claim && press.keys.is_some() && press.gateway.is_none());
    assert!(press.generation > claimed.generation, "it is another device of that id");
    assert_eq!(twins::section(&world.c, &identity, Half::Reported).unwrap().section.version, 0);
    assert!(authorize(&world.c, &id("claimant"), &identity, Statement::Telemetry, None).is_err());
}

mod approval;
mod deleted_groups;
