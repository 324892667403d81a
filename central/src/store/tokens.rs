//! API tokens: only the hash of a token is kept.

use rusqlite::{Connection, Row};

use super::columns::{integer, json_column, unsigned};
use super::roles::{self as custom_roles, Holder};
use super::unreadable;
use super::users::built_in;
use crate::token::{Grant, Role, RoleAssignment, SiteRoles};

const COLUMNS: &str = "name, role, created_ms, expires_ms, used_ms";

/// Keeps a token by its hash, with its built-in role. Returns false, and keeps nothing, when another one has its name.
pub fn insert(connection: &Connection, hash: &str, grant: &Grant) -> rusqlite::Result<bool> {
    let added = connection
        .prepare_cached(
            "INSERT INTO tokens (hash, name, role, created_ms, expires_ms) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (name) DO NOTHING",
        )?
        .execute((
            hash,
            &grant.name,
            grant.roles.built_in.map_or("", Role::as_str),
            grant.created_ms.map(integer),
            integer(grant.expires_ms),
        ))?;
    Ok(added == 1)
}

/// What the token with this hash grants.
pub fn find(connection: &Connection, hash: &str) -> rusqlite::Result<Option<Grant>> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM tokens WHERE hash = ?1"))?;
    read(connection, statement.query_row([hash], grant))
}

/// The token with this name.
pub fn get(connection: &Connection, name: &str) -> rusqlite::Result<Option<Grant>> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM tokens WHERE name = ?1"))?;
    read(connection, statement.query_row([name], grant))
}

/// At most `limit` tokens with names after `after`, by name.
pub fn list(connection: &Connection, after: &str, limit: u32) -> rusqlite::Result<Vec<Grant>> {
    let query = format!("SELECT {COLUMNS} FROM tokens WHERE name > ?1 ORDER BY name");
    let mut statement = connection.prepare_cached(&query)?;
    // Counted without the rows that cannot be read: a short page would be taken for the last one.
    let grants = unreadable::rows("tokens", statement.query_map([after], grant)?).take(limit as usize);
    grants.map(|grant| with_custom_roles(connection, grant?)).collect()
}

/// Revokes a token. Returns false when none has the name.
pub fn delete(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    connection.prepare_cached("DELETE FROM token_roles WHERE name = ?1")?.execute([name])?;
    Ok(connection.prepare_cached("DELETE FROM tokens WHERE name = ?1")?.execute([name])? == 1)
}

/// Keeps the role assignments of a token that say more than its built-in role, as its maker wrote them.
pub fn put_roles(connection: &Connection, name: &str, roles: &[RoleAssignment]) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO token_roles (name, roles) VALUES (?1, ?2)")?
        .execute((name, serde_json::json!(roles).to_string()))?;
    custom_roles::assign(connection, Holder::Token(name), roles)
}

/// The roles that a token was made with; none when it has its one role for the whole site alone.
pub fn roles(connection: &Connection, name: &str) -> rusqlite::Result<Vec<RoleAssignment>> {
    let mut statement = connection.prepare_cached("SELECT name, roles FROM token_roles WHERE name = ?1")?;
    let found = statement.query_row([name], |row| json_column(row, "roles"));
    Ok(unreadable::row("token_roles", found)?.unwrap_or_default())
}

/// Notes when a token was used.
pub fn used(connection: &Connection, hash: &str, at_ms: u64) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("UPDATE tokens SET used_ms = ?2 WHERE hash = ?1")?;
    statement.execute((hash, integer(at_ms)))?;
    Ok(())
}

/// The token of a query, when there is one that can be read.
fn read(connection: &Connection, row: rusqlite::Result<Grant>) -> rusqlite::Result<Option<Grant>> {
    let found = unreadable::row("tokens", row)?;
    found.map(|grant| with_custom_roles(connection, grant)).transpose()
}

/// Adds the roles that are not in the columns of a token.
fn with_custom_roles(connection: &Connection, mut grant: Grant) -> rusqlite::Result<Grant> {
    grant.roles.custom = custom_roles::of(connection, Holder::Token(&grant.name))?;
    Ok(grant)
}

fn grant(row: &Row<'_>) -> rusqlite::Result<Grant> {
    Ok(Grant {
        name: row.get("name")?,
        roles: SiteRoles { built_in: built_in(row)?, custom: Vec::new() },
        created_ms: row.get::<_, Option<i64>>("created_ms")?.map(unsigned),
        expires_ms: unsigned(row.get("expires_ms")?),
        used_ms: row.get::<_, Option<i64>>("used_ms")?.map(unsigned),
    })
}
