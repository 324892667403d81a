//! Cloud-to-device messages: those that wait, how the last ones ended, and the feedback that their senders asked for.

use std::collections::BTreeMap;

use edge_core::clock::lifetime::Lifetime;
use rusqlite::{Connection, OptionalExtension as _, Row};
use schemas::cloud_message::{CloudMessage, End, Settlement};
use schemas::names::DeviceId;

use super::columns::{integer, json_column, parsed_column, unsigned};
use super::{age_clock, page, unreadable};
use crate::clock::{corrected_ms, stamp_of};

/// Ended messages that are kept for each device.
const ENDED_KEPT: u32 = 100;
/// Feedback records that are kept.
const FEEDBACK_KEPT: u32 = 10_000;

/// A message and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredMessage {
    /// Ascends over all devices, also over a store that was begun anew: it is not below the time of the message.
    pub sequence: u64,
    /// Whom it is for.
    pub device: DeviceId,
    pub message: CloudMessage,
    /// When its gateway took it, in milliseconds since the Unix epoch; it waits there.
    pub taken_ms: Option<u64>,
    /// How often the device was given it in vain, at central's own listener.
    pub attempts: u32,
    /// How long it waits, by the clock of ages.
    pub lifetime: Lifetime,
    /// How it ended, and when.
    pub ended: Option<Settlement>,
}

/// Which feedback a sender requested.
#[derive(Debug, Clone, PartialEq)]
pub struct Feedback {
    pub id: u64,
    /// Whom the message was for.
    pub device: DeviceId,
    /// The sender's name for it.
    pub message_id: String,
    /// How it ended, and when.
    pub settlement: Settlement,
}

fn read(row: &Row<'_>) -> rusqlite::Result<StoredMessage> {
    let ended: Option<String> = row.get("ended")?;
    let message: CloudMessage = json_column(row, "message")?;
    let stamp = |column: &str| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(unsigned));
    Ok(StoredMessage {
        sequence: unsigned(row.get("sequence")?),
        device: parsed_column(row, "device")?,
        taken_ms: stamp("taken_ms")?,
        attempts: row.get("attempts")?,
        lifetime: Lifetime {
            from_ms: stamp("from_age_ms")?.unwrap_or(message.enqueued_ms),
            until_ms: stamp("until_age_ms")?.unwrap_or(message.expires_ms),
        },
        ended: ended.map(|_| settlement(row, "ended")).transpose()?,
        message,
    })
}

/// An end, with its time by the wall clock as it was set since.
fn settlement(row: &Row<'_>, column: &str) -> rusqlite::Result<Settlement> {
    let Settlement { end, at_ms } = json_column(row, column)?;
    let ended_ms: Option<i64> = row.get("ended_age_ms")?;
    Ok(Settlement { end, at_ms: ended_ms.map(unsigned).and_then(corrected_ms).unwrap_or(at_ms) })
}

/// How many messages wait for a device, at its gateway or here.
pub fn count_waiting(c: &Connection, device: &DeviceId) -> rusqlite::Result<usize> {
    c.prepare_cached("SELECT count(*) FROM cloud_messages WHERE device = ?1 AND ended IS NULL")?
        .query_row([device.as_str()], |row| row.get::<_, u32>(0))
        .map(|count| usize::try_from(count).unwrap_or(usize::MAX))
}

/// Queues a message that comes at `age_ms` of the clock of ages, and gives its sequence.
pub fn insert(
    c: &Connection,
    device: &DeviceId,
    message: &CloudMessage,
    age_ms: u64,
) -> rusqlite::Result<u64> {
    let lifetime = Lifetime::new(age_ms, message.expires_ms.saturating_sub(message.enqueued_ms));
    // Above all before it (SQLite remembers the highest), and above those of a store that was lost: gateways remember too.
    c.prepare_cached(
        "INSERT INTO cloud_messages (sequence, device, message, expires_ms, from_age_ms, until_age_ms)
         SELECT max(?1, 1 + coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'cloud_messages'), 0)),
             ?2, ?3, ?4, ?5, ?6",
    )?
    .execute((
        integer(message.enqueued_ms),
        device.as_str(),
        serde_json::json!(message).to_string(),
        integer(message.expires_ms),
        integer(lifetime.from_ms),
        integer(lifetime.until_ms),
    ))?;
    let sequence = unsigned(c.last_insert_rowid());
    age_clock::save(c)?;
    Ok(sequence)
}

/// The message with this sequence; none when it cannot be read.
pub fn get(c: &Connection, sequence: u64) -> rusqlite::Result<Option<StoredMessage>> {
    let mut statement = c.prepare_cached("SELECT * FROM cloud_messages WHERE sequence = ?1")?;
    unreadable::row("cloud_messages", statement.query_row([integer(sequence)], read))
}

/// Up to `limit` messages of a device with sequences above `after`, oldest first; fewer when they are large.
pub fn page(
    c: &Connection,
    device: &DeviceId,
    after: u64,
    limit: u32,
) -> rusqlite::Result<Vec<StoredMessage>> {
    let mut statement = c.prepare_cached(
        "SELECT * FROM cloud_messages WHERE device = ?1 AND sequence > ?2 ORDER BY sequence",
    )?;
    let rows = statement.query_map((device.as_str(), integer(after)), |row| page::sized(row, read))?;
    Ok(page::page(unreadable::rows("cloud_messages", rows), limit)?.0)
}

/// Up to `limit` messages that wait here, not at a gateway, with sequences above `after`, oldest first.
pub fn waiting_here(
    c: &Connection,
    device: &DeviceId,
    after: u64,
    limit: u32,
) -> rusqlite::Result<Vec<StoredMessage>> {
    let mut statement = c.prepare_cached(
        "SELECT * FROM cloud_messages WHERE device = ?1 AND sequence > ?2 AND ended IS NULL AND taken_ms IS NULL
         ORDER BY sequence",
    )?;
    unreadable::rows("cloud_messages", statement.query_map((device.as_str(), integer(after)), read)?)
        .take(limit as usize)
        .collect()
}

/// The devices for which messages wait, here or at their gateways.
pub fn devices_waited_for(c: &Connection) -> rusqlite::Result<Vec<DeviceId>> {
    let mut statement = c.prepare_cached("SELECT DISTINCT device FROM cloud_messages WHERE ended IS NULL")?;
    let devices = statement.query_map([], |row| parsed_column(row, "device"))?;
    unreadable::rows("cloud_messages", devices).collect()
}

/// The sequences of all messages that wait for a device, oldest first.
pub fn sequences(c: &Connection, device: &DeviceId) -> rusqlite::Result<Vec<u64>> {
    c.prepare_cached(
        "SELECT sequence FROM cloud_messages WHERE device = ?1 AND ended IS NULL ORDER BY sequence",
    )?
    .query_map([device.as_str()], |row| row.get(0).map(unsigned))?
    .collect()
}

/// Notes that a gateway has a message now, if it is still the device's.
pub fn taken(c: &Connection, gateway: &DeviceId, sequence: u64, now_ms: u64) -> rusqlite::Result<()> {
    c.prepare_cached(
        "UPDATE cloud_messages SET taken_ms = ifnull(taken_ms, ?3) WHERE sequence = ?2
         AND EXISTS (SELECT 1 FROM relationships WHERE source = ?1 AND target = device)",
    )?
    .execute((gateway.as_str(), integer(sequence), integer(now_ms)))?;
    Ok(())
}

/// The device has another gateway, or none: what its gateway had, central has again.
pub fn taken_back(c: &Connection, device: &DeviceId) -> rusqlite::Result<()> {
    c.prepare_cached("UPDATE cloud_messages SET taken_ms = NULL WHERE device = ?1 AND ended IS NULL")?
        .execute([device.as_str()])?;
    Ok(())
}

/// Counts that a device was given a message in vain.
pub fn attempted(c: &Connection, sequence: u64) -> rusqlite::Result<()> {
    c.prepare_cached("UPDATE cloud_messages SET attempts = attempts + 1 WHERE sequence = ?1")?
        .execute([integer(sequence)])?;
    Ok(())
}

/// Ends a message; false when it has ended already, or is not known. The first end counts, with one exception: central
/// takes a message for expired when its time is over, and the gateway that had delivered it in time may tell so later.
pub fn end(
    c: &Connection,
    device: &DeviceId,
    sequence: u64,
    settlement: &Settlement,
) -> rusqlite::Result<bool> {
    let is_open: Option<bool> = c
        .prepare_cached("SELECT ended IS NULL FROM cloud_messages WHERE sequence = ?1 AND device = ?2")?
        .query_row((integer(sequence), device.as_str()), |row| row.get(0))
        .optional()?;
    let Some(is_open) = is_open else { return Ok(false) };
    // One that cannot be read ends too, and there is no feedback: who requested it is in it.
    let stored = get(c, sequence)?;
    let ended = stored.as_ref().and_then(|stored| stored.ended.as_ref());
    let is_late_delivery =
        ended.is_some_and(|ended| ended.end == End::Expired && settlement.end == End::Delivered);
    if !is_open && !is_late_delivery {
        return Ok(false);
    }
    let (text, ended_ms) = (serde_json::json!(settlement).to_string(), integer(stamp_of(settlement.at_ms)));
    c.prepare_cached("UPDATE cloud_messages SET ended = ?2, ended_age_ms = ?3 WHERE sequence = ?1")?
        .execute((integer(sequence), &text, ended_ms))?;
    c.prepare_cached(
        "DELETE FROM cloud_messages WHERE device = ?1 AND ended IS NOT NULL AND sequence <=
             (SELECT sequence FROM cloud_messages WHERE device = ?1 AND ended IS NOT NULL
              ORDER BY sequence DESC LIMIT 1 OFFSET ?2)",
    )?
    .execute((device.as_str(), ENDED_KEPT))?;
    if let Some(stored) = stored.filter(|stored| stored.message.ack.requests(&settlement.end)) {
        c.prepare_cached(
            "INSERT INTO cloud_feedback (device, message_id, settlement, ended_age_ms) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute((device.as_str(), &stored.message.message_id, &text, ended_ms))?;
        c.prepare_cached("DELETE FROM cloud_feedback WHERE id <= ?1")?
            .execute([c.last_insert_rowid() - i64::from(FEEDBACK_KEPT)])?;
    }
    Ok(true)
}

/// Takes every message of a device back that waits; gives how many.
pub fn purge(c: &Connection, device: &DeviceId, now_ms: u64) -> rusqlite::Result<usize> {
    let waiting = sequences(c, device)?;
    if let Some(last) = waiting.last() {
        c.prepare_cached("INSERT OR REPLACE INTO cloud_purges (device, up_to) VALUES (?1, ?2)")?
            .execute((device.as_str(), integer(*last)))?;
    }
    for sequence in &waiting {
        end(c, device, *sequence, &Settlement { end: End::Purged, at_ms: now_ms })?;
    }
    Ok(waiting.len())
}

/// What operators took back from the devices behind a gateway.
pub fn purges(c: &Connection, gateway: &DeviceId) -> rusqlite::Result<BTreeMap<DeviceId, u64>> {
    let mut statement = c.prepare_cached(
        "SELECT device, up_to FROM cloud_purges JOIN relationships ON relationships.target = device
         WHERE relationships.source = ?1",
    )?;
    let rows = statement.query_map([gateway.as_str()], |row| {
        Ok((parsed_column(row, "device")?, unsigned(row.get("up_to")?)))
    })?;
    unreadable::rows("cloud_purges", rows).collect()
}

/// Up to which sequence operators took messages of a device back.
pub fn purged(c: &Connection, device: &DeviceId) -> rusqlite::Result<Option<u64>> {
    let mut statement = c.prepare_cached("SELECT up_to FROM cloud_purges WHERE device = ?1")?;
    let up_to = statement.query_row([device.as_str()], |row| row.get::<_, i64>(0));
    Ok(unreadable::row("cloud_purges", up_to)?.map(unsigned))
}

/// Messages whose time is over, by device and sequence, and when the next one's is.
pub type Expired = (Vec<(DeviceId, u64)>, Option<u64>);

/// Up to 1000 messages whose time is over, by the clock of ages.
pub fn expired(c: &Connection, now_ms: u64) -> rusqlite::Result<Expired> {
    let mut statement = c.prepare_cached(
        "SELECT device, sequence FROM cloud_messages WHERE ended IS NULL AND until_age_ms <= ?1
         ORDER BY until_age_ms LIMIT 1000",
    )?;
    let over = statement.query_map([integer(now_ms)], |row| {
        Ok((parsed_column(row, "device")?, unsigned(row.get("sequence")?)))
    })?;
    let over = unreadable::rows("cloud_messages", over).collect::<rusqlite::Result<_>>()?;
    let mut statement = c.prepare_cached(
        "SELECT min(until_age_ms) FROM cloud_messages WHERE ended IS NULL AND until_age_ms > ?1",
    )?;
    let next = statement.query_row([integer(now_ms)], |row| row.get::<_, Option<i64>>(0));
    Ok((over, unreadable::value("cloud_messages", next)?.flatten().map(unsigned)))
}

/// Up to `limit` feedback records with ids above `after`, oldest first.
pub fn feedback(c: &Connection, after: u64, limit: u32) -> rusqlite::Result<Vec<Feedback>> {
    let mut statement = c.prepare_cached("SELECT * FROM cloud_feedback WHERE id > ?1 ORDER BY id")?;
    let records = statement.query_map([integer(after)], |row| {
        Ok(Feedback {
            id: unsigned(row.get("id")?),
            device: parsed_column(row, "device")?,
            message_id: row.get("message_id")?,
            settlement: settlement(row, "settlement")?,
        })
    })?;
    unreadable::rows("cloud_feedback", records).take(limit as usize).collect()
}

#[cfg(test)]
mod tests {
    use schemas::cloud_message::Ack;

    use super::*;

    fn message(id: &str, enqueued_ms: u64, ack: Ack) -> CloudMessage {
        CloudMessage {
            message_id: id.to_owned(),
            correlation_id: None,
            user_id: None,
            content_type: None,
            content_encoding: None,
            ack,
            properties: BTreeMap::new(),
            enqueued_ms,
            expires_ms: enqueued_ms + 100,
            body: Vec::new(),
        }
    }

    fn settled(end: End) -> Settlement {
        Settlement { end, at_ms: 9 }
    }

    #[test]
    fn a_message_that_cannot_be_read_still_ends_and_holds_up_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let c = super::super::schema::open(&dir.path().join("central.db")).unwrap();
        let device: DeviceId = "press-1".parse().unwrap();
        let broken = insert(&c, &device, &message("a", 1000, Ack::Full), 1000).unwrap();
        let good = insert(&c, &device, &message("b", 2000, Ack::Full), 2000).unwrap();
        c.execute("UPDATE cloud_messages SET message = '{' WHERE sequence = ?1", [integer(broken)]).unwrap();
        let waiting: Vec<u64> =
            waiting_here(&c, &device, 0, 1).unwrap().iter().map(|message| message.sequence).collect();
        assert_eq!(waiting, [good]);
        assert_eq!(expired(&c, 1100).unwrap().0, [(device.clone(), broken)]);
        assert!(end(&c, &device, broken, &settled(End::Expired)).unwrap());
        assert_eq!(expired(&c, 1100).unwrap().0, []);
        assert!(!end(&c, &device, broken, &settled(End::Expired)).unwrap());
    }

    #[test]
    fn sequences_ascend_also_when_the_clock_goes_back_and_rows_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let c = super::super::schema::open(&dir.path().join("central.db")).unwrap();
        let device: DeviceId = "d".parse().unwrap();
        assert_eq!(insert(&c, &device, &message("a", 1000, Ack::None), 1).unwrap(), 1000);
        assert_eq!(insert(&c, &device, &message("b", 1000, Ack::None), 1).unwrap(), 1001);
        c.execute("DELETE FROM cloud_messages", []).unwrap();
        assert_eq!(insert(&c, &device, &message("c", 10, Ack::None), 1).unwrap(), 1002);
        assert_eq!(sequences(&c, &device).unwrap(), [1002]);
    }

    #[test]
    fn the_first_end_counts_but_what_was_delivered_in_time_was_not_expired() {
        let dir = tempfile::tempdir().unwrap();
        let c = super::super::schema::open(&dir.path().join("central.db")).unwrap();
        let (device, other): (DeviceId, DeviceId) = ("d".parse().unwrap(), "e".parse().unwrap());
        let sequence = insert(&c, &device, &message("a", 1000, Ack::Full), 1000).unwrap();
        assert_eq!(expired(&c, 1099).unwrap(), (vec![], Some(1100)));
        assert_eq!(expired(&c, 1100).unwrap(), (vec![(device.clone(), sequence)], None));
        assert!(!end(&c, &other, sequence, &settled(End::Delivered)).unwrap(), "another device's");
        assert!(end(&c, &device, sequence, &settled(End::Expired)).unwrap());
        assert!(!end(&c, &device, sequence, &settled(End::Purged)).unwrap());
        assert!(end(&c, &device, sequence, &settled(End::Delivered)).unwrap());
        assert!(!end(&c, &device, sequence, &settled(End::Expired)).unwrap());
        let ends: Vec<_> = feedback(&c, 0, 10).unwrap().into_iter().map(|f| f.settlement.end).collect();
        assert_eq!(ends, [End::Expired, End::Delivered]);
        assert_eq!(count_waiting(&c, &device).unwrap(), 0);
    }

    #[test]
    fn the_last_hundred_ends_of_a_device_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let c = super::super::schema::open(&dir.path().join("central.db")).unwrap();
        let device: DeviceId = "d".parse().unwrap();
        for n in 0..150 {
            let sequence = insert(&c, &device, &message("m", n, Ack::None), 1).unwrap();
            end(&c, &device, sequence, &settled(End::Delivered)).unwrap();
        }
        let kept = page(&c, &device, 0, 1000).unwrap();
        assert_eq!(kept.len(), 100);
        assert_eq!(purge(&c, &device, 1).unwrap(), 0);
    }
}
