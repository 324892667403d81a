//! `/api/ext/devices/{device_id}/deploymentManifest/preview` and `/api/ext/routes/test`: what a manifest would do, before it does it.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::{Extension, Json};
use edge_core::deploy::preview::{ChangedField, Effect, ModulePreview, Step};
use edge_core::error_chain::chain;
use edge_core::route::sample::SampleMessage;
use edge_core::route::{RouteResult, Verdict};
use rusqlite::Connection;
use schemas::manifest::{Manifest, PRIORITY_DEFAULT};
use schemas::names::{DeviceId, Identity, ModuleId};
use schemas::received_report::ReceivedReport;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::error::{Answer, ApiError, ErrorBody};
use super::extract::{Body, OfDevice, StrictPath};
use crate::checking;
use crate::clock::now_ms;
use crate::deployments::preview::{DeploymentFacts, DeploymentPreview, RouteChange};
use crate::diagnosis::device_states::DeviceStates;
use crate::error::{ServiceError, no_manifest};
use crate::lookup::require;
use crate::store::twins::{self, Half};
use crate::store::{Store, manifests};

/// A manifest: a stored one, or one that is not stored.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct PreviewRequest {
    /// A stored manifest.
    id: Option<String>,
    /// An IoT Edge deployment manifest, `modulesContent` on top.
    data: Option<Value>,
}

/// What assigning a manifest to a gateway would do.
#[derive(Serialize, ToSchema)]
pub(super) struct PreviewBody {
    /// How many modules each effect has.
    counts: BTreeMap<&'static str, u64>,
    modules: Vec<ModulePreviewBody>,
    routes: Vec<RouteChangeBody>,
    /// Modules whose desired properties change.
    twins: Vec<String>,
    /// Parts of the manifest that have no effect, or another one than its author may think, each with its field.
    warnings: Vec<String>,
    /// What this preview assumes, and what is decided on the gateway alone.
    unknown: Vec<String>,
}

/// What would become of a module.
#[derive(Serialize, ToSchema)]
struct ModulePreviewBody {
    module: String,
    /// `create`, `replace`, `change`, `remove`, `leave`, or `unknown`.
    effect: &'static str,
    fields: Vec<ChangedFieldBody>,
    /// `pull`, `create`, `start`, `replace`, `stop`, `remove`, in order.
    steps: Vec<&'static str>,
}

/// A field that differs. Environment values and create options are named and not shown.
#[derive(Serialize, ToSchema)]
struct ChangedFieldBody {
    /// From the module on: `settings.image`, `env.BATCH`.
    field: String,
    from: Option<String>,
    to: Option<String>,
    /// Whether it makes the gateway replace the container.
    replaces: bool,
}

/// A route that changes, without a restart.
#[derive(Serialize, ToSchema)]
struct RouteChangeBody {
    name: String,
    /// Null for a new one.
    from: Option<String>,
    /// Null for one that is removed.
    to: Option<String>,
}

const EFFECTS: [(Effect, &str); 6] = [
    (Effect::Create, "create"),
    (Effect::Replace, "replace"),
    (Effect::ChangeInPlace, "change"),
    (Effect::Remove, "remove"),
    (Effect::Unchanged, "leave"),
    (Effect::Unknown, "unknown"),
];

fn effect_name(effect: Effect) -> &'static str {
    EFFECTS.iter().find(|(of, _)| *of == effect).map_or("unknown", |(_, name)| name)
}

fn step_name(step: Step) -> &'static str {
    match step {
        Step::Pull => "pull",
        Step::Create => "create",
        Step::Start => "start",
        Step::Replace => "replace",
        Step::Stop => "stop",
        Step::Remove => "remove",
    }
}

impl From<ModulePreview> for ModulePreviewBody {
    fn from(of: ModulePreview) -> Self {
        let field = |of: ChangedField| ChangedFieldBody {
            field: of.path,
            from: of.from,
            to: of.to,
            replaces: of.is_replacing,
        };
        Self {
            module: of.module.to_string(),
            effect: effect_name(of.effect),
            fields: of.fields.into_iter().map(field).collect(),
            steps: of.steps.into_iter().map(step_name).collect(),
        }
    }
}

impl From<RouteChange> for RouteChangeBody {
    fn from(RouteChange { name, from, to }: RouteChange) -> Self {
        Self { name, from, to }
    }
}

/// A manifest that was read.
struct Read {
    manifest: Manifest,
    warnings: Vec<String>,
}

/// Reads a manifest as storing it would.
async fn read(data: Value) -> Result<Read, ServiceError> {
    checking::check(move || {
        let wrong = |error| ServiceError::Wrong(format!("data: {error}"));
        let manifest = Manifest::parse(data.to_string().as_bytes()).map_err(wrong)?;
        edge_core::deploy::check(&manifest).map_err(wrong)?;
        let warnings = Manifest::warnings(&data).iter().map(ToString::to_string).collect();
        Ok(Read { manifest, warnings })
    })
    .await
}

/// The manifest that a request names or has.
async fn given(store: &Store, id: Option<String>, data: Option<Value>) -> Result<Value, ServiceError> {
    match (id, data) {
        (None, Some(data)) => Ok(data),
        (Some(id), None) => {
            let read = move |c: &Connection| {
                let stored = manifests::get(c, &id)?.ok_or_else(|| no_manifest(&id))?;
                Ok::<_, ServiceError>(stored.data)
            };
            store.read(read).await
        }
        _ => Err(ServiceError::Wrong("id, data: write one of them".into())),
    }
}

fn facts(c: &Connection, states: &DeviceStates, gateway: &DeviceId) -> Result<DeploymentFacts, ServiceError> {
    let device = require(c, &Identity::device(gateway.clone()))?;
    if !device.is_gateway {
        return Err(ServiceError::Wrong(format!("device `{gateway}` is not a gateway: it runs no modules")));
    }
    let section = |module: ModuleId, half: Half| {
        twins::section(c, &Identity::module(gateway.clone(), module), half).map(|stored| stored.section)
    };
    let agent = section(ModuleId::edge_agent(), Half::Desired)?;
    let reported = section(ModuleId::edge_agent(), Half::Reported)?;
    Ok(DeploymentFacts {
        desired_version: agent.version,
        agent: agent.properties,
        hub: section(ModuleId::edge_hub(), Half::Desired)?.properties,
        // A section that was never written says nothing, which is not the same as an empty report.
        reported: (reported.version > 0).then(|| ReceivedReport::of(&reported.properties)),
        is_connected: states.is_connected(gateway),
    })
}

/// The modules whose desired properties a manifest would change.
fn changed_twins(
    c: &Connection,
    gateway: &DeviceId,
    manifest: &Manifest,
) -> Result<Vec<String>, ServiceError> {
    let mut changed = Vec::new();
    for (module, desired) in &manifest.module_twins {
        let of = Identity::module(gateway.clone(), module.clone());
        let stored = twins::section(c, &of, Half::Desired)?;
        // What cannot be read is replaced in any case.
        if stored.is_unreadable || stored.section.properties != *desired {
            changed.push(module.to_string());
        }
    }
    Ok(changed)
}

/// Says what assigning a manifest to a gateway would do: what is created, replaced, changed in place, removed and left alone, and the field
/// that forces it. Changes nothing. The gateway's planner decides on what the gateway last reported; what that leaves open is said.
#[utoipa::path(post, path = "/api/ext/devices/{device_id}/deploymentManifest/preview", tag = "ext",
    params(OfDevice), request_body = PreviewRequest, security(("token" = [])),
    responses((status = 200, body = PreviewBody), (status = 404, body = ErrorBody),
        (status = 422, description = "names the field, what was found and what is allowed", body = ErrorBody)))]
pub(super) async fn preview(
    State(store): State<Store>,
    Extension(states): Extension<DeviceStates>,
    StrictPath(of): StrictPath<OfDevice>,
    Body(request): Body<PreviewRequest>,
) -> Answer<Json<PreviewBody>> {
    let Read { manifest, warnings } = read(given(&store, request.id, request.data).await?).await?;
    let (now_ms, gateway) = (now_ms(), of.device_id);
    let make = move |c: &Connection| {
        let preview = facts(c, &states, &gateway)?.preview(&manifest, now_ms);
        let twins = changed_twins(c, &gateway, &manifest)?;
        let DeploymentPreview { modules, routes, unknown } = preview;
        let mut counts: BTreeMap<&'static str, u64> = EFFECTS.iter().map(|(_, name)| (*name, 0)).collect();
        for module in &modules {
            *counts.entry(effect_name(module.effect)).or_default() += 1;
        }
        Ok::<_, ServiceError>(PreviewBody {
            counts,
            modules: modules.into_iter().map(Into::into).collect(),
            routes: routes.into_iter().map(Into::into).collect(),
            twins,
            warnings,
            unknown,
        })
    };
    Ok(Json(store.read(make).await?))
}

/// A manifest's routes, and a message.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct RouteTestRequest {
    /// A stored manifest.
    id: Option<String>,
    /// An IoT Edge deployment manifest, `modulesContent` on top.
    data: Option<Value>,
    /// The gateway on which the message arrives: modules of `message.from` are its own. The sender's device when left out.
    #[schema(value_type = Option<String>)]
    gateway: Option<DeviceId>,
    /// `from` (`device` or `device/module`); and `output`, `topic`, `twinChange`, `properties`, `systemProperties`, `body`, `twin`, as
    /// `edge-agent routes test` reads them.
    #[schema(value_type = Value)]
    message: SampleMessage,
}

/// Where a message would go, and why.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RouteTestBody {
    /// Empty: it would be acknowledged and dropped.
    goes_to: Vec<RouteTargetBody>,
    /// In the order in which they are evaluated.
    routes: Vec<RouteResultBody>,
}

/// A place that the message reaches.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RouteTargetBody {
    sink: String,
    /// By which route.
    route: String,
    /// 0 (first) to 9; null without one.
    priority: Option<u32>,
    /// Null: as long as the gateway keeps messages.
    time_to_live_secs: Option<u64>,
}

/// What a route makes of the message.
#[derive(Serialize, ToSchema)]
struct RouteResultBody {
    name: String,
    sink: String,
    /// `matches`, `matches as well`, `other source`, `condition false` or `condition undefined`.
    verdict: String,
    reason: String,
}

fn route_test_body(results: &[RouteResult]) -> RouteTestBody {
    let priority =
        |of: &RouteResult| Some(of.class.priority).filter(|priority| *priority != PRIORITY_DEFAULT);
    let target = |of: &RouteResult| RouteTargetBody {
        sink: of.sink.to_string(),
        route: of.route.clone(),
        priority: priority(of),
        time_to_live_secs: of.time_to_live_ms.map(|ms| ms / 1000),
    };
    let result = |of: &RouteResult| RouteResultBody {
        name: of.route.clone(),
        sink: of.sink.to_string(),
        verdict: of.verdict.to_string(),
        reason: of.reason.clone(),
    };
    RouteTestBody {
        goes_to: results.iter().filter(|of| of.verdict == Verdict::Matches).map(target).collect(),
        routes: results.iter().map(result).collect(),
    }
}

/// Says where the routes of a manifest would send a message, and why. Sends nothing.
#[utoipa::path(post, path = "/api/ext/routes/test", tag = "ext", request_body = RouteTestRequest,
    security(("token" = [])),
    responses((status = 200, body = RouteTestBody), (status = 404, body = ErrorBody),
        (status = 422, description = "names the field, what was found and what is allowed", body = ErrorBody)))]
pub(super) async fn test_routes(
    State(store): State<Store>,
    Body(request): Body<RouteTestRequest>,
) -> Answer<Json<RouteTestBody>> {
    let RouteTestRequest { id, data, gateway, message } = request;
    let Read { manifest, .. } = read(given(&store, id, data).await?).await?;
    let explained = checking::check(move || {
        let (_, table, _) = edge_core::deploy::take(&manifest);
        Ok(message.explain(&table, gateway))
    });
    let results =
        explained.await?.map_err(|error| ApiError::unprocessable(format!("message.{}", chain(&error))))?;
    Ok(Json(route_test_body(&results)))
}
