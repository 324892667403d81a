//! Registering a device, or changing its registration, within one transaction.

use central_core::access::further;
use central_core::access::permission::Permissions;
use rusqlite::Connection;
use schemas::names::{DeviceId, Identity};

use crate::access::admission::Admission;
use crate::access::authorize::end_claim;
use crate::deployments::assignment::{Assignment, assign, remove_assignment};
use crate::error::{ServiceError, no_device};
use crate::new_device::new_device;
use crate::store::devices::{self, Device};
use crate::types::organizations::Organizations;
use crate::types::precondition::Precondition;
use crate::types::update::Update;

/// A change of a device's registration; `None` and [`Update::Keep`] leave what is stored.
#[derive(Debug, Default)]
pub struct Registration {
    /// For people; the id when nothing was ever given.
    pub display_name: Option<String>,
    /// A device template's id.
    pub template: Update<String>,
    /// Whether it is a gateway. Only for a new one.
    pub is_gateway: Option<bool>,
    pub enabled: Option<bool>,
    /// Whether its values are made up.
    pub simulated: Option<bool>,
    pub organizations: Update<Organizations>,
    /// The manifest to assign.
    pub manifest: Update<Assignment>,
    /// What its maker may do.
    pub held: Permissions,
}

/// What a registration changed.
pub(super) struct Registered {
    pub(super) device: Device,
    /// Modules whose desired sections changed.
    pub(super) changed: Vec<Identity>,
    /// The gateway that had claimed the id.
    pub(super) claimant: Option<DeviceId>,
}

/// As [`Registry::register`].
///
/// [`Registry::register`]: super::service::Registry::register
pub(super) fn register(
    c: &Connection,
    id: DeviceId,
    request: Registration,
    must_exist: bool,
    precondition: &Precondition,
    now_ms: u64,
) -> Result<Registered, ServiceError> {
    let stored = devices::get(c, &id)?;
    if stored.is_none() && must_exist {
        return Err(no_device(&id));
    }
    precondition.check(stored.as_ref().map(Device::etag).as_deref())?;
    let mut claimant = None;
    let mut device = match stored {
        // PUT registers the id anew; PATCH changes the claim and keeps it (decision 0023).
        Some(device) if device.is_claim && !must_exist => {
            claimant = device.gateway.clone();
            end_claim(c, device)?
        }
        Some(device) => device,
        None => new_device(id),
    };
    let manifest = apply(&mut device, request)?;
    let mut changed = Vec::new();
    match manifest {
        Update::Keep => {}
        Update::Clear => remove_assignment(c, &mut device)?,
        Update::Set(manifest) => changed = assign(c, &mut device, manifest, now_ms)?,
    }
    device.revision = devices::put(c, &device)?;
    Ok(Registered { device, changed, claimant })
}

/// Changes a device as the request says, all but the manifest, which it returns.
fn apply(device: &mut Device, request: Registration) -> Result<Update<Assignment>, ServiceError> {
    if let Some(is_gateway) = request.is_gateway {
        let is_new = device.revision == 0;
        if !is_new && is_gateway != device.is_gateway {
            return Err(ServiceError::Wrong(format!(
                "type: device `{}` is {}a gateway and stays so; delete it and register it anew",
                device.id,
                if device.is_gateway { "" } else { "not " }
            )));
        }
        device.is_gateway = is_gateway;
    }
    if let Some(display_name) = request.display_name {
        device.display_name = display_name;
    }
    device.template = request.template.over(device.template.take());
    if let Some(enabled) = request.enabled {
        if enabled && device.admission() == Admission::Waiting {
            further::APPROVE.check(request.held)?;
        }
        device.set_enabled(enabled);
    }
    device.simulated = request.simulated.unwrap_or(device.simulated);
    let organizations = request.organizations.over(Some(std::mem::take(&mut device.organizations)));
    device.organizations = organizations.unwrap_or_default();
    Ok(request.manifest)
}
