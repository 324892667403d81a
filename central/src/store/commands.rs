//! Commands: what was asked of whom, and the one way in which each ended.

use rusqlite::{Connection, OptionalExtension as _, Row};
use schemas::method::{MethodFailure, MethodRequest, MethodResponse};
use schemas::names::{DeviceId, Identity, ModuleId};

use super::{integer, json_column, parsed_column, unsigned};

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
    /// What was asked.
    pub request: MethodRequest,
    /// When, in milliseconds since the Unix epoch.
    pub asked_ms: u64,
    /// When central stops waiting for the answer.
    pub deadline_ms: u64,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// How it ended; none while it runs.
    pub outcome: Option<Outcome>,
}

fn read(row: &Row<'_>) -> rusqlite::Result<Command> {
    let module: String = row.get("module")?;
    let gateway: Option<String> = row.get("gateway")?;
    let outcome: Option<String> = row.get("outcome")?;
    let module = match module.is_empty() {
        true => None,
        false => Some(parsed_column(row, "module")?),
    };
    Ok(Command {
        id: row.get("id")?,
        gateway: gateway.map(|_| parsed_column(row, "gateway")).transpose()?,
        target: Identity { device: parsed_column(row, "device")?, module },
        request: json_column(row, "request")?,
        asked_ms: unsigned(row.get("asked_ms")?),
        deadline_ms: unsigned(row.get("deadline_ms")?),
        ended_ms: row.get::<_, Option<i64>>("ended_ms")?.map(unsigned),
        outcome: outcome.map(|_| json_column(row, "outcome")).transpose()?,
    })
}

/// Writes a command that is about to be sent.
///
/// # Errors
/// SQLite's.
pub fn insert(connection: &Connection, command: &Command) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO commands (id, gateway, device, module, request, asked_ms, deadline_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute((
            &command.id,
            command.gateway.as_ref().map(DeviceId::as_str),
            command.target.device.as_str(),
            command.target.module.as_ref().map_or("", ModuleId::as_str),
            serde_json::json!(command.request).to_string(),
            integer(command.asked_ms),
            integer(command.deadline_ms),
        ))?;
    Ok(())
}

/// The command with this id.
///
/// # Errors
/// SQLite's.
pub fn get(connection: &Connection, id: &str) -> rusqlite::Result<Option<Command>> {
    connection.prepare_cached("SELECT * FROM commands WHERE id = ?1")?.query_row([id], read).optional()
}

/// Ends a command; false when it has ended already, or is not known: the first end stands.
///
/// # Errors
/// SQLite's.
pub fn end(connection: &Connection, id: &str, outcome: &Outcome, now_ms: u64) -> rusqlite::Result<bool> {
    let changed = connection
        .prepare_cached("UPDATE commands SET outcome = ?2, ended_ms = ?3 WHERE id = ?1 AND outcome IS NULL")?
        .execute((id, serde_json::json!(outcome).to_string(), integer(now_ms)))?;
    Ok(changed == 1)
}

/// The last `limit` commands of one name to a target, newest first.
///
/// # Errors
/// SQLite's.
pub fn history(
    connection: &Connection,
    target: &Identity,
    name: &str,
    limit: u32,
) -> rusqlite::Result<Vec<Command>> {
    connection
        .prepare_cached(
            "SELECT * FROM commands WHERE device = ?1 AND module = ?2 AND request ->> '$.methodName' = ?3
             ORDER BY row DESC LIMIT ?4",
        )?
        .query_map(
            (target.device.as_str(), target.module.as_ref().map_or("", ModuleId::as_str), name, limit),
            read,
        )?
        .collect()
}

/// Every command that has not ended.
///
/// # Errors
/// SQLite's.
pub fn running(connection: &Connection) -> rusqlite::Result<Vec<Command>> {
    connection
        .prepare_cached("SELECT * FROM commands WHERE outcome IS NULL ORDER BY row")?
        .query_map([], read)?
        .collect()
}

/// Forgets the oldest commands beyond `keep`.
///
/// # Errors
/// SQLite's.
pub fn trim(connection: &Connection, keep: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM commands WHERE row <= (SELECT max(row) FROM commands) - ?1")?
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
            asked_ms: 1,
            deadline_ms: 2,
            ended_ms: None,
            outcome: None,
        }
    }

    #[test]
    fn the_first_end_of_a_command_stands_and_its_history_is_newest_first() {
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
}
