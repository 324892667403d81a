//! The roles that every site has: IoT Central's, by its ids and names, and a viewer of the whole site, which it lacks.

use super::permission::{Permission as P, Permissions};

/// A role that nobody can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuiltIn {
    /// In the API. Scripts for IoT Central have written these down.
    pub id: &'static str,
    /// As IoT Central's API shows it.
    pub display_name: &'static str,
    pub holds: Holds,
}

/// What for a role holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// The whole site.
    Site(Permissions),
    /// An organization; it is kept, and allows nothing, because central confines nobody to an organization.
    Organization,
}

/// Sees everything but secrets.
pub const VIEWER: Permissions = Permissions::of(&[
    P::DeviceTemplatesView,
    P::DeviceInstancesView,
    P::EdgeManifestsView,
    P::ConnectivityView,
    P::RolesView,
]);

/// Also writes, commands, and reads keys, because operators connect devices.
pub const OPERATOR: Permissions = VIEWER.and(Permissions::of(&[
    P::DeviceTemplatesManage,
    P::DeviceInstancesUpdate,
    P::DeviceInstancesCreate,
    P::DeviceInstancesExecuteCommands,
    P::DeviceInstancesExport,
    P::EdgeManifestsManage,
    P::EdgeManifestsDeploy,
    P::ConnectivityReadInstance,
    P::ConnectivityManageInstance,
    P::ConnectivityReadGlobal,
    P::ConnectivityManageGlobal,
    P::SecretsView,
]));

/// Also deletes, which destroys identities and their history.
pub const BUILDER: Permissions = OPERATOR.and(Permissions::of(&[
    P::DeviceTemplatesDelete,
    P::DeviceInstancesDelete,
    P::EdgeManifestsDelete,
    P::ConnectivityDeleteGlobal,
]));

const fn of_site(id: &'static str, display_name: &'static str, permissions: Permissions) -> BuiltIn {
    BuiltIn { id, display_name, holds: Holds::Site(permissions) }
}

const fn of_organization(id: &'static str, display_name: &'static str) -> BuiltIn {
    BuiltIn { id, display_name, holds: Holds::Organization }
}

/// Every one: those of the whole site from the most to the least, then those in an organization.
pub const BUILT_IN: [BuiltIn; 7] = [
    of_site("ca310b8d-2f4a-44e0-a36e-957c202cd8d4", "Administrator", Permissions::ALL),
    of_site("344138e9-8de4-4497-8c54-5237e96d6aaf", "Builder", BUILDER),
    of_site("ae2c9854-393b-4f97-8c42-479d70ce626e", "Operator", OPERATOR),
    of_site("viewer", "Viewer", VIEWER),
    of_organization("c495eb57-eb18-489e-9802-62c474e5645c", "Org Admin"),
    of_organization("b4935647-30e4-4ed3-9074-dcac66c2f8ef", "Org Operator"),
    of_organization("84cc62c1-dabe-49d3-b16e-8b291232b285", "Org Viewer"),
];

/// The built-in role with this id.
pub fn by_id(id: &str) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|role| role.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_has_what_its_permissions_need() {
        for role in BUILT_IN {
            if let Holds::Site(permissions) = role.holds {
                assert_eq!(permissions.with_needs(), permissions, "{}", role.display_name);
            }
        }
    }

    #[test]
    fn each_role_of_the_site_has_more_than_the_next_one() {
        let of_site = BUILT_IN.iter().filter_map(|role| match role.holds {
            Holds::Site(permissions) => Some(permissions),
            Holds::Organization => None,
        });
        let sets: Vec<Permissions> = of_site.collect();
        assert_eq!(sets.len(), 4);
        assert!(sets.windows(2).all(|pair| pair[1].is_within(pair[0]) && pair[0] != pair[1]));
        let of_administration =
            [P::UsersManage, P::ApiTokensCreate, P::AuditLogView, P::ConnectivityExportKeys];
        assert!(of_administration.into_iter().all(|one| !BUILDER.has(one)));
    }
}
