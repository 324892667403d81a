//! `/api/deviceTemplates`: device templates. Each that is stored is published.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use central_core::access::further;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::error::{Answer, ApiError, ErrorBody};
use super::extract::{ApiVersion, Body, OfDevice, StrictPath, StrictQuery};
use super::links::ListAddress;
use super::list::Page;
use super::paging::{Conditions, Paging};
use crate::error::ServiceError;
use crate::people::caller::Caller;
use crate::store::Store;
use crate::store::templates::{self as stored, DeviceTemplate};
use crate::templates::{self, TemplateChange, TemplateWrite, no_template};
use crate::types::precondition::Precondition;
use crate::types::single_line::DisplayName;

/// `/api/deviceTemplates/{template_id}`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfTemplate {
    /// A DTMI, chosen by the operator.
    pub(super) template_id: String,
}

/// A device template, as IoT Central gives it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateBody {
    #[serde(rename = "@id")]
    id: String,
    #[serde(rename = "@type")]
    types: Vec<String>,
    #[serde(rename = "@context", skip_serializing_if = "Option::is_none")]
    context: Option<Value>,
    etag: String,
    display_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// An interface in DTDL version 2, as it was given.
    capability_model: Map<String, Value>,
}

impl From<DeviceTemplate> for TemplateBody {
    fn from(of: DeviceTemplate) -> Self {
        let etag = of.etag();
        Self {
            id: of.id,
            types: of.document.types,
            context: of.document.context,
            etag,
            display_name: of.document.display_name,
            description: of.document.description,
            capability_model: of.document.capability_model,
        }
    }
}

/// A device template to store. What is left out stays as it is; a new one needs `@type` and `capabilityModel`.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct TemplateUpdate {
    /// As in the path, when it is given.
    #[serde(rename = "@id")]
    id: Option<String>,
    /// `["ModelDefinition", "DeviceModel"]`; `EdgeModel` or `GatewayModel` in place of the second for gateways.
    #[serde(rename = "@type")]
    types: Option<Vec<String>>,
    /// Kept as it is written: the model's own `@context` counts, and IoT Central's is implied.
    #[serde(rename = "@context")]
    context: Option<Value>,
    /// 1 to 148 characters on one line; the model's when it is left out.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 148)]
    display_name: Option<DisplayName>,
    description: Option<String>,
    /// An interface in DTDL version 2, those that it extends and has as components in it.
    capability_model: Option<Map<String, Value>>,
    /// As read, to change nothing else than that.
    etag: Option<String>,
}

impl TemplateUpdate {
    pub(super) fn change(self, path_id: &str) -> Result<TemplateChange, ApiError> {
        if let Some(other) = self.id.filter(|other| other != path_id) {
            return Err(ApiError::unprocessable(format!("@id: found `{other}`; the path says `{path_id}`")));
        }
        Ok(TemplateChange {
            types: self.types,
            context: self.context,
            display_name: self.display_name.map(Into::into),
            description: self.description,
            capability_model: self.capability_model,
        })
    }
}

/// Lists device templates, by id unless another order is asked for.
#[utoipa::path(get, path = "/api/deviceTemplates", tag = "deviceTemplates", params(Paging, Conditions),
    security(("token" = [])), responses((status = 200, body = Page<TemplateBody>)))]
pub(super) async fn list(
    State(store): State<Store>,
    StrictQuery(paging): StrictQuery<Paging>,
    StrictQuery(conditions): StrictQuery<Conditions>,
    address: ListAddress,
) -> Answer<Json<Page<TemplateBody>>> {
    let selection = conditions.selection(&paging, &stored::LISTED)?;
    let read = move |c: &Connection| Ok::<_, ServiceError>(stored::select(c, &selection)?);
    let (found, position) = store.read(read).await?;
    let bodies = found.into_iter().map(TemplateBody::from).collect();
    Ok(Json(Page::continued(bodies, &address, position)))
}

/// One device template.
#[utoipa::path(get, path = "/api/deviceTemplates/{template_id}", tag = "deviceTemplates", params(OfTemplate, ApiVersion),
    security(("token" = [])), responses((status = 200, body = TemplateBody), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfTemplate>,
) -> Answer<Json<TemplateBody>> {
    let read =
        move |c: &Connection| stored::get(c, &of.template_id)?.ok_or_else(|| no_template(&of.template_id));
    Ok(Json(store.read(read).await?.into()))
}

/// Stores a device template and publishes it. Of one that is there, what is left out stays as it is.
#[utoipa::path(put, path = "/api/deviceTemplates/{template_id}", tag = "deviceTemplates", params(OfTemplate, ApiVersion),
    request_body = TemplateUpdate, security(("token" = [])),
    responses((status = 200, body = TemplateBody),
        (status = 422, description = "names every problem of the model: element, path and rule", body = ErrorBody)))]
pub(super) async fn put(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfTemplate>,
    precondition: Precondition,
    Body(update): Body<TemplateUpdate>,
) -> Answer<Json<TemplateBody>> {
    write(&store, of, update, TemplateWrite::Replace, precondition).await
}

/// Changes a device template and publishes it. Objects are merged, arrays are replaced (RFC 7396).
#[utoipa::path(patch, path = "/api/deviceTemplates/{template_id}", tag = "deviceTemplates", params(OfTemplate, ApiVersion),
    request_body = TemplateUpdate, security(("token" = [])),
    responses((status = 200, body = TemplateBody), (status = 404, body = ErrorBody),
        (status = 422, description = "names every problem of the model: element, path and rule", body = ErrorBody)))]
pub(super) async fn patch(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfTemplate>,
    precondition: Precondition,
    Body(update): Body<TemplateUpdate>,
) -> Answer<Json<TemplateBody>> {
    write(&store, of, update, TemplateWrite::Merge, precondition).await
}

async fn write(
    store: &Store,
    of: OfTemplate,
    mut update: TemplateUpdate,
    how: TemplateWrite,
    precondition: Precondition,
) -> Answer<Json<TemplateBody>> {
    let precondition = precondition.with_body(update.etag.take());
    let change = update.change(&of.template_id)?;
    Ok(Json(templates::store(store, of.template_id, change, how, precondition).await?.into()))
}

/// Deletes a device template that no device has.
#[utoipa::path(delete, path = "/api/deviceTemplates/{template_id}", tag = "deviceTemplates",
    params(OfTemplate, ApiVersion), security(("token" = [])),
    responses((status = 204), (status = 404, body = ErrorBody),
        (status = 409, description = "a device has it", body = ErrorBody)))]
pub(super) async fn delete(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfTemplate>,
    precondition: Precondition,
) -> Answer<StatusCode> {
    templates::remove(&store, of.template_id, precondition).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a template that is made is called.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct MakeTemplate {
    /// A DTMI; made of the device's id when it is left out.
    #[serde(rename = "@id")]
    id: Option<String>,
    /// The device's when it is left out.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 148)]
    display_name: Option<DisplayName>,
}

/// A template that was made from what a device sent.
#[derive(Serialize, ToSchema)]
pub(super) struct MadeTemplateBody {
    template: TemplateBody,
    /// What the device sent and the template does not have.
    skipped: Vec<SkippedBody>,
}

/// A name that is not in a template that was made.
#[derive(Serialize, ToSchema)]
struct SkippedBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    component: Option<String>,
    name: String,
    why: &'static str,
}

/// Makes a device template from the values and properties of a device without a template, publishes it, and assigns it to the
/// device.
#[utoipa::path(post, path = "/api/ext/devices/{device_id}/template", tag = "ext", params(OfDevice),
    request_body = MakeTemplate, security(("token" = [])),
    responses((status = 200, body = MadeTemplateBody), (status = 404, body = ErrorBody),
        (status = 409, description = "the device has a template, or has sent nothing", body = ErrorBody)))]
pub(super) async fn make(
    State(store): State<Store>,
    Extension(caller): Extension<Caller>,
    StrictPath(of): StrictPath<OfDevice>,
    Body(template): Body<MakeTemplate>,
) -> Answer<Json<MadeTemplateBody>> {
    caller.also_needs(&further::MAKE_TEMPLATE)?;
    let display_name = template.display_name.map(Into::into);
    let made = templates::make_from_device(&store, of.device_id, template.id, display_name).await?;
    let skipped = made.skipped.into_iter();
    Ok(Json(MadeTemplateBody {
        template: made.template.into(),
        skipped: skipped
            .map(|of| SkippedBody { component: of.component, name: of.name, why: of.why })
            .collect(),
    }))
}
