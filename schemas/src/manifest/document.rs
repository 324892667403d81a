//! The manifest as its authors write it: these types exist for their JSON Schema, `schemas/json/manifest.json`, which
//! editors and central's API description use. [`super::Manifest::parse`] is what decides; a test holds the two together.

// Nothing constructs these: only their shape and their texts matter.
#![allow(dead_code)]

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{FailurePolicy, ImagePullPolicy, RestartPolicy, StartCondition, WhenFull};

/// An Azure IoT Edge deployment manifest, as Lineside reads it.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(title = "Deployment manifest")]
pub enum Document {
    /// As `az iot edge set-modules` takes it.
    Plain(Plain),
    /// As an IoT Hub configuration holds it.
    Configuration(Configuration),
}

/// The manifest on top.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plain {
    /// The modules' desired sections.
    pub modules_content: ModulesContent,
}

/// The manifest inside `content`.
#[derive(Serialize, JsonSchema)]
pub struct Configuration {
    /// The manifest.
    pub content: Plain,
}

/// Desired sections by module name.
#[derive(Serialize, JsonSchema)]
pub struct ModulesContent {
    /// The deployment.
    #[serde(rename = "$edgeAgent")]
    pub edge_agent: Content<EdgeAgentForm>,
    /// The routes.
    #[serde(rename = "$edgeHub", skip_serializing_if = "Option::is_none")]
    pub edge_hub: Option<Content<EdgeHubForm>>,
    /// Ordinary modules.
    #[serde(flatten)]
    pub modules: BTreeMap<String, Content<Map<String, Value>>>,
}

/// A desired section; parts of it may stand under flat keys such as `properties.desired.routes.NAME` instead.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "{T}Content")]
pub struct Content<T> {
    /// The section.
    #[serde(rename = "properties.desired", skip_serializing_if = "Option::is_none")]
    pub desired: Option<T>,
}

/// `$edgeAgent`'s desired section.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "EdgeAgent")]
#[serde(rename_all = "camelCase")]
pub struct EdgeAgentForm {
    /// 1.0 or 1.1.
    #[schemars(regex(pattern = r"^1(\.[01](\.0)?)?$"), extend("type" = ["string", "number"]))]
    pub schema_version: String,
    /// Docker and its registries.
    pub runtime: Option<Runtime>,
    /// Read and kept; Lineside's daemon is both.
    pub system_modules: Option<SystemModules>,
    /// The modules that become containers, by name.
    pub modules: Option<BTreeMap<String, ModuleForm>>,
    /// What becomes of the deployment when its modules do not run or do not stay well. Lineside's own; IoT Edge ignores it.
    pub failure_policy: Option<FailurePolicy>,
}

/// The container runtime.
#[derive(Serialize, JsonSchema)]
pub struct Runtime {
    /// Only docker.
    pub r#type: Option<Docker>,
    /// Credentials of registries, and what Azure's runtime needs.
    pub settings: Option<RuntimeSettings>,
}

/// The only runtime.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Docker {
    /// Containers of the Docker Engine.
    Docker,
}

/// Settings of the runtime.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeSettings {
    /// Not enforced.
    #[schemars(extend("type" = ["string", "number", "boolean", "null"]))]
    pub min_docker_version: Option<String>,
    /// Not used: a module's HostConfig.LogConfig takes effect.
    #[schemars(extend("type" = ["string", "number", "boolean", "null"]))]
    pub logging_options: Option<String>,
    /// Logins by name.
    pub registry_credentials: Option<BTreeMap<String, RegistryCredentialForm>>,
}

/// A login at a registry.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RegistryCredential")]
pub struct RegistryCredentialForm {
    /// Who.
    #[schemars(extend("type" = ["string", "number", "boolean"]))]
    pub username: String,
    /// The secret.
    #[schemars(extend("type" = ["string", "number", "boolean"]))]
    pub password: String,
    /// The registry's host.
    #[schemars(length(min = 1), extend("type" = ["string", "number", "boolean"]))]
    pub address: String,
}

/// IoT Edge's own two modules.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SystemModules {
    /// IoT Edge's own agent; not run here.
    pub edge_agent: Option<ModuleForm>,
    /// IoT Edge's own hub; not run here.
    pub edge_hub: Option<ModuleForm>,
}

/// A container, and when it runs.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Module")]
#[serde(rename_all = "camelCase")]
pub struct ModuleForm {
    /// Only docker.
    pub r#type: Option<Docker>,
    /// Whether it runs; running if left out.
    pub status: Option<Status>,
    /// When it is started again; on-unhealthy if left out.
    pub restart_policy: Option<RestartPolicy>,
    /// Whether its image is fetched; on-create if left out.
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Lower ones start first; last if left out.
    #[schemars(range(max = 4_294_967_295_u32), extend("type" = ["integer", "string", "null"], "pattern" = r"^\s*[0-9]+\s*$"))]
    pub startup_order: Option<u32>,
    /// Other modules of the manifest by name, and what each must be before this one is started. Lineside's own; IoT Edge ignores it.
    pub start_after: Option<BTreeMap<String, StartCondition>>,
    /// The operator's own word.
    #[schemars(extend("type" = ["string", "number", "boolean", "null"]))]
    pub version: Option<String>,
    /// Environment variables by name.
    pub env: Option<BTreeMap<String, Variable>>,
    /// Image and options.
    pub settings: ModuleSettings,
}

/// Whether a module runs.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It runs.
    Running,
    /// Its container exists and does not run.
    Stopped,
    /// It is neither started nor stopped.
    Unknown,
    /// As unknown.
    Backoff,
    /// As unknown.
    Unhealthy,
    /// As unknown.
    Failed,
}

/// An environment variable.
#[derive(Serialize, JsonSchema)]
pub struct Variable {
    /// Its value; empty if left out.
    pub value: Option<VariableValue>,
}

/// A value of an environment variable; numbers and booleans become text.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
pub enum VariableValue {
    /// As it is.
    Text(String),
    /// In decimal.
    Number(f64),
    /// `true` or `false`.
    Flag(bool),
}

/// What a module is made of.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModuleSettings {
    /// `[host[:port]/]name[:tag][@digest]`.
    #[schemars(length(min = 1), extend("type" = ["string", "number", "boolean"]))]
    pub image: String,
    /// The body of Docker's ContainerCreate as a text of JSON; a long one goes on in createOptions01 to createOptions99.
    pub create_options: Option<CreateOptions>,
}

/// Docker's ContainerCreate body.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
pub enum CreateOptions {
    /// As IoT Edge has it.
    Text(String),
    /// As templates have it.
    Object(Map<String, Value>),
}

/// `$edgeHub`'s desired section.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "EdgeHub")]
#[serde(rename_all = "camelCase")]
pub struct EdgeHubForm {
    /// 1.0 to 1.3.
    #[schemars(regex(pattern = r"^1(\.[0-3](\.0)?)?$"), extend("type" = ["string", "number"]))]
    pub schema_version: String,
    /// The routes by name.
    pub routes: Option<BTreeMap<String, RouteForm>>,
    /// How long messages are kept.
    pub store_and_forward_configuration: Option<StoreAndForward>,
    /// Who may do what on free topics (schema 1.2).
    pub mqtt_broker: Option<MqttBroker>,
}

/// The part of schema 1.2 that Azure dropped and that is in force here.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MqttBroker {
    /// Statements in order; the first that says anything about a topic decides.
    #[schemars(length(max = 1_000))]
    pub authorizations: Option<Vec<AuthorizationForm>>,
}

/// A statement about some identities.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Authorization")]
#[serde(rename_all = "camelCase")]
pub struct AuthorizationForm {
    /// `device`, `gateway/module`, `$user:name`, or `{{iot:identity}}` for everybody.
    #[schemars(length(min = 1))]
    pub identities: Vec<String>,
    /// What they may do.
    pub allow: Option<Vec<RuleForm>>,
    /// What they may not do; comes first.
    pub deny: Option<Vec<RuleForm>>,
}

/// Operations on topics.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Rule")]
#[serde(rename_all = "camelCase")]
pub struct RuleForm {
    /// `mqtt:connect`, `mqtt:publish`, `mqtt:subscribe`.
    #[schemars(length(min = 1), inner(regex(pattern = r"^(?i)mqtt:(connect|publish|subscribe)$")))]
    pub operations: Vec<String>,
    /// Topic filters with variables such as `{{iot:device_id}}`; may be left out for `mqtt:connect` alone.
    pub resources: Option<Vec<String>>,
}

/// Where messages of a source go.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Route")]
#[serde(untagged)]
pub enum RouteForm {
    /// `FROM … INTO …`.
    Text(String),
    /// With priority and time to live.
    Object(RouteObject),
}

/// A route with its priority.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteObject {
    /// `FROM … INTO …`.
    pub route: String,
    /// 0 is first; after all others if left out.
    #[schemars(range(max = 9), extend("type" = ["integer", "string", "null"], "pattern" = r"^\s*[0-9]\s*$"))]
    pub priority: Option<u32>,
    /// Seconds; 0 or left out: `timeToLiveSecs` of `storeAndForwardConfiguration`.
    #[schemars(range(max = 4_294_967_295_u32), extend("type" = ["integer", "string", "null"], "pattern" = r"^\s*[0-9]+\s*$"))]
    pub time_to_live_secs: Option<u32>,
    /// What is dropped when the route's queue is full: its oldest messages, or the new one, which is not acknowledged when no
    /// other route takes it. As the gateway's edge.toml says if left out. Lineside's own; Azure's hub ignores it.
    pub full: Option<WhenFull>,
}

/// How long messages are kept.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreAndForward {
    /// Seconds; as long as there is space if negative or left out.
    #[schemars(range(min = -2_147_483_648_i64, max = 4_294_967_295_i64), extend("type" = ["integer", "string", "null"], "pattern" = r"^\s*-?[0-9]+\s*$"))]
    pub time_to_live_secs: Option<i64>,
}
