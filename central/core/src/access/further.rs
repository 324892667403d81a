//! What requests need beside the permission of their operation, because a part of them does what another permission is for.

use std::fmt;

use super::permission::{Permission, Permissions};

/// A part of requests that does what another permission is for.
#[derive(Debug, PartialEq, Eq)]
pub struct Further {
    /// A field, a parameter or a value; [`ALWAYS`] for every request.
    pub part: &'static str,
    pub permission: Permission,
    /// Method and path of each operation that takes the part.
    pub operations: &'static [&'static str],
}

/// The part of operations that need two permissions whatever they are given.
pub const ALWAYS: &str = "every request";

/// Assigns a manifest to a gateway, or takes the assignment away.
pub static ASSIGN_MANIFEST: Further = Further {
    part: "deploymentManifest",
    permission: Permission::EdgeManifestsDeploy,
    operations: &["PUT /api/devices/{device_id}", "PATCH /api/devices/{device_id}"],
};

/// Reads the whole manifest of a gateway.
pub static EXPAND_MANIFEST: Further = Further {
    part: "expand=deploymentManifest",
    permission: Permission::EdgeManifestsView,
    operations: &[
        "GET /api/devices",
        "GET /api/devices/{device_id}",
        "PUT /api/devices/{device_id}",
        "PATCH /api/devices/{device_id}",
    ],
};

/// Reads the twins into which a manifest was written.
pub static READ_SYSTEM_MODULE: Further = Further {
    part: "a module $edgeAgent or $edgeHub",
    permission: Permission::EdgeManifestsView,
    operations: &[
        "GET /api/devices/{device_id}/modules/{module_name}/properties",
        "GET /api/devices/{device_id}/modules/{module_name}/components/{component_name}/properties",
        "GET /api/ext/devices/{device_id}/twin",
    ],
};

/// Approves a device that enrolled itself.
pub static APPROVE: Further = Further {
    part: "enabled of a device that waits for approval",
    permission: Permission::ConnectivityManageInstance,
    operations: &["PUT /api/devices/{device_id}", "PATCH /api/devices/{device_id}"],
};

/// Sets how devices prove themselves.
pub static IMPORT_CREDENTIALS: Further = Further {
    part: "csv with keys or thumbprints",
    permission: Permission::ConnectivityManageInstance,
    operations: &["POST /api/ext/devices/import", "POST /api/ext/devices/import/preview"],
};

/// Reads how many devices prove themselves.
pub static EXPORT_KEYS: Further = Further {
    part: "keys",
    permission: Permission::ConnectivityExportKeys,
    operations: &["POST /api/ext/devices/export"],
};

/// Reads what a device sent, and gives it a template.
pub static MAKE_TEMPLATE: Further = Further {
    part: ALWAYS,
    permission: Permission::DeviceInstancesUpdate,
    operations: &["POST /api/ext/devices/{device_id}/template"],
};

/// All of them.
pub static FURTHER: [&Further; 7] = [
    &ASSIGN_MANIFEST,
    &EXPAND_MANIFEST,
    &READ_SYSTEM_MODULE,
    &APPROVE,
    &IMPORT_CREDENTIALS,
    &EXPORT_KEYS,
    &MAKE_TEMPLATE,
];

/// A request has a part for which its maker lacks the permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LacksFurther(&'static Further);

impl fmt::Display for LacksFurther {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Further { part, permission, .. } = self.0;
        write!(formatter, "you lack the permission {}, which ", permission.id())?;
        // No colon behind it: what follows on `keys:` is hidden from who may see no secrets.
        match *part {
            ALWAYS => write!(formatter, "this operation needs too"),
            part => write!(formatter, "a request with {part} needs too"),
        }
    }
}

impl std::error::Error for LacksFurther {}

impl Further {
    /// Checks that who has the permissions `held` may make a request with this part.
    ///
    /// # Errors
    /// [`LacksFurther`].
    pub fn check(&'static self, held: Permissions) -> Result<(), LacksFurther> {
        if held.has(self.permission) { Ok(()) } else { Err(LacksFurther(self)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_for_who_has_its_permission_and_an_error_names_both() {
        for further in FURTHER {
            assert_eq!(further.check(Permissions::of(&[further.permission])), Ok(()));
            let refused = further.check(Permissions::ALL.without(Permissions::of(&[further.permission])));
            let message = refused.unwrap_err().to_string();
            let has_part = further.part == ALWAYS || message.contains(further.part);
            assert!(has_part && message.contains(further.permission.id()), "{message}");
        }
    }
}
