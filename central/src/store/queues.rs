//! The names of gateways' queues, as marks are kept by them: the id of a queue's log, and the epoch of the sequences in it.
//!
//! A gateway begins an epoch whenever it opens a queue, since its directory may have gone back in time and its sequences may
//! repeat. Of each log the newest [`EPOCHS_MAX`] are kept. Forgetting an epoch can only make a message or a loss that is sent
//! once more count twice.

use rusqlite::Connection;
use schemas::names::DeviceId;

/// Logs that one gateway may bring: one for each sink and priority, and those of former installations.
pub const LOGS_MAX: usize = 1000;
/// Epochs that are kept of each log.
pub const EPOCHS_MAX: usize = 32;

/// The id of a queue's log: what is before the epoch. Older gateways name a queue by it alone.
pub fn log_of(queue: &str) -> &str {
    queue.split_once('.').map_or(queue, |(log, _)| log)
}

/// A table of marks, by gateway and queue, with a column `moved`.
#[derive(Debug, Clone, Copy)]
pub enum NumberTable {
    /// How far queues are stored.
    Watermarks,
    /// Which losses are known.
    Losses,
}

impl NumberTable {
    fn table(self) -> &'static str {
        match self {
            Self::Watermarks => "watermarks",
            Self::Losses => "loss_marks",
        }
    }
}

/// Condition on `queue` for the epochs of the log that is the parameter 2: they stand together in the table's key.
const OF_LOG: &str = "gateway = ?1 AND (queue = ?2 OR (queue > ?2 || '.' AND queue < ?2 || '/'))";

/// Whether a mark of one more queue may be kept. `more`: logs that are not in the table yet.
pub fn may_add(
    c: &Connection,
    numbers: NumberTable,
    gateway: &DeviceId,
    queue: &str,
    more: usize,
) -> rusqlite::Result<bool> {
    let (table, log) = (numbers.table(), log_of(queue));
    if c.prepare_cached(&format!("SELECT 1 FROM {table} WHERE {OF_LOG}"))?.exists([gateway.as_str(), log])? {
        return Ok(true);
    }
    let logs: u32 = c
        .prepare_cached(&format!(
            "SELECT count(DISTINCT CASE instr(queue, '.') WHEN 0 THEN queue
                 ELSE substr(queue, 1, instr(queue, '.') - 1) END) FROM {table} WHERE gateway = ?1"
        ))?
        .query_row([gateway.as_str()], |row| row.get(0))?;
    Ok(logs as usize + more < LOGS_MAX)
}

/// Deletes the epochs of a queue's log that moved longest ago, beyond [`EPOCHS_MAX`].
pub fn forget_oldest(
    c: &Connection,
    numbers: NumberTable,
    gateway: &DeviceId,
    queue: &str,
) -> rusqlite::Result<()> {
    let (table, log) = (numbers.table(), log_of(queue));
    let over: Vec<String> = c
        .prepare_cached(&format!(
            "SELECT queue FROM {table} WHERE {OF_LOG} ORDER BY moved DESC LIMIT -1 OFFSET {EPOCHS_MAX}"
        ))?
        .query_map([gateway.as_str(), log], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for queue in over {
        let of = [gateway.as_str(), &queue];
        c.prepare_cached(&format!("DELETE FROM {table} WHERE gateway = ?1 AND queue = ?2"))?.execute(of)?;
        if let NumberTable::Watermarks = numbers {
            c.prepare_cached("DELETE FROM refused WHERE gateway = ?1 AND queue = ?2")?.execute(of)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::losses;
    use super::super::schema;
    use super::*;
    use schemas::link::Losses;

    fn numbers(c: &Connection) -> Vec<String> {
        let mut all = c.prepare("SELECT queue FROM loss_marks ORDER BY moved").unwrap();
        all.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn of_each_log_the_newest_epochs_are_kept_and_a_gateway_may_bring_so_many_logs() {
        let dir = tempfile::tempdir().unwrap();
        let (c, gateway) = (schema::open(&dir.path().join("central.db")).unwrap(), "gw".parse().unwrap());
        let mut now_ms = 0;
        let mut report = |queue: String| {
            now_ms += 1;
            let report = Losses { queue, name: "upstream".into(), losses: Vec::new() };
            losses::insert(&c, &gateway, &report, now_ms).unwrap()
        };
        // Names that begin like the log's are other logs.
        for other in ["log", "log-2.e", "lo.e", "logs"] {
            assert!(report(other.to_owned()));
        }
        for epoch in 0..100 {
            assert!(report(format!("log.{epoch}")));
        }
        let kept = numbers(&c);
        let newest: Vec<String> = (100 - EPOCHS_MAX..100).map(|epoch| format!("log.{epoch}")).collect();
        assert_eq!(
            (&kept[..3], &kept[3..]),
            (&["log-2.e", "lo.e", "logs"].map(String::from)[..], &newest[..])
        );
        for log in 4..LOGS_MAX {
            assert!(report(format!("{log}.e")), "{log}");
        }
        assert!(!report("one-too-many.e".into()));
        assert!(report("log.and-one-more-epoch".into()));
    }
}
