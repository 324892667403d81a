//! Changes of users, each within one turn of the store's writer: from the API, and from the command line beside a central that
//! serves.

use central_core::access::permission::Permissions;
use rusqlite::Connection;

use super::assigned::{self, Assigned};
use super::error::PeopleError;
use super::names::UserName;
use super::user::User;
use crate::clock::now_ms;
use crate::store::{sessions, users};
use crate::token::{Role, RoleAssignment};

/// Users of a site.
const USERS_MAX: u32 = 1000;

/// A user as it shall be.
#[derive(Debug, Clone)]
pub struct Account {
    /// In the API's paths.
    pub id: UserName,
    /// What the user signs in with.
    pub name: UserName,
    /// What the user may do.
    pub assigned: Assigned,
}

/// The user with an id.
///
/// # Errors
/// [`PeopleError::Unknown`].
pub fn get(c: &Connection, id: &str) -> Result<User, PeopleError> {
    users::get(c, id)?.ok_or_else(|| PeopleError::Unknown(id.to_owned()))
}

/// The user with an id or, where there is none, with a name.
///
/// # Errors
/// [`PeopleError::Unknown`].
pub fn find(c: &Connection, id_or_name: &str) -> Result<User, PeopleError> {
    let found = users::get(c, id_or_name)?;
    let found = match found {
        None => users::by_name(c, id_or_name)?,
        found => found,
    };
    found.ok_or_else(|| PeopleError::Unknown(id_or_name.to_owned()))
}

/// Adds a user with a password and a role, whose id is its name.
///
/// # Errors
/// [`PeopleError::Assignment`], [`PeopleError::NameTaken`], [`PeopleError::TooMany`].
pub fn add(c: &Connection, name: &UserName, role: &str, hash: &str) -> Result<User, PeopleError> {
    if users::get(c, name.as_str())?.is_some() {
        return Err(PeopleError::NameTaken(name.clone()));
    }
    let assigned = assigned::check(c, vec![RoleAssignment::of_site(role)], Permissions::ALL)?;
    let account = Account { id: name.clone(), name: name.clone(), assigned };
    let user = put(c, &account, Permissions::ALL)?;
    users::set_password(c, &user.id, hash)?;
    Ok(user)
}

/// Adds a user without a password, or changes one. Another role ends the user's sessions: what an open page shows and offers
/// is of the role before. `held` is what the maker of the change may do. It must be all that the user may do: with another name the
/// user may sign in no more, and whoever takes roles away first could set the password next, and have the roles once they are given back.
///
/// # Errors
/// [`PeopleError::MayDoMore`], [`PeopleError::NameTaken`], [`PeopleError::LastAdministrator`], [`PeopleError::TooMany`].
pub fn put(c: &Connection, account: &Account, held: Permissions) -> Result<User, PeopleError> {
    let taken = || PeopleError::NameTaken(account.name.clone());
    let roles = &account.assigned.roles;
    let user = match users::get(c, account.id.as_str())? {
        None => {
            if users::count(c)? >= USERS_MAX {
                return Err(PeopleError::TooMany(USERS_MAX));
            }
            let user = User {
                id: account.id.clone(),
                name: account.name.clone(),
                roles: roles.clone(),
                has_password: false,
                created_ms: now_ms(),
                signed_in_ms: None,
            };
            if !users::insert(c, &user, None)? {
                return Err(taken());
            }
            user
        }
        Some(stored) => {
            if roles.built_in != Some(Role::Administrator) {
                check_not_last(c, &stored)?;
            }
            if account.name != stored.name
                || *roles != stored.roles
                || users::has_unreadable_roles(c, &stored)?
            {
                check_within(c, &stored, held)?;
            }
            let changed = User { name: account.name.clone(), roles: roles.clone(), ..stored.clone() };
            if !users::update(c, &changed)? {
                return Err(taken());
            }
            if changed.roles != stored.roles {
                sessions::delete_of(c, &changed.id)?;
            }
            changed
        }
    };
    users::put_roles(c, &user.id, &account.assigned.kept)?;
    Ok(user)
}

/// Checks that a user may do no more than who has `held`. A role that cannot be read may have been any.
///
/// # Errors
/// [`PeopleError::MayDoMore`].
pub(super) fn check_within(c: &Connection, user: &User, held: Permissions) -> Result<(), PeopleError> {
    let is_unclear = users::has_unreadable_roles(c, user)?;
    let most = if is_unclear { Permissions::ALL } else { user.roles.permissions() };
    if most.is_within(held) { Ok(()) } else { Err(PeopleError::MayDoMore(user.name.clone())) }
}

/// Removes a user with its sessions, for somebody who has the permissions `held`: all that the user may do, or the next user of the
/// name could be one who then gets the roles back.
///
/// # Errors
/// [`PeopleError::Unknown`], [`PeopleError::MayDoMore`], [`PeopleError::LastAdministrator`].
pub fn remove(c: &Connection, id: &str, held: Permissions) -> Result<(), PeopleError> {
    let user = get(c, id)?;
    check_within(c, &user, held)?;
    check_not_last(c, &user)?;
    users::delete(c, &user.id)?;
    Ok(())
}

/// Sets the hash of a user's password and ends the user's sessions: somebody else may have one.
///
/// # Errors
/// [`PeopleError::Unknown`].
pub fn set_hash(c: &Connection, id: &str, hash: &str) -> Result<(), PeopleError> {
    let user = get(c, id)?;
    users::set_password(c, &user.id, hash)?;
    sessions::delete_of(c, &user.id)?;
    Ok(())
}

/// Without an administrator who can sign in nobody could add one.
fn check_not_last(c: &Connection, user: &User) -> Result<(), PeopleError> {
    let counts = user.roles.built_in == Some(Role::Administrator) && user.has_password;
    if counts && users::other_administrators(c, &user.id)? == 0 {
        return Err(PeopleError::LastAdministrator(user.name.clone()));
    }
    Ok(())
}
