//! Role assignments of users and tokens: which roles they name, and whether their maker may give them.

use central_core::access::built_in::{self, BUILT_IN, Holds};
use central_core::access::permission::{Permission, Permissions};
use rusqlite::Connection;

use super::roles::by_id;
use crate::store::{StoreError, roles};
use crate::token::{Role, RoleAssignment, SiteRoles};
use crate::types::custom_role::CustomRole;
use crate::types::organizations::is_id;

/// Roles that one user or token has.
const ASSIGNMENTS_MAX: usize = 50;

/// Assignments that were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// What counts for the whole site.
    pub roles: SiteRoles,
    /// The assignments that are kept beside the built-in role: none when they say no more than it.
    pub kept: Vec<RoleAssignment>,
}

/// Why assignments are refused.
#[derive(Debug, thiserror::Error)]
pub enum AssignmentError {
    /// 422.
    #[error("roles: found {0}; write {ASSIGNMENTS_MAX} at the most")]
    TooMany(usize),
    /// 422.
    #[error(
        "roles: found none for the whole site; central confines nobody to an organization, so add a role without `organization`"
    )]
    NoneOfSite,
    /// 422.
    #[error(
        "roles.{index}.role: found `{}`; allowed are viewer, operator, builder, administrator, {}, and the ids of custom roles",
        .role.escape_debug(),
        built_in_ids()
    )]
    UnknownRole { index: usize, role: String },
    /// 422.
    #[error("roles.{index}.organization: `{role}` is a role in an organization; write its id")]
    OrganizationMissing { index: usize, role: String },
    /// 422.
    #[error("roles.{index}.organization: found `{}`, which is no organization's id", .id.escape_debug())]
    InvalidOrganization { index: usize, id: String },
    /// 403.
    #[error("roles: they allow {}, which you may not do yourself; nobody gives a permission that they do not have", .0.id())]
    NotHeld(Permission),
    /// 503.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for AssignmentError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

fn built_in_ids() -> String {
    let ids: Vec<String> =
        BUILT_IN.iter().map(|role| format!("{} ({})", role.id, role.display_name)).collect();
    ids.join(", ")
}

/// Checks assignments that somebody makes who has the permissions `held`.
///
/// # Errors
/// [`AssignmentError`], with the field.
pub fn check(
    c: &Connection,
    mut assignments: Vec<RoleAssignment>,
    held: Permissions,
) -> Result<Assigned, AssignmentError> {
    if assignments.len() > ASSIGNMENTS_MAX {
        return Err(AssignmentError::TooMany(assignments.len()));
    }
    let mut roles = SiteRoles::default();
    for (index, assigned) in assignments.iter_mut().enumerate() {
        match named(c, assigned, index)? {
            Some(Named::BuiltIn(role)) => roles.built_in = roles.built_in.max(Some(role)),
            Some(Named::Custom(role)) if !roles.custom.contains(&role) => roles.custom.push(role),
            Some(Named::Custom(_)) | None => {}
        }
    }
    if roles == SiteRoles::default() {
        return Err(AssignmentError::NoneOfSite);
    }
    check_held(roles.permissions(), held)?;
    // As the store gives them, which takes capital letters for small ones.
    roles.custom.sort_by_key(|role| role.id.as_str().to_ascii_lowercase());
    let says_no_more = roles.custom.is_empty() && assignments.len() == 1;
    Ok(Assigned { roles, kept: if says_no_more { Vec::new() } else { assignments } })
}

/// Checks that who has `held` may give `given`.
///
/// # Errors
/// [`AssignmentError::NotHeld`].
pub fn check_held(given: Permissions, held: Permissions) -> Result<(), AssignmentError> {
    match given.without(held).iter().next() {
        Some(permission) => Err(AssignmentError::NotHeld(permission)),
        None => Ok(()),
    }
}

/// A role for the whole site.
enum Named {
    BuiltIn(Role),
    Custom(CustomRole),
}

/// The role that an assignment gives for the whole site; `None` for one in an organization.
fn named(
    c: &Connection,
    assigned: &mut RoleAssignment,
    index: usize,
) -> Result<Option<Named>, AssignmentError> {
    let is_of_organization =
        built_in::by_id(&assigned.role).is_some_and(|role| role.holds == Holds::Organization);
    let role = match by_id(&assigned.role) {
        Some(role) => Some(Named::BuiltIn(role)),
        None if is_of_organization => None,
        None => {
            let unknown = || AssignmentError::UnknownRole { index, role: assigned.role.clone() };
            let role = roles::get(c, &assigned.role)?.ok_or_else(unknown)?;
            // Its id as its maker wrote it.
            role.id.as_str().clone_into(&mut assigned.role);
            Some(Named::Custom(role))
        }
    };
    match &assigned.organization {
        None if is_of_organization => {
            Err(AssignmentError::OrganizationMissing { index, role: assigned.role.clone() })
        }
        None => Ok(role),
        Some(id) if is_id(id) => Ok(None),
        Some(id) => Err(AssignmentError::InvalidOrganization { index, id: id.clone() }),
    }
}
