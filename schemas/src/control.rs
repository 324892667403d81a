//! Bodies of the daemon's control socket, beside [`crate::gateway_status`]: what `edge-agent` asks its daemon and prints with `--json`.
//!
//! Requests are strict: an unknown member is an error. Answers may come from another version: unknown members are left out, and missing ones
//! have their default.

use serde::{Deserialize, Serialize};

use crate::method::MethodRequest;

/// `POST /devices`: how a new leaf device shall prove itself, by at most one of these; a key is made when none is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewLeafDevice {
    /// 1 to 128 characters, as IoT Hub has it.
    pub id: String,
    /// Its symmetric key in base64.
    pub key: Option<String>,
    /// One or two, SHA-1 or SHA-256 in hexadecimal digits.
    #[serde(default)]
    pub x509_thumbprints: Vec<String>,
    /// A certificate of a certificate authority in `[tls] device_ca`.
    #[serde(default)]
    pub x509_ca: bool,
    /// Whether a local user of its name is made that may publish its telemetry.
    #[serde(default)]
    pub password: bool,
}

/// The answer to [`NewLeafDevice`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AddedLeafDevice {
    /// 1 to 128 characters, as IoT Hub has it.
    pub id: String,
    /// `symmetricKey`, `x509Thumbprint` or `x509Ca`.
    pub attestation: String,
    /// The hub's name.
    pub host_name: String,
    /// Name or address of the gateway, as devices connect to it.
    pub gateway_host_name: String,
    /// As an Azure SDK takes it.
    pub connection_string: String,
    /// The local user of its name, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<AddedUser>,
}

/// `GET /devices`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeafDeviceList {
    /// Those that the gateway knows.
    pub devices: Vec<LeafDevice>,
}

/// One of [`LeafDeviceList`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LeafDevice {
    /// 1 to 128 characters, as IoT Hub has it.
    pub id: String,
    /// Added on the gateway; the others are from central.
    pub added_here: bool,
    /// Whether it is connected.
    pub connected: bool,
    /// As in [`AddedLeafDevice`].
    pub attestation: String,
    /// Neither central nor this gateway blocks it.
    pub enabled: bool,
    /// This gateway blocks it.
    pub blocked_here: bool,
}

/// `GET /devices/{id}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeafDeviceDetails {
    /// As in the list.
    #[serde(flatten)]
    pub device: LeafDevice,
    /// Since when it is connected, RFC 3339; `None` while it is not.
    pub since: Option<String>,
    /// Of its certificates, where it proves itself by those.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub thumbprints: Vec<String>,
    /// Local users that may publish its telemetry.
    pub users: Vec<String>,
}

/// `POST /devices/{id}/block` and `/unblock`. Read it as a [`LeafDevice`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum BlockAnswer {
    /// How it is now.
    Known(LeafDevice),
    /// The gateway does not know it.
    Unknown(UnknownDevice),
}

/// A device that the gateway does not know, and that it may block all the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnknownDevice {
    /// 1 to 128 characters, as IoT Hub has it.
    pub id: String,
    /// This gateway blocks it.
    pub blocked_here: bool,
}

/// `DELETE /devices/{id}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RemovedLeafDevice {
    /// Its local users, removed with it.
    pub users: Vec<String>,
}

/// `GET /devices/{id}/token`: what a plain MQTT client connects with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceLogin {
    /// MQTT client id.
    pub client_id: String,
    /// MQTT user name.
    pub user_name: String,
    /// A SAS token.
    pub password: String,
}

/// `POST /users`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// What its clients give as the user name of CONNECT.
    pub name: String,
    /// Made when left out.
    pub password: Option<String>,
    /// The leaf device whose telemetry it may publish.
    pub device: Option<String>,
}

/// The answer to [`NewUser`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AddedUser {
    /// What its clients give as the user name of CONNECT.
    pub name: String,
    /// The leaf device whose telemetry it may publish.
    pub device: Option<String>,
    /// Name or address of the gateway, as devices connect to it.
    pub gateway_host_name: String,
    /// Present if the server generated it; it is shown only once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// `GET /users`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserList {
    /// The local users.
    pub users: Vec<LocalUser>,
}

/// One of [`UserList`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LocalUser {
    /// What its clients give as the user name of CONNECT.
    pub name: String,
    /// The leaf device whose telemetry it may publish.
    pub device: Option<String>,
    /// Clients on loopback that give no name.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub anonymous: bool,
    /// Clients that are connected.
    pub connections: u64,
}

/// `GET /quarantine`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QuarantinePage {
    /// Oldest first.
    pub messages: Vec<QuarantinedMessage>,
    /// All that the quarantine holds.
    pub count: u64,
    /// Where the next page begins; `None` at the end.
    pub next_after: Option<u64>,
}

/// A message that upstream rejected because of its content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QuarantinedMessage {
    /// Its number in the quarantine.
    pub number: u64,
    /// The device or module that sent it; `None` of a message that cannot be read.
    pub sender: Option<String>,
    /// Length of its body; `None` of a message that cannot be read.
    pub bytes: Option<u64>,
    /// When the gateway took it, RFC 3339.
    pub enqueued_at: String,
    /// When upstream rejected it, RFC 3339.
    pub refused_at: String,
    /// MQTT 5's reason code, where upstream gave one.
    pub code: Option<u8>,
    /// Why upstream rejected it.
    pub why: String,
    /// Its queue's id.
    pub queue: String,
    /// Its sequence number there.
    pub sequence: u64,
}

/// `GET /quarantine/{number}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QuarantinedDetails {
    /// As in the list.
    #[serde(flatten)]
    pub message: QuarantinedMessage,
    /// The topic that it was published to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Its body, where that is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Its body, where that is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
}

/// `POST /quarantine/{number}/replay`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// Numbers of the messages.
    pub replayed: Vec<u64>,
}

/// `DELETE /quarantine/{number}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Numbers of the messages.
    pub dropped: Vec<u64>,
}

/// `POST /apply`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Applied {
    /// Of the desired section.
    pub version: u64,
    /// It was verified: its modules ran through the time for which they are watched.
    pub settled: bool,
    /// Its number in the history; 0 when that is not known.
    pub deployment: u64,
    /// Its state, as [`PastDeployment::state`].
    pub state: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `GET /history`, the latest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeploymentHistory {
    /// The last 20, and those that can be gone back to.
    pub deployments: Vec<PastDeployment>,
}

/// A deployment that was put in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PastDeployment {
    /// From 1 on each gateway.
    pub number: u64,
    /// `$version` of `$edgeAgent`'s desired section.
    pub version: u64,
    /// RFC 3339.
    pub at: String,
    /// Who gave it: `upstream`, `command line` or `watched folder`.
    pub source: String,
    /// `applying`, `probation`, `verified`, `rolledBack`, `held` or `superseded`.
    pub state: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The deployment that was put in force again in its place, by number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolled_back_to: Option<u64>,
    /// When it came to its end, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// What it changes of the one before, one line each.
    pub changes: Vec<String>,
    /// Whether its manifest is in force.
    pub in_force: bool,
}

/// `POST /call`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallRequest {
    /// A module of the gateway, or `device/…` for a leaf device.
    pub target: String,
    /// What to call.
    #[serde(flatten)]
    pub request: MethodRequest,
}
