//! What the queues of gateways have lost: every loss once, the newest of them one by one, and sums for ever.

use rusqlite::{Connection, OptionalExtension as _, Row};
use schemas::link::{Loss, Losses};
use schemas::names::DeviceId;

use super::columns::{integer, unsigned};
use super::queues::{self, NumberTable};
use super::unreadable;

/// Losses that are kept one by one, of all gateways together.
const KEPT_MAX: u64 = 100_000;
/// Sums of one gateway. Beyond, what further senders lost is added up without their names.
const TOTALS_MAX: u32 = 50_000;
/// The highest count, of one loss and of a sum: what a JSON number holds exactly. Beyond, counts stay there.
pub const COUNT_MAX: u64 = (1 << 53) - 1;
/// The longest id or name of a queue. A gateway's own names have a module's name of 128 characters and a few more.
const QUEUE_BYTES_MAX: usize = 256;
const CAUSE_BYTES_MAX: usize = 32;

/// What a gateway could not have report of its own queues.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WrongLosses {
    /// An empty or too long text, or one with control characters.
    #[error("{field}: found {bytes} bytes; write 1 to {max} bytes of printable characters")]
    Text {
        field: &'static str,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        max: usize,
    },
    /// A number above what is stored.
    #[error("{field}: found {value}; {} is the most", i64::MAX)]
    Number { field: &'static str, value: u64 },
    /// A range that ends before it begins.
    #[error("sequences: found {first} to {last}")]
    Range { first: u64, last: u64 },
}

/// Checks what a gateway report, apart from whom it names as senders. Counts above [`COUNT_MAX`] are lowered to it.
///
/// # Errors
/// [`WrongLosses`].
pub fn check(report: &mut Losses) -> Result<(), WrongLosses> {
    let text = |field, text: &str, max| {
        let is_wrong = text.is_empty() || text.len() > max || text.chars().any(char::is_control);
        if is_wrong { Err(WrongLosses::Text { field, bytes: text.len(), max }) } else { Ok(()) }
    };
    text("queue", &report.queue, QUEUE_BYTES_MAX)?;
    text("name", &report.name, QUEUE_BYTES_MAX)?;
    for loss in &mut report.losses {
        text("cause", &loss.cause, CAUSE_BYTES_MAX)?;
        for (field, value) in [("number", loss.number), ("first", loss.first), ("last", loss.last)] {
            if i64::try_from(value).is_err() {
                return Err(WrongLosses::Number { field, value });
            }
        }
        if loss.first > loss.last {
            return Err(WrongLosses::Range { first: loss.first, last: loss.last });
        }
        loss.count = loss.count.min(COUNT_MAX);
    }
    Ok(())
}

/// The cause of what a gateway had sent, and central had before it was restored from a backup.
pub const CENTRAL_RESTORED: &str = "central-restored";

/// A loss that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLoss {
    /// Ascends over all gateways.
    pub id: i64,
    pub gateway: String,
    pub queue: String,
    /// Who sent the messages; empty when it is not known.
    pub device: String,
    /// Which of its modules; empty for none.
    pub module: String,
    pub cause: String,
    /// The first and the last sequence.
    pub sequences: (u64, u64),
    /// How many of them.
    pub count: u64,
    /// When the first and the last were lost, by the gateway's clock, in milliseconds since the Unix epoch.
    pub times_ms: (u64, u64),
    /// When central heard of it.
    pub received_ms: u64,
}

/// What one sender lost in one queue for one cause, ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Total {
    pub gateway: String,
    pub queue: String,
    /// As in [`StoredLoss`].
    pub device: String,
    /// As in [`StoredLoss`].
    pub module: String,
    pub cause: String,
    pub count: u64,
    /// When the first and the last were lost.
    pub times_ms: (u64, u64),
}

/// Stores what is new of it. False when the gateway brings more queues than one may have.
pub fn insert(
    c: &Connection,
    gateway: &DeviceId,
    report: &Losses,
    received_ms: u64,
) -> rusqlite::Result<bool> {
    let highest = watermark(c, gateway, &report.queue)?;
    if highest.is_none() && !queues::may_add(c, NumberTable::Losses, gateway, &report.queue, 0)? {
        return Ok(false);
    }
    let mut watermark = highest.map_or(0, unsigned);
    // Counted once: a gateway has many sums, and reports many losses at once.
    let mut totals = count(c, "loss_totals", gateway)?;
    for loss in &report.losses {
        if loss.number > watermark {
            watermark = loss.number;
            let has_space = totals < TOTALS_MAX;
            totals += u32::from(insert_one(c, gateway, &report.name, loss, received_ms, has_space)?);
        }
    }
    c.prepare_cached(
        "INSERT OR REPLACE INTO loss_marks (gateway, queue, number, moved) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute((gateway.as_str(), &report.queue, integer(watermark), integer(received_ms)))?;
    if highest.is_none() {
        queues::forget_oldest(c, NumberTable::Losses, gateway, &report.queue)?;
    }
    c.prepare_cached("DELETE FROM losses WHERE id <= (SELECT max(id) FROM losses) - ?1")?
        .execute([integer(KEPT_MAX)])?;
    Ok(true)
}

/// The number up to which the losses of a queue are stored.
pub fn last_number(c: &Connection, gateway: &DeviceId, queue: &str) -> rusqlite::Result<u64> {
    Ok(watermark(c, gateway, queue)?.map_or(0, unsigned))
}

fn watermark(c: &Connection, gateway: &DeviceId, queue: &str) -> rusqlite::Result<Option<i64>> {
    c.prepare_cached("SELECT number FROM loss_marks WHERE gateway = ?1 AND queue = ?2")?
        .query_row([gateway.as_str(), queue], |row| row.get(0))
        .optional()
}

fn count(c: &Connection, table: &str, gateway: &DeviceId) -> rusqlite::Result<u32> {
    c.prepare_cached(&format!("SELECT count(*) FROM {table} WHERE gateway = ?1"))?
        .query_row([gateway.as_str()], |row| row.get(0))
}

/// Returns true when it made a sum that was not there.
fn insert_one(
    c: &Connection,
    gateway: &DeviceId,
    queue: &str,
    loss: &Loss,
    received_ms: u64,
    has_space: bool,
) -> rusqlite::Result<bool> {
    let (device, module) = loss.sender.split_once('/').unwrap_or((&loss.sender, ""));
    c.prepare_cached(
        "INSERT INTO losses (gateway, queue, device, module, cause, first, last, count, from_ms, until_ms, received_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute((
        gateway.as_str(),
        queue,
        device,
        module,
        &loss.cause,
        integer(loss.first),
        integer(loss.last),
        integer(loss.count),
        integer(loss.from_ms),
        integer(loss.until_ms),
        integer(received_ms),
    ))?;
    let is_known = has_total(c, gateway, queue, (device, module), &loss.cause)?;
    // Further senders share one sum.
    let (device, module) = if is_known || has_space { (device, module) } else { ("", "") };
    c.prepare_cached(
        "INSERT INTO loss_totals (gateway, queue, device, module, cause, count, from_ms, until_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT DO UPDATE SET count = min(count + excluded.count, ?9), from_ms = min(from_ms, excluded.from_ms),
         until_ms = max(until_ms, excluded.until_ms)",
    )?
    .execute((
        gateway.as_str(),
        queue,
        device,
        module,
        &loss.cause,
        integer(loss.count),
        integer(loss.from_ms),
        integer(loss.until_ms),
        integer(COUNT_MAX),
    ))?;
    Ok(!is_known && has_space)
}

fn has_total(
    c: &Connection,
    gateway: &DeviceId,
    queue: &str,
    (device, module): (&str, &str),
    cause: &str,
) -> rusqlite::Result<bool> {
    c.prepare_cached(
        "SELECT 1 FROM loss_totals WHERE gateway = ?1 AND queue = ?2 AND device = ?3 AND module = ?4 AND cause = ?5",
    )?
    .exists((gateway.as_str(), queue, device, module, cause))
}

fn pair(row: &Row<'_>, first: &str, second: &str) -> rusqlite::Result<(u64, u64)> {
    Ok((unsigned(row.get(first)?), unsigned(row.get(second)?)))
}

/// The losses in the queues of a gateway, and those of a device's own messages wherever, with ids above `after`, oldest
/// first, up to `limit`.
pub fn page(c: &Connection, of: &DeviceId, after: i64, limit: u32) -> rusqlite::Result<Vec<StoredLoss>> {
    let mut statement = c.prepare_cached(
        "SELECT * FROM losses WHERE (gateway = ?1 OR device = ?1)
             AND id > max(?2, coalesce((SELECT losses_after FROM devices WHERE devices.id = ?1), 0)) ORDER BY id",
    )?;
    let rows = statement.query_map((of.as_str(), after), read)?;
    unreadable::rows("losses", rows).take(limit as usize).collect()
}

/// The newest losses that [`page`] has of a time, oldest first, up to `limit`.
pub fn between(
    c: &Connection,
    of: &DeviceId,
    from_ms: u64,
    to_ms: u64,
    limit: u32,
) -> rusqlite::Result<Vec<StoredLoss>> {
    let mut statement = c.prepare_cached(
        "SELECT * FROM losses WHERE (gateway = ?1 OR device = ?1) AND until_ms >= ?2 AND from_ms < ?3
             AND id > coalesce((SELECT losses_after FROM devices WHERE devices.id = ?1), 0) ORDER BY id DESC",
    )?;
    let rows = statement.query_map((of.as_str(), integer(from_ms), integer(to_ms)), read)?;
    let mut found: Vec<StoredLoss> =
        unreadable::rows("losses", rows).take(limit as usize).collect::<rusqlite::Result<_>>()?;
    found.reverse();
    Ok(found)
}

fn read(row: &Row<'_>) -> rusqlite::Result<StoredLoss> {
    Ok(StoredLoss {
        id: row.get("id")?,
        gateway: row.get("gateway")?,
        queue: row.get("queue")?,
        device: row.get("device")?,
        module: row.get("module")?,
        cause: row.get("cause")?,
        sequences: pair(row, "first", "last")?,
        count: unsigned(row.get("count")?),
        times_ms: pair(row, "from_ms", "until_ms")?,
        received_ms: unsigned(row.get("received_ms")?),
    })
}

/// Takes a device's name out of the sums, as sender and as gateway: the next device of its id has lost nothing yet. The counts stay.
pub fn forget_names(c: &Connection, device: &DeviceId) -> rusqlite::Result<()> {
    for (own, kept) in [("gateway", "'', '', '', ''"), ("device", "gateway, queue, '', ''")] {
        c.prepare_cached(&format!(
            "INSERT INTO loss_totals (gateway, queue, device, module, cause, count, from_ms, until_ms)
             SELECT {kept}, cause, min(sum(count), ?2), min(from_ms), max(until_ms) FROM loss_totals
                 WHERE {own} = ?1 GROUP BY {kept}, cause
             ON CONFLICT DO UPDATE SET count = min(count + excluded.count, ?2), from_ms = min(from_ms, excluded.from_ms),
             until_ms = max(until_ms, excluded.until_ms)"
        ))?
        .execute((device.as_str(), integer(COUNT_MAX)))?;
        c.prepare_cached(&format!("DELETE FROM loss_totals WHERE {own} = ?1"))?.execute([device.as_str()])?;
    }
    Ok(())
}

/// Messages of all gateways that central had confirmed and lost by a restore.
pub fn lost_by_restore(c: &Connection) -> rusqlite::Result<u64> {
    c.prepare_cached("SELECT coalesce(sum(count), 0) FROM loss_totals WHERE cause = ?1")?
        .query_row([CENTRAL_RESTORED], |row| Ok(unsigned(row.get(0)?)))
}

/// The sums for the queues of a gateway, and for a device's own messages wherever.
pub fn totals(c: &Connection, of: &DeviceId) -> rusqlite::Result<Vec<Total>> {
    let mut statement = c.prepare_cached(
        // A sum of an earlier version may have left the integers.
        "SELECT gateway, queue, device, module, cause, CAST(min(count, ?2) AS INTEGER) AS count, from_ms, until_ms
         FROM loss_totals WHERE gateway = ?1 OR device = ?1 ORDER BY gateway, queue, device, module, cause",
    )?;
    let rows = statement.query_map((of.as_str(), integer(COUNT_MAX)), |row| {
        Ok(Total {
            gateway: row.get("gateway")?,
            queue: row.get("queue")?,
            device: row.get("device")?,
            module: row.get("module")?,
            cause: row.get("cause")?,
            count: unsigned(row.get("count")?),
            times_ms: pair(row, "from_ms", "until_ms")?,
        })
    })?;
    unreadable::rows("loss_totals", rows).collect()
}

#[cfg(test)]
mod tests {
    use super::super::schema;
    use super::*;

    fn loss(number: u64, sender: &str, cause: &str, count: u64) -> Loss {
        Loss {
            number,
            cause: cause.into(),
            sender: sender.into(),
            first: number * 10,
            last: number * 10 + 9,
            count,
            from_ms: number * 1000,
            until_ms: number * 1000 + 5,
            generation: None,
        }
    }

    fn report(losses: Vec<Loss>) -> Losses {
        Losses { queue: "id-1".into(), name: "upstream@3".into(), losses }
    }

    #[test]
    fn counts_of_any_size_leave_sums_that_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let (c, gateway) = (schema::open(&dir.path().join("central.db")).unwrap(), "gw".parse().unwrap());
        let counts = [i64::MAX as u64, i64::MAX as u64, u64::MAX, 1, COUNT_MAX, 0];
        for (index, count) in counts.into_iter().enumerate() {
            let mut losses = report(vec![loss(index as u64 + 1, "press-1", "expired", count)]);
            check(&mut losses).unwrap();
            assert!(insert(&c, &gateway, &losses, 9).unwrap());
            let sum = totals(&c, &gateway).unwrap()[0].count;
            assert_eq!(sum, COUNT_MAX, "after {index}");
        }
        c.execute("UPDATE loss_totals SET count = 1.8e19", []).unwrap();
        assert_eq!(totals(&c, &gateway).unwrap()[0].count, COUNT_MAX, "what an earlier version left");
        assert_eq!(page(&c, &gateway, 0, 100).unwrap().len(), counts.len());
    }

    #[test]
    fn what_no_queue_could_have_lost_is_refused() {
        let wrong: Vec<fn(&mut Losses)> = vec![
            |l| l.queue.clear(),
            |l| l.queue = "q".repeat(257),
            |l| l.name = "n".repeat(257),
            |l| l.name = "upstream\nforged".into(),
            |l| l.losses[0].cause = "c".repeat(33),
            |l| l.losses[0].cause.clear(),
            |l| l.losses[0].number = u64::MAX,
            |l| l.losses[0].first = u64::MAX,
            |l| l.losses[0].last = u64::MAX,
            |l| l.losses[0].last = l.losses[0].first - 1,
        ];
        check(&mut report(vec![loss(1, "press-1", "expired", 4)])).unwrap();
        for (index, change) in wrong.into_iter().enumerate() {
            let mut losses = report(vec![loss(1, "press-1", "expired", 4)]);
            change(&mut losses);
            assert!(check(&mut losses).is_err(), "{index}: {losses:?}");
        }
    }

    #[test]
    fn a_loss_that_is_reported_again_counts_once_and_the_sums_outlive_it() {
        let dir = tempfile::tempdir().unwrap();
        let (c, gateway) = (schema::open(&dir.path().join("central.db")).unwrap(), "gw".parse().unwrap());
        let first = report(vec![loss(1, "press-1", "expired", 4), loss(2, "gw/filter", "evicted", 2)]);
        assert!(insert(&c, &gateway, &first, 9).unwrap());
        // The gateway was killed before it heard of the acknowledgement, and has lost more since.
        let again = report(vec![
            loss(1, "press-1", "expired", 4),
            loss(2, "gw/filter", "evicted", 2),
            loss(3, "press-1", "expired", 1),
        ]);
        assert!(insert(&c, &gateway, &again, 10).unwrap());
        let other = Losses { queue: "id-2".into(), ..report(vec![loss(1, "press-1", "expired", 8)]) };
        assert!(insert(&c, &gateway, &other, 11).unwrap(), "another queue counts by itself");

        let counts: Vec<_> = page(&c, &gateway, 0, 100).unwrap().iter().map(|loss| loss.count).collect();
        assert_eq!(counts, [4, 2, 1, 8]);
        let of_press = page(&c, &"press-1".parse().unwrap(), 1, 100).unwrap();
        assert_eq!(of_press.iter().map(|loss| loss.id).collect::<Vec<_>>(), [3, 4]);
        assert_eq!((of_press[0].sequences, of_press[0].times_ms), ((30, 39), (3000, 3005)));
        c.execute("DELETE FROM losses", []).unwrap();
        let sums = totals(&c, &gateway).unwrap();
        let short: Vec<_> =
            sums.iter().map(|t| (&*t.device, &*t.module, &*t.cause, t.count, t.times_ms)).collect();
        assert_eq!(
            short,
            [("gw", "filter", "evicted", 2, (2000, 2005)), ("press-1", "", "expired", 13, (1000, 3005))]
        );
    }
}
