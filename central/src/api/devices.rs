//! `/api/devices`: the registry.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use central_core::access::further;
use central_core::access::permission::Permissions;
use rusqlite::Connection;
use schemas::names::ModuleId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::attestation::CredentialsBody;
use super::error::{Answer, ApiError, ErrorBody};
use super::extract::{ApiVersion, Body, OfDevice, StrictPath, StrictQuery};
use super::links::ListAddress;
use super::list::Page;
use super::paging::{Conditions, Paging};
use crate::access::admission::Admission;
use crate::deployments::assignment::Assignment;
use crate::error::{ServiceError, no_device};
use crate::lookup;
use crate::people::caller::Caller;
use crate::registry::registration::Registration;
use crate::registry::service::Registry;
use crate::services::Services;
use crate::store::Store;
use crate::store::devices::{self, Device};
use crate::store::{manifests, page};
use crate::types::organizations::Organizations;
use crate::types::precondition::Precondition;
use crate::types::single_line::{DisplayName, TemplateId};
use crate::types::update::Update;

/// Values for a gateway in `type`: IoT Central's, and those of earlier versions of this API.
const GATEWAY_KINDS: [&str; 3] = ["iotEdge", "edge", "gateway"];

/// A gateway or device, as IoT Central gives it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceBody {
    id: String,
    etag: String,
    display_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    template: Option<String>,
    /// As it was written: central makes no values up.
    simulated: bool,
    /// False when it is blocked.
    enabled: bool,
    /// Whether it has ever connected.
    provisioned: bool,
    /// What it belongs to: one organization, or the whole site when it is left out.
    #[serde(skip_serializing_if = "Organizations::is_empty")]
    #[schema(value_type = Vec<String>, required = false, max_items = 1)]
    organizations: Organizations,
    /// `["iotEdge"]` for a gateway; left out for others.
    #[serde(rename = "type", skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    kind: Vec<DeviceKind>,
    /// Left out when the gateway was given a manifest that is not stored here, unless `expand` asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    deployment_manifest: Option<AssignedManifest>,
}

/// What a device is beside a device.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum DeviceKind {
    /// It is a gateway.
    IotEdge,
}

/// The manifest last assigned to a gateway.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AssignedManifest {
    /// Left out when it is not stored here.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Left out when the stored manifest was deleted since.
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<String>,
    /// As the gateway was given it; the stored one may have changed since. Given when `expand` asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    data: Option<Box<RawValue>>,
}

/// A device's registration. What is left out stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct DeviceRequest {
    /// As in the path, when it is given.
    id: Option<String>,
    /// 1 to 148 characters on one line.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 148)]
    display_name: Option<DisplayName>,
    /// `null` takes it away.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    template: Update<TemplateId>,
    enabled: Option<bool>,
    /// Kept for scripts that set it: central makes no values up.
    simulated: Option<bool>,
    /// What it belongs to: one organization, or the whole site when it is `[]` or `null`.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>, max_items = 1)]
    organizations: Update<Organizations>,
    /// `["iotEdge"]` for a gateway (`edge` and `gateway` are understood too), `[]` for others; only at the first registration.
    #[serde(rename = "type")]
    kind: Option<Vec<String>>,
    /// `null` takes the assignment away; the gateway keeps what it runs until it is given another manifest.
    #[serde(default)]
    #[schema(value_type = Option<AssignmentBody>)]
    deployment_manifest: Update<AssignmentBody>,
    /// As read, to change nothing else than that.
    etag: Option<String>,
    /// Given back by scripts that changed what they read; not compared.
    #[serde(rename = "provisioned")]
    _provisioned: Option<bool>,
}

/// Which manifest a gateway shall have: `id` of a stored one, or `data`. With both, `data` must be what is stored there.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct AssignmentBody {
    /// Of a stored manifest.
    id: Option<String>,
    /// An IoT Edge deployment manifest, `modulesContent` on top.
    data: Option<Value>,
    /// Given back by scripts that changed what they read; not looked at.
    #[serde(rename = "displayName")]
    _display_name: Option<String>,
    /// Given back by scripts that changed what they read; not looked at.
    #[serde(rename = "etag")]
    _etag: Option<String>,
    /// Given back by scripts that changed what they read; not looked at.
    #[serde(rename = "organizations")]
    #[schema(value_type = Option<Vec<String>>, max_items = 1)]
    _organizations: Option<Organizations>,
}

impl AssignmentBody {
    fn assignment(self) -> Result<Assignment, ApiError> {
        match (self.id, self.data) {
            (Some(id), None) => Ok(Assignment::Stored(id)),
            (None, Some(data)) => Ok(Assignment::Given(data)),
            (Some(id), Some(data)) => Ok(Assignment::Named(id, data)),
            (None, None) => Err(ApiError::unprocessable(
                "deploymentManifest: found neither id nor data; write the id of a stored manifest, or a manifest as data",
            )),
        }
    }
}

impl DeviceRequest {
    fn registration(self, path_id: &str, held: Permissions) -> Result<Registration, ApiError> {
        let wrong = |message: String| Err(ApiError::unprocessable(message));
        if let Some(id) = self.id.filter(|id| id != path_id) {
            return wrong(format!("id: found `{id}`; the path says `{path_id}`"));
        }
        let is_gateway = match self.kind.as_deref() {
            None => None,
            Some(kinds) => match kinds.iter().find(|kind| !GATEWAY_KINDS.contains(&kind.as_str())) {
                Some(kind) => {
                    let allowed = GATEWAY_KINDS.join(", ");
                    return wrong(format!("type: found `{kind}`; allowed are {allowed}"));
                }
                None => Some(!kinds.is_empty()),
            },
        };
        Ok(Registration {
            display_name: self.display_name.map(Into::into),
            template: self.template.try_map(|template| Ok::<_, ApiError>(template.into()))?,
            is_gateway,
            enabled: self.enabled,
            simulated: self.simulated,
            organizations: self.organizations,
            manifest: self.deployment_manifest.try_map(AssignmentBody::assignment)?,
            held,
        })
    }
}

/// Which parts of devices are given in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
pub(super) enum Expand {
    /// The whole manifest of a gateway.
    #[serde(rename = "deploymentManifest")]
    DeploymentManifest,
}

/// What is given in full.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Expanded {
    /// Gives gateways' manifests with their `data`.
    #[param(inline)]
    expand: Option<Expand>,
}

impl Expanded {
    /// Checks that its maker may read what is given in full.
    fn check(self, caller: &Caller) -> Result<(), ApiError> {
        match self.expand {
            Some(Expand::DeploymentManifest) => Ok(caller.also_needs(&further::EXPAND_MANIFEST)?),
            None => Ok(()),
        }
    }
}

fn assigned(
    c: &Connection,
    device: &Device,
    expand: Option<Expand>,
) -> Result<Option<AssignedManifest>, ServiceError> {
    let data = match expand {
        Some(Expand::DeploymentManifest) => manifests::assigned(c, &device.id)?,
        None => None,
    };
    let display_name = match &device.manifest_id {
        Some(id) => manifests::display_name(c, id)?,
        None if data.is_none() => return Ok(None),
        None => None,
    };
    Ok(Some(AssignedManifest { id: device.manifest_id.clone(), display_name, data }))
}

fn body(c: &Connection, device: Device, expand: Option<Expand>) -> Result<DeviceBody, ServiceError> {
    Ok(DeviceBody {
        etag: device.etag(),
        // False while it waits for approval, as in IoT Central; writing true approves it (decision 0052).
        enabled: device.admission() == Admission::Admitted,
        deployment_manifest: assigned(c, &device, expand)?,
        display_name: device.display_name,
        template: device.template,
        simulated: device.simulated,
        provisioned: device.last_seen_ms.is_some(),
        organizations: device.organizations,
        kind: if device.is_gateway { vec![DeviceKind::IotEdge] } else { Vec::new() },
        id: device.id.into(),
    })
}

/// Lists gateways and devices, by id unless another order is asked for.
#[utoipa::path(get, path = "/api/devices", tag = "devices", params(Paging, Conditions, Expanded),
    security(("token" = [])), responses((status = 200, body = Page<DeviceBody>)))]
pub(super) async fn list(
    State(store): State<Store>,
    Extension(caller): Extension<Caller>,
    StrictQuery(paging): StrictQuery<Paging>,
    StrictQuery(conditions): StrictQuery<Conditions>,
    StrictQuery(expanded): StrictQuery<Expanded>,
    address: ListAddress,
) -> Answer<Json<Page<DeviceBody>>> {
    expanded.check(&caller)?;
    let selection = conditions.selection(&paging, &devices::LISTED)?;
    let read = move |c: &Connection| {
        let mut last = None;
        let (found, may_be_more) = devices::select(c, &selection)?;
        let (mut bodies, mut bytes) = (Vec::new(), 0);
        for (device, position) in found {
            // The manifests of gateways are most of a page.
            if bytes >= page::BYTES_MAX {
                return Ok((bodies, last));
            }
            let body = body(c, device, expanded.expand)?;
            let data = body.deployment_manifest.as_ref().and_then(|manifest| manifest.data.as_ref());
            bytes += data.map_or(0, |data| data.get().len());
            bodies.push(body);
            last = Some(position);
        }
        Ok::<_, ServiceError>((bodies, last.filter(|_| may_be_more)))
    };
    let (bodies, position) = store.read(read).await?;
    Ok(Json(Page::continued(bodies, &address, position)))
}

/// One gateway or device.
#[utoipa::path(get, path = "/api/devices/{device_id}", tag = "devices", params(OfDevice, ApiVersion, Expanded),
    security(("token" = [])),
    responses((status = 200, body = DeviceBody), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    State(store): State<Store>,
    Extension(caller): Extension<Caller>,
    StrictPath(of): StrictPath<OfDevice>,
    StrictQuery(query): StrictQuery<Expanded>,
) -> Answer<Json<DeviceBody>> {
    query.check(&caller)?;
    let read = move |c: &Connection| {
        let device = devices::get(c, &of.device_id)?.ok_or_else(|| no_device(&of.device_id))?;
        body(c, device, query.expand)
    };
    Ok(Json(store.read(read).await?))
}

/// Registers a gateway or device, or changes its registration. A new one gets its keys.
#[utoipa::path(put, path = "/api/devices/{device_id}", tag = "devices", params(OfDevice, ApiVersion, Expanded),
    request_body = DeviceRequest, security(("token" = [])),
    responses((status = 200, body = DeviceBody), (status = 422, body = ErrorBody)))]
pub(super) async fn put(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    StrictPath(of): StrictPath<OfDevice>,
    StrictQuery(query): StrictQuery<Expanded>,
    precondition: Precondition,
    Body(request): Body<DeviceRequest>,
) -> Answer<Json<DeviceBody>> {
    register(&services, &caller, of, query, request, Mode { must_exist: false, precondition }).await
}

/// Changes a registration; `deploymentManifest` assigns a manifest to a gateway, or takes the assignment away.
#[utoipa::path(patch, path = "/api/devices/{device_id}", tag = "devices", params(OfDevice, ApiVersion, Expanded),
    request_body = DeviceRequest, security(("token" = [])),
    responses((status = 200, body = DeviceBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn patch(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    StrictPath(of): StrictPath<OfDevice>,
    StrictQuery(query): StrictQuery<Expanded>,
    precondition: Precondition,
    Body(request): Body<DeviceRequest>,
) -> Answer<Json<DeviceBody>> {
    register(&services, &caller, of, query, request, Mode { must_exist: true, precondition }).await
}

/// When a device is registered or changed.
struct Mode {
    must_exist: bool,
    precondition: Precondition,
}

async fn register(
    services: &Services,
    caller: &Caller,
    of: OfDevice,
    query: Expanded,
    mut request: DeviceRequest,
    Mode { must_exist, precondition }: Mode,
) -> Answer<Json<DeviceBody>> {
    query.check(caller)?;
    if !matches!(request.deployment_manifest, Update::Keep) {
        caller.also_needs(&further::ASSIGN_MANIFEST)?;
    }
    let precondition = precondition.with_body(request.etag.take());
    let registration = request.registration(of.device_id.as_str(), caller.permissions)?;
    let device = services.registry.register(of.device_id, registration, must_exist, precondition).await?;
    Ok(Json(services.store.read(move |c| body(c, device, query.expand)).await?))
}

/// Gives a gateway a manifest that is not stored for other gateways. The answer has what the gateway was given.
#[utoipa::path(post, path = "/api/devices/{device_id}/applyDeploymentManifest", tag = "devices",
    params(OfDevice, ApiVersion), request_body = AssignmentBody, security(("token" = [])),
    responses((status = 200, body = AssignedManifest), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn apply_manifest(
    State(services): State<Services>,
    StrictPath(of): StrictPath<OfDevice>,
    precondition: Precondition,
    Body(manifest): Body<AssignmentBody>,
) -> Answer<Json<AssignedManifest>> {
    let device =
        services.deployments.apply_manifest(of.device_id, manifest.assignment()?, precondition).await?;
    let read = move |c: &Connection| assigned(c, &device, Some(Expand::DeploymentManifest));
    let given = services.store.read(read).await?;
    Ok(Json(given.ok_or_else(|| ApiError::internal("the manifest was not noted"))?))
}

/// Deletes a gateway or device with its keys, twins and command history, and disconnects it.
#[utoipa::path(delete, path = "/api/devices/{device_id}", tag = "devices", params(OfDevice, ApiVersion, Expanded),
    security(("token" = [])), responses((status = 204), (status = 404, body = ErrorBody)))]
pub(super) async fn delete(
    State(registry): State<Arc<Registry>>,
    StrictPath(of): StrictPath<OfDevice>,
    precondition: Precondition,
) -> Answer<StatusCode> {
    registry.remove(of.device_id, precondition).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The keys of a gateway or device, or what names its certificates or its TPM.
#[utoipa::path(get, path = "/api/devices/{device_id}/credentials", tag = "devices", params(OfDevice, ApiVersion),
    security(("token" = [])), responses((status = 200, body = CredentialsBody), (status = 404, body = ErrorBody)))]
pub(super) async fn credentials(
    State(services): State<Services>,
    StrictPath(of): StrictPath<OfDevice>,
) -> Answer<Json<CredentialsBody>> {
    let id_scope = services.enrollment.id_scope().to_owned();
    let read = move |c: &Connection| {
        let device = devices::get(c, &of.device_id)?.ok_or_else(|| no_device(&of.device_id))?;
        CredentialsBody::of(device, id_scope)
    };
    Ok(Json(services.store.read(read).await?))
}

/// A module of a gateway.
#[derive(Serialize, ToSchema)]
pub(super) struct ModuleBody {
    /// Gateway and module, unique at central.
    #[serde(rename = "@id")]
    id: String,
    #[serde(rename = "@type")]
    kind: [ModuleType; 2],
    name: String,
    #[serde(rename = "displayName")]
    display_name: String,
}

/// What a module is.
#[derive(Serialize, ToSchema)]
enum ModuleType {
    /// A gateway has it.
    Relationship,
    /// It is a module of IoT Edge.
    #[serde(rename = "SemanticType/EdgeModule")]
    EdgeModule,
}

/// The modules of a gateway, without `$edgeAgent` and `$edgeHub`.
#[utoipa::path(get, path = "/api/devices/{device_id}/modules", tag = "devices", params(OfDevice, ApiVersion),
    security(("token" = [])), responses((status = 200, body = Page<ModuleBody>), (status = 404, body = ErrorBody)))]
pub(super) async fn modules(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfDevice>,
) -> Answer<Json<Page<ModuleBody>>> {
    let device_id = of.device_id.clone();
    let read = move |c: &Connection| {
        devices::get(c, &of.device_id)?.ok_or_else(|| no_device(&of.device_id))?;
        lookup::modules(c, &of.device_id)
    };
    let modules = store.read(read).await?;
    let body = |module: ModuleId| ModuleBody {
        id: format!("{device_id}/{module}"),
        kind: [ModuleType::Relationship, ModuleType::EdgeModule],
        name: module.to_string(),
        display_name: module.to_string(),
    };
    Ok(Json(Page::whole(modules.into_iter().filter(|module| !module.is_system()).map(body).collect())))
}
