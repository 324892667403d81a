//! Sessions of users, by the hash of their secret. They leave with their user.

use rusqlite::Connection;

use super::columns::{integer, unsigned};
use super::{unreadable, users};
use crate::people::names::UserName;
use crate::people::session::{IDLE_MS, LIFE_MS, Session};

/// Of one user; the one that was not used for longest is deleted for a new one.
const PER_USER_MAX: u32 = 20;

/// Keeps a new session. Those that are over go.
pub fn insert(connection: &Connection, session: &Session) -> rusqlite::Result<()> {
    let now_ms = session.created_ms;
    connection
        .prepare_cached("DELETE FROM sessions WHERE created_ms <= ?1 OR used_ms <= ?2")?
        .execute([integer(now_ms.saturating_sub(LIFE_MS)), integer(now_ms.saturating_sub(IDLE_MS))])?;
    connection
        .prepare_cached("INSERT INTO sessions (hash, user, created_ms, used_ms) VALUES (?1, ?2, ?3, ?4)")?
        .execute((
            &session.hash,
            session.user.id.as_str(),
            integer(session.created_ms),
            integer(session.used_ms),
        ))?;
    // The new session stays, even if a clock that was set back makes it the one not used for longest.
    connection
        .prepare_cached(
            "DELETE FROM sessions WHERE hash IN
             (SELECT hash FROM sessions WHERE user = ?1 AND hash <> ?2 ORDER BY used_ms DESC LIMIT -1 OFFSET ?3)",
        )?
        .execute((session.user.id.as_str(), &session.hash, PER_USER_MAX - 1))?;
    Ok(())
}

/// The session with this hash, if it is valid at `now_ms`, with its user.
pub fn find(connection: &Connection, hash: &str, now_ms: u64) -> rusqlite::Result<Option<Session>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, name, role, password IS NOT NULL AS has_password, users.created_ms AS created_ms, signed_in_ms,
                sessions.created_ms AS began_ms, used_ms
         FROM sessions JOIN users ON users.id = sessions.user WHERE hash = ?1",
    )?;
    let found = statement.query_row([hash], |row| {
        Ok(Session {
            hash: hash.to_owned(),
            user: users::user(row)?,
            created_ms: unsigned(row.get("began_ms")?),
            used_ms: unsigned(row.get("used_ms")?),
        })
    });
    let found = unreadable::row("sessions", found)?.filter(|session| now_ms < session.expires_ms());
    let Some(session) = found else { return Ok(None) };
    let user = users::with_custom_roles(connection, session.user)?;
    Ok(Some(Session { user, ..session }))
}

/// Notes when a session was used.
pub fn used(connection: &Connection, hash: &str, at_ms: u64) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("UPDATE sessions SET used_ms = ?2 WHERE hash = ?1")?;
    statement.execute((hash, integer(at_ms)))?;
    Ok(())
}

/// Ends a session.
pub fn delete(connection: &Connection, hash: &str) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM sessions WHERE hash = ?1")?.execute([hash])?;
    Ok(())
}

/// Ends every session of a user.
pub fn delete_of(connection: &Connection, user: &UserName) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM sessions WHERE user = ?1")?.execute([user.as_str()])?;
    Ok(())
}
