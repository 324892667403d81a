//! Every proof of a device of every standing, with a group that approves and with one that does not.

use super::*;

/// What central knows of the device before it enrols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Membership {
    Unknown,
    /// A gateway's word alone registered it.
    Claimed,
    /// By an operator, with a key or a certificate of its own.
    Registered,
    Waiting,
    Approved,
    Rejected,
    /// Rejected, and unblocked since.
    Unblocked,
    /// Blocked after it was approved.
    Blocked,
    Deleted,
}

impl Membership {
    const ALL: [Self; 9] = [
        Self::Unknown,
        Self::Claimed,
        Self::Registered,
        Self::Waiting,
        Self::Approved,
        Self::Rejected,
        Self::Unblocked,
        Self::Blocked,
        Self::Deleted,
    ];

    /// What central does with a right proof; `None`: it is refused.
    fn admission(self, auto_approve: bool) -> Option<Admission> {
        match self {
            // Deleted or of a gateway's word alone: no operator vouches for it.
            Self::Unknown | Self::Claimed | Self::Deleted if auto_approve => Some(Admission::Admitted),
            Self::Unknown | Self::Claimed | Self::Deleted => Some(Admission::Waiting),
            Self::Registered | Self::Approved => Some(Admission::Admitted),
            Self::Waiting | Self::Unblocked => Some(Admission::Waiting),
            Self::Rejected | Self::Blocked => None,
        }
    }
}

impl World {
    fn set_auto_approve(&self, auto_approve: bool) {
        for name in ["keys", "certificates"] {
            let group = enrollments::group(&self.c, name).unwrap().unwrap();
            enrollments::put_group(&self.c, &Group { auto_approve, ..group }).unwrap();
        }
    }

    fn set_admission(&self, device: &str, enabled: bool, is_waiting: bool) {
        let membership = self.device(device).unwrap();
        devices::put(&self.c, &Device { enabled, is_waiting, ..membership }).unwrap();
    }

    fn stand(&self, device: &str, proof: Proof, leaf: &[u8], via: Via, membership: Membership) {
        if membership == Membership::Registered {
            self.prepare(device, proof, leaf, via, State::Registered).unwrap();
            return;
        }
        if membership == Membership::Claimed {
            self.claim(&id("claimant"), device);
        }
        if matches!(membership, Membership::Unknown | Membership::Claimed) {
            return;
        }
        self.set_auto_approve(false);
        let before = if proof.is_certificate() {
            self.shown(device, String::new(), Some(leaf))
        } else {
            self.group_token(device, 1800)
        };
        let registered = self.register(&before, via.gateway().as_ref()).unwrap();
        assert_eq!(registered.device.admission(), Admission::Waiting, "{device}");
        match membership {
            Membership::Unknown | Membership::Claimed | Membership::Registered | Membership::Waiting => {}
            Membership::Approved => self.set_admission(device, true, false),
            Membership::Rejected => self.set_admission(device, false, true),
            Membership::Unblocked => {
                self.set_admission(device, false, true);
                let mut unblocked = self.device(device).unwrap();
                unblocked.set_enabled(true);
                devices::put(&self.c, &unblocked).unwrap();
            }
            Membership::Blocked => self.set_admission(device, false, false),
            Membership::Deleted => assert!(devices::delete(&self.c, &id(device)).unwrap()),
        }
    }

    /// What the device is told when it asks how its registration is, `after_ms` later.
    fn status(
        &self,
        device: &str,
        operation_id: &str,
        after_ms: u64,
    ) -> Result<EnrolmentAnswer, ServiceError> {
        status(&self.c, &id(device), operation_id, "central.test", self.site.now_ms + after_ms)
    }
}

#[test]
fn every_proof_of_a_device_of_every_membership_is_admitted_waits_or_is_refused_as_its_group_approves() {
    let world = World::new();
    let mut cases = 0;
    for proof in Proof::ALL {
        for via in [Via::Central, Via::Listed] {
            for membership in Membership::ALL {
                for auto_approve in [true, false] {
                    let name = format!("device-{proof:?}-{via:?}-{membership:?}-{auto_approve}");
                    // Its proof of before would not do through a gateway: see the matrix of places.
                    let is_own_by_claim = membership == Membership::Registered && proof.is_certificate();
                    if is_own_by_claim && via != Via::Central {
                        continue;
                    }
                    cases += 1;
                    let leaf = world.ca.leaf(&name);
                    world.stand(&name, proof, &leaf, via, membership);
                    world.set_auto_approve(auto_approve);
                    let before = world.device(&name);
                    let lifetime_secs = if proof == Proof::Token { 3600 } else { 1800 };
                    let shown = match proof {
                        Proof::Token | Proof::UsedToken if membership == Membership::Registered => {
                            world.token(&name, &OWN_KEY, lifetime_secs)
                        }
                        Proof::Token | Proof::UsedToken => world.group_token(&name, lifetime_secs),
                        Proof::Certificate => world.shown(&name, String::new(), Some(&leaf)),
                        Proof::StrangersToken => world.token(&name, b"a stranger's key", 3600),
                        Proof::StrangersCertificate => {
                            world.shown(&name, String::new(), Some(&world.stranger.leaf(&name)))
                        }
                    };
                    let registered = world.register(&shown, via.gateway().as_ref());
                    let expected = membership.admission(auto_approve).filter(|_| !proof.is_strangers());
                    let Some(expected) = expected else {
                        assert!(registered.is_err(), "{name}");
                        assert!(world.device(&name) == before, "{name} was changed by a refused enrolment");
                        continue;
                    };
                    let registered = registered.unwrap_or_else(|error| panic!("{name}: {error}"));
                    let device = world.device(&name).unwrap();
                    assert_eq!((device.admission(), device.is_claim), (expected, false), "{name}");
                    let operation_id = &registered.operation_id;
                    let soon = world.status(&name, operation_id, 0).unwrap();
                    let late = world.status(&name, operation_id, APPROVAL_WAIT_MS);
                    if expected == Admission::Waiting {
                        assert_eq!((soon.status, &soon.body["status"]), (202, &json!("assigning")), "{name}");
                        assert!(matches!(late, Err(ServiceError::NotApproved(_))), "{name}");
                        world.set_admission(&name, true, false);
                    }
                    let assigned = world.status(&name, operation_id, APPROVAL_WAIT_MS).unwrap();
                    assert_eq!(
                        (assigned.status, &assigned.body["status"]),
                        (200, &json!("assigned")),
                        "{name}"
                    );
                }
            }
        }
    }
    assert!(cases > 150, "{cases}");
}

#[test]
fn what_is_enabled_goes_through_every_state_and_a_block_gives_back_what_it_took() {
    use Admission::{Admitted, Blocked, Waiting};
    let device =
        |is_enabled, is_waiting| Device { enabled: is_enabled, is_waiting, ..Device::new(id("press")) };
    for (before, is_enabled, after) in [
        (device(true, false), true, Admitted),
        (device(true, false), false, Blocked),
        (device(true, true), true, Admitted),
        // The API calls it not enabled already.
        (device(true, true), false, Waiting),
        (device(false, false), true, Admitted),
        (device(false, false), false, Blocked),
        (device(false, true), true, Waiting),
        (device(false, true), false, Blocked),
    ] {
        let was = before.admission();
        let mut changed = before;
        changed.set_enabled(is_enabled);
        assert_eq!(changed.admission(), after, "{was:?} set to {is_enabled}");
    }
}
