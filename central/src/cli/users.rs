//! `central user …`: users of the console, beside a central that serves or not.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use central::audit::entry::EntryKind;
use central::people::accounts;
use central::people::error::PeopleError;
use central::people::names::UserName;
use central::people::password::NewPassword;
use central::people::roles;
use central::people::setup_code;
use central::store::users;
use central_core::access::permission::Permissions;
use clap::Subcommand;
use edge_hub::logging;
use edge_tls::input_file;
use schemas::timestamp::rfc3339;

use super::data::{DataArgs, in_store, in_store_with};
use super::noted::note;

/// Of a file with a password: the longest one, and its line's end.
const FILE_BYTES_MAX: u64 = 4 * 256 + 2;

#[derive(Subcommand)]
pub(crate) enum UserCommand {
    /// Adds a user. Without --password-file it generates a password and prints it once. Works while central runs.
    Add {
        /// What the user signs in with, for example an e-mail address.
        name: UserName,
        /// What the user may do: viewer, operator, builder, administrator, or the id of a role that `central role list` has.
        #[arg(long)]
        role: String,
        /// A file with the password, 10 to 256 characters; `-` for standard input.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Lists every user with id, name, role, and when it was added and last signed in, separated by tabs.
    List,
    /// Removes a user and ends its sessions. Works while central runs.
    Remove {
        /// The user's id or name.
        user: String,
    },
    /// Sets a user's password and ends its sessions. Without --password-file it generates a password and prints it once.
    Password {
        /// The user's id or name.
        user: String,
        /// A file with the password, 10 to 256 characters; `-` for standard input.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
}

pub(crate) fn run(data: &DataArgs, command: UserCommand) -> anyhow::Result<()> {
    match command {
        UserCommand::Add { name, role, password_file } => add(data, name, role, password_file.as_deref()),
        UserCommand::List => list(data),
        UserCommand::Remove { user } => remove(data, user),
        UserCommand::Password { user, password_file } => set_password(data, user, password_file.as_deref()),
    }
}

/// The password of a file, or a made one with its text, which is to be printed.
fn password(file: Option<&Path>, name: &UserName) -> anyhow::Result<(NewPassword, Option<String>)> {
    let Some(file) = file else {
        let (password, text) = NewPassword::random();
        return Ok((password, Some(text)));
    };
    let reading = || format!("reading {}", file.display());
    let bytes = input_file::read_or_stdin(file, FILE_BYTES_MAX).with_context(reading)?;
    let text = String::from_utf8(bytes).with_context(reading)?;
    // The line break at the end of a file is no part of the password.
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    let password = NewPassword::new(text, name).with_context(reading)?;
    Ok((password, None))
}

fn add(data: &DataArgs, name: UserName, role: String, file: Option<&Path>) -> anyhow::Result<()> {
    let config = data.config_for_existing()?;
    let (password, made) = password(file, &name)?;
    let hash = password.hash()?;
    let limits = config.keep.audit_limits();
    let named = name.clone();
    in_store_with(&config, move |c| {
        let user = accounts::add(c, &name, &role, &hash)?;
        let path = format!("/api/users/{}", user.id);
        Ok::<_, PeopleError>(note(c, &limits, "central user add", EntryKind::Created, path, (None, None))?)
    })?;
    // The code is for the first user alone, and there is one now.
    setup_code::remove_code(&config.data_dir)?;
    match made {
        Some(password) => logging::print(&password),
        None => logging::print(&format!("user `{named}` is added")),
    }
    Ok(())
}

fn list(data: &DataArgs) -> anyhow::Result<()> {
    let config = data.config_for_existing()?;
    logging::print("ID\tNAME\tROLE\tADDED\tSIGNED IN");
    for user in in_store(&config, |c| users::list(c, "", u32::MAX))? {
        logging::print(&format!(
            "{}\t{}\t{}\t{}\t{}",
            user.id,
            user.name,
            roles::names(&user.roles),
            rfc3339(user.created_ms),
            user.signed_in_ms.map_or_else(|| "never".to_owned(), rfc3339),
        ));
    }
    Ok(())
}

fn remove(data: &DataArgs, user: String) -> anyhow::Result<()> {
    let config = data.config_for_existing()?;
    let limits = config.keep.audit_limits();
    let named = user.clone();
    in_store_with(&config, move |c| {
        let user = accounts::find(c, &user)?;
        accounts::remove(c, user.id.as_str(), Permissions::ALL)?;
        let path = format!("/api/users/{}", user.id);
        Ok::<_, PeopleError>(note(c, &limits, "central user remove", EntryKind::Deleted, path, (None, None))?)
    })?;
    logging::print(&format!("user `{named}` is removed"));
    Ok(())
}

fn set_password(data: &DataArgs, user: String, file: Option<&Path>) -> anyhow::Result<()> {
    let config = data.config_for_existing()?;
    let limits = config.keep.audit_limits();
    // The user is read first: a password is checked against the user's name.
    let user = in_store_with(&config, move |c| accounts::find(c, &user))?;
    let (password, made) = password(file, &user.name)?;
    let hash = password.hash()?;
    let named = user.name.clone();
    in_store_with(&config, move |c| {
        accounts::set_hash(c, user.id.as_str(), &hash)?;
        let path = format!("/api/ext/users/{}/password", user.id);
        Ok::<_, PeopleError>(note(
            c,
            &limits,
            "central user password",
            EntryKind::Action,
            path,
            (None, None),
        )?)
    })?;
    match made {
        Some(password) => logging::print(&password),
        None => logging::print(&format!("the password of user `{named}` is set")),
    }
    Ok(())
}
