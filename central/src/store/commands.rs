//! Commands: what was requested of whom, and how each ended.
//!
//! A command that was given a time to be valid waits for a target that is away: here until its gateway has taken it, or until
//! the target listens at central's own listener.

use std::collections::BTreeMap;

use edge_core::clock::lifetime::Lifetime;
use rusqlite::{Connection, Row};
use schemas::method::{MethodFailure, MethodRequest, MethodResponse};
use schemas::names::{DeviceId, Identity, ModuleId};

use super::columns::{integer, json_column, parsed_column, unsigned};
use super::{age_clock, page, unreadable};
use crate::clock::{corrected_ms, stamp_of};

/// Bytes of the history of a device and its modules; the oldest commands that have ended go.
pub const DEVICE_BYTES_MAX: u64 = 8 << 20;
/// Bytes of the history of all devices.
pub const ALL_BYTES_MAX: u64 = 256 << 20;
/// What a command takes. Counted from the row's header, without a look into the texts.
const BYTES: &str = "octet_length(request) + ifnull(octet_length(outcome), 0) + 256";

/// How a command ended.
pub type Outcome = Result<MethodResponse, MethodFailure>;

/// A command in the history.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// Chosen by central, unique.
    pub id: String,
    /// The gateway that carries it; none for a device that is connected to central itself.
    pub gateway: Option<DeviceId>,
    /// Whom it is for.
    pub target: Identity,
    pub request: MethodRequest,
    /// When, in milliseconds since the Unix epoch.
    pub requested_ms: u64,
    /// When central stops waiting for the answer.
    pub deadline_ms: u64,
    /// Until when it waits for a target that is away; none for one that does not.
    pub valid_until_ms: Option<u64>,
    /// When it was requested, by the clock of ages: its times end by that clock.
    pub from_age_ms: u64,
    /// When it was taken from here to be run: by its gateway, or at central's own listener. Only of one that waits.
    pub taken_ms: Option<u64>,
    pub ended_ms: Option<u64>,
    /// How it ended; none while it runs.
    pub outcome: Option<Outcome>,
}

impl Command {
    /// How long it waits for its target; of one that does not wait, how long central waits for its answer.
    pub fn lifetime(&self) -> Lifetime {
        let until_ms = self.valid_until_ms.unwrap_or(self.deadline_ms);
        Lifetime::new(self.from_age_ms, until_ms.saturating_sub(self.requested_ms))
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Command> {
    let module: String = row.get("module")?;
    let gateway: Option<String> = row.get("gateway")?;
    let outcome: Option<String> = row.get("outcome")?;
    let requested_ms = unsigned(row.get("asked_ms")?);
    let stamp = |column: &str| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(unsigned));
    let module = if module.is_empty() { None } else { Some(parsed_column(row, "module")?) };
    Ok(Command {
        id: row.get("id")?,
        gateway: gateway.map(|_| parsed_column(row, "gateway")).transpose()?,
        target: Identity { device: parsed_column(row, "device")?, module },
        request: json_column(row, "request")?,
        requested_ms,
        deadline_ms: unsigned(row.get("deadline_ms")?),
        valid_until_ms: stamp("valid_until_ms")?,
        from_age_ms: stamp("from_age_ms")?.unwrap_or(requested_ms),
        taken_ms: stamp("taken_ms")?,
        // The wall clock may have been set since.
        ended_ms: stamp("ended_age_ms")?.and_then(corrected_ms).or(stamp("ended_ms")?),
        outcome: outcome.map(|_| json_column(row, "outcome")).transpose()?,
    })
}

/// Writes a command that is about to be sent; gives its row, which ascends.
pub fn insert(connection: &Connection, command: &Command) -> rusqlite::Result<u64> {
    connection
        .prepare_cached(
            "INSERT INTO commands
                 (id, gateway, device, module, request, asked_ms, deadline_ms, valid_until_ms, from_age_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute((
            &command.id,
            command.gateway.as_ref().map(DeviceId::as_str),
            command.target.device.as_str(),
            command.target.module.as_ref().map_or("", ModuleId::as_str),
            serde_json::json!(command.request).to_string(),
            integer(command.requested_ms),
            integer(command.deadline_ms),
            command.valid_until_ms.map(integer),
            integer(command.from_age_ms),
        ))?;
    let row = unsigned(connection.last_insert_rowid());
    age_clock::save(connection)?;
    trim_bytes(connection, "WHERE device = ?2", command.target.device.as_str(), DEVICE_BYTES_MAX)?;
    trim_bytes(connection, "WHERE ?2 = ''", "", ALL_BYTES_MAX)?;
    Ok(row)
}

/// Forgets the oldest commands that have ended and are beyond `most` bytes.
fn trim_bytes(connection: &Connection, of: &str, device: &str, most: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(&format!(
            "DELETE FROM commands WHERE row IN (SELECT row FROM
                 (SELECT row, outcome IS NOT NULL AS has_ended, sum({BYTES}) OVER (ORDER BY row DESC) AS bytes
                  FROM commands {of})
             WHERE bytes > ?1 AND has_ended)"
        ))?
        .execute((integer(most), device))?;
    Ok(())
}

/// Bytes of the commands that wait for a device and its modules, and of those that wait for anybody.
///
/// # Errors
/// The database cannot be read.
pub fn waiting_bytes(connection: &Connection, device: &DeviceId) -> rusqlite::Result<(u64, u64)> {
    connection
        .prepare_cached(&format!(
            "SELECT ifnull(sum(CASE WHEN device = ?1 THEN {BYTES} END), 0), ifnull(sum({BYTES}), 0) FROM commands
             WHERE outcome IS NULL AND valid_until_ms IS NOT NULL"
        ))?
        .query_row([device.as_str()], |row| Ok((unsigned(row.get(0)?), unsigned(row.get(1)?))))
}

/// The modules of a gateway that have a command in the history.
pub fn modules(connection: &Connection, gateway: &DeviceId) -> rusqlite::Result<Vec<ModuleId>> {
    let mut statement = connection
        .prepare_cached("SELECT DISTINCT module FROM commands WHERE device = ?1 AND module <> ''")?;
    let named = statement.query_map([gateway.as_str()], |row| parsed_column(row, "module"))?;
    unreadable::rows("commands", named).collect()
}

/// Deletes the commands of one target, and those that wait for it.
pub fn delete(connection: &Connection, target: &Identity) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM commands WHERE device = ?1 AND module = ?2")?
        .execute([target.device.as_str(), target.module.as_ref().map_or("", ModuleId::as_str)])?;
    Ok(())
}

/// Takes a command out of the history.
pub fn forget(connection: &Connection, id: &str) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM commands WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// The command with this id; none when it cannot be read.
pub fn get(connection: &Connection, id: &str) -> rusqlite::Result<Option<Command>> {
    let mut statement = connection.prepare_cached("SELECT * FROM commands WHERE id = ?1")?;
    unreadable::row("commands", statement.query_row([id], read))
}

/// Ends a command; false when it has ended already, or is not known. The first end counts, but for a command that waited at a
/// gateway whose line was down when central gave it up: the target's own answer is the truth then.
pub fn end(connection: &Connection, id: &str, outcome: &Outcome, now_ms: u64) -> rusqlite::Result<bool> {
    let Some(command) = get(connection, id)? else { return Ok(false) };
    let was_given_up = command.taken_ms.is_some() && matches!(command.outcome, Some(Err(_)));
    if command.outcome.is_some() && !(was_given_up && outcome.is_ok()) {
        return Ok(false);
    }
    connection
        .prepare_cached("UPDATE commands SET outcome = ?2, ended_ms = ?3, ended_age_ms = ?4 WHERE id = ?1")?
        .execute((id, serde_json::json!(outcome).to_string(), integer(now_ms), integer(stamp_of(now_ms))))?;
    Ok(true)
}

/// The commands that wait here for a device or its modules, by row: nobody has taken them.
const WAITING: &str = "outcome IS NULL AND valid_until_ms IS NOT NULL AND taken_ms IS NULL";

/// The rows of the commands that wait here for a device or its modules, in the order in which they were asked for.
pub fn waiting(connection: &Connection, device: &DeviceId) -> rusqlite::Result<Vec<u64>> {
    connection
        .prepare_cached(&format!("SELECT row FROM commands WHERE device = ?1 AND {WAITING} ORDER BY row"))?
        .query_map([device.as_str()], |row| Ok(unsigned(row.get(0)?)))?
        .collect()
}

/// The devices for which, or for whose modules, commands wait here.
pub fn devices_waited_for(connection: &Connection) -> rusqlite::Result<Vec<DeviceId>> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT DISTINCT device FROM commands WHERE {WAITING}"))?;
    let devices = statement.query_map([], |row| parsed_column(row, "device"))?;
    unreadable::rows("commands", devices).collect()
}

/// The command of a row, when it waits here; whether it is valid still is not looked at.
pub fn waiting_at(connection: &Connection, row: u64) -> rusqlite::Result<Option<Command>> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT * FROM commands WHERE row = ?1 AND {WAITING}"))?;
    unreadable::row("commands", statement.query_row([integer(row)], read))
}

/// The first command that waits here for a device or its modules and is valid still.
pub fn next_waiting(
    connection: &Connection,
    device: &DeviceId,
    is_valid: impl Fn(Lifetime) -> bool,
) -> rusqlite::Result<Option<Command>> {
    let mut statement = connection
        .prepare_cached(&format!("SELECT * FROM commands WHERE device = ?1 AND {WAITING} ORDER BY row"))?;
    unreadable::rows("commands", statement.query_map([device.as_str()], read)?)
        .find(|command| command.as_ref().map_or(true, |command| is_valid(command.lifetime())))
        .transpose()
}

/// How many commands that were to wait for this target have not ended, wherever they wait.
pub fn count_waiting(connection: &Connection, target: &Identity) -> rusqlite::Result<usize> {
    let count: i64 = connection
        .prepare_cached(
            "SELECT count(*) FROM commands
             WHERE device = ?1 AND module = ?2 AND outcome IS NULL AND valid_until_ms IS NOT NULL",
        )?
        .query_row((target.device.as_str(), target.module.as_ref().map_or("", ModuleId::as_str)), |row| {
            row.get(0)
        })?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// Notes that a waiting command was taken to be run, by a gateway or (none) here; false when it does not wait any more.
pub fn take(
    connection: &Connection,
    id: &str,
    gateway: Option<&DeviceId>,
    now_ms: u64,
) -> rusqlite::Result<bool> {
    let changed = connection
        .prepare_cached(&format!(
            "UPDATE commands SET taken_ms = ?2, gateway = ?3 WHERE id = ?1 AND {WAITING}"
        ))?
        .execute((id, integer(now_ms), gateway.map(DeviceId::as_str)))?;
    Ok(changed == 1)
}

/// Lets a command wait again that was taken here and not called.
pub fn give_back(connection: &Connection, id: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE commands SET taken_ms = NULL WHERE id = ?1 AND outcome IS NULL")?
        .execute([id])?;
    Ok(())
}

/// Commands that were to wait and whose time is over, and when the next one's will be, by the clock of ages.
pub fn overdue(connection: &Connection, now_ms: u64) -> rusqlite::Result<(Vec<Command>, Option<u64>)> {
    // What was taken may still be answered until its deadline.
    let due = "ifnull(from_age_ms, asked_ms) - asked_ms
         + CASE WHEN taken_ms IS NULL THEN valid_until_ms ELSE deadline_ms END";
    let open = "outcome IS NULL AND valid_until_ms IS NOT NULL";
    let mut statement = connection
        .prepare_cached(&format!("SELECT * FROM commands WHERE {open} AND {due} <= ?1 ORDER BY row"))?;
    let over = unreadable::rows("commands", statement.query_map([integer(now_ms)], read)?)
        .collect::<rusqlite::Result<_>>()?;
    let mut statement =
        connection.prepare_cached(&format!("SELECT min({due}) FROM commands WHERE {open} AND {due} > ?1"))?;
    let next = statement.query_row([integer(now_ms)], |row| row.get::<_, Option<i64>>(0));
    Ok((over, unreadable::value("commands", next)?.flatten().map(unsigned)))
}

/// The last `limit` commands of one name to a target, newest first; fewer when they are large.
pub fn history(
    connection: &Connection,
    target: &Identity,
    name: &str,
    limit: u32,
) -> rusqlite::Result<Vec<Command>> {
    // SQLite's own look into a text that is not JSON would end the whole query.
    let mut statement = connection.prepare_cached(
        "SELECT * FROM commands WHERE device = ?1 AND module = ?2
         AND CASE WHEN json_valid(request) THEN request ->> '$.methodName' = ?3 ELSE 1 END ORDER BY row DESC",
    )?;
    let of = (target.device.as_str(), target.module.as_ref().map_or("", ModuleId::as_str), name);
    let rows = statement.query_map(of, |row| page::sized(row, read))?;
    Ok(page::page(unreadable::rows("commands", rows), limit)?.0)
}

/// The last `limit` commands to a device and its modules, newest first; fewer when they are large.
pub fn recent(connection: &Connection, device: &DeviceId, limit: u32) -> rusqlite::Result<Vec<Command>> {
    let mut statement =
        connection.prepare_cached("SELECT * FROM commands WHERE device = ?1 ORDER BY row DESC")?;
    let rows = statement.query_map([device.as_str()], |row| page::sized(row, read))?;
    Ok(page::page(unreadable::rows("commands", rows), limit)?.0)
}

/// Every command that has not ended and was not to wait.
pub fn running(connection: &Connection) -> rusqlite::Result<Vec<Command>> {
    let mut statement = connection.prepare_cached(
        "SELECT * FROM commands WHERE outcome IS NULL AND valid_until_ms IS NULL ORDER BY row",
    )?;
    unreadable::rows("commands", statement.query_map([], read)?).collect()
}

/// The commands that were to wait, were taken at central's own listener, and have not ended.
pub fn taken_here(connection: &Connection) -> rusqlite::Result<Vec<Command>> {
    let mut statement = connection.prepare_cached(
        "SELECT * FROM commands WHERE outcome IS NULL AND valid_until_ms IS NOT NULL
         AND taken_ms IS NOT NULL AND gateway IS NULL ORDER BY row",
    )?;
    unreadable::rows("commands", statement.query_map([], read)?).collect()
}

/// The commands that were to wait, that a gateway has taken, and that have not ended: whom each was for, by its id.
pub fn taken_by(connection: &Connection, gateway: &DeviceId) -> rusqlite::Result<BTreeMap<String, Identity>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, device, module FROM commands WHERE outcome IS NULL AND valid_until_ms IS NOT NULL
         AND taken_ms IS NOT NULL AND gateway = ?1",
    )?;
    let taken = statement.query_map([gateway.as_str()], |row| {
        let module: String = row.get("module")?;
        let module = if module.is_empty() { None } else { Some(parsed_column(row, "module")?) };
        Ok((row.get("id")?, Identity { device: parsed_column(row, "device")?, module }))
    })?;
    unreadable::rows("commands", taken).collect()
}

/// Deletes the oldest commands beyond `keep`, but none that waits.
pub fn trim(connection: &Connection, keep: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM commands WHERE row <= (SELECT max(row) FROM commands) - ?1
             AND (outcome IS NOT NULL OR valid_until_ms IS NULL)",
        )?
        .execute([integer(keep)])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(id: &str, name: &str) -> Command {
        Command {
            id: id.into(),
            gateway: Some("gw".parse().unwrap()),
            target: "gw/sensor".parse().unwrap(),
            request: MethodRequest {
                method_name: name.into(),
                payload: serde_json::json!({"a": 1}),
                response_timeout_in_seconds: 10,
                connect_timeout_in_seconds: 0,
            },
            requested_ms: 1,
            deadline_ms: 2,
            valid_until_ms: None,
            from_age_ms: 1,
            taken_ms: None,
            ended_ms: None,
            outcome: None,
        }
    }

    #[test]
    fn the_first_end_of_a_command_counts_and_its_history_is_newest_first() {
        let dir = tempfile::tempdir().unwrap();
        let c = super::super::schema::open(&dir.path().join("central.db")).unwrap();
        for (id, name) in [("1", "reset"), ("2", "other"), ("3", "reset")] {
            insert(&c, &command(id, name)).unwrap();
        }
        let answered: Outcome = Ok(MethodResponse { status: 200, payload: serde_json::json!("done") });
        let failed: Outcome = Err(MethodFailure::NoAnswer { target: "gw/sensor".into(), seconds: 10 });
        assert!(end(&c, "1", &answered, 7).unwrap());
        assert!(!end(&c, "1", &failed, 8).unwrap());
        assert!(!end(&c, "unknown", &failed, 8).unwrap());
        assert!(end(&c, "3", &failed, 9).unwrap());
        let history = history(&c, &"gw/sensor".parse().unwrap(), "reset", 10).unwrap();
        assert_eq!(history.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["3", "1"]);
        assert_eq!(history[0].outcome, Some(failed));
        assert_eq!((history[1].outcome.clone(), history[1].ended_ms), (Some(answered), Some(7)));
        assert_eq!(running(&c).unwrap().len(), 1);
        trim(&c, 1).unwrap();
        assert!(get(&c, "1").unwrap().is_none() && get(&c, "3").unwrap().is_some());
    }

    #[test]
    fn the_oldest_commands_that_ended_go_when_the_history_of_a_device_takes_too_many_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let c = super::super::schema::open(&dir.path().join("central.db")).unwrap();
        let failed: Outcome = Err(MethodFailure::NoAnswer { target: "gw/sensor".into(), seconds: 10 });
        let large = |n: u32, target: &str| {
            let mut command = command(&n.to_string(), "reset");
            command.target = target.parse().unwrap();
            command.request.payload = "x".repeat(120_000).into();
            command
        };
        insert(&c, &large(1000, "other")).unwrap();
        end(&c, "1000", &failed, 1).unwrap();
        insert(&c, &large(1001, "gw")).unwrap();
        for n in 0..200 {
            insert(&c, &large(n, if n % 2 == 0 { "gw" } else { "gw/sensor" })).unwrap();
            end(&c, &n.to_string(), &failed, 1).unwrap();
        }
        let bytes: i64 = c
            .query_row("SELECT sum(length(request)) FROM commands WHERE device = 'gw'", [], |row| row.get(0))
            .unwrap();
        assert!(unsigned(bytes) <= DEVICE_BYTES_MAX + 2 * 128 * 1024, "{bytes}");
        assert!(get(&c, "199").unwrap().is_some() && get(&c, "0").unwrap().is_none());
        assert!(get(&c, "1000").unwrap().is_some(), "another device's");
        assert!(get(&c, "1001").unwrap().is_some(), "it has not ended");
    }

    #[test]
    fn a_command_that_waits_is_taken_once_is_not_trimmed_and_its_late_answer_counts() {
        let dir = tempfile::tempdir().unwrap();
        let c = super::super::schema::open(&dir.path().join("central.db")).unwrap();
        let waiting_command = |id: &str, valid_until_ms| Command {
            valid_until_ms: Some(valid_until_ms),
            deadline_ms: valid_until_ms + 30,
            ..command(id, "reset")
        };
        let target: Identity = "gw/sensor".parse().unwrap();
        let rows: Vec<u64> = [("1", 100), ("2", 200)]
            .map(|(id, until)| insert(&c, &waiting_command(id, until)).unwrap())
            .to_vec();
        insert(&c, &command("3", "reset")).unwrap();
        assert_eq!(waiting(&c, &target.device).unwrap(), rows);
        assert_eq!(count_waiting(&c, &target).unwrap(), 2);
        let until = |row| waiting_at(&c, row).unwrap().map(|command| command.lifetime().until_ms);
        assert_eq!([until(rows[0]), until(rows[1])], [Some(100), Some(200)]);
        let next = next_waiting(&c, &target.device, |lifetime| lifetime.until_ms > 100).unwrap().unwrap();
        assert_eq!(next.id, "2");
        assert_eq!(devices_waited_for(&c).unwrap(), std::slice::from_ref(&target.device));
        let gateway: DeviceId = "other".parse().unwrap();
        assert!(taken_by(&c, &gateway).unwrap().is_empty());
        assert!(take(&c, "1", Some(&gateway), 50).unwrap());
        assert_eq!(until(rows[0]), None, "it does not wait here any more");
        assert!(!take(&c, "1", None, 60).unwrap());
        assert_eq!(taken_by(&c, &gateway).unwrap(), BTreeMap::from([("1".to_owned(), target.clone())]));
        assert_eq!(get(&c, "1").unwrap().unwrap().gateway, Some(gateway));
        // What was taken may be answered after its time is over; what was not is over then.
        assert_eq!(overdue(&c, 100).unwrap(), (vec![], Some(130)));
        let over =
            |now_ms| overdue(&c, now_ms).unwrap().0.into_iter().map(|command| command.id).collect::<Vec<_>>();
        assert_eq!(over(130), ["1"]);
        assert_eq!(over(200), ["1", "2"]);
        trim(&c, 0).unwrap();
        assert!(get(&c, "3").unwrap().is_none() && get(&c, "2").unwrap().is_some());
        let gone: Outcome = Err(MethodFailure::Expired { target: "gw/sensor".into(), seconds: 1 });
        let answered: Outcome = Ok(MethodResponse { status: 200, payload: serde_json::Value::Null });
        assert!(end(&c, "2", &gone, 201).unwrap());
        assert!(!end(&c, "2", &answered, 202).unwrap(), "nobody has taken it: nobody can have run it");
        assert!(end(&c, "1", &gone, 201).unwrap());
        assert!(end(&c, "1", &answered, 202).unwrap(), "its gateway was away, and it ran");
        assert!(!end(&c, "1", &gone, 203).unwrap());
    }
}
