//! `/api/ext/deviceTemplates`: device templates as the console shows them, with the devices that have them, and what storing one would do.

use axum::Json;
use axum::extract::State;
use central_core::model::problem::{Problem, Problems};
use central_core::model::types::Model;
use central_core::template::changes::{self, Change};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::device_templates::{OfTemplate, TemplateUpdate};
use super::error::{Answer, ErrorBody};
use super::extract::{Body, StrictPath, StrictQuery};
use super::template_model::{InterfaceBody, interfaces};
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

/// Something that is wrong with a model.
#[derive(Serialize, ToSchema)]
pub(super) struct ProblemBody {
    /// The `@id` of the element, its own or one that was made for it; null where it has none.
    element: Option<String>,
    /// Where in the capability model: `contents[2].schema`.
    path: String,
    /// As Microsoft's parser names it.
    rule: &'static str,
    /// What is wrong and what is allowed.
    message: String,
}

impl From<Problem> for ProblemBody {
    fn from(of: Problem) -> Self {
        Self { element: of.element, path: of.path, rule: of.rule.as_str(), message: of.message }
    }
}

/// A model in parts, or what is wrong with it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ModelBody {
    interfaces: Vec<InterfaceBody>,
    /// False when the model has more parts than an answer has.
    is_complete: bool,
    problems: Vec<ProblemBody>,
    /// How many problems there are beside those.
    more_problems: usize,
}

impl From<&Result<Model, Problems>> for ModelBody {
    fn from(of: &Result<Model, Problems>) -> Self {
        match of {
            Ok(model) => {
                let (interfaces, is_complete) = interfaces(model);
                Self { interfaces, is_complete, problems: Vec::new(), more_problems: 0 }
            }
            Err(problems) => Self {
                interfaces: Vec::new(),
                is_complete: true,
                problems: problems.told.iter().cloned().map(Into::into).collect(),
                more_problems: problems.more,
            },
        }
    }
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
    model: ModelBody,
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
    StrictPath(of): StrictPath<OfTemplate>,
) -> Answer<Json<TemplateView>> {
    let read = move |c: &Connection| {
        let template = stored::get(c, &of.template_id)?.ok_or_else(|| no_template(&of.template_id))?;
        let versions = versions(c, &template.id)?;
        let own = versions.iter().find(|row| row.id == template.id);
        let organization = own.map(|row| row.organization.clone()).unwrap_or_default();
        Ok::<_, ServiceError>(TemplateView {
            devices: own.map_or(0, |row| row.devices),
            organization,
            versions,
            model: (&templates::model_of(&template.document)).into(),
            id: template.id,
            display_name: template.document.display_name,
            description: template.document.description,
            types: template.document.types,
        })
    };
    Ok(Json(store.read(read).await?))
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
    let read = move |c: &Connection| {
        let preview = templates::preview(c, &of.template_id, change)?;
        let changes = match (&preview.before, &preview.model) {
            (Some(before), Ok(after)) => changes::changes(before, after),
            _ => Vec::new(),
        };
        Ok::<_, ServiceError>(TemplatePreview {
            is_new: preview.is_new,
            devices: preview.devices,
            versions: versions(c, &of.template_id)?,
            changes: changes.into_iter().map(Into::into).collect(),
            model: (&preview.model).into(),
        })
    };
    Ok(Json(store.read(read).await?))
}
