//! Roles that administrators made, and who has them.

use central_core::access::permission::Permission;
use rusqlite::{Connection, Row};

use super::columns::{json_column, parsed_column};
use super::unreadable;
use crate::token::RoleAssignment;
use crate::types::custom_role::{CustomRole, RoleId};
use crate::types::single_line::DisplayName;

const COLUMNS: &str = "id, display_name, permissions";

/// How many there are.
pub fn count(c: &Connection) -> rusqlite::Result<u32> {
    c.query_row("SELECT count(*) FROM roles", [], |row| row.get(0))
}

/// The role with this id.
pub fn get(c: &Connection, id: &str) -> rusqlite::Result<Option<CustomRole>> {
    let mut statement = c.prepare_cached(&format!("SELECT {COLUMNS} FROM roles WHERE id = ?1"))?;
    unreadable::row("roles", statement.query_row([id], role))
}

/// All of them, by id.
pub fn list(c: &Connection) -> rusqlite::Result<Vec<CustomRole>> {
    let mut statement = c.prepare_cached(&format!("SELECT {COLUMNS} FROM roles ORDER BY id"))?;
    unreadable::rows("roles", statement.query_map([], role)?).collect()
}

/// Keeps a role, in place of the one with its id.
pub fn put(c: &Connection, role: &CustomRole) -> rusqlite::Result<()> {
    let permissions: Vec<Permission> = role.permissions.iter().collect();
    // Not `OR REPLACE`, which would delete a row that users and tokens refer to.
    c.prepare_cached(
        "INSERT INTO roles (id, display_name, permissions) VALUES (?1, ?2, ?3)
         ON CONFLICT (id) DO UPDATE SET display_name = excluded.display_name, permissions = excluded.permissions",
    )?
    .execute((role.id.as_str(), &*role.display_name, serde_json::json!(permissions).to_string()))?;
    Ok(())
}

/// Removes a role. Returns false when none has the id.
///
/// # Errors
/// SQLite's; a constraint keeps a role that somebody has.
pub fn delete(c: &Connection, id: &str) -> rusqlite::Result<bool> {
    Ok(c.prepare_cached("DELETE FROM roles WHERE id = ?1")?.execute([id])? == 1)
}

/// How many have a role, for the whole site or in an organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holders {
    pub users: u32,
    /// Expired ones too, until they are revoked.
    pub tokens: u32,
}

/// How many have the role with this id.
pub fn holders(c: &Connection, id: &str) -> rusqlite::Result<Holders> {
    let mut statement = c.prepare_cached(
        "SELECT (SELECT count(DISTINCT user) FROM roles_of_users WHERE role = ?1),
                (SELECT count(DISTINCT token) FROM roles_of_tokens WHERE role = ?1)",
    )?;
    statement.query_row([id], |row| Ok(Holders { users: row.get(0)?, tokens: row.get(1)? }))
}

/// Who has roles.
#[derive(Debug, Clone, Copy)]
pub(super) enum Holder<'a> {
    /// By its id.
    User(&'a str),
    /// By its name.
    Token(&'a str),
}

impl<'a> Holder<'a> {
    /// The table of the assignments, its column of holders, and the value in it.
    fn place(self) -> (&'static str, &'static str, &'a str) {
        match self {
            Self::User(id) => ("roles_of_users", "user", id),
            Self::Token(name) => ("roles_of_tokens", "token", name),
        }
    }
}

/// The custom roles that somebody has for the whole site, by id. One that cannot be read allows nothing.
pub(super) fn of(c: &Connection, holder: Holder<'_>) -> rusqlite::Result<Vec<CustomRole>> {
    let (table, column, key) = holder.place();
    let query = format!(
        "SELECT {COLUMNS} FROM roles
         WHERE id IN (SELECT role FROM {table} WHERE {column} = ?1 AND organization = '') ORDER BY id"
    );
    let mut statement = c.prepare_cached(&query)?;
    unreadable::rows("roles", statement.query_map([key], role)?).collect()
}

/// How many custom roles somebody has for the whole site, those that cannot be read included.
pub(super) fn count_of(c: &Connection, holder: Holder<'_>) -> rusqlite::Result<u32> {
    let (table, column, key) = holder.place();
    let query = format!(
        "SELECT count(*) FROM roles WHERE id IN (SELECT role FROM {table} WHERE {column} = ?1 AND organization = '')"
    );
    c.prepare_cached(&query)?.query_row([key], |row| row.get(0))
}

/// Notes which custom roles somebody has: those of `assignments`, and no others.
pub(super) fn assign(
    c: &Connection,
    holder: Holder<'_>,
    assignments: &[RoleAssignment],
) -> rusqlite::Result<()> {
    let (table, column, key) = holder.place();
    c.prepare_cached(&format!("DELETE FROM {table} WHERE {column} = ?1"))?.execute([key])?;
    // Of built-in roles there is no row.
    let insert = format!(
        "INSERT OR IGNORE INTO {table} ({column}, role, organization) SELECT ?1, id, ?3 FROM roles WHERE id = ?2"
    );
    let mut statement = c.prepare_cached(&insert)?;
    for RoleAssignment { role, organization } in assignments {
        statement.execute((key, role, organization.as_deref().unwrap_or("")))?;
    }
    Ok(())
}

fn role(row: &Row<'_>) -> rusqlite::Result<CustomRole> {
    let display_name = DisplayName::try_from(row.get::<_, String>("display_name")?);
    Ok(CustomRole {
        id: parsed_column::<RoleId>(row, "id")?,
        display_name: display_name.map_err(|error| unreadable::column(row, "display_name", error.into()))?,
        permissions: json_column::<Vec<Permission>>(row, "permissions")?.into_iter().collect(),
    })
}
