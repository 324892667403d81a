//! Who may speak for whom at central: one function decides for every way in.
//!
//! | Speaks for | Telemetry | Will | Reported section | Presence | Answer, settlement, loss |
//! |---|---|---|---|---|---|
//! | itself | yes | unless blocked | yes | yes | yes |
//! | a module of its own, known here | yes | unless blocked | yes | yes | yes |
//! | a module of its own, unknown here | yes | unless blocked | no | yes | yes |
//! | a device that stands behind it | yes | yes | yes | yes | yes |
//! | a device that was never registered | registers it | no | registers it | registers it | no |
//! | a device that was deleted | no | no | no | no | no |
//! | any other device, its modules, another gateway | no | no | no | no | no |
//!
//! What a gateway says carries the generation of the device or module, where the gateway knows it: nothing that is of an earlier
//! one of a name is taken for the present one.
//!
//! An unknown module's telemetry is taken since a manifest may be applied on the gateway itself, and because a module's last
//! messages may arrive when it has left the manifest. A device that a gateway registers is the gateway's claim: an enrolment
//! (see `proving`, `placement`) or an operator takes its id over.

use rusqlite::Connection;
use schemas::generation::{Counter, Generation};
use schemas::link::RemovedDevice;
use schemas::names::{DeviceId, Identity, ModuleId};
use serde_json::Value;

use crate::error::ServiceError;
use crate::new_device::new_device;
use crate::placement::put_behind;
use crate::store::devices::{self, Device};
use crate::store::modules;
use crate::store::twins::{self, Half};

/// Sections of modules that a gateway may report.
const MODULES_MAX: usize = 500;

/// Devices that one gateway may have registered by its own word. More must enrol or be registered by an operator.
const CLAIMS_MAX: usize = 1_000;

/// What is said in the name of an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Telemetry,
    /// A will, when it is published.
    Will,
    Reported,
    /// That it is connected, or not.
    Presence,
    /// The answer to a command.
    Answer,
    /// How a cloud-to-device message ended.
    Settlement,
    /// That its messages were lost.
    Loss,
}

impl Way {
    pub const ALL: [Self; 7] = [
        Self::Telemetry,
        Self::Will,
        Self::Reported,
        Self::Presence,
        Self::Answer,
        Self::Settlement,
        Self::Loss,
    ];

    /// Whether a device that was added at a gateway is registered by it.
    fn registers(self) -> bool {
        matches!(self, Self::Telemetry | Self::Reported | Self::Presence)
    }
}

/// Makes sure that `speaker`, a gateway or a device that is proven, may speak for `of` in this way. A device that nobody has
/// known before was added at the gateway: it is registered behind it, without keys.
///
/// # Errors
/// [`ServiceError::Forbidden`] when it may not, or `generation` is that of an earlier one of the name; [`ServiceError::Busy`] when the speaker itself was deleted, and its connection is
/// about to end; [`ServiceError::Wrong`] when the gateway has as many devices or modules as it may have.
pub fn authorize(
    c: &Connection,
    speaker: &DeviceId,
    of: &Identity,
    way: Way,
    generation: Option<Generation>,
) -> Result<(), ServiceError> {
    if of.device == *speaker {
        return own(c, speaker, of.module.as_ref(), way, generation);
    }
    let forbidden = |why: &str| {
        Err(ServiceError::Forbidden(format!("gateway `{speaker}` does not speak for `{of}`; {why}")))
    };
    if of.module.is_some() {
        return forbidden("it is a module of another gateway");
    }
    match devices::get(c, &of.device)? {
        // The relationship says that the speaker is a gateway.
        Some(device) if device.gateway.as_ref() == Some(speaker) => match generation {
            None => Ok(()),
            Some(generation) => is_current(c, speaker, device, way, generation),
        },
        Some(_) => forbidden("attach the device to it by a relationship"),
        None if devices::is_removed(c, &of.device)? => {
            forbidden("the device was deleted; register it and attach it to the gateway")
        }
        None if generation.is_some_and(|generation| generation.has_ended) => {
            forbidden("the device was removed on its gateway")
        }
        None if way.registers() => bring(c, speaker, &of.device, generation),
        None => forbidden("the device is not registered"),
    }
}

/// A speaker for itself or a module of its own.
fn own(
    c: &Connection,
    speaker: &DeviceId,
    module: Option<&ModuleId>,
    way: Way,
    generation: Option<Generation>,
) -> Result<(), ServiceError> {
    let Some(device) = devices::get(c, speaker)? else {
        let why = format!("device `{speaker}` is not registered any more");
        return Err(match way {
            // Nobody waits for it: it must not be offered again and again.
            Way::Will => ServiceError::Forbidden(why),
            _ => ServiceError::Busy(why),
        });
    };
    if way == Way::Will
        && let Err(why) = device.admission().check()
    {
        return Err(ServiceError::Forbidden(format!("device `{speaker}` may not speak: {why}")));
    }
    let Some(module) = module else { return Ok(()) };
    if !device.is_gateway {
        return Err(ServiceError::Forbidden(format!("device `{speaker}` is no gateway and has no modules")));
    }
    if let Some(Generation { number, counter: Counter::Central, .. }) = generation
        && number < modules::generation(c, speaker, module)?
    {
        return Err(earlier(&Identity::module(speaker.clone(), module.clone())));
    }
    if way == Way::Reported && !is_known(c, speaker, module)? {
        return Err(ServiceError::Forbidden(format!(
            "gateway `{speaker}` has no module `{module}`: neither its manifest nor its own report names it"
        )));
    }
    Ok(())
}

/// Whether a module of a gateway has a twin here, or is named by the gateway's manifest or by what it reports of itself.
fn is_known(c: &Connection, gateway: &DeviceId, module: &ModuleId) -> Result<bool, ServiceError> {
    if module.is_system() {
        return Ok(*module == ModuleId::edge_agent() || *module == ModuleId::edge_hub());
    }
    let with_twins = twins::modules(c, gateway)?;
    if with_twins.contains(module) {
        return Ok(true);
    }
    let agent = Identity::module(gateway.clone(), ModuleId::edge_agent());
    let names = |half| -> Result<bool, ServiceError> {
        let section = twins::section(c, &agent, half)?.section;
        let modules = section.properties.get("modules").and_then(Value::as_object);
        Ok(modules.is_some_and(|modules| modules.contains_key(module.as_str())))
    };
    if names(Half::Desired)? {
        return Ok(true);
    }
    if !names(Half::Reported)? {
        return Ok(false);
    }
    // The gateway's own word, so it is bounded.
    if with_twins.len() < MODULES_MAX {
        Ok(true)
    } else {
        Err(ServiceError::Wrong(format!(
            "gateway `{gateway}` reports sections of {MODULES_MAX} modules, which is the most that one may have"
        )))
    }
}

/// What is said in the name of somebody who had it before.
fn earlier(of: &Identity) -> ServiceError {
    ServiceError::Forbidden(format!("it is of an earlier device or module `{of}`, which was removed since"))
}

/// Makes sure that what is said of `device`, which stands behind `gateway`, is of this registration and not of an earlier device of
/// its id. What is of a later one, which was added on the gateway since, makes the claim of the earlier one end.
fn is_current(
    c: &Connection,
    gateway: &DeviceId,
    device: Device,
    way: Way,
    generation: Generation,
) -> Result<(), ServiceError> {
    let Generation { number, counter, has_ended } = generation;
    let identity = Identity::device(device.id.clone());
    match counter {
        // One counter numbers registrations and stays behind gateways: a stay of this registration began after it.
        Counter::Central if number < device.generation => Err(earlier(&identity)),
        Counter::Central => Ok(()),
        Counter::Gateway if number == device.gateway_generation => Ok(()),
        Counter::Gateway if has_ended || number < device.gateway_generation => Err(earlier(&identity)),
        Counter::Gateway if !way.registers() => Err(ServiceError::Forbidden(format!(
            "gateway `{gateway}` speaks for a device `{identity}` that it has not registered yet"
        ))),
        Counter::Gateway if device.is_claim => {
            let id = device.id.clone();
            remove(c, &device)?;
            bring(c, gateway, &id, Some(generation))
        }
        Counter::Gateway => Ok(devices::put(c, &Device { gateway_generation: number, ..device })?),
    }
}

/// Ends the registration of a device that nothing but its gateway's word registered. The gateway may register its id again.
fn remove(c: &Connection, claim: &Device) -> Result<(), ServiceError> {
    devices::delete(c, &claim.id)?;
    devices::may_return(c, &claim.id)?;
    tracing::info!(device = %claim.id, gateway = ?claim.gateway.as_ref().map(DeviceId::as_str), "device that was removed on its gateway was deleted");
    Ok(())
}

/// As [`remove`], when a gateway tells that a device which was added on it was removed. False when it is registered no more, is
/// another one, or was taken over by an operator.
///
/// # Errors
/// [`ServiceError::Store`].
pub(crate) fn remove_claim(
    c: &Connection,
    gateway: &DeviceId,
    removed: &RemovedDevice,
) -> Result<bool, ServiceError> {
    let Some(device) = devices::get(c, &removed.device_id)? else { return Ok(false) };
    let Generation { number, counter, .. } = removed.generation;
    let is_it = counter == Counter::Gateway && device.gateway_generation <= number;
    if !is_it || !device.is_claim || device.gateway.as_ref() != Some(gateway) {
        tracing::info!(device = %removed.device_id, %gateway, "device that was removed on its gateway stays registered");
        return Ok(false);
    }
    remove(c, &device)?;
    Ok(true)
}

/// Registers a device that was added at a gateway.
fn bring(
    c: &Connection,
    gateway: &DeviceId,
    id: &DeviceId,
    generation: Option<Generation>,
) -> Result<(), ServiceError> {
    if !devices::get(c, gateway)?.is_some_and(|device| device.is_gateway) {
        return Err(ServiceError::Forbidden(format!(
            "device `{gateway}` is no gateway and brings no devices"
        )));
    }
    if devices::claims_count(c, gateway)? >= CLAIMS_MAX {
        return Err(ServiceError::Wrong(format!(
            "gateway `{gateway}` registered {CLAIMS_MAX} devices by its own word, which is the most that one may; register \
             `{id}` and attach it to the gateway"
        )));
    }
    let gateway_generation = generation.filter(|of| of.counter == Counter::Gateway).map_or(0, |of| of.number);
    let device =
        Device { keys: None, is_claim: true, revision: 1, gateway_generation, ..new_device(id.clone()) };
    devices::put(c, &device)?;
    put_behind(c, gateway, id, "added at the gateway")?;
    tracing::info!(device = %id, %gateway, "device that the gateway brought was registered");
    Ok(())
}

/// Frees the id of a claim: what the gateway had stored under it is deleted. Returns the device that takes its place, which is
/// not stored yet and keeps what an operator may have set.
pub(crate) fn end_claim(c: &Connection, claim: Device) -> Result<Device, ServiceError> {
    devices::delete(c, &claim.id)?;
    tracing::info!(device = %claim.id, gateway = ?claim.gateway.as_ref().map(DeviceId::as_str), "claim of a gateway ended");
    let Device { id, display_name, template, .. } = claim;
    Ok(Device { display_name, template, ..new_device(id) })
}

/// Makes a claim an operator's device, which stands behind no gateway. Its keys stay at the gateway that claimed it.
pub(crate) fn adopt_claim(c: &Connection, claim: &mut Device) -> Result<(), ServiceError> {
    if let Some(gateway) = claim.gateway.take() {
        for relationship in devices::relationships(c, &gateway)? {
            if relationship.target == claim.id {
                devices::delete_relationship(c, &gateway, &relationship.id)?;
            }
        }
    }
    claim.is_claim = false;
    claim.revision += 1;
    Ok(devices::put(c, claim)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::devices::Relationship;
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
                devices::put_relationship(c, &Relationship { id, name: "r".into(), source, target }).unwrap();
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
    fn every_way_in_is_decided_alike_for_every_kind_of_identity() {
        let dir = tempfile::tempdir().unwrap();
        let gw: DeviceId = "gw".parse().unwrap();
        for (number, way) in Way::ALL.into_iter().enumerate() {
            for (of, name) in ALL_OF {
                // A store of its own for each: some ways register.
                let path = dir.path().join(format!("{number}-{of:?}.db"));
                let c = schema::open(&path).unwrap();
                site(&c);
                let before = devices::list(&c, "", 100).unwrap();
                let expected = match of {
                    Of::Itself | Of::Behind | Of::BlockedBehind => true,
                    Of::ModuleOfManifest | Of::ModuleOfReport | Of::ModuleWithTwin => true,
                    Of::MadeUpModule => way != Way::Reported,
                    Of::Unknown => matches!(way, Way::Telemetry | Way::Reported | Way::Presence),
                    Of::Deleted | Of::DeletedAndAnew | Of::Detached | Of::Elsewhere => false,
                    Of::OtherGateway | Of::ModuleElsewhere | Of::ModuleOfDevice => false,
                };
                let decided = authorize(&c, &gw, &name.parse().unwrap(), way, None);
                assert_eq!(decided.is_ok(), expected, "{way:?} of {of:?}: {decided:?}");
                if let Err(error) = decided {
                    assert!(matches!(error, ServiceError::Forbidden(_)), "{way:?} of {of:?}: {error:?}");
                }
                let registered = devices::list(&c, "", 100).unwrap();
                let is_claimed = of == Of::Unknown && expected;
                assert_eq!(registered.len(), before.len() + usize::from(is_claimed), "{way:?} of {of:?}");
                assert_eq!(
                    registered
                        .iter()
                        .filter(|device| device.id.as_str() == name)
                        .cloned()
                        .collect::<Vec<_>>()
                        == before
                            .iter()
                            .filter(|device| device.id.as_str() == name)
                            .cloned()
                            .collect::<Vec<_>>(),
                    !is_claimed,
                    "{way:?} of {of:?}"
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
            let will = authorize(&c, &speaker, &own, Way::Will, None);
            assert_eq!(will.is_ok(), matches!(speaker.as_str(), "press" | "detached"), "{will:?}");
            for way in Way::ALL {
                for of in ["brought", "gw", "gw/filter", "lathe"] {
                    let decided = authorize(&c, &speaker, &of.parse().unwrap(), way, None);
                    assert!(matches!(decided, Err(ServiceError::Forbidden(_))), "{speaker}: {way:?} of {of}");
                }
                let module = Identity::module(speaker.clone(), "m".parse().unwrap());
                assert!(
                    authorize(&c, &speaker, &module, way, None).is_err(),
                    "{speaker}: {way:?} of a module"
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
        let report =
            Section { version: 2, properties: json!({"modules": names}).as_object().unwrap().clone() };
        twins::write(&c, &"gw/$edgeAgent".parse().unwrap(), Half::Reported, &report, 1).unwrap();
        let mut taken = 0;
        for n in 0..2 * MODULES_MAX {
            let module: Identity = format!("gw/m{n}").parse().unwrap();
            if authorize(&c, &gw, &module, Way::Reported, None).is_ok() {
                twins::write(&c, &module, Half::Reported, &Section::default(), 1).unwrap();
                taken += 1;
            }
        }
        assert!(taken <= MODULES_MAX && taken > MODULES_MAX - 10, "{taken}");
        assert!(
            authorize(&c, &gw, &"gw/filter".parse().unwrap(), Way::Reported, None).is_ok(),
            "of its manifest"
        );
    }

    #[test]
    fn a_gateway_registers_a_bounded_number_of_devices_by_its_own_word() {
        let dir = tempfile::tempdir().unwrap();
        let c = schema::open(&dir.path().join("central.db")).unwrap();
        site(&c);
        c.execute_batch("BEGIN").unwrap();
        let claim = |gateway: &str, n: usize| {
            let of: Identity = format!("claimed-{n}").parse().unwrap();
            authorize(&c, &gateway.parse().unwrap(), &of, Way::ALL[n % Way::ALL.len()], None)
        };
        let registering = || (0..usize::MAX).filter(|n| Way::ALL[n % Way::ALL.len()].registers());
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
        devices::delete_relationship(&c, &gw, "to-press").unwrap();
        let relationship = Relationship {
            id: "to-ghost".into(),
            name: "r".into(),
            source: gw.clone(),
            target: press.id.clone(),
        };
        devices::put_relationship(&c, &relationship).unwrap();
        let refused = authorize(&c, &gw, &"ghost".parse().unwrap(), Way::Telemetry, None);
        assert!(matches!(refused, Err(ServiceError::Conflict(_))), "{refused:?}");
        assert_eq!(devices::get(&c, &press.id).unwrap().unwrap().gateway, Some(gw));
    }
}
