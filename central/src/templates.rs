//! What operators do with device templates: publish, change, delete, and make one from what a device sends.

use central_core::model::options::Options;
use central_core::model::parse::parse_documents;
use central_core::model::types::Model;
use central_core::model::{dtmi, problem::Problems};
use central_core::template::generate::{Generated, Observation, Skipped, Source, generate};
use edge_core::twin;
use rusqlite::Connection;
use schemas::names::{DeviceId, Identity};
use serde_json::{Map, Value};

use crate::checking::{self, Checked, TRIES_MAX, changed_meanwhile};
use crate::error::{ServiceError, no_device};
use crate::store::last_values;
use crate::store::templates::{self, DeviceTemplate, TemplateDocument};
use crate::store::twins::{self, Half};
use crate::store::{Store, devices, etag, overview_tiles};
use crate::types::component;
use crate::types::precondition::Precondition;

/// IoT Central's own bound.
const TEMPLATES_MAX: u64 = 1000;
/// What a template is, in `@type`; one of the second list must stand beside it.
const DEFINITION: &str = "ModelDefinition";
const KINDS: [&str; 3] = ["DeviceModel", "EdgeModel", "GatewayModel"];
/// How many versions of a made template are tried before its id counts as taken.
const VERSIONS_MAX: u32 = 1000;

/// A change of a template; `None` leaves the current value.
#[derive(Debug, Clone, Default)]
pub struct TemplateChange {
    pub types: Option<Vec<String>>,
    pub context: Option<Value>,
    pub display_name: Option<String>,
    pub description: Option<String>,
    pub capability_model: Option<Map<String, Value>>,
}

/// What to do with the current capability model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TemplateWrite {
    /// Another one takes its place. The template may be new.
    Replace,
    /// It is merged with the change, as RFC 7396 has it. The template must be there.
    Merge,
}

/// A template that was made from what a device sent.
pub struct MadeTemplate {
    pub template: DeviceTemplate,
    /// What is not in it.
    pub skipped: Vec<Skipped>,
}

/// The error for a template that is not stored.
pub fn no_template(id: &str) -> ServiceError {
    ServiceError::NotFound(format!("device template `{id}` is not stored"))
}

/// Stores a template and publishes it: devices have it from now on.
///
/// # Errors
/// [`ServiceError::Wrong`] with every problem of the model, [`ServiceError::PreconditionFailed`], [`ServiceError::NotFound`] when the
/// template to change is not there, [`ServiceError::Forbidden`] when there are too many.
pub async fn store(
    store: &Store,
    id: String,
    change: TemplateChange,
    write: TemplateWrite,
    precondition: Precondition,
) -> Result<DeviceTemplate, ServiceError> {
    // Checked before the writer's turn; when another change comes in between, it is checked once more.
    for _ in 0..TRIES_MAX {
        let of = id.clone();
        let read = move |c: &Connection| {
            // The revision also of a template that cannot be read, which may be replaced as well.
            Ok::<_, ServiceError>((templates::get(c, &of)?, templates::revision(c, &of)?))
        };
        let (existing, revision) = store.read(read).await?;
        if write == TemplateWrite::Merge && existing.is_none() {
            return Err(no_template(&id));
        }
        precondition.check(existing.as_ref().map(DeviceTemplate::etag).as_deref())?;
        let (of, change) = (id.clone(), change.clone());
        let checked = checking::check(move || {
            let document = match existing {
                Some(existing) => changed(existing.document, change, write),
                None => new(&of, change)?,
            };
            CheckedTemplate::of(of, document)
        });
        let checked = checked.await?;
        let written = store.submit_then(checked.text.len(), move |c| checked.write(c, revision), |_| {});
        if let Checked::Written(template) = written.await? {
            return Ok(template);
        }
    }
    Err(changed_meanwhile("the device template"))
}

/// A template that is right and is not stored yet.
struct CheckedTemplate {
    id: String,
    document: TemplateDocument,
    /// The document as it is stored.
    text: String,
}

impl CheckedTemplate {
    fn of(id: String, document: TemplateDocument) -> Result<Self, ServiceError> {
        check_id(&id)?;
        check_types(&document.types)?;
        let wrong = |problems: Problems| ServiceError::Wrong(format!("capabilityModel: {problems}"));
        model_of(&document).map_err(wrong)?;
        let text = templates::text(&document);
        Ok(Self { id, document, text })
    }

    /// Writes it, if the one that it replaces has this revision; `None`: none is stored.
    fn write(self, c: &Connection, revision: Option<i64>) -> Result<Checked<DeviceTemplate>, ServiceError> {
        let Self { id, document, text } = self;
        if templates::revision(c, &id)? != revision {
            return Ok(Checked::Outdated);
        }
        if revision.is_none() && templates::count(c)? >= TEMPLATES_MAX {
            return Err(ServiceError::Forbidden(format!(
                "{TEMPLATES_MAX} device templates are stored, the most that are allowed; delete one first"
            )));
        }
        let revision = templates::put(c, &id, &document.display_name, &text)?;
        Ok(Checked::Written(DeviceTemplate { id, document, revision }))
    }
}

fn new(id: &str, change: TemplateChange) -> Result<TemplateDocument, ServiceError> {
    let missing = |field: &str, what: &str| ServiceError::Wrong(format!("{field}: missing; write {what}"));
    let types = || missing("@type", "[\"ModelDefinition\", \"DeviceModel\"]");
    let model = || missing("capabilityModel", "an interface in DTDL");
    let capability_model = change.capability_model.ok_or_else(model)?;
    let of_model =
        capability_model.get("displayName").and_then(Value::as_str).filter(|name| !name.is_empty());
    let display_name = change.display_name.unwrap_or_else(|| of_model.unwrap_or(id).to_owned());
    Ok(TemplateDocument {
        types: change.types.ok_or_else(types)?,
        context: change.context,
        display_name,
        description: change.description,
        capability_model,
    })
}

fn changed(mut document: TemplateDocument, change: TemplateChange, write: TemplateWrite) -> TemplateDocument {
    if let Some(types) = change.types {
        document.types = types;
    }
    if let Some(display_name) = change.display_name {
        document.display_name = display_name;
    }
    document.context = change.context.or(document.context);
    document.description = change.description.or(document.description);
    if let Some(model) = change.capability_model {
        match write {
            TemplateWrite::Replace => document.capability_model = model,
            TemplateWrite::Merge => twin::merge(&mut document.capability_model, &model),
        }
    }
    document
}

fn check_id(id: &str) -> Result<(), ServiceError> {
    if dtmi::is_user(id) && id.len() <= dtmi::INTERFACE_LENGTH_MAX {
        return Ok(());
    }
    Err(ServiceError::Wrong(format!(
        "@id: found `{id}`; write a DTMI of up to {} characters such as dtmi:contoso:press;1",
        dtmi::INTERFACE_LENGTH_MAX
    )))
}

fn check_types(types: &[String]) -> Result<(), ServiceError> {
    let has = |name: &str| types.iter().any(|of| of == name);
    if has(DEFINITION) && KINDS.iter().any(|kind| has(kind)) {
        return Ok(());
    }
    Err(ServiceError::Wrong(format!(
        "@type: found {types:?}; write [\"{DEFINITION}\", \"{}\"], or {} in place of the second",
        KINDS[0],
        KINDS[1..].join(" or ")
    )))
}

/// The capability model of a template.
///
/// # Errors
/// Every problem of the model; paths begin at the model.
pub fn model_of(document: &TemplateDocument) -> Result<Model, Problems> {
    let model = Value::Object(document.capability_model.clone());
    parse_documents(std::slice::from_ref(&model), &Options::IOT_CENTRAL)
}

/// What storing a template would do.
pub struct Preview {
    /// The model as it would be, or what is wrong with it.
    pub model: Result<Model, Problems>,
    /// The current model; `None` when the template is new or the stored model cannot be read any more.
    pub before: Option<Model>,
    pub is_new: bool,
    /// Devices that have the template.
    pub devices: u64,
}

/// Says what [`store`] with [`TemplateWrite::Replace`] would do to a template that so many devices have. `existing`: as it is stored.
///
/// # Errors
/// [`ServiceError::Wrong`] for what is wrong beside the model.
pub fn preview(
    existing: Option<DeviceTemplate>,
    devices: u64,
    id: &str,
    change: TemplateChange,
) -> Result<Preview, ServiceError> {
    let is_new = existing.is_none();
    let before = existing.as_ref().and_then(|existing| model_of(&existing.document).ok());
    let document = match existing {
        Some(existing) => changed(existing.document, change, TemplateWrite::Replace),
        None => new(id, change)?,
    };
    check_id(id)?;
    check_types(&document.types)?;
    Ok(Preview { model: model_of(&document), before, is_new, devices })
}

/// Deletes a template that no device has.
///
/// # Errors
/// [`ServiceError::NotFound`], [`ServiceError::PreconditionFailed`], or [`ServiceError::Conflict`] with the first device that has it.
pub async fn remove(store: &Store, id: String, precondition: Precondition) -> Result<(), ServiceError> {
    let work = move |c: &Connection| {
        // Without the document, which may be large.
        let revision = templates::revision(c, &id)?.ok_or_else(|| no_template(&id))?;
        precondition.check(Some(&etag::of_revision(revision)))?;
        if let (devices, Some(first)) = templates::assignments(c, &id)? {
            return Err(ServiceError::Conflict(format!(
                "device template `{id}` is assigned to {devices} devices, `{first}` among them; assign another to them first, \
                 or take it away with \"template\": null"
            )));
        }
        templates::delete(c, &id)?;
        overview_tiles::delete(c, &id)?;
        Ok(())
    };
    store.submit(work).await
}

/// Makes a template from what an unassigned device has sent and reported, and assigns it to the device.
///
/// # Errors
/// [`ServiceError::NotFound`] for the device, [`ServiceError::Conflict`] when it has a template or has sent nothing that can be
/// modelled, [`ServiceError::Wrong`] for an id that is none.
pub async fn make_from_device(
    store: &Store,
    of: DeviceId,
    id: Option<String>,
    display_name: Option<String>,
) -> Result<MadeTemplate, ServiceError> {
    for _ in 0..TRIES_MAX {
        let (of, id, display_name) = (of.clone(), id.clone(), display_name.clone());
        let made = store.read(move |c| make(c, &of, id, display_name)).await?;
        let Made { mut device, skipped, template } = made;
        let size_bytes = template.text.len();
        let work = move |c: &Connection| {
            let existing = devices::get(c, &device.id)?.map(|existing| existing.revision);
            if existing != Some(device.revision) {
                return Ok(Checked::Outdated);
            }
            // Only as a new one: a template that took the id meanwhile is not overwritten.
            let Checked::Written(template) = template.write(c, None)? else { return Ok(Checked::Outdated) };
            device.template = Some(template.id.clone());
            devices::put(c, &device)?;
            Ok::<_, ServiceError>(Checked::Written(MadeTemplate { template, skipped }))
        };
        if let Checked::Written(made) = store.submit_then(size_bytes, work, |_| {}).await? {
            tracing::info!(template = made.template.id, "a device template was made from what a device sent");
            return Ok(made);
        }
    }
    Err(changed_meanwhile("the device"))
}

/// A template for a device that is not stored yet.
struct Made {
    device: devices::Device,
    skipped: Vec<Skipped>,
    template: CheckedTemplate,
}

fn make(
    c: &Connection,
    of: &DeviceId,
    id: Option<String>,
    display_name: Option<String>,
) -> Result<Made, ServiceError> {
    let device = devices::get(c, of)?.ok_or_else(|| no_device(of))?;
    if let Some(template) = &device.template {
        return Err(ServiceError::Conflict(format!(
            "device `{of}` has the template `{template}`; take it away first with \"template\": null"
        )));
    }
    let id = match id {
        Some(id) if templates::revision(c, &id)?.is_some() => {
            return Err(ServiceError::Conflict(format!("@id: device template `{id}` is stored already")));
        }
        Some(id) => id,
        None => free_id(c, of)?,
    };
    let display_name = display_name.unwrap_or_else(|| device.display_name.clone());
    let observations = observations(c, of)?;
    let Generated { model, skipped } = generate(&of_model(&id), &display_name, &observations);
    let Value::Object(model) = model else { return Err(no_template(&id)) };
    if model["contents"].as_array().is_none_or(Vec::is_empty) {
        return Err(ServiceError::Conflict(format!(
            "device `{of}` has sent and reported nothing that can be modelled"
        )));
    }
    let document = TemplateDocument {
        types: vec![DEFINITION.to_owned(), KINDS[0].to_owned()],
        context: None,
        display_name,
        description: None,
        capability_model: model,
    };
    Ok(Made { device, skipped, template: CheckedTemplate::of(id, document)? })
}

/// `dtmi:lineside:press_1;1`, in the first version that is free.
fn free_id(c: &Connection, of: &DeviceId) -> Result<String, ServiceError> {
    let characters = of.as_str().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
    // A segment begins with a letter and does not end with an underscore; 60 characters leave space for what follows.
    let segment: String = "d_".chars().chain(characters).take(60).collect();
    let segment = segment.trim_end_matches('_');
    for version in 1..=VERSIONS_MAX {
        let id = format!("dtmi:lineside:{segment};{version}");
        if !templates::exists(c, &id)? {
            return Ok(id);
        }
    }
    Err(ServiceError::Conflict(format!(
        "{VERSIONS_MAX} templates were made from `{of}` already; choose an \"@id\""
    )))
}

/// The id of a template's capability model.
fn of_model(template: &str) -> String {
    let (path, version) = template.split_once(';').unwrap_or((template, "1"));
    format!("{path}:model;{version}")
}

/// What a device itself has sent and reported, and what operators wrote.
fn observations(c: &Connection, of: &DeviceId) -> Result<Vec<Observation>, ServiceError> {
    let mut observations = Vec::new();
    for named in last_values::list(c, of)? {
        if named.from.module.is_some() {
            continue;
        }
        let value = named.value.and_then(|value| serde_json::from_str(value.get()).ok()).unwrap_or_default();
        let component = Some(named.component).filter(|component| !component.is_empty());
        observations.push(Observation { component, name: named.name, value, source: Source::Telemetry });
    }
    let identity = Identity::device(of.clone());
    // The reported value comes first, because the first sample that has a schema decides.
    for half in [Half::Reported, Half::Desired] {
        let section = twins::section(c, &identity, half)?.section;
        for (name, value) in section.properties {
            match value {
                Value::Object(inner) if component::is_component(&Value::Object(inner.clone())) => {
                    let inner = inner.into_iter().filter(|(name, _)| name != component::MARKER);
                    observations
                        .extend(inner.map(|(inner, value)| property(Some(&name), inner, value, half)));
                }
                value => observations.push(property(None, name, value, half)),
            }
        }
    }
    Ok(observations)
}

fn property(component: Option<&str>, name: String, value: Value, half: Half) -> Observation {
    // What a device acknowledges is in `value`.
    let acknowledged = value.get("ac").and(value.get("value")).cloned();
    let writable = acknowledged.is_some() || half == Half::Desired;
    let value = acknowledged.unwrap_or(value);
    Observation {
        component: component.map(str::to_owned),
        name,
        value,
        source: Source::Property { writable },
    }
}
