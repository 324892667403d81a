//! Changes of custom roles, each within one turn of the store's writer: from the API, and from the command line beside a central
//! that serves. Users and tokens that have a role may do what it allows from their next request on, because each request reads
//! their roles.

use central_core::access::built_in::BUILT_IN;
use central_core::access::permission::{Permission, Permissions};
use rusqlite::Connection;

use crate::store::{StoreError, roles};
use crate::types::custom_role::{CustomRole, InvalidRoleId, RoleId};

/// Roles of a site beside the built-in ones. IoT Central has 50.
const ROLES_MAX: u32 = 100;

/// Why something about a role was not done.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// 404.
    #[error("there is no role `{}`", .0.escape_debug())]
    Unknown(String),
    /// 409.
    #[error("role `{0}` is built in, and nobody can change it; make another one")]
    BuiltIn(String),
    /// 409.
    #[error("there is a role `{0}`; change it, or choose another id")]
    IdTaken(RoleId),
    /// 409.
    #[error("displayName: role `{id}` has the name `{name}`; choose another one")]
    NameTaken { name: String, id: String },
    /// 409.
    #[error("{0} roles are there already; delete one first")]
    TooMany(u32),
    /// 409.
    #[error(
        "role `{id}` is in use by {} and {}; give the users other roles and revoke the tokens first",
        counted(*users, "user"),
        counted(*tokens, "API token")
    )]
    InUse { id: RoleId, users: u32, tokens: u32 },
    /// 422.
    #[error("id")]
    Id(#[from] InvalidRoleId),
    /// 422.
    #[error("permissions: found none; write one at least")]
    NoPermission,
    /// 422.
    #[error("permissions: {} needs {}, which is missing; add it, or leave {} out", .permission.id(), .needed.id(), .permission.id())]
    NeedMissing { permission: Permission, needed: Permission },
    /// 403.
    #[error("permissions: you lack {} yourself; nobody gives a permission that they do not have", .0.id())]
    NotHeld(Permission),
    /// 403.
    #[error("role `{id}` allows {}, which you lack; only who has all that a role allows changes or deletes it", .permission.id())]
    AllowsMore { id: RoleId, permission: Permission },
    /// 503.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for RoleError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A number and what it counts.
fn counted(number: u32, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Checks that an id is not that of a built-in role, by which scripts and the command line name it.
///
/// # Errors
/// [`RoleError::BuiltIn`].
pub fn check_custom(id: &str) -> Result<(), RoleError> {
    let is_it = |name: &str| name.eq_ignore_ascii_case(id);
    match BUILT_IN.iter().find(|role| is_it(role.id) || is_it(role.display_name)) {
        Some(_) => Err(RoleError::BuiltIn(id.to_owned())),
        None => Ok(()),
    }
}

/// The custom role with an id.
///
/// # Errors
/// [`RoleError::BuiltIn`], [`RoleError::Unknown`].
pub fn get(c: &Connection, id: &str) -> Result<CustomRole, RoleError> {
    check_custom(id)?;
    roles::get(c, id)?.ok_or_else(|| RoleError::Unknown(id.to_owned()))
}

/// Adds a role that is not there.
///
/// # Errors
/// [`RoleError::IdTaken`], and those of [`put`].
pub fn add(c: &Connection, role: &CustomRole, held: Permissions) -> Result<(), RoleError> {
    match roles::get(c, role.id.as_str())? {
        Some(stored) => Err(RoleError::IdTaken(stored.id)),
        None => put(c, role, held).map(drop),
    }
}

/// Adds a role, or changes the one with its id, for somebody who has the permissions `held`. Gives it as it is kept.
///
/// # Errors
/// [`RoleError`], except [`RoleError::Unknown`] and [`RoleError::InUse`].
pub fn put(c: &Connection, role: &CustomRole, held: Permissions) -> Result<CustomRole, RoleError> {
    check_custom(role.id.as_str())?;
    let stored = roles::get(c, role.id.as_str())?;
    if let Some(stored) = &stored {
        check_within(stored, held)?;
    }
    check_permissions(role.permissions, held)?;
    if stored.is_none() && roles::count(c)? >= ROLES_MAX {
        return Err(RoleError::TooMany(ROLES_MAX));
    }
    // An id keeps the case in which it was made: assignments have it.
    let id = stored.map_or_else(|| role.id.clone(), |stored| stored.id);
    let role = CustomRole { id, ..role.clone() };
    check_name(c, &role)?;
    roles::put(c, &role)?;
    Ok(role)
}

/// Checks that a role allows no more than who changes it has. Its holders could be made to lose what they may do, and then to lose
/// their accounts to who may do no more than what is left.
fn check_within(role: &CustomRole, held: Permissions) -> Result<(), RoleError> {
    match role.permissions.without(held).iter().next() {
        Some(permission) => Err(RoleError::AllowsMore { id: role.id.clone(), permission }),
        None => Ok(()),
    }
}

/// Deletes a role that nobody has, for somebody who has the permissions `held`.
///
/// # Errors
/// [`RoleError::BuiltIn`], [`RoleError::Unknown`], [`RoleError::AllowsMore`], [`RoleError::InUse`].
pub fn remove(c: &Connection, id: &str, held: Permissions) -> Result<CustomRole, RoleError> {
    let role = get(c, id)?;
    check_within(&role, held)?;
    let roles::Holders { users, tokens } = roles::holders(c, id)?;
    if users > 0 || tokens > 0 {
        return Err(RoleError::InUse { id: role.id, users, tokens });
    }
    roles::delete(c, id)?;
    Ok(role)
}

fn check_permissions(permissions: Permissions, held: Permissions) -> Result<(), RoleError> {
    if permissions == Permissions::default() {
        return Err(RoleError::NoPermission);
    }
    if let Some((permission, needed)) = permissions.missing() {
        return Err(RoleError::NeedMissing { permission, needed });
    }
    match permissions.without(held).iter().next() {
        Some(permission) => Err(RoleError::NotHeld(permission)),
        None => Ok(()),
    }
}

/// Two roles that look alike in a list are one too many: blanks at the ends and the case make no difference.
fn check_name(c: &Connection, role: &CustomRole) -> Result<(), RoleError> {
    let folded = |name: &str| name.trim().to_lowercase();
    let name = folded(&role.display_name);
    let taken = |id: &str| RoleError::NameTaken { name: role.display_name.to_string(), id: id.to_owned() };
    if let Some(other) = BUILT_IN.iter().find(|other| folded(other.display_name) == name) {
        return Err(taken(other.id));
    }
    let others = roles::list(c)?;
    match others.iter().find(|other| other.id != role.id && folded(&other.display_name) == name) {
        Some(other) => Err(taken(other.id.as_str())),
        None => Ok(()),
    }
}
