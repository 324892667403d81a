//! Which rows a list gives, in which order, and from where on.

use rusqlite::types::Value;
use rusqlite::{Connection, Row};

use super::filter::{Field, Filter, InvalidFilter, Kind, find};
use super::{page, unreadable};

/// A table that may be filtered and ordered.
#[derive(Debug)]
pub struct Listed {
    pub table: &'static str,
    /// What is read of a row, its key first.
    pub columns: &'static str,
    /// The tables to read from.
    pub from: &'static str,
    /// The unique column of ids, in SQL.
    pub id: &'static str,
    /// What its rows are filtered and ordered by; the first is the id.
    pub fields: &'static [Field],
}

/// A page of a list: the rows behind `after`, in their order.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    filter: Filter,
    order: Order,
    after: Option<After>,
    limit: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Order {
    /// By the id when it is none; among equals it is by id.
    field: Option<Field>,
    is_descending: bool,
}

/// Where a page begins: behind a row with this key.
#[derive(Debug, Clone)]
struct After {
    /// The value of the field that the order is by; none when that is the id.
    key: Option<Value>,
    id: String,
}

/// Why a list cannot be filtered or ordered as requested.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSelection {
    #[error("filter")]
    Filter(#[from] InvalidFilter),
    #[error("orderby: found `{found}`; write one of {allowed}, and `asc` or `desc` behind it")]
    Order {
        /// What was asked for.
        found: String,
        allowed: String,
    },
    /// It is of no page of this list in this order.
    #[error("$skiptoken: found `{0}`; take the whole nextLink of the page before")]
    SkipToken(String),
}

/// What a client asks of a list.
#[derive(Debug, Clone, Copy, Default)]
pub struct ListText<'a> {
    /// See [`Filter`].
    pub filter: Option<&'a str>,
    /// A field, and `asc` or `desc`.
    pub order: Option<&'a str>,
    /// From the page before.
    pub skip_token: Option<&'a str>,
}

impl Selection {
    /// Reads what a client asks of a list.
    ///
    /// # Errors
    /// [`InvalidSelection`].
    pub fn parse(text: ListText<'_>, limit: u32, listed: &Listed) -> Result<Self, InvalidSelection> {
        let filter = text.filter.map(|filter| Filter::parse(filter, listed.fields)).transpose()?;
        let order = text.order.map(|order| Order::parse(order, listed.fields)).transpose()?;
        let order = order.unwrap_or_default();
        let after = text.skip_token.map(|token| order.after(token)).transpose()?;
        Ok(Self { filter: filter.unwrap_or_default(), order, after, limit })
    }

    /// The rows, and where the next page begins behind the last of them, when there may be one.
    pub(super) fn rows<T>(
        &self,
        connection: &Connection,
        listed: &Listed,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<(Vec<T>, Option<String>)> {
        let (rows, may_be_more) = self.positioned_rows(connection, listed, read)?;
        let (rows, mut positions): (Vec<T>, Vec<String>) = rows.into_iter().unzip();
        Ok((rows, positions.pop().filter(|_| may_be_more)))
    }

    /// The rows, each with where a page behind it begins, and whether there may be more.
    ///
    /// # Errors
    /// The database cannot be read, or a row holds what this version of central cannot read.
    pub(super) fn positioned_rows<T>(
        &self,
        connection: &Connection,
        listed: &Listed,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<(Vec<(T, String)>, bool)> {
        let (sql, values) = self.statement(listed);
        // Not cached: texts of clients would push out the statements that are used all the time.
        let mut statement = connection.prepare(&sql)?;
        let with_position = |row: &Row<'_>| Ok((read(row)?, self.order.position(row)?));
        let found = statement.query_map(rusqlite::params_from_iter(values), |row| {
            page::sized(row, |row| with_position(row))
        })?;
        page::page(unreadable::rows(listed.table, found), self.limit)
    }

    fn statement(&self, listed: &Listed) -> (String, Vec<Value>) {
        let Listed { columns, from, id, .. } = listed;
        let (key, comparison, direction) = match self.order {
            Order { field, is_descending: true } => (field, "<", "DESC"),
            Order { field, is_descending: false } => (field, ">", "ASC"),
        };
        let key = key.map(|field| sorted(&field));
        let mut conditions = Vec::new();
        let mut values = Vec::new();
        if let Some(after) = &self.after {
            match (&key, &after.key) {
                (Some(sql), Some(value)) => {
                    conditions.push(format!("({sql}, {id}) {comparison} (?, ?)"));
                    values.push(value.clone());
                }
                _ => conditions.push(format!("{id} {comparison} ?")),
            }
            values.push(Value::Text(after.id.clone()));
        }
        if !self.filter.sql.is_empty() {
            conditions.push(self.filter.sql.clone());
            values.extend(self.filter.values.iter().cloned());
        }
        let condition = if conditions.is_empty() { "1".to_owned() } else { conditions.join(" AND ") };
        let order = match &key {
            Some(sql) => format!("{sql} {direction}, {id} {direction}"),
            None => format!("{id} {direction}"),
        };
        let key = key.unwrap_or_else(|| "NULL".to_owned());
        let columns = format!("{columns}, {key} AS sort_key, {id} AS sort_id");
        (format!("SELECT {columns} FROM {from} WHERE {condition} ORDER BY {order}"), values)
    }
}

/// A field as it is sorted: what has no value comes first.
fn sorted(field: &Field) -> String {
    match field.kind {
        // A comparison with `NULL` holds for no row, so such rows would be on no page.
        Kind::Id | Kind::Text => format!("ifnull({}, '')", field.sql),
        Kind::Flag => format!("ifnull({}, 0)", field.sql),
    }
}

impl Order {
    fn parse(text: &str, fields: &[Field]) -> Result<Self, InvalidSelection> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let (name, direction) = match words.as_slice() {
            [name] => (*name, "asc"),
            [name, direction] => (*name, *direction),
            _ => ("", ""),
        };
        let is_descending = match direction.to_ascii_lowercase().as_str() {
            "asc" => Some(false),
            "desc" => Some(true),
            _ => None,
        };
        match (find(fields, name), is_descending) {
            (Some(field), Some(is_descending)) => {
                let field = Some(field).filter(|field| field.name != fields[0].name);
                Ok(Self { field, is_descending })
            }
            _ => {
                let allowed: Vec<&str> = fields.iter().map(|field| field.name).collect();
                Err(InvalidSelection::Order { found: text.to_owned(), allowed: allowed.join(", ") })
            }
        }
    }

    /// Where the next page begins: the id alone, or a JSON list of key and id.
    fn position(&self, row: &Row<'_>) -> rusqlite::Result<String> {
        let id: String = row.get("sort_id")?;
        let key = match self.field.map(|field| field.kind) {
            None => return Ok(id),
            Some(Kind::Id | Kind::Text) => serde_json::Value::from(row.get::<_, String>("sort_key")?),
            Some(Kind::Flag) => serde_json::Value::from(row.get::<_, i64>("sort_key")?),
        };
        Ok(serde_json::json!([key, id]).to_string())
    }

    fn after(&self, token: &str) -> Result<After, InvalidSelection> {
        let Some(field) = self.field else { return Ok(After { key: None, id: token.to_owned() }) };
        let wrong = |_| InvalidSelection::SkipToken(token.to_owned());
        let (key, id) = match field.kind {
            Kind::Id | Kind::Text => {
                let (key, id) = serde_json::from_str::<(String, String)>(token).map_err(wrong)?;
                (Value::Text(key), id)
            }
            Kind::Flag => {
                let (key, id) = serde_json::from_str::<(i64, String)>(token).map_err(wrong)?;
                (Value::Integer(key), id)
            }
        };
        Ok(After { key: Some(key), id })
    }
}
