//! `edge-agent device` and `edge-agent user`: who may come in at the MQTT server.

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use edge_tls::input_file;
use schemas::control::{
    AddedLeafDevice, AddedUser, DeviceLogin, LeafDevice, LeafDeviceDetails, LeafDeviceList, LocalUser,
    NewLeafDevice, NewUser, UserList,
};
use schemas::names::{DeviceId, UserName};
use serde_json::json;

use super::global_options::GlobalOptions;
use super::text::{encoded, or_dash};

/// Leaf devices.
#[derive(Subcommand)]
pub(super) enum Device {
    /// Add a leaf device; prints the connection string that an Azure SDK takes.
    Add {
        /// The device id; it is also the MQTT client id.
        id: String,
        /// Its symmetric key in base64; generated if no other proof is given.
        #[arg(long, conflicts_with_all = ["x509_thumbprint", "x509_ca"])]
        key: Option<String>,
        /// SHA-1 or SHA-256 of its certificate, in hexadecimal digits; a second one is its secondary certificate.
        #[arg(long, value_name = "HEX", conflicts_with = "x509_ca")]
        x509_thumbprint: Vec<String>,
        /// Accept a certificate of a certificate authority in `[tls] device_ca` with the id as its common name.
        #[arg(long)]
        x509_ca: bool,
        /// Add a local user of its name too, for a plain MQTT client that publishes its telemetry.
        #[arg(long)]
        password: bool,
    },
    /// Print client id, user name and password (a SAS token) for a plain MQTT client.
    Token {
        /// The device id, as `edge-agent device list` shows it.
        id: String,
        /// How long the token is valid.
        #[arg(long, value_name = "SECS", default_value_t = 86_400)]
        valid: u64,
    },
    /// List the leaf devices.
    List,
    /// Show a leaf device.
    Show {
        /// The device id, as `edge-agent device list` shows it.
        id: String,
    },
    /// Disconnect a leaf device and reject it until it is unblocked, also one that central assigned.
    Block {
        /// The device id, as `edge-agent device list` shows it.
        id: String,
    },
    /// Unblock a leaf device that was blocked here.
    Unblock {
        /// The device id, as `edge-agent device list` shows it.
        id: String,
    },
    /// Remove a leaf device that was added here, with its users.
    Remove {
        /// The device id, as `edge-agent device list` shows it.
        id: String,
    },
}

/// MQTT users.
#[derive(Subcommand)]
pub(super) enum User {
    /// Add a user; prints the password once if it is generated.
    Add {
        /// Its name: letters, digits and - . _ @.
        name: String,
        /// Read the password from the standard input instead of generating one.
        #[arg(long)]
        password_stdin: bool,
        /// A leaf device whose telemetry it may publish.
        #[arg(long, value_name = "ID")]
        device: Option<DeviceId>,
    },
    /// List the users.
    List,
    /// Remove a user and disconnect its clients.
    Remove {
        /// The user's name, as `edge-agent user list` shows it.
        name: UserName,
    },
}

pub(super) async fn device(options: &GlobalOptions, command: &Device) -> Result<()> {
    let path = |id: &str, verb: &str| format!("/devices/{}{verb}", encoded(id));
    match command {
        Device::Add { id, key, x509_thumbprint, x509_ca, password } => {
            let body = json!(NewLeafDevice {
                id: id.clone(),
                key: key.clone(),
                x509_thumbprints: x509_thumbprint.clone(),
                x509_ca: *x509_ca,
                password: *password,
            });
            let (answer, added) = options.answer("POST", "/devices", Some(&body)).await?;
            options.print(&answer, || added_text(&added))
        }
        Device::Token { id, valid } => {
            let path = path(id, &format!("/token?valid={valid}"));
            let (answer, login) = options.answer::<DeviceLogin>("GET", &path, None).await?;
            options.print(&answer, || {
                let DeviceLogin { client_id, user_name, password } = login;
                lines(&[("client id", client_id), ("user name", user_name), ("password", password)])
            })
        }
        Device::List => {
            let (answer, list) = options.answer("GET", "/devices", None).await?;
            options.print(&answer, || devices_text(&list))
        }
        Device::Show { id } => {
            let (answer, details) = options.answer("GET", &path(id, ""), None).await?;
            options.print(&answer, || shown_text(&details))
        }
        Device::Block { id } => {
            let answer = options.request("POST", &path(id, "/block"), None).await?;
            options.print(&answer, || {
                format!("blocked {id}: it stays out until `edge-agent device unblock {id}`")
            })
        }
        Device::Unblock { id } => {
            let (answer, device) = options.answer::<LeafDevice>("POST", &path(id, "/unblock"), None).await?;
            options.print(&answer, || {
                if device.enabled {
                    format!("unblocked {id}")
                } else {
                    format!("unblocked {id} here; it is still blocked at central, or not known any more")
                }
            })
        }
        Device::Remove { id } => {
            let answer = options.request("DELETE", &path(id, ""), None).await?;
            options.print(&answer, || format!("removed {id}"))
        }
    }
}

pub(super) async fn user(options: &GlobalOptions, command: &User) -> Result<()> {
    match command {
        User::Add { name, password_stdin, device } => {
            let password = if *password_stdin { Some(read_password()?) } else { None };
            let device = device.as_ref().map(ToString::to_string);
            let body = json!(NewUser { name: name.clone(), password, device });
            let (answer, added) = options.answer("POST", "/users", Some(&body)).await?;
            options.print(&answer, || user_text(&added))
        }
        User::List => {
            let (answer, list) = options.answer("GET", "/users", None).await?;
            options.print(&answer, || users_text(&list))
        }
        User::Remove { name } => {
            let answer =
                options.request("DELETE", &format!("/users/{}", encoded(name.as_str())), None).await?;
            options.print(&answer, || format!("removed {name}"))
        }
    }
}

/// One line, without its end: `echo secret | edge-agent user add …` must not make `secret\n` the password.
fn read_password() -> Result<String> {
    let text = input_file::bounded(std::io::stdin().lock(), input_file::SMALL_BYTES_MAX)
        .context("reading the password from the standard input")?;
    let text = String::from_utf8(text).context("reading the password from the standard input")?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() || password.contains('\n') {
        bail!("the standard input must hold the password as its only line");
    }
    Ok(password.to_owned())
}

fn lines(fields: &[(&str, String)]) -> String {
    fields.iter().map(|(name, text)| format!("{name:<12} {text}")).collect::<Vec<_>>().join("\n")
}

/// Of a device with a key the connection string alone, for `$(…)`.
fn added_text(added: &AddedLeafDevice) -> String {
    match &added.user {
        None => added.connection_string.clone(),
        Some(user) => format!("{}\n{}", added.connection_string, user_text(user)),
    }
}

fn user_text(user: &AddedUser) -> String {
    let mut fields = vec![("server", user.gateway_host_name.clone()), ("user name", user.name.clone())];
    fields.extend(user.password.clone().map(|password| ("password", password)));
    fields.extend(user.device.clone().map(|device| ("telemetry of", device)));
    lines(&fields)
}

fn shown_text(details: &LeafDeviceDetails) -> String {
    let LeafDeviceDetails { device, since, thumbprints, users } = details;
    let state = match (device.enabled, device.blocked_here) {
        (true, _) => "allowed",
        (false, true) => "BLOCKED on this gateway",
        (false, false) => "BLOCKED at central",
    };
    let connected = match since {
        None => "away".to_owned(),
        Some(since) => format!("connected since {since}"),
    };
    let mut fields = vec![
        ("device", device.id.clone()),
        ("from", from_text(device).to_owned()),
        ("proven by", device.attestation.clone()),
        ("state", format!("{state}, {connected}")),
    ];
    for (name, list) in [("thumbprints", thumbprints), ("users", users)] {
        if !list.is_empty() {
            fields.push((name, list.join(", ")));
        }
    }
    lines(&fields)
}

fn from_text(device: &LeafDevice) -> &'static str {
    if device.added_here { "added here" } else { "from central" }
}

fn devices_text(list: &LeafDeviceList) -> String {
    if list.devices.is_empty() {
        return "no leaf devices".to_owned();
    }
    let line = |device: &LeafDevice| {
        let state = match (device.enabled, device.connected) {
            (false, _) => "BLOCKED",
            (true, true) => "connected",
            (true, false) => "away",
        };
        format!("{:<32} {state:<10} {}", device.id, from_text(device))
    };
    list.devices.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn users_text(list: &UserList) -> String {
    if list.users.is_empty() {
        return "no users".to_owned();
    }
    let line = |user: &LocalUser| {
        let device = or_dash(&user.device);
        let more = if user.anonymous { "anonymous, on loopback" } else { device };
        format!("{:<32} {:>3} connected  {more}", user.name, user.connections)
    };
    list.users.iter().map(line).collect::<Vec<_>>().join("\n")
}
