//! From the desired sections of `$edgeAgent` and `$edgeHub` to the types, field by field.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::create_options::{self, Options, Unreadable};
use super::error::{ManifestError, ROOT};
use super::field::{Field, Object, kind};
use super::types::{
    DesiredStatus, EdgeAgent, EdgeHub, FailurePolicy, ImagePullPolicy, Module, PRIORITY_DEFAULT,
    RegistryCredential, RestartPolicy, Route, StartCondition, WhenFull,
};
use super::{authorization, image, start_order};
use crate::names::ModuleId;

/// The last of the keys `createOptions`, `createOptions01` … that hold the parts of a long text.
const CHUNK_LAST: u32 = 99;

fn section<'a>(module: &str, members: &'a Map<String, Value>) -> Object<'a> {
    Object { path: format!("{ROOT}.{module}.properties.desired"), members }
}

/// `1.0`, also written `1` or `1.0.0`, up to the given minor version.
fn schema_version(section: &Object<'_>, minor_max: u32) -> Result<String, ManifestError> {
    let allowed = match minor_max {
        1 => "allowed are \"1.0\" and \"1.1\"".to_owned(),
        _ => format!("allowed are \"1.0\" to \"1.{minor_max}\""),
    };
    let field = section.require("schemaVersion", &allowed)?;
    // The version may be written as a number: 1.0.
    let text = field.plain_text().unwrap_or_default();
    let parts: Option<Vec<u32>> = text.split('.').map(|part| part.parse().ok()).collect();
    match parts.as_deref() {
        Some([1]) => Ok(text.into_owned()),
        Some([1, minor] | [1, minor, 0]) if *minor <= minor_max => Ok(text.into_owned()),
        _ => Err(field.refuse(field.quoted(), allowed)),
    }
}

pub(super) fn edge_agent(members: &Map<String, Value>) -> Result<EdgeAgent, ManifestError> {
    let section = section("$edgeAgent", members);
    let mut edge_agent = EdgeAgent { schema_version: schema_version(&section, 1)?, ..EdgeAgent::default() };
    if let Some(runtime) = section.object("runtime")? {
        check_type(&runtime)?;
        if let Some(settings) = runtime.object("settings")? {
            edge_agent.min_docker_version = settings.text_or_empty("minDockerVersion")?;
            edge_agent.logging_options = settings.text_or_empty("loggingOptions")?;
            if let Some(credentials) = settings.object("registryCredentials")? {
                for (name, field) in credentials.fields() {
                    edge_agent.registry_credentials.insert(name.to_owned(), credential(&field.object()?)?);
                }
            }
        }
    }
    if let Some(system) = section.object("systemModules")? {
        for name in ["edgeAgent", "edgeHub"] {
            if let Some(object) = system.object(name)? {
                // Their images are not checked: these modules never become containers.
                let system_module = module(&object, |image| Some(image.to_owned()))?;
                edge_agent.system_modules.insert(name.to_owned(), system_module);
            }
        }
    }
    if let Some(policy) = section.get("failurePolicy") {
        edge_agent.failure_policy = Some(policy.one_of(FailurePolicy::ALL, FailurePolicy::as_str)?);
    }
    if let Some(modules) = section.object("modules")? {
        for (name, field) in modules.fields() {
            let id = module_name(name, &field)?;
            edge_agent.modules.insert(id, module(&field.object()?, image::normalize)?);
        }
        start_order::check(&edge_agent.modules, &modules.path)?;
    }
    Ok(edge_agent)
}

/// IoT Edge's own rule for names of modules; a dot would be a key of a twin no more.
fn module_name(name: &str, field: &Field<'_>) -> Result<ModuleId, ManifestError> {
    let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    name.parse().ok().filter(|_| name.chars().all(is_inside)).ok_or_else(|| {
        field.refuse(format!("the module name {name:?}"), "write 1 to 128 letters, digits, - and _")
    })
}

fn check_type(object: &Object<'_>) -> Result<(), ManifestError> {
    object.get("type").map(|field| field.one_of(&["docker"], |kind| kind)).transpose()?;
    Ok(())
}

fn credential(object: &Object<'_>) -> Result<RegistryCredential, ManifestError> {
    let required = |key| object.require(key, "a credential has username, password and address");
    let address = required("address")?;
    Ok(RegistryCredential {
        username: required("username")?.plain_text()?.into_owned(),
        password: required("password")?.plain_text()?.into_owned(),
        address: match address.plain_text()?.trim() {
            "" => {
                return Err(address.refuse("an empty text", "write the registry's host, for example ghcr.io"));
            }
            host => host.to_owned(),
        },
    })
}

fn module(object: &Object<'_>, normalize: impl Fn(&str) -> Option<String>) -> Result<Module, ManifestError> {
    check_type(object)?;
    let settings = object.require("settings", "write an object with an image")?.object()?;
    let image = settings.require("image", image::ALLOWED)?;
    let Options { members, misfit, .. } = create_options(&settings)?.unwrap_or_default();
    let options_path = settings.path_of("createOptions");
    Ok(Module {
        image: normalize(image.plain_text()?.trim()).ok_or_else(|| {
            let written = image.value.as_str().unwrap_or_default();
            let allowed = match written {
                _ if written.contains("${") => image::TEMPLATE,
                _ if written.trim_start().starts_with("$upstream") => image::NO_PARENT,
                _ => image::ALLOWED,
            };
            image.refuse(image.quoted(), allowed)
        })?,
        create_options: members,
        create_options_refused: misfit.map(|misfit| ManifestError {
            path: format!("{options_path}.{}", misfit.path),
            found: misfit.found,
            allowed: misfit.allowed.to_owned(),
        }),
        env: environment(object)?,
        status: match object.get("status") {
            Some(field) => status(&field)?,
            None => DesiredStatus::Running,
        },
        restart_policy: match object.get("restartPolicy") {
            Some(field) => field.one_of(RestartPolicy::ALL, RestartPolicy::as_str)?,
            None => RestartPolicy::OnUnhealthy,
        },
        image_pull_policy: match object.get("imagePullPolicy") {
            Some(field) => field.one_of(ImagePullPolicy::ALL, ImagePullPolicy::as_str)?,
            None => ImagePullPolicy::OnCreate,
        },
        startup_order: match object.get("startupOrder") {
            Some(field) => u32::try_from(field.integer(0, u32::MAX.into())?).expect("the range was checked"),
            None => u32::MAX,
        },
        start_after: start_after(object)?,
        version: object.text_or_empty("version")?,
    })
}

/// Whether the named modules are there is checked when all modules were read.
fn start_after(object: &Object<'_>) -> Result<BTreeMap<ModuleId, StartCondition>, ManifestError> {
    let Some(others) = object.object("startAfter")? else { return Ok(BTreeMap::new()) };
    let condition = |(name, field): (&str, Field<'_>)| {
        Ok((module_name(name, &field)?, field.one_of(StartCondition::ALL, StartCondition::as_str)?))
    };
    others.fields().map(condition).collect()
}

fn status(field: &Field<'_>) -> Result<DesiredStatus, ManifestError> {
    let is_other = |other: &str| field.value.as_str().is_some_and(|found| found.eq_ignore_ascii_case(other));
    if ["backoff", "unhealthy", "failed"].into_iter().any(is_other) {
        return Ok(DesiredStatus::Unknown);
    }
    field.one_of(DesiredStatus::ALL, DesiredStatus::as_str)
}

/// Joins the chunks and reads them. An object instead of its text is taken as well: templates have it so.
pub(super) fn create_options(settings: &Object<'_>) -> Result<Option<Options>, ManifestError> {
    const ALLOWED: &str = "write the body of Docker's ContainerCreate as a text of JSON";
    let chunk_key = |index: u32| format!("createOptions{index:02}");
    let Some(first) = settings.get("createOptions") else {
        return match settings.get(&chunk_key(1)) {
            Some(field) => Err(field.refuse("a chunk without createOptions before it", ALLOWED)),
            None => Ok(None),
        };
    };
    if let Value::Object(options) = first.value {
        return Ok(Some(create_options::from_object(options)));
    }
    let mut text = first.text().map_err(|_| first.refuse(kind(first.value), ALLOWED))?.to_owned();
    let mut index = 1;
    while let Some(chunk) = settings.get(&chunk_key(index)).filter(|_| index <= CHUNK_LAST) {
        text.push_str(chunk.text()?);
        index += 1;
    }
    // A gap would cut the options off without an error.
    if let Some(stray) = (index + 1..=CHUNK_LAST).find_map(|later| settings.get(&chunk_key(later))) {
        return Err(stray.refuse(
            format!("a chunk without {} before it", chunk_key(index)),
            "number chunks without gaps",
        ));
    }
    match create_options::from_text(&text) {
        Ok(options) => Ok(Some(options)),
        Err(Unreadable::NotObject(found)) => {
            Err(first.refuse(format!("a text of JSON that holds {found}"), ALLOWED))
        }
        Err(Unreadable::NotJson(why)) => {
            Err(first.refuse(format!("a text that is not JSON ({why})"), ALLOWED))
        }
    }
}

fn environment(module: &Object<'_>) -> Result<BTreeMap<String, String>, ManifestError> {
    let Some(env) = module.object("env")? else { return Ok(BTreeMap::new()) };
    let mut variables = BTreeMap::new();
    for (name, field) in env.fields() {
        // The engine takes variables as `NAME=value`.
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(field.refuse(
                format!("the variable name {name:?}"),
                "a name has at least one character, and no =",
            ));
        }
        // IoT Edge takes a variable without a value for an empty one.
        let Some(value) = field.object()?.get("value") else {
            variables.insert(name.to_owned(), String::new());
            continue;
        };
        let text = match value.value {
            Value::String(text) if text.contains('\0') => {
                return Err(value.refuse("a text with the character U+0000", "leave it out"));
            }
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            other => return Err(value.refuse(kind(other), "write a text, a number, true or false")),
        };
        variables.insert(name.to_owned(), text);
    }
    Ok(variables)
}

pub(super) fn edge_hub(members: &Map<String, Value>) -> Result<EdgeHub, ManifestError> {
    let section = section("$edgeHub", members);
    // Keys with `$` are the twin's own, such as `$version`: such a section is empty.
    if members.keys().all(|key| key.starts_with('$')) {
        return Ok(EdgeHub::default());
    }
    let mut edge_hub = EdgeHub { schema_version: schema_version(&section, 3)?, ..EdgeHub::default() };
    if let Some(routes) = section.object("routes")? {
        for (name, field) in routes.fields() {
            match route(name, &field) {
                Ok(Some(route)) => drop(edge_hub.routes.insert(name.to_owned(), route)),
                Ok(None) => {}
                // A gateway goes on with its other routes (decision 0008).
                Err(refused) => drop(edge_hub.routes_refused.insert(name.to_owned(), refused)),
            }
        }
    }
    if let Some(store) = section.object("storeAndForwardConfiguration")?
        && let Some(field) = store.get("timeToLiveSecs")
    {
        // A negative number stands for as long as there is space.
        edge_hub.time_to_live_secs = u64::try_from(field.integer(i64::from(i32::MIN), u32::MAX.into())?).ok();
    }
    edge_hub.authorizations = authorization::authorizations(&section)?;
    Ok(edge_hub)
}

/// A route as a text or as an object; a blank text is no route (edgeHub skips it too).
fn route(name: &str, field: &Field<'_>) -> Result<Option<Route>, ManifestError> {
    // The name is a key of the twin, and IoT Hub's twins forbid these characters in keys.
    if name.is_empty() || name.contains(['.', '$', '#', ' ']) {
        return Err(field.refuse(
            format!("the route name {name:?}"),
            "a name has at least one character, and no dot, $, # or space",
        ));
    }
    const ALLOWED: &str =
        "write \"FROM … INTO …\", or an object with route, priority, timeToLiveSecs and full";
    let (query, priority, time_to_live_secs, full) = match field.value {
        Value::String(query) => (query.as_str(), PRIORITY_DEFAULT, None, None),
        Value::Object(_) => {
            let object = field.clone().object()?;
            let priority = match object.get("priority") {
                Some(field) => u32::try_from(field.integer(0, 9)?).expect("the range was checked"),
                None => PRIORITY_DEFAULT,
            };
            let time_to_live = match object.get("timeToLiveSecs") {
                Some(field) => {
                    u64::try_from(field.integer(0, u32::MAX.into())?).ok().filter(|secs| *secs > 0)
                }
                None => None,
            };
            let full = match object.get("full") {
                Some(field) => Some(field.one_of(WhenFull::ALL, WhenFull::as_str)?),
                None => None,
            };
            (object.require("route", "write FROM … INTO …")?.text()?, priority, time_to_live, full)
        }
        other => return Err(field.refuse(kind(other), ALLOWED)),
    };
    let query = query.trim();
    Ok((!query.is_empty()).then(|| Route { query: query.to_owned(), priority, time_to_live_secs, full }))
}
