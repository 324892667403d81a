//! `edge-agent device` and `edge-agent user`: who may come in at the MQTT server.

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use edge_hub::input_file;
use schemas::names::{DeviceId, UserName};
use serde_json::{Value, json};

use super::global_options::GlobalOptions;
use super::text::{encoded, text_of};

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
            let body = json!({
                "id": id,
                "key": key,
                "x509Thumbprints": x509_thumbprint,
                "x509Ca": x509_ca,
                "password": password,
            });
            let answer = options.ask("POST", "/devices", Some(&body)).await?;
            options.print(&answer, || added_text(&answer))
        }
        Device::Token { id, valid } => {
            let answer = options.ask("GET", &path(id, &format!("/token?valid={valid}")), None).await?;
            options.print(&answer, || {
                lines(
                    &answer,
                    &[("client id", "clientId"), ("user name", "userName"), ("password", "password")],
                )
            })
        }
        Device::List => {
            let answer = options.ask("GET", "/devices", None).await?;
            options.print(&answer, || devices_text(&answer))
        }
        Device::Show { id } => {
            let answer = options.ask("GET", &path(id, ""), None).await?;
            options.print(&answer, || shown_text(&answer))
        }
        Device::Block { id } => {
            let answer = options.ask("POST", &path(id, "/block"), None).await?;
            options.print(&answer, || {
                format!("blocked {id}: it stays out until `edge-agent device unblock {id}`")
            })
        }
        Device::Unblock { id } => {
            let answer = options.ask("POST", &path(id, "/unblock"), None).await?;
            options.print(&answer, || {
                if answer["enabled"] == true {
                    format!("unblocked {id}")
                } else {
                    format!("unblocked {id} here; it is still blocked at central, or not known any more")
                }
            })
        }
        Device::Remove { id } => {
            let answer = options.ask("DELETE", &path(id, ""), None).await?;
            options.print(&answer, || format!("removed {id}"))
        }
    }
}

pub(super) async fn user(options: &GlobalOptions, command: &User) -> Result<()> {
    match command {
        User::Add { name, password_stdin, device } => {
            let password = if *password_stdin { Some(read_password()?) } else { None };
            let body = json!({"name": name, "password": password, "device": device});
            let answer = options.ask("POST", "/users", Some(&body)).await?;
            options.print(&answer, || user_text(&answer))
        }
        User::List => {
            let answer = options.ask("GET", "/users", None).await?;
            options.print(&answer, || users_text(&answer))
        }
        User::Remove { name } => {
            let answer = options.ask("DELETE", &format!("/users/{}", encoded(name.as_str())), None).await?;
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

fn lines(answer: &Value, fields: &[(&str, &str)]) -> String {
    let line = |(name, key): &(&str, &str)| format!("{name:<12} {}", text_of(&answer[*key]));
    fields.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Of a device with a key the connection string alone, for `$(…)`.
fn added_text(answer: &Value) -> String {
    let mut text = text_of(&answer["connectionString"]);
    if !answer["user"].is_null() {
        text = format!("{text}\n{}", user_text(&answer["user"]));
    }
    text
}

fn user_text(user: &Value) -> String {
    let mut fields = vec![("server", "gatewayHostName"), ("user name", "name")];
    if !user["password"].is_null() {
        fields.push(("password", "password"));
    }
    if !user["device"].is_null() {
        fields.push(("telemetry of", "device"));
    }
    lines(user, &fields)
}

fn shown_text(device: &Value) -> String {
    let state = match (device["enabled"] == true, device["blockedHere"] == true) {
        (true, _) => "allowed",
        (false, true) => "BLOCKED on this gateway",
        (false, false) => "BLOCKED at central",
    };
    let connected = match &device["since"] {
        Value::Null => "away".to_owned(),
        since => format!("connected since {}", text_of(since)),
    };
    let joined = |list: &Value| {
        let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().map(text_of).collect::<Vec<_>>().join(", ")
    };
    let mut text = vec![
        format!("device       {}", text_of(&device["id"])),
        format!("from         {}", from_text(device)),
        format!("proven by    {}", text_of(&device["attestation"])),
        format!("state        {state}, {connected}"),
    ];
    for (name, list) in [("thumbprints", &device["thumbprints"]), ("users", &device["users"])] {
        if list.as_array().is_some_and(|list| !list.is_empty()) {
            text.push(format!("{name:<12} {}", joined(list)));
        }
    }
    text.join("\n")
}

fn from_text(device: &Value) -> &'static str {
    if device["addedHere"] == true { "added here" } else { "from central" }
}

fn devices_text(answer: &Value) -> String {
    let devices = answer["devices"].as_array().map(Vec::as_slice).unwrap_or_default();
    let line = |device: &Value| {
        let state = match (device["enabled"] == true, device["connected"] == true) {
            (false, _) => "BLOCKED",
            (true, true) => "connected",
            (true, false) => "away",
        };
        format!("{:<32} {state:<10} {}", text_of(&device["id"]), from_text(device))
    };
    match devices {
        [] => "no leaf devices".to_owned(),
        devices => devices.iter().map(line).collect::<Vec<_>>().join("\n"),
    }
}

fn users_text(answer: &Value) -> String {
    let users = answer["users"].as_array().map(Vec::as_slice).unwrap_or_default();
    let line = |user: &Value| {
        let connections = text_of(&user["connections"]);
        let (name, device) = (text_of(&user["name"]), text_of(&user["device"]));
        let more = if user["anonymous"] == true { "anonymous, on loopback" } else { &device };
        format!("{name:<32} {connections:>3} connected  {more}")
    };
    match users {
        [] => "no users".to_owned(),
        users => users.iter().map(line).collect::<Vec<_>>().join("\n"),
    }
}
