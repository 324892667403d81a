//! What a gateway reports of its deployment: the reported section of `$edgeAgent` and `$edgeHub`, with IoT Edge's names.
//!
//! Left out on purpose: environment values, create options and registry logins, which IoT Edge echoes. Whoever may read
//! a report would read every secret in the manifest.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::manifest::{DesiredStatus, ImagePullPolicy, RestartPolicy};
use crate::names::ModuleId;

/// IoT Edge's "never" for a time.
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// How a module is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeStatus {
    /// There is no container yet.
    Unknown,
    /// It ended, and will be started again in a while.
    Backoff,
    /// It runs.
    Running,
    /// It runs, and its health check fails.
    Unhealthy,
    /// It does not run: it ended with code 0, was never started, or was stopped.
    Stopped,
    /// It ended with another code, or was started again too often.
    Failed,
    /// Docker could not remove it; it will be created anew.
    Dead,
}

impl RuntimeStatus {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Backoff => "backoff",
            Self::Running => "running",
            Self::Unhealthy => "unhealthy",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Dead => "dead",
        }
    }
}

/// How the last deployment went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeploymentStatus {
    /// One of [`code`].
    pub code: u16,
    /// For the operator; empty on success.
    pub description: String,
}

/// Codes of a [`DeploymentStatus`] (IoT Edge's).
pub mod code {
    use crate::manifest::ManifestError;

    /// Everything is as the manifest wants it.
    pub const SUCCESS: u16 = 200;
    /// The manifest was refused.
    pub const REFUSED: u16 = 400;
    /// The daemon has not looked yet, or stops.
    pub const UNKNOWN: u16 = 406;
    /// The manifest's schema version was refused.
    pub const SCHEMA_VERSION: u16 = 412;
    /// There is no manifest.
    pub const EMPTY: u16 = 417;
    /// Something could not be done.
    pub const FAILED: u16 = 500;

    /// The code of a refused manifest.
    pub fn of(refused: &ManifestError) -> u16 {
        if refused.path.ends_with(".schemaVersion") { SCHEMA_VERSION } else { REFUSED }
    }
}

/// The reported section of `$edgeAgent`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EdgeAgentReport {
    /// `1.0`.
    pub schema_version: String,
    /// Version of `edge-agent` itself.
    pub version: AgentVersion,
    /// The `$version` of the desired section that was looked at last.
    pub last_desired_version: u64,
    /// How that went.
    pub last_desired_status: DeploymentStatus,
    /// What the modules run on.
    pub runtime: RuntimeReport,
    /// `edgeAgent` and `edgeHub`: both are this daemon.
    pub system_modules: BTreeMap<String, SystemModuleReport>,
    /// State and image of each module of the manifest.
    #[schemars(with = "BTreeMap<String, ModuleReport>")]
    pub modules: BTreeMap<ModuleId, ModuleReport>,
    /// What is wrong with the gateway. Not in IoT Edge's report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthReport>,
    /// The latest deployment: whether it was verified, and why not. Not in IoT Edge's report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutReport>,
    /// Parts of the manifest in force that have no effect, or another one than its author may think, each with its field. Not in IoT
    /// Edge's report.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifest_warnings: Vec<String>,
}

/// The state of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutReport {
    /// Its number in the gateway's history.
    pub number: u64,
    /// `$version` of `$edgeAgent`'s desired section that it is made of.
    pub version: u64,
    /// `applying`, `probation`, `verified`, `rolledBack`, `held` or `superseded`.
    pub state: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The version that is in force.
    pub version_in_force: u64,
}

/// What the gateway finds wrong with itself, and whom it refused.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthReport {
    /// RFC 3339, by the gateway's clock.
    pub updated: String,
    /// Findings that are not `ok`.
    pub findings: Vec<FindingReport>,
    /// Clients that were refused last, those of known identities first.
    pub refusals: Vec<RefusalReport>,
}

/// A finding of `edge-agent check`.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FindingReport {
    /// The check, for example `disk`.
    pub id: String,
    /// `info`, `warn` or `error`.
    pub level: String,
    /// What was seen.
    pub evidence: String,
    /// What to do.
    #[serde(default)]
    pub mend: String,
}

/// A client that the gateway refused.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RefusalReport {
    /// Who it said it is; empty when it did not say.
    pub identity: String,
    /// Why it was refused.
    pub why: String,
    /// Its address.
    pub from: String,
    /// `MQTT 3.1.1`, `MQTT 5` or `TLS`.
    pub protocol: String,
    /// Fingerprint of the certificate or token that it showed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<String>,
    /// When it was refused first, RFC 3339.
    pub first: String,
    /// When it was refused last, RFC 3339.
    pub last: String,
    /// How often.
    pub count: u64,
}

/// The version of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentVersion {
    /// For example `0.1.0`.
    pub version: String,
}

/// What the modules run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RuntimeReport {
    /// `docker`.
    pub r#type: String,
    /// The host.
    pub platform: Platform,
}

/// The host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Platform {
    /// For example `linux`.
    pub os: String,
    /// For example `x86_64`.
    pub architecture: String,
    /// Docker's version.
    pub version: String,
}

/// A part of the daemon that IoT Edge has as a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SystemModuleReport {
    /// `docker`.
    pub r#type: String,
    /// Whether it works.
    pub runtime_status: RuntimeStatus,
}

/// A module: how it shall be, and how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModuleReport {
    /// `docker`.
    pub r#type: String,
    /// The operator's word for it.
    pub version: String,
    /// Whether it shall run.
    pub status: DesiredStatus,
    /// When it is started again.
    pub restart_policy: RestartPolicy,
    /// Whether its image is fetched.
    pub image_pull_policy: ImagePullPolicy,
    /// Its place in the order of starting.
    pub startup_order: u32,
    /// Its image.
    pub settings: ModuleSettingsReport,
    /// How it is.
    pub runtime_status: RuntimeStatus,
    /// Why it is so.
    pub status_description: String,
    /// When the next step is tried, RFC 3339; absent when nothing waits for a time. Not in IoT Edge's report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try_utc: Option<String>,
    /// The code it ended with; 0 while it runs.
    pub exit_code: i64,
    /// RFC 3339, or [`NEVER`].
    pub last_start_time_utc: String,
    /// RFC 3339, or [`NEVER`].
    pub last_exit_time_utc: String,
    /// How often it was started again since it last ran for ten minutes, or since the last deployment.
    pub restart_count: u32,
    /// RFC 3339, or [`NEVER`].
    pub last_restart_time_utc: String,
}

/// What a module is made of, without its create options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModuleSettingsReport {
    /// The image that the manifest wants.
    pub image: String,
}

/// The reported section of `$edgeHub`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EdgeHubReport {
    /// `1.0`.
    pub schema_version: String,
    /// The `$version` of the desired section that was looked at last.
    pub last_desired_version: u64,
    /// Whether its routes are in force.
    pub last_desired_status: DeploymentStatus,
}
