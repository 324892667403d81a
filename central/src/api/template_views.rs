//! `/api/ext/deviceTemplates`: device templates as the console shows them, with the devices that have them, and what storing one would do.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use central_core::template::changes::{self, Change};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::device_templates::{OfTemplate, TemplateUpdate};
use super::error::{Answer, ErrorBody};
use super::extract::{Body, StrictPath, StrictQuery};
use super::shown_models::{ShownModel, ShownModels};
use super::template_model::ModelBody;
use crate::checking;
use crate::error::ServiceError;
use crate::store::Store;
use crate::store::templates::{self as stored, TemplateSummary};
use crate::templates::{self, no_template};

/// Names of templates that are not stored, in one answer.
const NOT_STORED_MAX: u32 = 100;

/// Which templates.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TemplateSearch {
    /// In the id or the display name, whatever the case.
    search: Option<String>,
}

/// A device template without its model.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TemplateRow {
    id: String,
    display_name: String,
    /// The number behind the semicolon of its id.
    version: u32,
    organization: String,
    /// How many devices have it.
    devices: u64,
}

impl From<TemplateSummary> for TemplateRow {
    fn from(of: TemplateSummary) -> Self {
        let version = of.id.rsplit_once(';').and_then(|(_, version)| version.parse().ok());
        Self {
            version: version.unwrap_or_default(),
            id: of.id,
            display_name: of.display_name,
            organization: of.organization,
            devices: of.devices,
        }
    }
}

/// A template that devices name.
#[derive(Serialize, ToSchema)]
pub(super) struct NamedTemplate {
    id: String,
    devices: u64,
}

/// Device templates and who has none.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TemplateList {
    value: Vec<TemplateRow>,
    /// Devices without a template.
    unassigned: u64,
    /// Templates that devices name and that are not stored here, the most used first; at most 100.
    not_stored: Vec<NamedTemplate>,
}

/// A device template with its devices and versions.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TemplateView {
    id: String,
    display_name: String,
    description: Option<String>,
    /// `["ModelDefinition", "DeviceModel"]`
    types: Vec<String>,
    organization: String,
    /// How many devices have it.
    devices: u64,
    /// All stored versions, this one included.
    versions: Vec<TemplateRow>,
    #[schema(value_type = ModelBody)]
    model: ShownModel,
}

/// How a capability would change.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TemplateChangeBody {
    /// The component that has it; null for the device itself.
    component: Option<String>,
    name: String,
    text: String,
    /// Whether a value that fitted may not fit any more, or is read otherwise.
    is_breaking: bool,
}

impl From<Change> for TemplateChangeBody {
    fn from(of: Change) -> Self {
        Self { component: of.component, name: of.name, text: of.text, is_breaking: of.is_breaking }
    }
}

/// What storing a template would do.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TemplatePreview {
    is_new: bool,
    /// Devices that have the template: the change would be theirs.
    devices: u64,
    /// All stored versions, with the devices that stay on them.
    versions: Vec<TemplateRow>,
    /// At most 500.
    changes: Vec<TemplateChangeBody>,
    model: ModelBody,
}

/// Lists device templates by name, with the number of their devices.
#[utoipa::path(get, path = "/api/ext/deviceTemplates", tag = "ext", params(TemplateSearch),
    security(("token" = [])), responses((status = 200, body = TemplateList)))]
pub(super) async fn list(
    State(store): State<Store>,
    StrictQuery(search): StrictQuery<TemplateSearch>,
) -> Answer<Json<TemplateList>> {
    let read = move |c: &Connection| {
        let found = stored::summaries(c, &search.search.unwrap_or_default())?;
        let not_stored = stored::not_stored(c, NOT_STORED_MAX)?;
        Ok::<_, ServiceError>(TemplateList {
            value: found.into_iter().map(Into::into).collect(),
            unassigned: stored::unassigned(c)?,
            not_stored: not_stored.into_iter().map(|(id, devices)| NamedTemplate { id, devices }).collect(),
        })
    };
    Ok(Json(store.read(read).await?))
}

fn versions(c: &Connection, id: &str) -> Result<Vec<TemplateRow>, ServiceError> {
    Ok(stored::versions(c, id)?.into_iter().map(Into::into).collect())
}

/// A device template in parts, with its devices and versions.
#[utoipa::path(get, path = "/api/ext/deviceTemplates/{template_id}", tag = "ext", params(OfTemplate),
    security(("token" = [])), responses((status = 200, body = TemplateView), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    State(store): State<Store>,
    Extension(models): Extension<Arc<ShownModels>>,
    StrictPath(of): StrictPath<OfTemplate>,
) -> Answer<Json<TemplateView>> {
    let read = move |c: &Connection| {
        let template = stored::get(c, &of.template_id)?.ok_or_else(|| no_template(&of.template_id))?;
        let versions = versions(c, &template.id)?;
        Ok::<_, ServiceError>((template, versions))
    };
    let (template, versions) = store.read(read).await?;
    // Without a connection of the store, for which others wait.
    let shown = checking::check(move || {
        let model = models.of(&template);
        Ok((template, model))
    });
    let (template, model) = shown.await?;
    let own = versions.iter().find(|row| row.id == template.id);
    let organization = own.map(|row| row.organization.clone()).unwrap_or_default();
    Ok(Json(TemplateView {
        devices: own.map_or(0, |row| row.devices),
        organization,
        versions,
        model,
        id: template.id,
        display_name: template.document.display_name,
        description: template.document.description,
        types: template.document.types,
    }))
}

/// Says what storing a device template as `PUT /api/deviceTemplates/{template_id}` does would change, and for how many devices. Changes
/// nothing; a model that is wrong is answered with its problems.
#[utoipa::path(post, path = "/api/ext/deviceTemplates/{template_id}/preview", tag = "ext", params(OfTemplate),
    request_body = TemplateUpdate, security(("token" = [])), responses((status = 200, body = TemplatePreview)))]
pub(super) async fn preview(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfTemplate>,
    Body(update): Body<TemplateUpdate>,
) -> Answer<Json<TemplatePreview>> {
    let change = update.change(&of.template_id)?;
    let id = of.template_id.clone();
    let read = move |c: &Connection| {
        let (devices, _) = stored::assignments(c, &id)?;
        Ok::<_, ServiceError>((stored::get(c, &id)?, devices, versions(c, &id)?))
    };
    let (existing, devices, versions) = store.read(read).await?;
    // Without a connection of the store, for which others wait.
    let previewed = checking::check(move || {
        let preview = templates::preview(existing, devices, &of.template_id, change)?;
        let changes = match (&preview.before, &preview.model) {
            (Some(before), Ok(after)) => changes::changes(before, after),
            _ => Vec::new(),
        };
        Ok(TemplatePreview {
            is_new: preview.is_new,
            devices: preview.devices,
            versions,
            changes: changes.into_iter().map(Into::into).collect(),
            model: (&preview.model).into(),
        })
    });
    Ok(Json(previewed.await?))
}
