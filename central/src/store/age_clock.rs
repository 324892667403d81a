//! The clock of ages in the store: with what it stamps, so that a store that is restored or moved goes on with its own clock.

use edge_core::clock::ages::SavedClock;
use edge_core::error_chain::chain;
use edge_hub::age_clock;
use rusqlite::{Connection, OptionalExtension as _};

/// Goes on with the clock of the store, before anything is stamped by it.
pub(super) fn resume(c: &Connection) -> rusqlite::Result<()> {
    let text: Option<String> =
        c.query_row("SELECT value FROM settings WHERE name = 'clock'", [], |row| row.get(0)).optional()?;
    let read = |text: String| {
        serde_json::from_str::<SavedClock>(&text)
            .inspect_err(|error| {
                tracing::error!(error = %chain(error), "the store's clock of ages cannot be read and begins anew; the ages of what waits may be wrong");
            })
            .ok()
    };
    age_clock::resume(text.and_then(read));
    Ok(())
}

/// Saves the clock, also within the work that stores what was stamped: after a power cut the stamp must be older than the next boot, or
/// the time without power would not count for it.
pub(super) fn save(c: &Connection) -> rusqlite::Result<()> {
    let saved = serde_json::json!(age_clock::saved()).to_string();
    c.prepare_cached("INSERT OR REPLACE INTO settings (name, value) VALUES ('clock', ?1)")?
        .execute([saved])?;
    Ok(())
}
