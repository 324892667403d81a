//! Users: only the hash of a password is kept.

use rusqlite::{Connection, Row};

use super::columns::{integer, json_column, parsed_column, unsigned};
use super::roles::{self as custom_roles, Holder};
use super::unreadable;
use crate::people::names::UserName;
use crate::people::user::User;
use crate::token::{Role, RoleAssignment, SiteRoles};

const COLUMNS: &str = "id, name, role, password IS NOT NULL AS has_password, created_ms, signed_in_ms";

/// How many there are.
pub fn count(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("SELECT count(*) FROM users", [], |row| row.get(0))
}

/// Keeps a new user with its built-in role. Returns false, and keeps nothing, when another one has its id or name.
pub fn insert(connection: &Connection, user: &User, password: Option<&str>) -> rusqlite::Result<bool> {
    let added = connection
        .prepare_cached(
            "INSERT INTO users (id, name, role, password, created_ms, signed_in_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT DO NOTHING",
        )?
        .execute((
            user.id.as_str(),
            user.name.as_str(),
            user.roles.built_in.map_or("", Role::as_str),
            password,
            integer(user.created_ms),
            user.signed_in_ms.map(integer),
        ))?;
    Ok(added == 1)
}

/// The user with this id.
pub fn get(connection: &Connection, id: &str) -> rusqlite::Result<Option<User>> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM users WHERE id = ?1"))?;
    read(connection, statement.query_row([id], user))
}

/// The user who signs in with this name.
pub fn by_name(connection: &Connection, name: &str) -> rusqlite::Result<Option<User>> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM users WHERE name = ?1"))?;
    read(connection, statement.query_row([name], user))
}

/// The hash of the password of the user who signs in with this name; `None` when there is no such user or password.
pub fn password_of(connection: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    let mut statement = connection.prepare_cached("SELECT password FROM users WHERE name = ?1")?;
    let found = unreadable::row("users", statement.query_row([name], |row| row.get::<_, Option<String>>(0)))?;
    Ok(found.flatten())
}

/// The user of this name, if the password still has this hash.
pub fn with_password(connection: &Connection, name: &str, hash: &str) -> rusqlite::Result<Option<User>> {
    let query = format!("SELECT {COLUMNS} FROM users WHERE name = ?1 AND password = ?2");
    let mut statement = connection.prepare_cached(&query)?;
    read(connection, statement.query_row([name, hash], user))
}

/// At most `limit` users with ids after `after`, by id.
pub fn list(connection: &Connection, after: &str, limit: u32) -> rusqlite::Result<Vec<User>> {
    let query = format!("SELECT {COLUMNS} FROM users WHERE id > ?1 ORDER BY id");
    let mut statement = connection.prepare_cached(&query)?;
    // Counted without the rows that cannot be read: a short page would be taken for the last one.
    let users = unreadable::rows("users", statement.query_map([after], user)?).take(limit as usize);
    users.map(|user| with_custom_roles(connection, user?)).collect()
}

/// Changes name and built-in role. Returns false, and changes nothing, when another user has the name.
pub fn update(connection: &Connection, user: &User) -> rusqlite::Result<bool> {
    let changed = connection
        .prepare_cached("UPDATE OR IGNORE users SET name = ?2, role = ?3 WHERE id = ?1")?
        .execute((user.id.as_str(), user.name.as_str(), user.roles.built_in.map_or("", Role::as_str)))?;
    Ok(changed == 1)
}

/// Keeps the role assignments of a user that say more than the built-in role.
pub fn put_roles(connection: &Connection, id: &UserName, roles: &[RoleAssignment]) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("UPDATE users SET roles = ?2 WHERE id = ?1")?;
    statement.execute((id.as_str(), serde_json::json!(roles).to_string()))?;
    custom_roles::assign(connection, Holder::User(id.as_str()), roles)
}

/// The role assignments that say more than the built-in role; none when there are none, and `None` when they cannot be read.
pub fn roles_to_keep(
    connection: &Connection,
    id: &UserName,
) -> rusqlite::Result<Option<Vec<RoleAssignment>>> {
    let mut statement = connection.prepare_cached("SELECT id, roles FROM users WHERE id = ?1")?;
    let found = statement.query_row([id.as_str()], |row| json_column(row, "roles"));
    unreadable::row("users", found)
}

/// As [`roles_to_keep`], to show them: none when they cannot be read.
pub fn roles(connection: &Connection, id: &UserName) -> rusqlite::Result<Vec<RoleAssignment>> {
    Ok(roles_to_keep(connection, id)?.unwrap_or_default())
}

/// Whether a user has a custom role that cannot be read.
pub fn has_unreadable_roles(connection: &Connection, user: &User) -> rusqlite::Result<bool> {
    let count = custom_roles::count_of(connection, Holder::User(user.id.as_str()))?;
    Ok(count as usize != user.roles.custom.len())
}

/// Sets the hash of a password. Returns false when nobody has the id.
pub fn set_password(connection: &Connection, id: &UserName, hash: &str) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached("UPDATE users SET password = ?2 WHERE id = ?1")?;
    Ok(statement.execute([id.as_str(), hash])? == 1)
}

/// Removes a user with its sessions. Returns false when nobody has the id.
pub fn delete(connection: &Connection, id: &UserName) -> rusqlite::Result<bool> {
    Ok(connection.prepare_cached("DELETE FROM users WHERE id = ?1")?.execute([id.as_str()])? == 1)
}

/// Notes when a user signed in.
pub fn signed_in(connection: &Connection, id: &UserName, at_ms: u64) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("UPDATE users SET signed_in_ms = ?2 WHERE id = ?1")?;
    statement.execute((id.as_str(), integer(at_ms)))?;
    Ok(())
}

/// How many users beside `id` may do everything and have a password.
pub fn other_administrators(connection: &Connection, id: &UserName) -> rusqlite::Result<u32> {
    let query = "SELECT count(*) FROM users WHERE role = ?1 AND password IS NOT NULL AND id <> ?2";
    connection.prepare_cached(query)?.query_row([Role::Administrator.as_str(), id.as_str()], |row| row.get(0))
}

/// The user of a query, when there is one that can be read.
fn read(connection: &Connection, row: rusqlite::Result<User>) -> rusqlite::Result<Option<User>> {
    let found = unreadable::row("users", row)?;
    found.map(|user| with_custom_roles(connection, user)).transpose()
}

/// Adds the roles that are not in the columns of a user.
pub(super) fn with_custom_roles(connection: &Connection, mut user: User) -> rusqlite::Result<User> {
    user.roles.custom = custom_roles::of(connection, Holder::User(user.id.as_str()))?;
    Ok(user)
}

/// Reads the column of the built-in role, which is empty when there is none.
pub(super) fn built_in(row: &Row<'_>) -> rusqlite::Result<Option<Role>> {
    if row.get::<_, String>("role")?.is_empty() { Ok(None) } else { parsed_column(row, "role").map(Some) }
}

/// Reads the columns of a user, in which its custom roles are not.
///
/// # Errors
/// SQLite's, or that of a value that cannot be read.
pub(super) fn user(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        id: parsed_column::<UserName>(row, "id")?,
        name: parsed_column::<UserName>(row, "name")?,
        roles: SiteRoles { built_in: built_in(row)?, custom: Vec::new() },
        has_password: row.get("has_password")?,
        created_ms: unsigned(row.get("created_ms")?),
        signed_in_ms: row.get::<_, Option<i64>>("signed_in_ms")?.map(unsigned),
    })
}
