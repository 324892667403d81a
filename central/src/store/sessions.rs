//! The subscriptions of clients that keep their session: they outlive a restart of central.

use std::collections::HashMap;

use rusqlite::Connection;

use super::json_column;

/// Filters with their QoS, as the door saves them.
pub type Filters = Vec<(String, u8)>;

/// Every saved session by client id.
///
/// # Errors
/// SQLite's.
pub fn all(connection: &Connection) -> rusqlite::Result<HashMap<String, Filters>> {
    connection
        .prepare_cached("SELECT client_id, filters FROM sessions")?
        .query_map([], |row| Ok((row.get("client_id")?, json_column(row, "filters")?)))?
        .collect()
}

/// Saves a session, or forgets it.
///
/// # Errors
/// SQLite's.
pub fn save(connection: &Connection, client_id: &str, filters: Option<&Filters>) -> rusqlite::Result<()> {
    match filters {
        None => {
            connection.prepare_cached("DELETE FROM sessions WHERE client_id = ?1")?.execute([client_id])?
        }
        Some(filters) => connection
            .prepare_cached("INSERT OR REPLACE INTO sessions (client_id, filters) VALUES (?1, ?2)")?
            .execute([client_id, &serde_json::json!(filters).to_string()])?,
    };
    Ok(())
}
