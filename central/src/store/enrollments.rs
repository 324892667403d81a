//! Enrolment groups, which of them each device came by, and the ID scope of the site.

use std::collections::HashMap;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};
use schemas::names::DeviceId;
use serde::{Deserialize, Serialize};

use super::columns::{integer, json_column, unsigned};
use super::devices::Keys;
use super::etag;
use super::unreadable;

/// An enrolment group: whoever has what it asks for may enrol.
#[derive(Clone, PartialEq, Eq)]
pub struct Group {
    /// Chosen by the operator.
    pub id: String,
    pub display_name: String,
    /// False: nobody enrols by it, nor does anybody again.
    pub enabled: bool,
    /// Whether its devices are gateways.
    pub is_edge: bool,
    /// What its devices must show.
    pub attestation: GroupAttestation,
    /// Gateways through which devices may enrol by certificate: what they say of a device's certificate is believed.
    pub gateways: Vec<DeviceId>,
    /// False: a device that enrols unknown waits for an operator's approval.
    pub auto_approve: bool,
    /// Another one after every change.
    pub revision: i64,
}

impl Group {
    /// Of a group whose devices show certificates.
    pub fn certificates(&self) -> Option<&SigningCertificates> {
        match &self.attestation {
            GroupAttestation::X509(certificates) => Some(certificates),
            GroupAttestation::Keys(_) => None,
        }
    }

    /// Names the state of the group.
    pub fn etag(&self) -> String {
        etag::of_revision(self.revision)
    }
}

/// What devices of a group must show.
#[derive(Clone, PartialEq, Eq)]
pub enum GroupAttestation {
    /// A token made with a key that is derived from one of these; base64, either may be changed over to the other.
    Keys(Keys),
    /// A certificate that one of these signed.
    X509(SigningCertificates),
}

/// The authorities of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningCertificates {
    /// The one to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<SigningCertificate>,
    /// The one to change over with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secondary: Option<SigningCertificate>,
}

/// The certificate of an authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningCertificate {
    /// DER in base64.
    pub certificate: String,
    /// Whether it is certain that whoever uploaded it has its key. Nobody enrols by one that is not.
    #[serde(default)]
    pub is_verified: bool,
    /// What a certificate must be called that proves it; of the last request for a code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// How a device came to be registered, when it enrolled itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrollmentRecord {
    /// The group; empty for a device that has keys of its own.
    pub group: String,
    /// Whether the group was deleted since. One that is made again under its id is another one.
    pub is_group_deleted: bool,
    /// Of its last registration.
    pub operation_id: String,
    /// Whether central itself ever checked its proof: a token, or a certificate in a TLS handshake with central.
    pub is_bound: bool,
    /// When the newest token that it showed ends, in seconds since the Unix epoch; 0 when it showed none.
    pub token_ends_at: u64,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Milliseconds since the Unix epoch.
    pub updated_ms: u64,
}

/// The site's ID scope: `chosen`, or the one that was made when the store was.
pub fn id_scope(c: &Connection, chosen: Option<&str>) -> rusqlite::Result<String> {
    if let Some(chosen) = chosen {
        return Ok(chosen.to_owned());
    }
    // Azure's have this shape; a script may look for it.
    let made = format!("0ne{:08X}", rand::random::<u32>());
    // `central serve` and a command beside it may both do this at the first start; the first one counts.
    c.execute("INSERT OR IGNORE INTO settings (name, value) VALUES ('id_scope', ?1)", [&made])?;
    c.query_row("SELECT value FROM settings WHERE name = 'id_scope'", [], |row| row.get(0))
}

fn read(row: &Row<'_>) -> rusqlite::Result<Group> {
    Ok(Group {
        id: row.get("id")?,
        display_name: row.get("display_name")?,
        enabled: row.get("enabled")?,
        is_edge: row.get("is_edge")?,
        attestation: match row.get_ref("x509")? {
            ValueRef::Null => GroupAttestation::Keys(Keys {
                primary: row.get("primary_key")?,
                secondary: row.get("secondary_key")?,
            }),
            // Nobody enrols by authorities that cannot be read.
            _ => GroupAttestation::X509(
                unreadable::value("enrollment_groups", json_column(row, "x509"))?.unwrap_or_default(),
            ),
        },
        // Nobody enrols through gateways that cannot be read.
        gateways: unreadable::value("enrollment_groups", json_column(row, "gateways"))?.unwrap_or_default(),
        auto_approve: unreadable::value("enrollment_groups", row.get("auto_approve"))?.unwrap_or(false),
        revision: row.get("revision")?,
    })
}

/// The group with this id.
pub fn group(c: &Connection, id: &str) -> rusqlite::Result<Option<Group>> {
    let mut statement = c.prepare_cached("SELECT * FROM enrollment_groups WHERE id = ?1")?;
    unreadable::row("enrollment_groups", statement.query_row([id], read))
}

/// Up to `limit` groups whose ids come after `after`.
pub fn groups(c: &Connection, after: &str, limit: u32) -> rusqlite::Result<Vec<Group>> {
    let mut statement = c.prepare_cached("SELECT * FROM enrollment_groups WHERE id > ?1 ORDER BY id")?;
    // Counted behind the rows that cannot be read: a page that is not full counts as the last one.
    unreadable::rows("enrollment_groups", statement.query_map([after], read)?).take(limit as usize).collect()
}

/// Writes a group, new or changed; gives its new revision.
pub fn put_group(c: &Connection, group: &Group) -> rusqlite::Result<i64> {
    let (primary, secondary, x509) = match &group.attestation {
        GroupAttestation::Keys(keys) => (keys.primary.as_str(), keys.secondary.as_str(), None),
        GroupAttestation::X509(certificates) => {
            let json = serde_json::to_string(certificates);
            ("", "", Some(json.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?))
        }
    };
    let revision = etag::next_revision(c)?;
    let gateways = serde_json::to_string(&group.gateways);
    let gateways = gateways.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    c.prepare_cached(
        "INSERT OR REPLACE INTO enrollment_groups
             (id, display_name, enabled, is_edge, primary_key, secondary_key, revision, x509, gateways,
              auto_approve)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute((
        &group.id,
        &group.display_name,
        group.enabled,
        group.is_edge,
        primary,
        secondary,
        revision,
        x509,
        gateways,
        group.auto_approve,
    ))?;
    Ok(revision)
}

/// Deletes a group. Its devices stay registered and are of no other group, also not of the next one of its id.
pub fn delete_group(c: &Connection, id: &str) -> rusqlite::Result<bool> {
    c.prepare_cached("UPDATE enrollments SET is_group_deleted = 1 WHERE group_id = ?1")?.execute([id])?;
    Ok(c.prepare_cached("DELETE FROM enrollment_groups WHERE id = ?1")?.execute([id])? == 1)
}

/// Devices of a group that are registered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupCounts {
    pub devices: u64,
    /// Those of them that wait for approval.
    pub waiting: u64,
}

/// How many devices enrolled by each group that has any.
pub fn group_counts(c: &Connection) -> rusqlite::Result<HashMap<String, GroupCounts>> {
    let mut statement = c.prepare_cached(
        "SELECT group_id, count(*) AS devices, sum(devices.is_waiting AND devices.enabled) AS waiting
         FROM enrollments JOIN devices ON devices.id = enrollments.device
         WHERE NOT is_group_deleted GROUP BY group_id",
    )?;
    let rows = statement.query_map([], |row| {
        let counts =
            GroupCounts { devices: unsigned(row.get("devices")?), waiting: unsigned(row.get("waiting")?) };
        Ok((row.get("group_id")?, counts))
    })?;
    unreadable::rows("enrollments", rows).collect()
}

/// How a device enrolled; `None` when it never did.
pub fn enrollment(c: &Connection, device: &DeviceId) -> rusqlite::Result<Option<EnrollmentRecord>> {
    let mut statement = c.prepare_cached("SELECT * FROM enrollments WHERE device = ?1")?;
    let found = statement.query_row([device.as_str()], |row| {
        Ok(EnrollmentRecord {
            group: row.get("group_id")?,
            is_group_deleted: row.get("is_group_deleted")?,
            operation_id: row.get("operation_id")?,
            is_bound: row.get("is_bound")?,
            token_ends_at: unsigned(row.get("token_ends_at")?),
            created_ms: unsigned(row.get("created_ms")?),
            updated_ms: unsigned(row.get("updated_ms")?),
        })
    });
    unreadable::row("enrollments", found)
}

/// Notes how a device enrolled.
pub fn put_enrollment(
    c: &Connection,
    device: &DeviceId,
    enrollment: &EnrollmentRecord,
) -> rusqlite::Result<()> {
    c.prepare_cached(
        "INSERT OR REPLACE INTO enrollments (device, group_id, operation_id, created_ms, updated_ms,
             is_bound, token_ends_at, is_group_deleted)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute((
        device.as_str(),
        &enrollment.group,
        &enrollment.operation_id,
        integer(enrollment.created_ms),
        integer(enrollment.updated_ms),
        enrollment.is_bound,
        integer(enrollment.token_ends_at),
        enrollment.is_group_deleted,
    ))?;
    Ok(())
}
