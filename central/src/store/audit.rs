//! The audit log: rows are added and completed, never changed otherwise, and the oldest are deleted for new ones.

use rusqlite::{Connection, Row, params_from_iter};
use serde_json::Value;

use super::columns::{integer, parsed_column, unsigned};
use super::unreadable;
use crate::audit::entry::{ActorKind, AuditLimits, ChangeOutcome, Class, Entry, EntryKind, StoredEntry};
use crate::clock::settled_wall_ms;

/// Rows between two checks of the bounds.
const TRIM_EVERY: i64 = 50;
/// Rows that go by their age at one look: a clock that is far ahead for a moment does not empty the log.
const BY_AGE_MAX: u32 = 100;

/// Which rows are asked for, newest first.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    /// Rows older than the one with this id.
    pub before: Option<i64>,
    /// Of this user, token or command.
    pub who: Option<String>,
    /// With paths that begin so.
    pub path: Option<String>,
    /// At most.
    pub limit: u32,
}

/// Adds a row, which has no status as yet, and gives its id. The oldest rows beyond the bounds go.
pub fn begin(connection: &Connection, entry: &Entry, limits: &AuditLimits) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(
            "INSERT INTO audit (at_ms, class, who, who_kind, kind, method, path, address)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute((
            integer(entry.at_ms),
            entry.kind.class().as_str(),
            &entry.who,
            entry.who_kind.as_str(),
            entry.kind.as_str(),
            &entry.method,
            &entry.path,
            &entry.address,
        ))?;
    let id = connection.last_insert_rowid();
    if id % TRIM_EVERY == 0 {
        // By a clock that lasted: what was kept for a year is not deleted by one that was set ahead a minute ago.
        trim(connection, settled_wall_ms().unwrap_or(0).min(entry.at_ms), limits)?;
    }
    Ok(id)
}

/// Completes a row. One of a request that was not looked at goes: who asks too often could fill the log with them.
pub fn end(connection: &Connection, id: i64, outcome: &ChangeOutcome) -> rusqlite::Result<()> {
    if outcome.is_postponed() {
        connection.prepare_cached("DELETE FROM audit WHERE id = ?1 AND status IS NULL")?.execute([id])?;
        return Ok(());
    }
    connection
        .prepare_cached(
            "UPDATE audit SET status = ?2, kind = ?3, class = ?4, before = ?5, after = ?6 WHERE id = ?1 AND status IS NULL",
        )?
        .execute((
            id,
            outcome.status,
            outcome.kind.as_str(),
            outcome.class().as_str(),
            &outcome.before,
            &outcome.after,
        ))?;
    Ok(())
}

/// Adds a whole row.
pub fn add(
    connection: &Connection,
    entry: &Entry,
    outcome: &ChangeOutcome,
    limits: &AuditLimits,
) -> rusqlite::Result<()> {
    let id = begin(connection, entry, limits)?;
    end(connection, id, outcome)
}

fn trim(connection: &Connection, now_ms: u64, limits: &AuditLimits) -> rusqlite::Result<()> {
    for (class, rows) in [
        (Class::Change, limits.rows),
        (Class::Own, limits.refused_rows),
        (Class::Refused, limits.refused_rows),
    ] {
        connection
            .prepare_cached(
                "DELETE FROM audit WHERE class = ?1 AND id <=
                 (SELECT id FROM audit WHERE class = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute((class.as_str(), integer(rows)))?;
    }
    connection
        .prepare_cached(
            "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at_ms < ?1 ORDER BY at_ms LIMIT ?2)",
        )?
        .execute((integer(now_ms.saturating_sub(limits.age_ms)), BY_AGE_MAX))?;
    Ok(())
}

/// The rows that are asked for, newest first.
pub fn list(connection: &Connection, query: &AuditQuery) -> rusqlite::Result<Vec<StoredEntry>> {
    let mut conditions = vec!["id < ?1".to_owned()];
    let mut values = vec![rusqlite::types::Value::from(query.before.unwrap_or(i64::MAX))];
    if let Some(who) = &query.who {
        values.push(who.clone().into());
        conditions.push(format!("who = ?{} COLLATE NOCASE", values.len()));
    }
    if let Some(path) = &query.path {
        values.push(path.clone().into());
        conditions.push(format!("substr(path, 1, length(?{0})) = ?{0}", values.len()));
    }
    let sql = format!(
        "SELECT id, at_ms, who, who_kind, kind, method, path, status, address, before, after, organization
         FROM audit WHERE {} ORDER BY id DESC",
        conditions.join(" AND ")
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(values), shown)?;
    // Counted without the rows that cannot be read: a short page would be taken for the last one.
    unreadable::rows("audit", rows).take(query.limit as usize).collect()
}

fn shown(row: &Row<'_>) -> rusqlite::Result<StoredEntry> {
    Ok(StoredEntry {
        id: row.get("id")?,
        entry: Entry {
            at_ms: unsigned(row.get("at_ms")?),
            who: row.get("who")?,
            who_kind: parsed_column::<ActorKind>(row, "who_kind")?,
            kind: parsed_column::<EntryKind>(row, "kind")?,
            method: row.get("method")?,
            path: row.get("path")?,
            address: row.get("address")?,
        },
        status: row.get("status")?,
        before: document(row, "before")?,
        after: document(row, "after")?,
        organization: row.get("organization")?,
    })
}

fn document(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<Value>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| {
        serde_json::from_str(&text).map_err(|error| unreadable::column(row, column, error.into()))
    })
    .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema;

    const LIMITS: AuditLimits = AuditLimits { rows: 200, refused_rows: 100, age_ms: 1_000_000 };

    fn entry(at_ms: u64, who: &str, kind: EntryKind) -> Entry {
        Entry {
            at_ms,
            who: who.to_owned(),
            who_kind: ActorKind::User,
            kind,
            method: "PUT".into(),
            path: format!("/api/devices/{who}"),
            address: "127.0.0.1".into(),
        }
    }

    fn put(c: &Connection, at_ms: u64, who: &str, kind: EntryKind) {
        put_with(
            c,
            at_ms,
            who,
            &ChangeOutcome { status: 200, kind, is_own: false, before: None, after: None },
        );
    }

    fn put_with(c: &Connection, at_ms: u64, who: &str, outcome: &ChangeOutcome) {
        add(c, &entry(at_ms, who, outcome.kind), outcome, &LIMITS).unwrap();
    }

    fn all(c: &Connection, who: Option<&str>) -> Vec<StoredEntry> {
        let who = who.map(str::to_owned);
        list(c, &AuditQuery { who, limit: u32::MAX, ..AuditQuery::default() }).unwrap()
    }

    #[test]
    fn the_log_is_bounded_by_rows_and_refusals_of_strangers_push_out_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let c = schema::open(&dir.path().join("central.db")).unwrap();
        for at_ms in 0..100 {
            put(&c, at_ms, "owner", EntryKind::Updated);
        }
        for at_ms in 100..5_000 {
            put(&c, at_ms, "stranger", EntryKind::Refused);
        }
        assert_eq!(all(&c, Some("owner")).len(), 100);
        let refused = all(&c, Some("stranger"));
        assert!((100..=150).contains(&refused.len()), "{}", refused.len());
        assert_eq!(refused[0].entry.at_ms, 4_999, "newest first, and the newest stay");
        for at_ms in 5_000..6_000 {
            put(&c, at_ms, "busy", EntryKind::Updated);
        }
        assert!((200..=250).contains(&(all(&c, Some("owner")).len() + all(&c, Some("busy")).len())));
    }

    /// Every kind of row, of every end, that somebody can make who may change nothing.
    #[test]
    fn nothing_but_changes_pushes_out_changes() {
        use EntryKind::{Action, Command, Created, Deleted, Read, Refused, Setup, SignIn, SignOut, Updated};
        let dir = tempfile::tempdir().unwrap();
        let c = schema::open(&dir.path().join("central.db")).unwrap();
        // Thousands of commits, of which none must outlive this test.
        c.pragma_update(None, "synchronous", "OFF").unwrap();
        for at_ms in 0..150 {
            put(&c, at_ms, "owner", Updated);
        }
        let mut at_ms = 150;
        for kind in [Action, Command, Created, Deleted, Read, Refused, Setup, SignIn, SignOut, Updated] {
            for (status, is_own) in
                [200, 403, 409, 422, 429].into_iter().flat_map(|status| [(status, true), (status, false)])
            {
                let is_change = status == 200 && !is_own && ![Read, Refused, SignIn, SignOut].contains(&kind);
                for _ in 0..if is_change { 0 } else { 130 } {
                    let outcome = ChangeOutcome { status, kind, is_own, before: None, after: None };
                    put_with(&c, at_ms, "viewer", &outcome);
                    at_ms += 1;
                }
                assert_eq!(all(&c, Some("owner")).len(), 150, "{kind:?} {status} {is_own}");
            }
        }
        let kept = all(&c, Some("viewer"));
        assert!((200..=300).contains(&kept.len()), "{}", kept.len());
        assert!(kept.iter().all(|row| row.status != Some(429)));
    }

    #[test]
    fn old_rows_go_few_at_a_time_and_none_by_a_clock_that_did_not_last() {
        let dir = tempfile::tempdir().unwrap();
        let c = schema::open(&dir.path().join("central.db")).unwrap();
        for at_ms in 0..190 {
            put(&c, at_ms, "early", EntryKind::Updated);
        }
        for n in 0..10 {
            put(&c, 2_000_000 + n, "late", EntryKind::Updated);
        }
        assert_eq!(all(&c, Some("early")).len(), 190, "this process has not run for an hour");
        trim(&c, 2_000_010, &LIMITS).unwrap();
        assert_eq!(all(&c, Some("early")).len(), 90, "one look took as many as it may");
        trim(&c, 2_000_010, &LIMITS).unwrap();
        assert_eq!(all(&c, Some("early")).len(), 0);
        assert_eq!(all(&c, Some("late")).len(), 10);
    }

    #[test]
    fn rows_are_found_by_who_and_by_the_beginning_of_their_path_page_by_page() {
        let dir = tempfile::tempdir().unwrap();
        let c = schema::open(&dir.path().join("central.db")).unwrap();
        for n in 0..10 {
            put(&c, n, if n % 2 == 0 { "a%" } else { "b" }, EntryKind::Created);
        }
        let mut query = AuditQuery { who: Some("A%".into()), limit: 3, ..AuditQuery::default() };
        let mut times = Vec::new();
        loop {
            let rows = list(&c, &query).unwrap();
            let Some(last) = rows.last() else { break };
            query.before = Some(last.id);
            times.extend(rows.iter().map(|row| row.entry.at_ms));
        }
        assert_eq!(times, [8, 6, 4, 2, 0]);
        let of_path = |path: &str| {
            list(&c, &AuditQuery { path: Some(path.into()), limit: 100, ..AuditQuery::default() })
                .unwrap()
                .len()
        };
        assert_eq!((of_path("/api/devices/"), of_path("/api/devices/a%"), of_path("%")), (10, 5, 0));
        assert_eq!(of_path("/api/devices/_"), 0);
    }
}
