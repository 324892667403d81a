//! What changed of devices, twins and commands: triggers write a row for each change in the commit that makes it, whoever makes it.
//!
//! The newest 20,000 are kept. Who reads them notes how far it has read; [`Changes::has_gap`] says that some are gone.

use rusqlite::{Connection, Row};
use schemas::names::{DeviceId, ModuleId};

use super::columns::parsed_column;
use super::unreadable;

/// Changes that are read at once.
const BATCH_MAX: u32 = 5000;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Change {
    /// The device, or the gateway of the module.
    pub device: DeviceId,
    pub what: Changed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Changed {
    /// The registration, or its place behind a gateway. The device may be gone.
    Registration,
    /// A section of a twin.
    Twin {
        /// `None`: the device's own.
        module: Option<ModuleId>,
        /// Whether it is the reported one.
        is_reported: bool,
    },
    /// A command was asked for, or ended.
    Command { id: String },
}

/// Some changes, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    pub value: Vec<Change>,
    /// How far has been read now.
    pub up_to: i64,
    /// Some before them are not kept any more.
    pub has_gap: bool,
}

fn read(row: &Row<'_>) -> rusqlite::Result<(i64, Change)> {
    let (kind, item): (String, String) = (row.get("kind")?, row.get("item")?);
    let what = match kind.as_str() {
        "command" => Changed::Command { id: item },
        "twin" => {
            let module: String = row.get("module")?;
            let module = if module.is_empty() { None } else { Some(parsed_column(row, "module")?) };
            Changed::Twin { module, is_reported: item == "reported" }
        }
        _ => Changed::Registration,
    };
    Ok((row.get("id")?, Change { device: parsed_column(row, "device")?, what }))
}

/// The number of the last change; 0 before the first.
pub fn last(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("SELECT ifnull(max(id), 0) FROM changes")?.query_row([], |row| row.get(0))
}

/// Some of the changes after `after`, oldest first.
pub fn since(connection: &Connection, after: i64) -> rusqlite::Result<Changes> {
    let mut statement =
        connection.prepare_cached("SELECT * FROM changes WHERE id > ?1 ORDER BY id LIMIT ?2")?;
    let rows = statement.query_map((after, BATCH_MAX), read)?;
    let mut changes = Changes { up_to: after, ..Changes::default() };
    for row in unreadable::rows("changes", rows) {
        let (id, change) = row?;
        // Ids have no holes: each is one more than the last, and only the oldest are deleted.
        changes.has_gap |= changes.value.is_empty() && after > 0 && id > after + 1;
        changes.up_to = id;
        changes.value.push(change);
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::super::devices::{self, Device};
    use super::super::relationships::{self, Relationship};
    use super::super::twins::{self, Half};
    use super::super::{commands, schema};
    use super::*;
    use schemas::names::Identity;
    use schemas::twin::Section;

    #[test]
    fn every_change_of_a_device_a_twin_and_a_command_is_noted_in_its_commit_and_an_undone_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let c = schema::open(&dir.path().join("central.db")).unwrap();
        let (gw, leaf): (DeviceId, DeviceId) = ("gw".parse().unwrap(), "leaf".parse().unwrap());
        let mut up_to = 0;
        let mut expect = |expected: &[(&str, Changed)]| {
            let found = since(&c, up_to).unwrap();
            up_to = found.up_to;
            let expected: Vec<Change> = expected
                .iter()
                .map(|(device, what)| Change { device: device.parse().unwrap(), what: what.clone() })
                .collect();
            assert_eq!(found.value, expected);
        };
        devices::put(&c, &Device { is_gateway: true, ..Device::new(gw.clone()) }).unwrap();
        devices::put(&c, &Device::new(leaf.clone())).unwrap();
        expect(&[("gw", Changed::Registration), ("leaf", Changed::Registration)]);
        devices::seen(&c, &leaf, 5).unwrap();
        expect(&[("leaf", Changed::Registration)]);
        let put = Relationship { id: "r".into(), name: "r".into(), source: gw.clone(), target: leaf.clone() };
        relationships::put(&c, &put).unwrap();
        relationships::delete(&c, &gw, "r").unwrap();
        expect(&[("leaf", Changed::Registration), ("leaf", Changed::Registration)]);
        let module = Identity::module(gw.clone(), "m".parse().unwrap());
        for (half, is_reported) in [(Half::Desired, false), (Half::Reported, true)] {
            for _ in 0..2 {
                twins::write(&c, &module, half, &Section::default(), 1).unwrap();
                expect(&[("gw", Changed::Twin { module: module.module.clone(), is_reported })]);
            }
        }
        let request =
            serde_json::from_value(serde_json::json!({"methodName": "m", "payload": null})).unwrap();
        let command = commands::Command {
            id: "c".into(),
            gateway: None,
            target: Identity::device(leaf.clone()),
            request,
            requested_ms: 1,
            deadline_ms: 2,
            valid_until_ms: None,
            from_age_ms: 1,
            taken_ms: None,
            ended_ms: None,
            outcome: None,
        };
        commands::insert(&c, &command).unwrap();
        let failed = schemas::method::MethodFailure::NoAnswer { target: "leaf".into(), seconds: 1 };
        assert!(commands::end(&c, "c", &Err(failed), 3).unwrap());
        expect(&[
            ("leaf", Changed::Command { id: "c".into() }),
            ("leaf", Changed::Command { id: "c".into() }),
        ]);
        c.execute_batch("BEGIN; DELETE FROM devices; ROLLBACK").unwrap();
        expect(&[]);
        devices::delete(&c, &leaf).unwrap();
        expect(&[("leaf", Changed::Registration)]);
    }

    #[test]
    fn only_the_newest_changes_are_kept_and_who_is_behind_learns_it() {
        let dir = tempfile::tempdir().unwrap();
        let c = schema::open(&dir.path().join("central.db")).unwrap();
        c.execute_batch("PRAGMA synchronous = OFF; BEGIN").unwrap();
        let device = Device::new("d".parse().unwrap());
        devices::put(&c, &device).unwrap();
        assert!(!since(&c, 0).unwrap().has_gap);
        let far = last(&c).unwrap();
        for _ in 0..20_001 {
            devices::seen(&c, &device.id, 5).unwrap();
        }
        assert!(since(&c, far).unwrap().has_gap);
        let kept: i64 = c.query_row("SELECT count(*) FROM changes", [], |row| row.get(0)).unwrap();
        assert_eq!(kept, 20_000);
        let (mut up_to, mut read) = (last(&c).unwrap() - 20_000, 0);
        loop {
            let found = since(&c, up_to).unwrap();
            assert!(!found.has_gap);
            if found.value.is_empty() {
                break;
            }
            (up_to, read) = (found.up_to, read + found.value.len());
        }
        assert_eq!(read, 20_000);
    }
}
