//! `central role …`: roles that administrators make, beside a central that serves or not.

use central::audit::difference::difference;
use central::audit::entry::EntryKind;
use central::people::custom_roles::{self, RoleError};
use central::store::{StoreError, roles};
use central::types::custom_role::{CustomRole, RoleId};
use central::types::single_line::{DisplayName, InvalidText};
use central_core::access::built_in::{BUILT_IN, Holds};
use central_core::access::permission::{Permission, Permissions};
use clap::Subcommand;
use edge_hub::logging;
use edge_hub::terminal::{Table, Tone};
use rusqlite::Connection;
use serde_json::{Value, json};

use super::data::{DataArgs, in_store_with};
use super::noted::note;
use super::output::print_table;

#[derive(Subcommand)]
pub(crate) enum RoleCommand {
    /// Adds a role. Works while central runs.
    Add {
        /// The role's id, by which users and tokens get it.
        id: RoleId,
        /// The role's name for people; its id by default.
        #[arg(long, value_name = "NAME", value_parser = display_name)]
        name: Option<DisplayName>,
        /// A permission that the role has, for example deviceInstances.view; repeat the option for each one.
        #[arg(long = "permission", value_name = "PERMISSION", required = true)]
        permissions: Vec<Permission>,
    },
    /// Lists every role with its id, its name, whether it is built in, and its permissions. The output is separated by tabs if it is
    /// not a terminal.
    List,
    /// Changes the name or the permissions of a role: its users and tokens have them from their next request on. Works while central
    /// runs.
    Set {
        /// The role's id.
        id: String,
        /// The new name for people.
        #[arg(long, value_name = "NAME", value_parser = display_name)]
        name: Option<DisplayName>,
        /// A permission that the role has from now on, in place of those before; repeat the option for each one.
        #[arg(long = "permission", value_name = "PERMISSION", required_unless_present = "name")]
        permissions: Vec<Permission>,
    },
    /// Removes a role that no user and no token has. Works while central runs.
    Remove {
        /// The role's id.
        id: String,
    },
}

pub(crate) fn run(data: &DataArgs, command: RoleCommand) -> anyhow::Result<()> {
    match command {
        RoleCommand::Add { id, name, permissions } => add(data, id, name, permissions),
        RoleCommand::List => list(data),
        RoleCommand::Set { id, name, permissions } => set(data, id, name, permissions),
        RoleCommand::Remove { id } => remove(data, id),
    }
}

fn display_name(text: &str) -> Result<DisplayName, InvalidText> {
    DisplayName::try_from(text.to_owned())
}

fn path(role: &CustomRole) -> String {
    format!("/api/ext/roles/{}", role.id)
}

/// A role in the audit log.
fn state(role: &CustomRole) -> Value {
    let permissions: Vec<Permission> = role.permissions.iter().collect();
    json!({"displayName": &*role.display_name, "permissions": permissions})
}

fn add(
    data: &DataArgs,
    id: RoleId,
    name: Option<DisplayName>,
    permissions: Vec<Permission>,
) -> anyhow::Result<()> {
    let config = data.config_for_existing()?;
    let limits = config.keep.audit_limits();
    // An id is a name, too: shorter, and without characters that deceive.
    let name = name.map_or_else(|| display_name(id.as_str()), Ok)?;
    let role = CustomRole { id, display_name: name, permissions: permissions.into_iter().collect() };
    let named = role.id.clone();
    in_store_with(&config, move |c| {
        // Whoever writes to the store may do everything.
        custom_roles::add(c, &role, Permissions::ALL)?;
        let states = difference(None, Some(&state(&role)));
        Ok::<_, RoleError>(note(c, &limits, "central role add", EntryKind::Created, path(&role), states)?)
    })?;
    logging::print(&format!("role `{named}` is added"));
    Ok(())
}

fn list(data: &DataArgs) -> anyhow::Result<()> {
    let config = data.config_for_existing()?;
    let custom = in_store_with(&config, |c: &Connection| Ok::<_, StoreError>(roles::list(c)?))?;
    let mut table = Table::new(&["ID", "NAME", "KIND", "PERMISSIONS"]);
    let mut row = |id: &str, name: &str, kind: &str, permissions: Permissions| {
        let permissions: Vec<&str> = permissions.iter().map(Permission::id).collect();
        let cells = [id.to_owned(), name.to_owned(), kind.to_owned(), permissions.join(" ")];
        table.row(cells.map(|cell| (Tone::Plain, cell)));
    };
    for role in &BUILT_IN {
        match role.holds {
            Holds::Site(permissions) => row(role.id, role.display_name, "built in", permissions),
            Holds::Organization => {
                row(role.id, role.display_name, "in an organization", Permissions::default());
            }
        }
    }
    for role in &custom {
        row(role.id.as_str(), &role.display_name, "custom", role.permissions);
    }
    print_table(&table);
    Ok(())
}

fn set(
    data: &DataArgs,
    id: String,
    name: Option<DisplayName>,
    permissions: Vec<Permission>,
) -> anyhow::Result<()> {
    let config = data.config_for_existing()?;
    let limits = config.keep.audit_limits();
    let named = id.clone();
    in_store_with(&config, move |c| {
        let stored = custom_roles::get(c, &id)?;
        let mut role = stored.clone();
        if let Some(name) = name {
            role.display_name = name;
        }
        if !permissions.is_empty() {
            role.permissions = permissions.into_iter().collect();
        }
        custom_roles::put(c, &role, Permissions::ALL)?;
        let states = difference(Some(&state(&stored)), Some(&state(&role)));
        Ok::<_, RoleError>(note(c, &limits, "central role set", EntryKind::Updated, path(&role), states)?)
    })?;
    logging::print(&format!("role `{named}` is changed"));
    Ok(())
}

fn remove(data: &DataArgs, id: String) -> anyhow::Result<()> {
    let config = data.config_for_existing()?;
    let limits = config.keep.audit_limits();
    let named = id.clone();
    in_store_with(&config, move |c| {
        let role = custom_roles::remove(c, &id, Permissions::ALL)?;
        let states = difference(Some(&state(&role)), None);
        Ok::<_, RoleError>(note(c, &limits, "central role remove", EntryKind::Deleted, path(&role), states)?)
    })?;
    logging::print(&format!("role `{named}` is removed"));
    Ok(())
}
