//! Groups that were deleted, and groups that were made again with their ids.

use super::*;

/// What the group of an id is after the one that enrolled a device was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Successor {
    None,
    /// With the same keys or authority.
    Same,
    /// With keys or an authority of its own.
    Other,
    /// One that itself was deleted and made again.
    OtherAgain,
}

const OTHER_KEY: [u8; 32] = [8; 32];

impl World {
    fn remake(&self, group: &Group, successor: Successor) {
        assert!(enrollments::delete_group(&self.c, &group.id).unwrap());
        let attestation = match &group.attestation {
            of if successor == Successor::Same => of.clone(),
            GroupAttestation::Keys(_) => {
                let key = STANDARD.encode(OTHER_KEY);
                GroupAttestation::Keys(Keys { primary: key.clone(), secondary: key })
            }
            GroupAttestation::X509(_) => {
                let certificate = self.stranger.der();
                let primary = Some(SigningCertificate { certificate, is_verified: true, code: None });
                GroupAttestation::X509(SigningCertificates { primary, secondary: None })
            }
        };
        let made = Group { attestation, ..group.clone() };
        let times = match successor {
            Successor::None => 0,
            Successor::Same | Successor::Other => 1,
            Successor::OtherAgain => 2,
        };
        for time in 0..times {
            if time > 0 {
                enrollments::delete_group(&self.c, &group.id).unwrap();
            }
            enrollments::put_group(&self.c, &made).unwrap();
        }
    }
}

#[test]
fn devices_of_a_deleted_group_enrol_by_no_group_of_its_id_until_an_operator_deletes_them() {
    let all = [Successor::None, Successor::Same, Successor::Other, Successor::OtherAgain];
    for (name, via) in
        [("keys", None), ("keys", Some("unlisted")), ("certificates", None), ("certificates", Some("listed"))]
    {
        for successor in all {
            let case = format!("{name} {via:?} {successor:?}");
            let (world, via) = (World::new(), via.map(id));
            let is_by_key = name == "keys";
            let before = if is_by_key {
                world.group_token("press", 1800)
            } else {
                world.shown("press", String::new(), Some(&world.ca.leaf("press")))
            };
            world.register(&before, via.as_ref()).unwrap();
            let group = enrollments::group(&world.c, name).unwrap().unwrap();
            world.remake(&group, successor);

            let is_same = successor == Successor::Same;
            let shown = match (is_by_key, is_same) {
                (true, true) => world.group_token("press", 7200),
                (true, false) => world.token("press", &enrolment::derive_key(&OTHER_KEY, &id("press")), 7200),
                (false, true) => before.clone(),
                (false, false) => world.shown("press", String::new(), Some(&world.stranger.leaf("press"))),
            };
            let stored = world.device("press").unwrap();
            for shown in [&before, &shown] {
                let error = world.register(shown, via.as_ref()).err().unwrap();
                assert!(matches!(error, ServiceError::Forbidden(_)), "{case}: {error}");
                let text = error.to_string();
                assert!(text.contains(&format!("`{name}`")), "{case}: {text}");
                assert!(text.contains("delete the device"), "{case}: {text}");
                assert!(world.device("press").unwrap() == stored, "{case}: it was changed");
            }
            let counted = enrollments::group_counts(&world.c).unwrap();
            assert!(!counted.contains_key(name), "{case}");

            devices::delete(&world.c, &id("press")).unwrap();
            let registered = world.register(&shown, via.as_ref());
            assert_eq!(registered.is_ok(), successor != Successor::None, "{case}");
            let counted = enrollments::group_counts(&world.c).unwrap();
            assert_eq!(counted.contains_key(name), successor != Successor::None, "{case}");
            // A change of the group is no other group.
            if let Some(group) = enrollments::group(&world.c, name).unwrap() {
                enrollments::put_group(&world.c, &Group { display_name: "new".into(), ..group }).unwrap();
                world.register(&shown, via.as_ref()).unwrap();
            }
        }
    }
}
