//! Who may speak for whom at central: one function decides for every kind of connection.
//!
//! | Speaks for | Telemetry | Will | Reported section | Presence | Answer, settlement, loss |
//! |---|---|---|---|---|---|
//! | itself | yes | unless blocked | yes | yes | yes |
//! | a module of its own, known here | yes | unless blocked | yes | yes | yes |
//! | a module of its own, unknown here | yes | unless blocked | no | yes | yes |
//! | a device that is behind it | yes | yes | yes | yes | yes |
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

use crate::enrollment::placement::put_behind;
use crate::error::ServiceError;
use crate::new_device::new_device;
use crate::store::devices::{self, Device};
use crate::store::modules;
use crate::store::relationships;
use crate::store::twins::{self, Half};

/// Sections of modules that a gateway may report.
const MODULES_MAX: usize = 500;

/// Devices that one gateway may have registered by its own word. More must enrol or be registered by an operator.
const CLAIMS_MAX: usize = 1_000;

/// What is said in the name of an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statement {
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

impl Statement {
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
    statement: Statement,
    generation: Option<Generation>,
) -> Result<(), ServiceError> {
    if of.device == *speaker {
        return own(c, speaker, of.module.as_ref(), statement, generation);
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
            Some(generation) => is_current(c, speaker, device, statement, generation),
        },
        Some(_) => forbidden("attach the device to it by a relationship"),
        None if devices::is_removed(c, &of.device)? => {
            forbidden("the device was deleted; register it and attach it to the gateway")
        }
        None if generation.is_some_and(|generation| generation.has_ended) => {
            forbidden("the device was removed on its gateway")
        }
        None if statement.registers() => bring(c, speaker, &of.device, generation),
        None => forbidden("the device is not registered"),
    }
}

/// A speaker for itself or a module of its own.
pub(crate) fn own(
    c: &Connection,
    speaker: &DeviceId,
    module: Option<&ModuleId>,
    statement: Statement,
    generation: Option<Generation>,
) -> Result<(), ServiceError> {
    let Some(device) = devices::get(c, speaker)? else {
        let why = format!("device `{speaker}` is not registered any more");
        return Err(match statement {
            // Nobody waits for it: it must not be offered again and again.
            Statement::Will => ServiceError::Forbidden(why),
            _ => ServiceError::Busy(why),
        });
    };
    if statement == Statement::Will
        && let Err(why) = device.admission().check()
    {
        return Err(ServiceError::Forbidden(format!("device `{speaker}` may not speak: {why}")));
    }
    let Some(module) = module else { return Ok(()) };
    if !device.is_gateway {
        return Err(ServiceError::Forbidden(format!("device `{speaker}` is no gateway and has no modules")));
    }
    is_current_module(c, speaker, module, generation)?;
    if statement == Statement::Reported && !is_known(c, speaker, module)? {
        return Err(ServiceError::Forbidden(format!(
            "gateway `{speaker}` has no module `{module}`: neither its manifest nor its own report names it"
        )));
    }
    Ok(())
}

pub(crate) fn is_current_module(
    c: &Connection,
    gateway: &DeviceId,
    module: &ModuleId,
    generation: Option<Generation>,
) -> Result<(), ServiceError> {
    // Only central numbers modules (decision 0047).
    if let Some(Generation { number, counter: Counter::Central, .. }) = generation
        && number < modules::generation(c, gateway, module)?
    {
        return Err(earlier(&Identity::module(gateway.clone(), module.clone())));
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

/// Makes sure that what is said of `device`, which is behind `gateway`, is of this registration and not of an earlier device of
/// its id. What is of a later one, which was added on the gateway since, makes the claim of the earlier one end.
fn is_current(
    c: &Connection,
    gateway: &DeviceId,
    device: Device,
    statement: Statement,
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
        Counter::Gateway if !statement.registers() => Err(ServiceError::Forbidden(format!(
            "gateway `{gateway}` speaks for a device `{identity}` that it has not registered yet"
        ))),
        Counter::Gateway if device.is_claim => {
            let id = device.id.clone();
            remove(c, &device)?;
            bring(c, gateway, &id, Some(generation))
        }
        // A device that an operator registered or took over stays the operator's (decision 0029).
        Counter::Gateway => {
            devices::put(c, &Device { gateway_generation: number, ..device })?;
            Ok(())
        }
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
    let device = Device { keys: None, is_claim: true, gateway_generation, ..new_device(id.clone()) };
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

/// Makes a claim an operator's device, which is behind no gateway. Its keys stay at the gateway that claimed it.
pub(crate) fn adopt_claim(c: &Connection, claim: &mut Device) -> Result<(), ServiceError> {
    if let Some(gateway) = claim.gateway.take() {
        for relationship in relationships::list(c, &gateway)? {
            if relationship.target == claim.id {
                relationships::delete(c, &gateway, &relationship.id)?;
            }
        }
    }
    claim.is_claim = false;
    claim.revision = devices::put(c, claim)?;
    Ok(())
}

#[cfg(test)]
mod tests;
