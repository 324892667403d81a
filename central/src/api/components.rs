//! `…/components/{name}/…`: components of a device's or module's model (IoT Plug and Play), each with its own properties and
//! commands.
//!
//! central has no models. A component is what the twin says is one, by `"__t": "c"` in an object at its top, and what a message
//! names in `$.sub`. A command of one is the method `component*command`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use schemas::names::{DeviceId, Identity, ModuleId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::commands::{CommandBody, CommandRequest, call, past};
use super::error::{Answer, ErrorBody};
use super::extract::{ApiVersion, Body, JsonBytes, OfDevice, OfModule, StrictPath, StrictQuery, Unmodeled};
use super::list::Page;
use super::properties::{Properties, check_module, desire, shown};
use super::telemetry::{LastValue, last};
use crate::deployments::service::DesiredChange;
use crate::error::ServiceError;
use crate::lookup::require;
use crate::people::caller::Caller;
use crate::services::Services;
use crate::store::Store;
use crate::store::twins::{self, Half};
use crate::types::component::{ComponentName, has_component};

/// `/api/devices/{device_id}/components/{component_name}/…`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfComponent {
    /// A gateway or device.
    #[param(value_type = String)]
    device_id: DeviceId,
    /// A component of its model.
    #[param(value_type = String)]
    component_name: ComponentName,
}

/// `/api/devices/{device_id}/modules/{module_name}/components/{component_name}/…`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfModuleComponent {
    /// Id of the gateway.
    #[param(value_type = String)]
    device_id: DeviceId,
    /// One of its modules.
    #[param(value_type = String)]
    module_name: ModuleId,
    /// A component of the module's model.
    #[param(value_type = String)]
    component_name: ComponentName,
}

/// `/api/devices/{device_id}/components/{component_name}/commands/{command_name}`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfComponentCommand {
    /// A gateway or device.
    #[param(value_type = String)]
    device_id: DeviceId,
    /// A component of its model.
    #[param(value_type = String)]
    component_name: ComponentName,
    /// Name of the command, without the name of the component.
    command_name: String,
}

/// `/api/devices/{device_id}/modules/{module_name}/components/{component_name}/commands/{command_name}`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfModuleComponentCommand {
    /// Id of the gateway.
    #[param(value_type = String)]
    device_id: DeviceId,
    /// One of its modules.
    #[param(value_type = String)]
    module_name: ModuleId,
    /// A component of the module's model.
    #[param(value_type = String)]
    component_name: ComponentName,
    /// Name of the command, without the name of the component.
    command_name: String,
}

/// `/api/devices/{device_id}/components/{component_name}/telemetry/{telemetry_name}`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfComponentValue {
    /// A gateway or device.
    #[param(value_type = String)]
    device_id: DeviceId,
    /// A component of its model.
    #[param(value_type = String)]
    component_name: ComponentName,
    /// A name at the top of the messages' JSON bodies.
    telemetry_name: String,
}

/// `/api/devices/{device_id}/modules/{module_name}/components/{component_name}/telemetry/{telemetry_name}`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfModuleComponentValue {
    /// Id of the gateway.
    #[param(value_type = String)]
    device_id: DeviceId,
    /// One of its modules.
    #[param(value_type = String)]
    module_name: ModuleId,
    /// A component of the module's model.
    #[param(value_type = String)]
    component_name: ComponentName,
    /// A name at the top of the messages' JSON bodies.
    telemetry_name: String,
}

/// A component of a device or module, found in its twin.
#[derive(Serialize, ToSchema)]
pub struct ComponentBody {
    /// Device, module and component, unique at central.
    #[serde(rename = "@id")]
    id: String,
    #[serde(rename = "@type")]
    kind: [ComponentType; 1],
    name: ComponentName,
    #[serde(rename = "displayName")]
    display_name: ComponentName,
}

/// What a component is.
#[derive(Serialize, ToSchema)]
enum ComponentType {
    /// It is a component of a model.
    Component,
}

async fn list_of(store: &Store, of: Identity) -> Answer<Json<Page<ComponentBody>>> {
    let owner = of.clone();
    let names = store
        .read(move |c| {
            require(c, &of)?;
            Ok::<_, ServiceError>(twins::components(c, &of)?)
        })
        .await?;
    let body = |name: ComponentName| ComponentBody {
        id: format!("{owner}/{name}"),
        kind: [ComponentType::Component],
        display_name: name.clone(),
        name,
    };
    Ok(Json(Page::whole(names.into_iter().map(body).collect())))
}

/// The properties of a component, which the twin must have.
async fn shown_of(store: &Store, of: Identity, component: ComponentName) -> Answer<Json<Properties>> {
    let (owner, name) = (of.clone(), component.clone());
    store
        .read(move |c| {
            require(c, &owner)?;
            let has = |half| {
                Ok::<_, ServiceError>(has_component(&twins::section(c, &owner, half)?.section, name.as_str()))
            };
            if has(Half::Desired)? || has(Half::Reported)? {
                return Ok(());
            }
            Err(ServiceError::NotFound(format!("the twin of `{owner}` has no component `{name}`")))
        })
        .await?;
    shown(store, of, Some(&component)).await
}

/// Lists the components of a device.
#[utoipa::path(get, path = "/api/devices/{device_id}/components", tag = "components", params(OfDevice, ApiVersion),
    security(("token" = [])), responses((status = 200, body = Page<ComponentBody>), (status = 404, body = ErrorBody)))]
pub(super) async fn list(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfDevice>,
) -> Answer<Json<Page<ComponentBody>>> {
    list_of(&store, of.into()).await
}

/// Lists the components of a module.
#[utoipa::path(get, path = "/api/devices/{device_id}/modules/{module_name}/components", tag = "components",
    params(OfModule, ApiVersion), security(("token" = [])),
    responses((status = 200, body = Page<ComponentBody>), (status = 404, body = ErrorBody)))]
pub(super) async fn list_of_module(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfModule>,
) -> Answer<Json<Page<ComponentBody>>> {
    list_of(&store, of.into()).await
}

/// The properties of a component of a device.
#[utoipa::path(get, path = "/api/devices/{device_id}/components/{component_name}/properties", tag = "components",
    params(OfComponent, ApiVersion, Unmodeled), security(("token" = [])),
    responses((status = 200, body = Properties), (status = 404, body = ErrorBody)))]
pub(super) async fn properties(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfComponent>,
    _: StrictQuery<Unmodeled>,
) -> Answer<Json<Properties>> {
    shown_of(&store, Identity::device(of.device_id), of.component_name).await
}

/// Merges desired properties of a component of a device; `null` deletes one.
#[utoipa::path(patch, path = "/api/devices/{device_id}/components/{component_name}/properties", tag = "components",
    params(OfComponent, ApiVersion, Unmodeled), request_body = BTreeMap<String, Value>, security(("token" = [])),
    responses((status = 202, body = Properties), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 422, body = ErrorBody)))]
pub(super) async fn patch_properties(
    State(services): State<Services>,
    StrictPath(of): StrictPath<OfComponent>,
    StrictQuery(unmodeled): StrictQuery<Unmodeled>,
    body: JsonBytes,
) -> Answer<(StatusCode, Json<Properties>)> {
    let identity = Identity::device(of.device_id);
    desire(&services, identity, Some(of.component_name), DesiredChange::Merge, unmodeled.is_taken(), &body.0)
        .await
}

/// Replaces the desired properties of a component of a device; those of other components stay.
#[utoipa::path(put, path = "/api/devices/{device_id}/components/{component_name}/properties", tag = "components",
    params(OfComponent, ApiVersion, Unmodeled), request_body = BTreeMap<String, Value>, security(("token" = [])),
    responses((status = 202, body = Properties), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 422, body = ErrorBody)))]
pub(super) async fn put_properties(
    State(services): State<Services>,
    StrictPath(of): StrictPath<OfComponent>,
    StrictQuery(unmodeled): StrictQuery<Unmodeled>,
    body: JsonBytes,
) -> Answer<(StatusCode, Json<Properties>)> {
    let identity = Identity::device(of.device_id);
    desire(
        &services,
        identity,
        Some(of.component_name),
        DesiredChange::Replace,
        unmodeled.is_taken(),
        &body.0,
    )
    .await
}

/// The properties of a component of a module.
#[utoipa::path(get, path = "/api/devices/{device_id}/modules/{module_name}/components/{component_name}/properties",
    tag = "components", params(OfModuleComponent, ApiVersion), security(("token" = [])),
    responses((status = 200, body = Properties), (status = 404, body = ErrorBody)))]
pub(super) async fn properties_of_module(
    State(store): State<Store>,
    Extension(caller): Extension<Caller>,
    StrictPath(of): StrictPath<OfModuleComponent>,
) -> Answer<Json<Properties>> {
    check_module(&caller, &of.module_name)?;
    shown_of(&store, Identity::module(of.device_id, of.module_name), of.component_name).await
}

/// Merges desired properties of a component of a module; `null` deletes one.
#[utoipa::path(patch, path = "/api/devices/{device_id}/modules/{module_name}/components/{component_name}/properties",
    tag = "components", params(OfModuleComponent, ApiVersion), request_body = BTreeMap<String, Value>, security(("token" = [])),
    responses((status = 202, body = Properties), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 422, body = ErrorBody)))]
pub(super) async fn patch_properties_of_module(
    State(services): State<Services>,
    StrictPath(of): StrictPath<OfModuleComponent>,
    body: JsonBytes,
) -> Answer<(StatusCode, Json<Properties>)> {
    let identity = Identity::module(of.device_id, of.module_name);
    desire(&services, identity, Some(of.component_name), DesiredChange::Merge, true, &body.0).await
}

/// Replaces the desired properties of a component of a module; those of other components stay.
#[utoipa::path(put, path = "/api/devices/{device_id}/modules/{module_name}/components/{component_name}/properties",
    tag = "components", params(OfModuleComponent, ApiVersion), request_body = BTreeMap<String, Value>, security(("token" = [])),
    responses((status = 202, body = Properties), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 422, body = ErrorBody)))]
pub(super) async fn put_properties_of_module(
    State(services): State<Services>,
    StrictPath(of): StrictPath<OfModuleComponent>,
    body: JsonBytes,
) -> Answer<(StatusCode, Json<Properties>)> {
    let identity = Identity::module(of.device_id, of.module_name);
    desire(&services, identity, Some(of.component_name), DesiredChange::Replace, true, &body.0).await
}

/// Runs a command of a component of a device and gives its answer.
#[utoipa::path(post, path = "/api/devices/{device_id}/components/{component_name}/commands/{command_name}",
    tag = "components", params(OfComponentCommand, ApiVersion), request_body = CommandRequest, security(("token" = [])),
    responses((status = 201, body = CommandBody), (status = 202, description = "kept, with `validFor`", body = CommandBody),
        (status = 403, description = "as many wait as may", body = ErrorBody),
        (status = 404, description = "unknown or not connected", body = ErrorBody), (status = 422, body = ErrorBody),
        (status = 504, description = "no answer by the deadline", body = ErrorBody)))]
pub(super) async fn run(
    State(services): State<Services>,
    StrictPath(of): StrictPath<OfComponentCommand>,
    Body(body): Body<CommandRequest>,
) -> Answer<(StatusCode, Json<CommandBody>)> {
    let method = of.component_name.method(&of.command_name);
    call(&services, Identity::device(of.device_id), method, body).await
}

/// The last runs of a command of a component of a device, newest first.
#[utoipa::path(get, path = "/api/devices/{device_id}/components/{component_name}/commands/{command_name}",
    tag = "components", params(OfComponentCommand, ApiVersion), security(("token" = [])),
    responses((status = 200, body = Page<CommandBody>), (status = 404, body = ErrorBody)))]
pub(super) async fn history(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfComponentCommand>,
) -> Answer<Json<Page<CommandBody>>> {
    let method = of.component_name.method(&of.command_name);
    past(&store, Identity::device(of.device_id), method).await
}

/// Runs a command of a component of a module and gives its answer.
#[utoipa::path(post,
    path = "/api/devices/{device_id}/modules/{module_name}/components/{component_name}/commands/{command_name}",
    tag = "components", params(OfModuleComponentCommand, ApiVersion), request_body = CommandRequest,
    security(("token" = [])),
    responses((status = 201, body = CommandBody), (status = 202, description = "kept, with `validFor`", body = CommandBody),
        (status = 403, description = "as many wait as may", body = ErrorBody),
        (status = 404, description = "unknown or not connected", body = ErrorBody), (status = 422, body = ErrorBody),
        (status = 504, description = "no answer by the deadline", body = ErrorBody)))]
pub(super) async fn run_of_module(
    State(services): State<Services>,
    StrictPath(of): StrictPath<OfModuleComponentCommand>,
    Body(body): Body<CommandRequest>,
) -> Answer<(StatusCode, Json<CommandBody>)> {
    let method = of.component_name.method(&of.command_name);
    call(&services, Identity::module(of.device_id, of.module_name), method, body).await
}

/// The last runs of a command of a component of a module, newest first.
#[utoipa::path(get,
    path = "/api/devices/{device_id}/modules/{module_name}/components/{component_name}/commands/{command_name}",
    tag = "components", params(OfModuleComponentCommand, ApiVersion), security(("token" = [])),
    responses((status = 200, body = Page<CommandBody>), (status = 404, body = ErrorBody)))]
pub(super) async fn history_of_module(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfModuleComponentCommand>,
) -> Answer<Json<Page<CommandBody>>> {
    let method = of.component_name.method(&of.command_name);
    past(&store, Identity::module(of.device_id, of.module_name), method).await
}

/// The last value of one name in the messages of a component of a device (`$.sub`).
#[utoipa::path(get, path = "/api/devices/{device_id}/components/{component_name}/telemetry/{telemetry_name}",
    tag = "components", params(OfComponentValue, ApiVersion), security(("token" = [])),
    responses((status = 200, body = LastValue), (status = 404, body = ErrorBody)))]
pub(super) async fn telemetry(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfComponentValue>,
) -> Answer<Json<LastValue>> {
    let component = Some(of.component_name.to_string());
    last(&store, Identity::device(of.device_id), component, of.telemetry_name).await
}

/// The last value of one name in the messages of a component of a module (`$.sub`).
#[utoipa::path(get,
    path = "/api/devices/{device_id}/modules/{module_name}/components/{component_name}/telemetry/{telemetry_name}",
    tag = "components", params(OfModuleComponentValue, ApiVersion), security(("token" = [])),
    responses((status = 200, body = LastValue), (status = 404, body = ErrorBody)))]
pub(super) async fn telemetry_of_module(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfModuleComponentValue>,
) -> Answer<Json<LastValue>> {
    let component = Some(of.component_name.to_string());
    last(&store, Identity::module(of.device_id, of.module_name), component, of.telemetry_name).await
}
