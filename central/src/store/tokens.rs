//! API tokens: only the hash of a token is kept.

use rusqlite::Connection;

use super::{integer, parsed_column, unreadable, unsigned};
use crate::token::{Grant, Role};

/// Keeps a token by its hash.
///
/// # Errors
/// SQLite's.
pub fn insert(connection: &Connection, hash: &str, grant: &Grant) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO tokens (hash, name, role, expires_ms) VALUES (?1, ?2, ?3, ?4)")?
        .execute((hash, &grant.name, grant.role.as_str(), integer(grant.expires_ms)))?;
    Ok(())
}

/// What the token with this hash grants.
///
/// # Errors
/// SQLite's.
pub fn find(connection: &Connection, hash: &str) -> rusqlite::Result<Option<Grant>> {
    let mut statement =
        connection.prepare_cached("SELECT name, role, expires_ms FROM tokens WHERE hash = ?1")?;
    let found = statement.query_row([hash], |row| {
        Ok(Grant {
            name: row.get("name")?,
            role: parsed_column::<Role>(row, "role")?,
            expires_ms: unsigned(row.get("expires_ms")?),
        })
    });
    unreadable::row("tokens", found)
}
