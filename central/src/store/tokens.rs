//! API tokens: only the hash of a token is kept.

use rusqlite::{Connection, Row};

use super::columns::{integer, json_column, parsed_column, unsigned};
use super::unreadable;
use crate::token::{Grant, Role, RoleAssignment};

const COLUMNS: &str = "name, role, created_ms, expires_ms, used_ms";

/// Keeps a token by its hash. Returns false, and keeps nothing, when another one has its name.
pub fn insert(connection: &Connection, hash: &str, grant: &Grant) -> rusqlite::Result<bool> {
    let added = connection
        .prepare_cached(
            "INSERT INTO tokens (hash, name, role, created_ms, expires_ms) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (name) DO NOTHING",
        )?
        .execute((
            hash,
            &grant.name,
            grant.role.as_str(),
            grant.created_ms.map(integer),
            integer(grant.expires_ms),
        ))?;
    Ok(added == 1)
}

/// What the token with this hash grants.
pub fn find(connection: &Connection, hash: &str) -> rusqlite::Result<Option<Grant>> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM tokens WHERE hash = ?1"))?;
    unreadable::row("tokens", statement.query_row([hash], grant))
}

/// The token with this name.
pub fn get(connection: &Connection, name: &str) -> rusqlite::Result<Option<Grant>> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM tokens WHERE name = ?1"))?;
    unreadable::row("tokens", statement.query_row([name], grant))
}

/// At most `limit` tokens with names after `after`, by name.
pub fn list(connection: &Connection, after: &str, limit: u32) -> rusqlite::Result<Vec<Grant>> {
    let query = format!("SELECT {COLUMNS} FROM tokens WHERE name > ?1 ORDER BY name");
    let mut statement = connection.prepare_cached(&query)?;
    // Counted without the rows that cannot be read: a short page would be taken for the last one.
    unreadable::rows("tokens", statement.query_map([after], grant)?).take(limit as usize).collect()
}

/// Revokes a token. Returns false when none has the name.
pub fn delete(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    connection.prepare_cached("DELETE FROM token_roles WHERE name = ?1")?.execute([name])?;
    Ok(connection.prepare_cached("DELETE FROM tokens WHERE name = ?1")?.execute([name])? == 1)
}

/// Notes the roles that a token was made with, as its maker wrote them.
pub fn put_roles(connection: &Connection, name: &str, roles: &[RoleAssignment]) -> rusqlite::Result<()> {
    let roles = serde_json::json!(roles).to_string();
    connection
        .prepare_cached("INSERT OR REPLACE INTO token_roles (name, roles) VALUES (?1, ?2)")?
        .execute((name, roles))?;
    Ok(())
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

fn grant(row: &Row<'_>) -> rusqlite::Result<Grant> {
    Ok(Grant {
        name: row.get("name")?,
        role: parsed_column::<Role>(row, "role")?,
        created_ms: row.get::<_, Option<i64>>("created_ms")?.map(unsigned),
        expires_ms: unsigned(row.get("expires_ms")?),
        used_ms: row.get::<_, Option<i64>>("used_ms")?.map(unsigned),
    })
}
