//! Permissions, by IoT Central's vocabulary: what each allows, and which others it needs.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What an operation of the API needs. Each belongs to an area, which is the first half of its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Permission {
    DeviceTemplatesView,
    DeviceTemplatesManage,
    DeviceTemplatesDelete,
    DeviceInstancesView,
    DeviceInstancesUpdate,
    DeviceInstancesCreate,
    DeviceInstancesDelete,
    DeviceInstancesExecuteCommands,
    DeviceInstancesExport,
    EdgeManifestsView,
    EdgeManifestsManage,
    EdgeManifestsDeploy,
    EdgeManifestsDelete,
    ConnectivityView,
    ConnectivityReadInstance,
    ConnectivityManageInstance,
    ConnectivityExportKeys,
    ConnectivityReadGlobal,
    ConnectivityManageGlobal,
    ConnectivityDeleteGlobal,
    SecretsView,
    AuditLogView,
    RolesView,
    RolesManage,
    RolesDelete,
    UsersView,
    UsersManage,
    UsersDelete,
    ApiTokensView,
    ApiTokensCreate,
    ApiTokensDelete,
}

use Permission as P;

/// Characters of an unknown id that an error quotes.
const QUOTED_MAX: usize = 64;

/// What is known of a permission.
struct Row {
    permission: Permission,
    id: &'static str,
    meaning: &'static str,
    /// Without these it allows nothing, or less than it says.
    needs: &'static [Permission],
}

const fn row(
    permission: Permission,
    id: &'static str,
    meaning: &'static str,
    needs: &'static [Permission],
) -> Row {
    Row { permission, id, meaning, needs }
}

/// In the order of the variants.
static ROWS: [Row; 31] = [
    row(P::DeviceTemplatesView, "deviceTemplates.view", "see device templates", &[]),
    row(
        P::DeviceTemplatesManage,
        "deviceTemplates.manage",
        "add and change device templates",
        &[P::DeviceTemplatesView],
    ),
    row(
        P::DeviceTemplatesDelete,
        "deviceTemplates.delete",
        "delete device templates",
        &[P::DeviceTemplatesManage],
    ),
    row(P::DeviceInstancesView, "deviceInstances.view", "see devices, their data and their commands", &[]),
    row(
        P::DeviceInstancesUpdate,
        "deviceInstances.update",
        "change devices, their properties and their relationships",
        &[P::DeviceInstancesView],
    ),
    row(
        P::DeviceInstancesCreate,
        "deviceInstances.create",
        "add devices, also from a file",
        &[P::DeviceInstancesUpdate],
    ),
    row(
        P::DeviceInstancesDelete,
        "deviceInstances.delete",
        "delete devices, their relationships, attestations and waiting messages",
        &[P::DeviceInstancesView],
    ),
    row(
        P::DeviceInstancesExecuteCommands,
        "deviceInstances.executeCommands",
        "run commands and send cloud-to-device messages",
        &[P::DeviceInstancesUpdate],
    ),
    row(
        P::DeviceInstancesExport,
        "deviceInstances.export",
        "write devices into a file, without keys",
        &[P::DeviceInstancesView],
    ),
    row(P::EdgeManifestsView, "edgeManifests.view", "see deployment manifests and their rollouts", &[]),
    row(
        P::EdgeManifestsManage,
        "edgeManifests.manage",
        "add and change deployment manifests, and test routes",
        // Who writes back what was hidden would destroy it, so central takes no document with hidden values.
        &[P::EdgeManifestsView, P::SecretsView],
    ),
    row(
        P::EdgeManifestsDeploy,
        "edgeManifests.deploy",
        "assign deployment manifests to gateways, and preview that",
        &[P::EdgeManifestsView, P::DeviceInstancesUpdate],
    ),
    row(
        P::EdgeManifestsDelete,
        "edgeManifests.delete",
        "delete deployment manifests",
        &[P::EdgeManifestsManage],
    ),
    row(
        P::ConnectivityView,
        "connectivity.view",
        "see where devices connect, enrolment groups without keys, and refused attempts",
        &[],
    ),
    row(
        P::ConnectivityReadInstance,
        "connectivity.readInstance",
        "read the keys of devices",
        &[P::ConnectivityView, P::DeviceInstancesView, P::SecretsView],
    ),
    row(
        P::ConnectivityManageInstance,
        "connectivity.manageInstance",
        "set keys and certificates of devices, approve and reject devices",
        &[P::ConnectivityReadInstance, P::DeviceInstancesUpdate],
    ),
    row(
        P::ConnectivityExportKeys,
        "connectivity.exportKeys",
        "write devices with their keys into a file",
        &[P::ConnectivityReadInstance, P::DeviceInstancesExport],
    ),
    row(
        P::ConnectivityReadGlobal,
        "connectivity.readGlobal",
        "read the keys of enrolment groups",
        &[P::ConnectivityView, P::SecretsView],
    ),
    row(
        P::ConnectivityManageGlobal,
        "connectivity.manageGlobal",
        "add and change enrolment groups and their certificates",
        &[P::ConnectivityReadGlobal],
    ),
    row(
        P::ConnectivityDeleteGlobal,
        "connectivity.deleteGlobal",
        "delete enrolment groups and their certificates",
        &[P::ConnectivityManageGlobal],
    ),
    row(P::SecretsView, "secrets.view", "read secrets in documents, messages and errors", &[]),
    row(P::AuditLogView, "auditLog.view", "read the audit log", &[]),
    row(P::RolesView, "roles.view", "see roles", &[]),
    row(P::RolesManage, "roles.manage", "add and change roles", &[P::RolesView]),
    row(P::RolesDelete, "roles.delete", "delete roles that nobody has", &[P::RolesView]),
    row(P::UsersView, "users.view", "see users", &[P::RolesView]),
    row(
        P::UsersManage,
        "users.manage",
        "add users, change their roles and set their passwords",
        &[P::UsersView],
    ),
    row(P::UsersDelete, "users.delete", "delete users", &[P::UsersView]),
    row(P::ApiTokensView, "apiTokens.view", "see API tokens, without their secrets", &[P::RolesView]),
    row(P::ApiTokensCreate, "apiTokens.create", "make API tokens", &[P::ApiTokensView]),
    row(P::ApiTokensDelete, "apiTokens.delete", "revoke API tokens", &[P::ApiTokensView]),
];

impl Permission {
    /// Every one, by area.
    pub fn all() -> impl Iterator<Item = Self> {
        ROWS.iter().map(|row| row.permission)
    }

    fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// In the API, for example `deviceInstances.view`.
    pub fn id(self) -> &'static str {
        self.row().id
    }

    /// For people: what its owner may do.
    pub fn meaning(self) -> &'static str {
        self.row().meaning
    }

    /// The permissions that it needs directly.
    pub fn needs(self) -> &'static [Self] {
        self.row().needs
    }

    const fn bit(self) -> u64 {
        1 << self as u8
    }
}

impl Serialize for Permission {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

/// A text was the id of no permission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownPermission(String);

impl fmt::Display for UnknownPermission {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<&str> = Permission::all().map(Permission::id).collect();
        write!(
            formatter,
            "found `{}`, which is no permission; allowed are {}",
            self.0.escape_debug(),
            ids.join(", ")
        )
    }
}

impl std::error::Error for UnknownPermission {}

impl FromStr for Permission {
    type Err = UnknownPermission;

    fn from_str(id: &str) -> Result<Self, UnknownPermission> {
        // An error quotes as much of a text as an id has.
        let unknown = || UnknownPermission(id.chars().take(QUOTED_MAX).collect());
        Self::all().find(|permission| permission.id() == id).ok_or_else(unknown)
    }
}

impl<'de> Deserialize<'de> for Permission {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A set of permissions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Permissions(u64);

impl Permissions {
    /// Every permission that there is.
    pub const ALL: Self = Self((1 << ROWS.len()) - 1);

    /// Those of a list, and no others.
    pub const fn of(list: &[Permission]) -> Self {
        let (mut bits, mut index) = (0, 0);
        while index < list.len() {
            bits |= list[index].bit();
            index += 1;
        }
        Self(bits)
    }

    /// Those of either.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are not in `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub const fn has(self, permission: Permission) -> bool {
        self.0 & permission.bit() != 0
    }

    /// Whether `other` has each of these.
    pub const fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::all().filter(move |permission| self.has(*permission))
    }

    /// The first of these that needs one which is missing, and that one.
    pub fn missing(self) -> Option<(Permission, Permission)> {
        self.iter().find_map(|permission| {
            let missing = permission.needs().iter().find(|needed| !self.has(**needed));
            missing.map(|needed| (permission, *needed))
        })
    }

    /// These with all that they need.
    pub fn with_needs(self) -> Self {
        let mut all = self;
        loop {
            let needed = all.iter().flat_map(Permission::needs);
            let more = needed.fold(all, |set, one| set.and(Self::of(&[*one])));
            if more == all {
                return all;
            }
            all = more;
        }
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(list: I) -> Self {
        list.into_iter().fold(Self::default(), |set, one| set.and(Self::of(&[one])))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_permission_has_its_row_and_an_id_of_its_own() {
        let ids: BTreeSet<&str> = Permission::all().map(Permission::id).collect();
        assert_eq!(ids.len(), ROWS.len());
        for (index, row) in ROWS.iter().enumerate() {
            assert_eq!(row.permission as usize, index, "{}", row.id);
            assert_eq!(
                format!("{:?}", row.permission).to_lowercase(),
                row.id.replace('.', "").to_lowercase()
            );
        }
        assert_eq!(Permissions::ALL.iter().count(), ROWS.len());
    }

    #[test]
    fn what_is_needed_is_added_along_the_whole_chain() {
        let run = Permissions::of(&[P::DeviceInstancesExecuteCommands]).with_needs();
        let expected = [P::DeviceInstancesExecuteCommands, P::DeviceInstancesUpdate, P::DeviceInstancesView];
        assert_eq!(run, Permissions::of(&expected));
        for permission in Permission::all() {
            let alone = Permissions::of(&[permission]);
            let whole = alone.with_needs();
            assert!(alone.is_within(whole) && whole.with_needs() == whole, "{}", permission.id());
            for other in permission.needs() {
                assert!(Permissions::of(&[*other]).with_needs().is_within(whole), "{}", permission.id());
                let back = Permissions::of(&[*other]).with_needs();
                assert!(!back.has(permission), "{} and {} need each other", permission.id(), other.id());
            }
        }
    }

    #[test]
    fn a_set_misses_nothing_when_it_has_all_that_its_permissions_need() {
        for permission in Permission::all() {
            let alone: Permissions = std::iter::once(permission).collect();
            let first = permission.needs().first().map(|needed| (permission, *needed));
            assert_eq!(alone.missing(), first, "{}", permission.id());
            assert_eq!(alone.with_needs().missing(), None, "{}", permission.id());
        }
    }

    #[test]
    fn a_permission_is_read_by_its_id_and_nothing_else_is_one() {
        for permission in Permission::all() {
            assert_eq!(permission.id().parse(), Ok(permission));
            let json = serde_json::to_string(&permission).unwrap();
            assert_eq!(serde_json::from_str::<Permission>(&json).unwrap(), permission);
        }
        let refused = "devices.view".parse::<Permission>().unwrap_err().to_string();
        assert!(refused.contains("`devices.view`") && refused.contains("deviceInstances.view"), "{refused}");
        let quoted = "x".repeat(1000).parse::<Permission>().unwrap_err();
        assert_eq!(quoted, UnknownPermission("x".repeat(QUOTED_MAX)));
        assert!(serde_json::from_str::<Permission>("7").is_err());
    }
}
