//! The list of gateways and devices: filtered, sorted and read in pages, each row with what its state follows from.
//!
//! A page in the order of an index reads its rows only. A filter by state, and the order by state, read all registrations: who is
//! connected is not in the store.

use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, Row, params_from_iter};
use schemas::names::DeviceId;

use super::columns::{parsed_column, unsigned};
use super::unreadable;
use crate::diagnosis::gateway_report::ReportVersions;

/// A registration as the list reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GridDevice {
    pub id: DeviceId,
    pub display_name: String,
    pub template: Option<String>,
    /// Whether it is a gateway.
    pub is_gateway: bool,
    /// False when an operator blocked it.
    pub is_enabled: bool,
    /// It enrolled and waits for an operator's approval.
    pub is_waiting: bool,
    /// Tells it from earlier devices of its id.
    pub generation: u64,
    /// When it last came or went.
    pub last_seen_ms: Option<u64>,
    /// The gateway that it is behind, and whether that is not blocked.
    pub gateway: Option<(DeviceId, bool)>,
    /// Of a gateway's `$edgeAgent`.
    pub report_versions: ReportVersions,
}

/// Columns of a [`GridDevice`]. A twin's version precedes its properties, which are not read.
const SELECT: &str = "SELECT devices.id, devices.display_name, devices.template, devices.is_gateway, devices.enabled,
        devices.is_waiting, devices.generation, devices.last_seen_ms, relationships.source AS gateway, gateways.enabled AS gateway_enabled,
        CASE WHEN devices.is_gateway THEN (SELECT version FROM twins
            WHERE device = devices.id AND module = '$edgeAgent' AND section = 'desired') END AS desired,
        CASE WHEN devices.is_gateway THEN (SELECT version FROM twins
            WHERE device = devices.id AND module = '$edgeAgent' AND section = 'reported') END AS reported
    FROM devices
    LEFT JOIN relationships ON relationships.target = devices.id
    LEFT JOIN devices AS gateways ON gateways.id = relationships.source";

fn read(row: &Row<'_>) -> rusqlite::Result<GridDevice> {
    let gateway: Option<String> = row.get("gateway")?;
    let gateway = match gateway {
        None => None,
        Some(_) => {
            let id = unreadable::value("relationships", parsed_column(row, "gateway"))?;
            let is_enabled: Option<bool> = row.get("gateway_enabled")?;
            id.map(|id| (id, is_enabled.unwrap_or(false)))
        }
    };
    Ok(GridDevice {
        id: parsed_column(row, "id")?,
        display_name: row.get("display_name")?,
        template: row.get("template")?,
        is_gateway: row.get("is_gateway")?,
        is_enabled: row.get("enabled")?,
        is_waiting: row.get("is_waiting")?,
        generation: unsigned(row.get("generation")?),
        last_seen_ms: row.get::<_, Option<i64>>("last_seen_ms")?.map(unsigned),
        gateway,
        report_versions: (row.get("desired")?, row.get("reported")?),
    })
}

/// Which kind of registration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GridKind {
    #[default]
    All,
    Devices,
    Gateways,
}

/// Which registrations, apart from their state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GridFilter {
    pub kind: GridKind,
    /// In the id or the display name, whatever the case.
    pub search: Option<String>,
    /// The template's id; `Some("")` for those that have none.
    pub template: Option<String>,
    /// Those behind this gateway.
    pub gateway: Option<String>,
    /// Gateways that were given this stored manifest.
    pub manifest: Option<String>,
}

impl GridFilter {
    /// The condition and its parameters; `search` is looked for in the rows, because SQLite knows the case of ASCII only.
    fn conditions(&self) -> (Vec<String>, Vec<SqlValue>) {
        let (mut conditions, mut parameters) = (Vec::new(), Vec::new());
        match self.kind {
            GridKind::All => {}
            GridKind::Devices => conditions.push("NOT devices.is_gateway".to_owned()),
            GridKind::Gateways => conditions.push("devices.is_gateway".to_owned()),
        }
        match self.template.as_deref() {
            None => {}
            Some("") => conditions.push("devices.template IS NULL".to_owned()),
            Some(template) => {
                conditions.push("devices.template = ?".to_owned());
                parameters.push(SqlValue::Text(template.to_owned()));
            }
        }
        if let Some(gateway) = &self.gateway {
            conditions.push("relationships.source = ?".to_owned());
            parameters.push(SqlValue::Text(gateway.clone()));
        }
        if let Some(manifest) = &self.manifest {
            conditions.push("devices.manifest_id = ?".to_owned());
            parameters.push(SqlValue::Text(manifest.clone()));
        }
        (conditions, parameters)
    }
}

/// Whether a text has another in it, whatever the case.
struct Search(Option<String>);

impl Search {
    fn finds(&self, device: &GridDevice) -> bool {
        let Some(sought) = &self.0 else { return true };
        [device.id.as_str(), &device.display_name].iter().any(|text| text.to_lowercase().contains(sought))
    }
}

/// An order that an index has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GridOrder {
    #[default]
    Id,
    /// By display name, without regard to the case of ASCII, and then by id.
    Name,
    /// By the time last seen, and then by id; those that never came first.
    LastSeen,
}

/// Where a page begins: behind this key and id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GridPlace {
    /// Of [`GridOrder::Id`].
    Id(String),
    /// Of [`GridOrder::Name`]: the display name and the id.
    Name(String, String),
    /// Of [`GridOrder::LastSeen`]: milliseconds since the Unix epoch, 0 for never, and the id.
    LastSeen(i64, String),
}

/// Which rows, in which order, from where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GridQuery {
    pub filter: GridFilter,
    pub order: GridOrder,
    /// The other way round.
    pub is_descending: bool,
    /// `None`: from the beginning.
    pub after: Option<GridPlace>,
}

/// Gives rows to `take` in the order of the query until it returns false.
///
/// # Errors
/// SQLite's, and those of `take`.
pub fn scan<E: From<rusqlite::Error>>(
    connection: &Connection,
    query: &GridQuery,
    mut take: impl FnMut(GridDevice) -> Result<bool, E>,
) -> Result<(), E> {
    let (mut conditions, mut parameters) = query.filter.conditions();
    let (direction, than) = if query.is_descending { ("DESC", "<") } else { ("ASC", ">") };
    let id = |text: &String| SqlValue::Text(text.clone());
    match &query.after {
        None => {}
        Some(GridPlace::Id(after)) => {
            conditions.push(format!("devices.id {than} ?"));
            parameters.push(id(after));
        }
        Some(GridPlace::Name(name, after)) => {
            conditions.push(format!("(devices.display_name COLLATE NOCASE, devices.id) {than} (?, ?)"));
            parameters.extend([SqlValue::Text(name.clone()), id(after)]);
        }
        Some(GridPlace::LastSeen(at_ms, after)) => {
            conditions.push(format!("(ifnull(devices.last_seen_ms, 0), devices.id) {than} (?, ?)"));
            parameters.extend([SqlValue::Integer(*at_ms), id(after)]);
        }
    }
    let order = match query.order {
        GridOrder::Id => format!("devices.id {direction}"),
        GridOrder::Name => format!("devices.display_name COLLATE NOCASE {direction}, devices.id {direction}"),
        GridOrder::LastSeen => {
            format!("ifnull(devices.last_seen_ms, 0) {direction}, devices.id {direction}")
        }
    };
    let sought =
        if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
    let mut statement = connection.prepare_cached(&format!("{SELECT} {sought} ORDER BY {order}"))?;
    let rows = statement.query_map(params_from_iter(parameters), read)?;
    let search = Search(query.filter.search.as_ref().map(|sought| sought.to_lowercase()));
    for device in unreadable::rows("devices", rows) {
        let device = device?;
        if search.finds(&device) && !take(device)? {
            break;
        }
    }
    Ok(())
}

/// The registrations of these ids.
pub fn of_ids<'d>(
    connection: &Connection,
    ids: impl IntoIterator<Item = &'d DeviceId>,
) -> rusqlite::Result<Vec<GridDevice>> {
    // One parameter for any number of ids: a statement for each number would fill the cache of statements.
    let ids: Vec<&str> = ids.into_iter().map(DeviceId::as_str).collect();
    let ids = serde_json::json!(ids).to_string();
    let mut statement = connection
        .prepare_cached(&format!("{SELECT} WHERE devices.id IN (SELECT value FROM json_each(?1))"))?;
    unreadable::rows("devices", statement.query_map([ids], read)?).collect()
}

/// The manifest that a gateway was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GridManifest {
    /// Of the stored manifest.
    pub id: String,
    /// `None` when it was deleted since.
    pub name: Option<String>,
    /// Whether the gateway was given it as it is stored now.
    pub is_up_to_date: bool,
}

/// What a row shows beside its state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GridDetail {
    /// When central received the last message.
    pub last_telemetry_ms: Option<u64>,
    pub manifest: Option<GridManifest>,
    /// Devices behind a gateway.
    pub children: u64,
}

/// What the rows of a page show beside their states, by id.
pub fn details(
    connection: &Connection,
    page: &[GridDevice],
) -> rusqlite::Result<std::collections::HashMap<String, GridDetail>> {
    let ids: Vec<&str> = page.iter().map(|device| device.id.as_str()).collect();
    let mut statement = connection.prepare_cached(
        "SELECT devices.id, devices.manifest_id, manifests.display_name AS manifest_name,
             ifnull(manifests.data = assigned_manifests.data, 0) AS is_up_to_date,
             (SELECT count(*) FROM relationships WHERE source = devices.id) AS children,
             (SELECT received_ms FROM telemetry WHERE device = devices.id AND telemetry.id > devices.telemetry_after
                 ORDER BY telemetry.id DESC LIMIT 1) AS last_telemetry_ms
         FROM devices
         LEFT JOIN manifests ON manifests.id = devices.manifest_id
         LEFT JOIN assigned_manifests ON assigned_manifests.device = devices.id
         WHERE devices.id IN (SELECT value FROM json_each(?1))",
    )?;
    let rows = statement.query_map([serde_json::json!(ids).to_string()], |row| {
        let manifest_id: Option<String> = row.get("manifest_id")?;
        let (name, is_up_to_date) = (row.get("manifest_name")?, row.get("is_up_to_date")?);
        let detail = GridDetail {
            last_telemetry_ms: row.get::<_, Option<i64>>("last_telemetry_ms")?.map(unsigned),
            manifest: manifest_id.map(|id| GridManifest { id, name, is_up_to_date }),
            children: unsigned(row.get("children")?),
        };
        Ok((row.get("id")?, detail))
    })?;
    unreadable::rows("devices", rows).collect()
}

#[cfg(test)]
mod tests {
    use super::super::devices::{self, Device};
    use super::super::relationships::{self, Relationship};
    use super::super::schema;
    use super::*;
    use proptest::prelude::*;

    fn id(text: &str) -> DeviceId {
        text.parse().unwrap()
    }

    /// Every page of a query, one behind the other.
    fn pages(c: &Connection, query: &GridQuery, limit: usize) -> Vec<String> {
        let (mut query, mut found) = (query.clone(), Vec::new());
        loop {
            let mut page = Vec::new();
            let take = |device| {
                page.push(device);
                Ok::<_, rusqlite::Error>(page.len() < limit)
            };
            scan(c, &query, take).unwrap();
            let Some(last) = page.last() else { return found };
            query.after = Some(match query.order {
                GridOrder::Id => GridPlace::Id(last.id.to_string()),
                GridOrder::Name => GridPlace::Name(last.display_name.clone(), last.id.to_string()),
                GridOrder::LastSeen => {
                    GridPlace::LastSeen(last.last_seen_ms.unwrap_or(0).cast_signed(), last.id.to_string())
                }
            });
            found.extend(page.into_iter().map(|device| device.id.to_string()));
        }
    }

    #[test]
    fn pages_of_every_order_and_filter_have_each_row_once_in_the_order_of_a_sort() {
        let dir = tempfile::tempdir().unwrap();
        let c = schema::open(&dir.path().join("central.db")).unwrap();
        c.execute_batch("PRAGMA synchronous = OFF; BEGIN").unwrap();
        for n in 0..40_u64 {
            let device = Device {
                display_name: ["press", "Press", "lathe", "Ütze"][n as usize % 4].into(),
                template: (n % 3 == 0).then(|| format!("t{}", n % 2)),
                is_gateway: n % 10 == 0,
                revision: 1,
                ..Device::new(id(&format!("d{n:02}")))
            };
            devices::put(&c, &device).unwrap();
            if n % 5 != 0 {
                devices::seen(&c, &device.id, n / 7).unwrap();
            }
            if n % 10 == 3 {
                let source = id(&format!("d{:02}", n - 3));
                let target = device.id.clone();
                let put = Relationship { id: "r".into(), name: "r".into(), source, target };
                relationships::put(&c, &put).unwrap();
            }
        }
        let all = devices::list(&c, "", 100).unwrap();
        let texts = |texts: &[&str]| {
            let some: Vec<Option<String>> = texts.iter().map(|text| Some((*text).to_owned())).collect();
            prop::sample::select([vec![None], some].concat())
        };
        let queries = (
            prop::sample::select(vec![GridKind::All, GridKind::Devices, GridKind::Gateways]),
            texts(&["", "PRESS", "ü", "d1", "none"]),
            texts(&["", "t0", "t1", "t2"]),
            texts(&["d10", "d20", "d11", "x"]),
            prop::sample::select(vec![GridOrder::Id, GridOrder::Name, GridOrder::LastSeen]),
            any::<bool>(),
            1..50_usize,
        );
        proptest!(|((kind, search, template, gateway, order, is_descending, limit) in queries)| {
            let mut expected: Vec<&Device> = all
                .iter()
                .filter(|device| match kind {
                    GridKind::All => true,
                    GridKind::Devices => !device.is_gateway,
                    GridKind::Gateways => device.is_gateway,
                })
                .filter(|device| template.as_deref().is_none_or(|of| of == device.template.as_deref().unwrap_or("")))
                .filter(|device| gateway.is_none() || gateway.as_deref() == device.gateway.as_ref().map(DeviceId::as_str))
                .filter(|device| {
                    let text = search.as_deref().unwrap_or("").to_lowercase();
                    device.id.as_str().contains(&text) || device.display_name.to_lowercase().contains(&text)
                })
                .collect();
            expected.sort_by_key(|device| match order {
                GridOrder::Id => (String::new(), 0, device.id.to_string()),
                GridOrder::Name => (device.display_name.to_ascii_lowercase(), 0, device.id.to_string()),
                GridOrder::LastSeen => (String::new(), device.last_seen_ms.unwrap_or(0), device.id.to_string()),
            });
            if is_descending {
                expected.reverse();
            }
            let expected: Vec<String> = expected.iter().map(|device| device.id.to_string()).collect();
            let filter = GridFilter { kind, search, template, gateway, manifest: None };
            let query = GridQuery { filter, order, is_descending, after: None };
            prop_assert_eq!(pages(&c, &query, limit), expected);
        });
    }

    #[test]
    fn the_first_page_of_every_order_reads_an_index_and_sorts_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let c = schema::open(&dir.path().join("central.db")).unwrap();
        for order in [
            "devices.id",
            "devices.display_name COLLATE NOCASE, devices.id",
            "ifnull(devices.last_seen_ms, 0), devices.id",
        ] {
            let plan: Vec<String> = c
                .prepare(&format!("EXPLAIN QUERY PLAN {SELECT} ORDER BY {order}"))
                .unwrap()
                .query_map([], |row| row.get("detail"))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{order}: {plan:?}");
        }
    }

    #[test]
    fn a_row_shows_its_manifest_its_children_and_its_last_message() {
        let dir = tempfile::tempdir().unwrap();
        let c = schema::open(&dir.path().join("central.db")).unwrap();
        let gateway =
            Device { is_gateway: true, manifest_id: Some("m".into()), revision: 1, ..Device::new(id("gw")) };
        devices::put(&c, &gateway).unwrap();
        devices::put(&c, &Device { revision: 1, ..Device::new(id("leaf")) }).unwrap();
        let put = Relationship { id: "r".into(), name: "r".into(), source: id("gw"), target: id("leaf") };
        relationships::put(&c, &put).unwrap();
        c.execute_batch(
            "INSERT INTO manifests (id, display_name, data, revision) VALUES ('m', 'M', '{}', 1);
             INSERT INTO assigned_manifests (device, data) VALUES ('gw', '{}');
             INSERT INTO telemetry (device, enqueued_ms, received_ms, bag, body) VALUES ('leaf', 1, 7, '{}', x'');",
        )
        .unwrap();
        let page = of_ids(&c, &[id("gw"), id("leaf"), id("gone")]).unwrap();
        assert_eq!(page.len(), 2);
        assert_eq!(page[1].gateway, Some((id("gw"), true)));
        let found = details(&c, &page).unwrap();
        let manifest = GridManifest { id: "m".into(), name: Some("M".into()), is_up_to_date: true };
        let of_gateway = GridDetail { manifest: Some(manifest), children: 1, last_telemetry_ms: None };
        assert_eq!(found["gw"], of_gateway);
        assert_eq!(found["leaf"], GridDetail { last_telemetry_ms: Some(7), ..GridDetail::default() });
        c.execute("UPDATE manifests SET data = '{\"a\": 1}'", []).unwrap();
        assert!(!details(&c, &page).unwrap()["gw"].manifest.as_ref().unwrap().is_up_to_date);
    }
}
