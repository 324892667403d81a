//! The registry: gateways and devices, their keys, and which device is behind which gateway.

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use schemas::names::DeviceId;
use serde::{Deserialize, Serialize};

use crate::access::admission::Admission;
use crate::types::organizations::Organizations;

use super::columns::{integer, parsed_column, unsigned};
use super::etag;
use super::filter::{Field, Kind};
use super::generations::next_generation;
use super::selection::{Listed, Selection};
use super::{last_values, losses, series, unreadable};

/// A gateway or a device.
#[derive(Clone, PartialEq, Eq)]
pub struct Device {
    /// What it connects as.
    pub id: DeviceId,
    pub display_name: String,
    /// The id of its device template, kept for scripts that set it.
    pub template: Option<String>,
    /// Whether it is a gateway.
    pub is_gateway: bool,
    /// False when an operator blocked it. See [`Device::admission`] for whether it may connect.
    pub enabled: bool,
    /// It enrolled by a group that does not approve by itself, and no operator has approved it.
    pub is_waiting: bool,
    /// Base64 keys; none for a leaf device that its gateway brought.
    pub keys: Option<Keys>,
    /// Its certificates, which then prove it in place of its keys.
    pub x509: Option<X509>,
    /// Of its TPM, base64. Such a device has neither keys nor certificates.
    pub endorsement_key: Option<String>,
    /// Whether its values are made up, by whoever makes them up.
    pub simulated: bool,
    /// What it belongs to.
    pub organizations: Organizations,
    /// The stored manifest last assigned to it; none when it was given one that is not stored.
    pub manifest_id: Option<String>,
    /// Another one after every change of the registration. 0 before it is stored.
    pub revision: i64,
    /// When it last came or went, in milliseconds since the Unix epoch.
    pub last_seen_ms: Option<u64>,
    /// The gateway that it is behind.
    pub gateway: Option<DeviceId>,
    /// Whether nothing but a gateway's word registered it. An enrolment or an operator takes its id over.
    pub is_claim: bool,
    /// Tells it from earlier devices of its id. 0 before it is stored, and for those of older versions.
    pub generation: u64,
    /// Number that the gateway gave the device whose word registered it. 0 when that is not known.
    pub gateway_generation: u64,
    /// Tells its stay behind its gateway from earlier ones, of itself or of an earlier device of its id.
    pub attachment: u64,
}

impl Device {
    /// A device that was never stored: a leaf device of central's own listener, not blocked, with nothing to prove itself by.
    pub fn new(id: DeviceId) -> Self {
        Self {
            display_name: id.to_string(),
            id,
            template: None,
            is_gateway: false,
            enabled: true,
            is_waiting: false,
            keys: None,
            x509: None,
            endorsement_key: None,
            simulated: false,
            organizations: Organizations::default(),
            manifest_id: None,
            revision: 0,
            last_seen_ms: None,
            gateway: None,
            is_claim: false,
            generation: 0,
            gateway_generation: 0,
            attachment: 0,
        }
    }

    /// Whether it may connect.
    pub fn admission(&self) -> Admission {
        Admission::of(self.enabled, self.is_waiting)
    }

    /// Changes what IoT Central's API calls `enabled`. True unblocks a device that is blocked, and approves one that waits. False
    /// blocks one that is admitted; one that waits is not enabled already, so a script that writes back what it read changes nothing.
    pub(crate) fn set_enabled(&mut self, is_enabled: bool) {
        match (self.admission(), is_enabled) {
            (Admission::Waiting, true) => self.is_waiting = false,
            (Admission::Blocked, true) => self.enabled = true,
            (Admission::Admitted, false) => self.enabled = false,
            (Admission::Admitted, true) | (Admission::Waiting | Admission::Blocked, false) => {}
        }
    }

    /// Names the state of the registration.
    pub fn etag(&self) -> String {
        etag::of_revision(self.revision)
    }

    /// The gateway that carries messages for it, which may be itself; `None` for a device of central's own listener.
    pub fn serving_gateway(&self) -> Option<&DeviceId> {
        if self.is_gateway { Some(&self.id) } else { self.gateway.as_ref() }
    }
}

/// How a device proves itself by certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct X509 {
    /// Thumbprint of the certificate to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// Thumbprint of the certificate to change over with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secondary: Option<String>,
    /// SHA-1 of the primary certificate, when it was given whole: only the longer hash of it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_sha1: Option<String>,
    /// SHA-1 of the secondary certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secondary_sha1: Option<String>,
    /// Whether a certificate of a device authority proves it, instead of thumbprints.
    #[serde(default)]
    pub is_ca_signed: bool,
}

impl X509 {
    /// The thumbprints that are set.
    pub fn thumbprints(&self) -> Vec<String> {
        self.primary.iter().chain(&self.secondary).cloned().collect()
    }
}

/// The two symmetric keys of a device, base64.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// The one to use.
    pub primary: String,
    /// The one to change over with.
    pub secondary: String,
}

/// What [`select`] gives.
pub const LISTED: Listed = Listed {
    table: "devices",
    columns: COLUMNS,
    from: TABLES,
    id: "devices.id",
    fields: &[
        Field { name: "id", sql: "devices.id", kind: Kind::Id },
        Field { name: "displayName", sql: "devices.display_name", kind: Kind::Text },
        Field { name: "template", sql: "devices.template", kind: Kind::Text },
        Field { name: "enabled", sql: "(devices.enabled AND NOT devices.is_waiting)", kind: Kind::Flag },
        Field { name: "provisioned", sql: "(devices.last_seen_ms IS NOT NULL)", kind: Kind::Flag },
        Field { name: "simulated", sql: "devices.simulated", kind: Kind::Flag },
        Field { name: "type", sql: "CASE WHEN devices.is_gateway THEN 'iotEdge' END", kind: Kind::Text },
        Field { name: "organizations", sql: ORGANIZATION, kind: Kind::Text },
        // What IoT Central's pages call it in filters.
        Field { name: "scopes", sql: ORGANIZATION, kind: Kind::Text },
    ],
};
const ORGANIZATION: &str =
    "CASE WHEN json_valid(devices.organizations) THEN json_extract(devices.organizations, '$[0]') END";
const COLUMNS: &str = "devices.*, relationships.source AS gateway, relationships.generation AS attachment";
const TABLES: &str = "devices LEFT JOIN relationships ON relationships.target = devices.id";

/// A registration is valid whatever its columns hold: without it the link of its gateway would not. What cannot be read lets nobody
/// in.
fn read(row: &Row<'_>) -> rusqlite::Result<Device> {
    let text = |column: &str| -> rusqlite::Result<Option<String>> {
        Ok(unreadable::value("devices", row.get::<_, Option<String>>(column))?.flatten())
    };
    let keys = match (text("primary_key")?, text("secondary_key")?) {
        (Some(primary), Some(secondary)) => Some(Keys { primary, secondary }),
        _ => None,
    };
    let gateway = match row.get_ref("gateway")? {
        rusqlite::types::ValueRef::Null => None,
        _ => unreadable::value("relationships", parsed_column(row, "gateway"))?,
    };
    Ok(Device {
        id: parsed_column(row, "id")?,
        display_name: text("display_name")?.unwrap_or_default(),
        template: text("template")?,
        is_gateway: unreadable::value("devices", row.get("is_gateway"))?.unwrap_or(false),
        enabled: unreadable::value("devices", row.get("enabled"))?.unwrap_or(false),
        is_waiting: unreadable::value("devices", row.get("is_waiting"))?.unwrap_or(true),
        keys,
        x509: match row.get_ref("x509")? {
            rusqlite::types::ValueRef::Null => None,
            // No certificate proves it then, and its keys do not either.
            _ => Some(
                unreadable::value("devices", super::columns::json_column(row, "x509"))?.unwrap_or_default(),
            ),
        },
        endorsement_key: text("endorsement_key")?,
        simulated: unreadable::value("devices", row.get("simulated"))?.unwrap_or(false),
        organizations: unreadable::value("devices", super::columns::json_column(row, "organizations"))?
            .unwrap_or_default(),
        manifest_id: text("manifest_id")?,
        revision: unreadable::value("devices", row.get("revision"))?.unwrap_or(1),
        last_seen_ms: unreadable::value("devices", row.get::<_, Option<i64>>("last_seen_ms"))?
            .flatten()
            .map(unsigned),
        gateway,
        is_claim: unreadable::value("devices", row.get("is_claim"))?.unwrap_or(false),
        generation: unreadable::value("devices", row.get("generation"))?.map_or(0, unsigned),
        gateway_generation: unreadable::value("devices", row.get("gateway_generation"))?.map_or(0, unsigned),
        attachment: unreadable::value("relationships", row.get::<_, Option<i64>>("attachment"))?
            .flatten()
            .map_or(0, unsigned),
    })
}

/// The device with this id.
pub fn get(connection: &Connection, id: &DeviceId) -> rusqlite::Result<Option<Device>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM {TABLES} WHERE devices.id = ?1"))?
        .query_row([id.as_str()], read)
        .optional()
}

/// Up to `limit` devices whose ids come after `after`.
pub fn list(connection: &Connection, after: &str, limit: u32) -> rusqlite::Result<Vec<Device>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM {TABLES} WHERE devices.id > ?1 ORDER BY devices.id"
    ))?;
    unreadable::rows("devices", statement.query_map([after], read)?).take(limit as usize).collect()
}

/// The devices that a list asks for, each with where a page behind it begins, and whether there may be more.
pub fn select(
    connection: &Connection,
    selection: &Selection,
) -> rusqlite::Result<(Vec<(Device, String)>, bool)> {
    selection.positioned_rows(connection, &LISTED, read)
}

/// Whether devices are registered that trust a certificate authority with which central served.
pub fn trust_authority(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM devices, settings WHERE settings.name = 'has_authority'")?
        .exists([])
}

/// Notes that central serves with its certificate authority.
pub fn note_authority(connection: &Connection) -> rusqlite::Result<()> {
    let mut note = connection
        .prepare_cached("INSERT OR IGNORE INTO settings (name, value) VALUES ('has_authority', '1')")?;
    note.execute([]).map(drop)
}

/// The devices behind a gateway, by id.
pub fn children(connection: &Connection, gateway: &DeviceId) -> rusqlite::Result<Vec<Device>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM {TABLES} WHERE relationships.source = ?1 ORDER BY devices.id"
    ))?;
    unreadable::rows("devices", statement.query_map([gateway.as_str()], read)?).collect()
}

/// The ids of the devices behind a gateway.
pub fn children_ids(connection: &Connection, gateway: &DeviceId) -> rusqlite::Result<Vec<DeviceId>> {
    let mut statement = connection.prepare_cached("SELECT target FROM relationships WHERE source = ?1")?;
    let rows = statement.query_map([gateway.as_str()], |row| parsed_column(row, "target"))?;
    unreadable::rows("relationships", rows).collect()
}

/// How many devices are behind a gateway.
pub fn children_count(connection: &Connection, gateway: &DeviceId) -> rusqlite::Result<usize> {
    let count: i64 = connection
        .prepare_cached("SELECT count(*) FROM relationships WHERE source = ?1")?
        .query_row([gateway.as_str()], |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// Counts the devices behind a gateway that nothing but the gateway's word registered.
pub fn claims_count(connection: &Connection, gateway: &DeviceId) -> rusqlite::Result<usize> {
    let count: i64 = connection
        .prepare_cached(
            "SELECT count(*) FROM relationships JOIN devices ON devices.id = relationships.target
             WHERE relationships.source = ?1 AND devices.is_claim",
        )?
        .query_row([gateway.as_str()], |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// Writes a registration, new or changed; gives its new revision. The gateway and the time last seen are not part of it.
pub fn put(connection: &Connection, device: &Device) -> rusqlite::Result<i64> {
    let x509 = device.x509.as_ref().map(serde_json::to_string).transpose();
    let x509 = x509.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let is_new =
        !connection.prepare_cached("SELECT 1 FROM devices WHERE id = ?1")?.exists([device.id.as_str()])?;
    let generation = if is_new { next_generation(connection)? } else { device.generation };
    let revision = etag::next_revision(connection)?;
    connection
        .prepare_cached(
            "INSERT INTO devices (id, display_name, template, is_gateway, enabled, primary_key, secondary_key,
                 manifest_id, revision, x509, generation, is_claim, endorsement_key, simulated, organizations,
                 gateway_generation, is_waiting, telemetry_after, losses_after)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,
                 (SELECT coalesce(max(id), 0) FROM telemetry), (SELECT coalesce(max(id), 0) FROM losses))
             ON CONFLICT (id) DO UPDATE SET display_name = ?2, template = ?3, is_gateway = ?4, enabled = ?5,
                 primary_key = ?6, secondary_key = ?7, manifest_id = ?8, revision = ?9, x509 = ?10,
                 is_claim = ?12, endorsement_key = ?13, simulated = ?14, organizations = ?15,
                 gateway_generation = ?16, is_waiting = ?17",
        )?
        .execute(params![
            device.id.as_str(),
            &device.display_name,
            &device.template,
            device.is_gateway,
            device.enabled,
            device.keys.as_ref().map(|keys| &keys.primary),
            device.keys.as_ref().map(|keys| &keys.secondary),
            &device.manifest_id,
            revision,
            x509,
            integer(generation),
            device.is_claim,
            &device.endorsement_key,
            device.simulated,
            serde_json::json!(device.organizations).to_string(),
            integer(device.gateway_generation),
            device.is_waiting,
        ])?;
    connection.prepare_cached("DELETE FROM removed_devices WHERE id = ?1")?.execute([device.id.as_str()])?;
    Ok(revision)
}

/// Deleted devices that are remembered.
const REMOVED_KEPT: i64 = 100_000;

/// Whether a device was deleted and not registered since. Among the last 100,000 that were deleted.
pub fn is_removed(connection: &Connection, id: &DeviceId) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM removed_devices WHERE id = ?1")?.exists([id.as_str()])
}

/// Lets a gateway register a deleted device's id again: the gateway itself removed the device that had it.
pub fn may_return(connection: &Connection, id: &DeviceId) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM removed_devices WHERE id = ?1")?.execute([id.as_str()])?;
    Ok(())
}

/// Notes that a device came or went. The first time changes what is read of its registration.
pub fn seen(connection: &Connection, id: &DeviceId, at_ms: u64) -> rusqlite::Result<()> {
    let is_first = connection
        .prepare_cached("SELECT 1 FROM devices WHERE id = ?1 AND last_seen_ms IS NULL")?
        .exists([id.as_str()])?;
    let revision = if is_first { Some(etag::next_revision(connection)?) } else { None };
    connection
        .prepare_cached(
            "UPDATE devices SET last_seen_ms = max(ifnull(last_seen_ms, 0), ?2), revision = ifnull(?3, revision)
             WHERE id = ?1",
        )?
        .execute((id.as_str(), integer(at_ms), revision))?;
    Ok(())
}

/// Notes that a manifest has another name, for the registrations of the gateways that it is assigned to.
pub fn manifest_renamed(connection: &Connection, manifest_id: &str) -> rusqlite::Result<()> {
    let revision = etag::next_revision(connection)?;
    connection
        .prepare_cached("UPDATE devices SET revision = ?2 WHERE manifest_id = ?1")?
        .execute((manifest_id, revision))?;
    Ok(())
}

/// Deletes a device, its twins, its place behind a gateway, its command history, its cloud-to-device messages, its last values and series,
/// and (of a gateway) its modules and watermarks. Its telemetry messages and losses stay until newer ones push them out, and are not shown
/// of the next device of its id; its sums of losses stay without its name.
pub fn delete(connection: &Connection, id: &DeviceId) -> rusqlite::Result<bool> {
    for statement in [
        "DELETE FROM relationships WHERE source = ?1 OR target = ?1",
        "DELETE FROM twins WHERE device = ?1",
        "DELETE FROM commands WHERE device = ?1",
        "DELETE FROM cloud_properties WHERE device = ?1",
        "DELETE FROM watermarks WHERE gateway = ?1",
        "DELETE FROM refused WHERE gateway = ?1",
        "DELETE FROM cloud_messages WHERE device = ?1",
        "DELETE FROM cloud_purges WHERE device = ?1",
        "DELETE FROM enrollments WHERE device = ?1",
        "DELETE FROM assigned_manifests WHERE device = ?1",
        "DELETE FROM manifest_quotes WHERE device = ?1",
        "DELETE FROM modules WHERE device = ?1",
    ] {
        connection.prepare_cached(statement)?.execute([id.as_str()])?;
    }
    losses::forget_names(connection, id)?;
    last_values::delete_device(connection, id)?;
    series::delete_device(connection, id)?;
    let is_deleted =
        connection.prepare_cached("DELETE FROM devices WHERE id = ?1")?.execute([id.as_str()])? == 1;
    if is_deleted {
        // The next gateway of this id is not the one that the groups trust.
        let revision = etag::next_revision(connection)?;
        connection
            .prepare_cached(
                "UPDATE enrollment_groups SET revision = ?2, gateways =
                     (SELECT json_group_array(value) FROM json_each(gateways) WHERE value <> ?1)
                 WHERE json_valid(gateways)
                     AND EXISTS (SELECT 1 FROM json_each(gateways) WHERE value = ?1)",
            )?
            .execute((id.as_str(), revision))?;
        connection
            .prepare_cached("INSERT OR REPLACE INTO removed_devices (id) VALUES (?1)")?
            .execute([id.as_str()])?;
        connection
            .prepare_cached("DELETE FROM removed_devices WHERE row <= ?1")?
            .execute([connection.last_insert_rowid() - REMOVED_KEPT])?;
    }
    Ok(is_deleted)
}
