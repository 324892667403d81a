use super::*;
use crate::store::relationships::Relationship;
use crate::store::schema;
use schemas::twin::Section;
use serde_json::json;

/// Whom a gateway `gw` speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Itself,
    ModuleOfManifest,
    ModuleOfReport,
    ModuleWithTwin,
    MadeUpModule,
    Behind,
    BlockedBehind,
    Unknown,
    Deleted,
    DeletedAndAnew,
    Detached,
    Elsewhere,
    OtherGateway,
    ModuleElsewhere,
    ModuleOfDevice,
}

const ALL_OF: [(Of, &str); 15] = [
    (Of::Itself, "gw"),
    (Of::ModuleOfManifest, "gw/filter"),
    (Of::ModuleOfReport, "gw/local"),
    (Of::ModuleWithTwin, "gw/old"),
    (Of::MadeUpModule, "gw/ghost"),
    (Of::Behind, "press"),
    (Of::BlockedBehind, "blocked"),
    (Of::Unknown, "brought"),
    (Of::Deleted, "deleted"),
    (Of::DeletedAndAnew, "anew"),
    (Of::Detached, "detached"),
    (Of::Elsewhere, "lathe"),
    (Of::OtherGateway, "other"),
    (Of::ModuleElsewhere, "other/filter"),
    (Of::ModuleOfDevice, "press/filter"),
];

fn site(c: &Connection) {
    let id = |text: &str| -> DeviceId { text.parse().unwrap() };
    for (name, is_gateway, enabled, behind) in [
        ("gw", true, true, None),
        ("other", true, true, None),
        ("press", false, true, Some("gw")),
        ("blocked", false, false, Some("gw")),
        ("lathe", false, true, Some("other")),
        ("detached", false, true, None),
        ("deleted", false, true, Some("gw")),
        ("anew", false, true, Some("gw")),
    ] {
        devices::put(c, &Device { is_gateway, enabled, revision: 1, ..new_device(id(name)) }).unwrap();
        if let Some(gateway) = behind {
            let (id, source) = (format!("to-{name}"), id(gateway));
            let target = name.parse().unwrap();
            relationships::put(c, &Relationship { id, name: "r".into(), source, target }).unwrap();
        }
    }
    for gone in ["deleted", "anew"] {
        assert!(devices::delete(c, &id(gone)).unwrap());
    }
    devices::put(c, &Device { revision: 1, ..new_device(id("anew")) }).unwrap();
    let modules = |name: &str| Section {
        version: 1,
        properties: json!({"modules": {name: {}}}).as_object().unwrap().clone(),
    };
    let agent: Identity = "gw/$edgeAgent".parse().unwrap();
    twins::write(c, &agent, Half::Desired, &modules("filter"), 1).unwrap();
    twins::write(c, &agent, Half::Reported, &modules("local"), 1).unwrap();
    twins::write(c, &"gw/old".parse().unwrap(), Half::Reported, &Section::default(), 1).unwrap();
}

#[test]
fn every_kind_of_access_is_decided_alike_for_every_kind_of_identity() {
    let dir = tempfile::tempdir().unwrap();
    let gw: DeviceId = "gw".parse().unwrap();
    for (number, statement) in Statement::ALL.into_iter().enumerate() {
        for (of, name) in ALL_OF {
            // A store of its own for each: some ways register.
            let path = dir.path().join(format!("{number}-{of:?}.db"));
            let c = schema::open(&path).unwrap();
            site(&c);
            let before = devices::list(&c, "", 100).unwrap();
            let expected = match of {
                Of::Itself | Of::Behind | Of::BlockedBehind => true,
                Of::ModuleOfManifest | Of::ModuleOfReport | Of::ModuleWithTwin => true,
                Of::MadeUpModule => statement != Statement::Reported,
                Of::Unknown => {
                    matches!(statement, Statement::Telemetry | Statement::Reported | Statement::Presence)
                }
                Of::Deleted | Of::DeletedAndAnew | Of::Detached | Of::Elsewhere => false,
                Of::OtherGateway | Of::ModuleElsewhere | Of::ModuleOfDevice => false,
            };
            let decided = authorize(&c, &gw, &name.parse().unwrap(), statement, None);
            assert_eq!(decided.is_ok(), expected, "{statement:?} of {of:?}: {decided:?}");
            if let Err(error) = decided {
                assert!(matches!(error, ServiceError::Forbidden(_)), "{statement:?} of {of:?}: {error:?}");
            }
            let registered = devices::list(&c, "", 100).unwrap();
            let is_claimed = of == Of::Unknown && expected;
            assert_eq!(registered.len(), before.len() + usize::from(is_claimed), "{statement:?} of {of:?}");
            assert_eq!(
                registered.iter().filter(|device| device.id.as_str() == name).cloned().collect::<Vec<_>>()
                    == before.iter().filter(|device| device.id.as_str() == name).cloned().collect::<Vec<_>>(),
                !is_claimed,
                "{statement:?} of {of:?}"
            );
        }
    }
}

#[test]
fn a_speaker_that_was_deleted_or_blocked_leaves_no_will_and_brings_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let c = schema::open(&dir.path().join("central.db")).unwrap();
    site(&c);
    for speaker in ["deleted", "blocked", "press", "detached"] {
        let speaker: DeviceId = speaker.parse().unwrap();
        let own = Identity::device(speaker.clone());
        let will = authorize(&c, &speaker, &own, Statement::Will, None);
        assert_eq!(will.is_ok(), matches!(speaker.as_str(), "press" | "detached"), "{will:?}");
        for statement in Statement::ALL {
            for of in ["brought", "gw", "gw/filter", "lathe"] {
                let decided = authorize(&c, &speaker, &of.parse().unwrap(), statement, None);
                assert!(
                    matches!(decided, Err(ServiceError::Forbidden(_))),
                    "{speaker}: {statement:?} of {of}"
                );
            }
            let module = Identity::module(speaker.clone(), "m".parse().unwrap());
            assert!(
                authorize(&c, &speaker, &module, statement, None).is_err(),
                "{speaker}: {statement:?} of a module"
            );
        }
    }
    assert!(devices::get(&c, &"brought".parse().unwrap()).unwrap().is_none());
}

#[test]
fn a_gateway_reports_sections_of_a_bounded_number_of_modules_that_nobody_gave_it() {
    let dir = tempfile::tempdir().unwrap();
    let c = schema::open(&dir.path().join("central.db")).unwrap();
    site(&c);
    let gw: DeviceId = "gw".parse().unwrap();
    let names: serde_json::Map<String, Value> =
        (0..2 * MODULES_MAX).map(|n| (format!("m{n}"), json!({}))).collect();
    let report = Section { version: 2, properties: json!({"modules": names}).as_object().unwrap().clone() };
    twins::write(&c, &"gw/$edgeAgent".parse().unwrap(), Half::Reported, &report, 1).unwrap();
    let mut taken = 0;
    for n in 0..2 * MODULES_MAX {
        let module: Identity = format!("gw/m{n}").parse().unwrap();
        if authorize(&c, &gw, &module, Statement::Reported, None).is_ok() {
            twins::write(&c, &module, Half::Reported, &Section::default(), 1).unwrap();
            taken += 1;
        }
    }
    assert!(taken <= MODULES_MAX && taken > MODULES_MAX - 10, "{taken}");
    assert!(
        authorize(&c, &gw, &"gw/filter".parse().unwrap(), Statement::Reported, None).is_ok(),
        "of its manifest"
    );
}

#[test]
fn a_gateway_registers_a_bounded_number_of_devices_by_its_own_claim() {
    let dir = tempfile::tempdir().unwrap();
    let c = schema::open(&dir.path().join("central.db")).unwrap();
    site(&c);
    c.execute_batch("BEGIN").unwrap();
    let claim = |gateway: &str, n: usize| {
        let of: Identity = format!("claimed-{n}").parse().unwrap();
        authorize(&c, &gateway.parse().unwrap(), &of, Statement::ALL[n % Statement::ALL.len()], None)
    };
    let registering = || (0..usize::MAX).filter(|n| Statement::ALL[n % Statement::ALL.len()].registers());
    for n in registering().take(CLAIMS_MAX) {
        claim("gw", n).unwrap();
    }
    let after: Vec<usize> = registering().skip(CLAIMS_MAX).take(3).collect();
    for n in after {
        let refused = claim("gw", n);
        assert!(matches!(refused, Err(ServiceError::Wrong(_))), "{refused:?}");
        claim("other", n).unwrap();
    }
    // What it claimed already goes on.
    claim("gw", registering().next().unwrap()).unwrap();
}

#[test]
fn a_claim_does_not_replace_an_operators_relationship() {
    let dir = tempfile::tempdir().unwrap();
    let c = schema::open(&dir.path().join("central.db")).unwrap();
    site(&c);
    let (gw, press): (DeviceId, DeviceId) = ("gw".parse().unwrap(), "press".parse().unwrap());
    let press = devices::get(&c, &press).unwrap().unwrap();
    relationships::delete(&c, &gw, "to-press").unwrap();
    let relationship = Relationship {
        id: "to-ghost".into(),
        name: "r".into(),
        source: gw.clone(),
        target: press.id.clone(),
    };
    relationships::put(&c, &relationship).unwrap();
    let refused = authorize(&c, &gw, &"ghost".parse().unwrap(), Statement::Telemetry, None);
    assert!(matches!(refused, Err(ServiceError::Conflict(_))), "{refused:?}");
    assert_eq!(devices::get(&c, &press.id).unwrap().unwrap().gateway, Some(gw));
}
