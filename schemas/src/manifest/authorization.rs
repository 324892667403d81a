//! `mqttBroker.authorizations` of `$edgeHub`: who may publish and subscribe on free topics.
//!
//! The section is of schema 1.2, whose MQTT broker Azure had in a preview and dropped; IoT Edge still reads it and does
//! nothing with it. Here it is in force.

use serde_json::Value;

use super::error::ManifestError;
use super::field::{Field, Object, kind};

/// Statements in one manifest; each client's rights are read from all of them.
const STATEMENTS_MAX: usize = 1_000;

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// Whom it means: identities as they print, or variables.
    pub identities: Vec<String>,
    /// What they may do.
    pub allow: Vec<Rule>,
    /// What they may not do; comes before `allow`.
    pub deny: Vec<Rule>,
}

/// Operations and the topics they are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// At least one.
    pub operations: Vec<Operation>,
    /// Topic filters with variables; empty only for [`Operation::Connect`] alone.
    pub resources: Vec<String>,
}

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `mqtt:connect`
    Connect,
    /// `mqtt:publish`
    Publish,
    /// `mqtt:subscribe`
    Subscribe,
}

/// The variables that may stand in identities and resources.
pub const VARIABLES: [&str; 7] = [
    "iot:identity",
    "iot:device_id",
    "iot:module_id",
    "iot:client_id",
    "iot:this_device_id",
    "mqtt:client_id",
    "mqtt:username",
];

pub(super) fn authorizations(hub: &Object<'_>) -> Result<Vec<Authorization>, ManifestError> {
    let Some(broker) = hub.object("mqttBroker")? else { return Ok(Vec::new()) };
    let Some(list) = broker.get("authorizations") else { return Ok(Vec::new()) };
    let statements = items(&list, "write an array of {identities, allow, deny}")?;
    if statements.len() > STATEMENTS_MAX {
        let found = format!("{} statements", statements.len());
        return Err(list.refuse(found, format!("{STATEMENTS_MAX} are allowed")));
    }
    statements.into_iter().map(|field| statement(&field.object()?)).collect()
}

fn statement(object: &Object<'_>) -> Result<Authorization, ManifestError> {
    const IDENTITIES: &str = "write an array of identities, for example \"{{iot:identity}}\" or \"press-1\"";
    let list = object.require("identities", IDENTITIES)?;
    let identities = items(&list, IDENTITIES)?;
    if identities.is_empty() {
        return Err(list.refuse("an empty array", IDENTITIES));
    }
    let identities = identities.iter().map(|field| checked(field, IDENTITIES)).collect::<Result<_, _>>()?;
    let rules = |key| match object.get(key) {
        None => Ok(Vec::new()),
        Some(field) => {
            let rules = items(&field, "write an array of {operations, resources}")?;
            rules.into_iter().map(|field| rule(&field.object()?)).collect::<Result<Vec<_>, _>>()
        }
    };
    let (allow, deny) = (rules("allow")?, rules("deny")?);
    if allow.is_empty() && deny.is_empty() {
        return Err(ManifestError {
            path: object.path.clone(),
            found: "neither allow nor deny".into(),
            allowed: "write at least one rule".into(),
        });
    }
    Ok(Authorization { identities, allow, deny })
}

fn rule(object: &Object<'_>) -> Result<Rule, ManifestError> {
    const OPERATIONS: &str = "allowed are \"mqtt:connect\", \"mqtt:publish\" and \"mqtt:subscribe\"";
    const RESOURCES: &str = "write an array of topic filters, for example \"line1/+/temperature\"";
    let list = object.require("operations", OPERATIONS)?;
    let operations = items(&list, OPERATIONS)?
        .iter()
        .map(|field| match field.text()?.to_ascii_lowercase().as_str() {
            "mqtt:connect" => Ok(Operation::Connect),
            "mqtt:publish" => Ok(Operation::Publish),
            "mqtt:subscribe" => Ok(Operation::Subscribe),
            _ => Err(field.refuse(field.quoted(), OPERATIONS)),
        })
        .collect::<Result<Vec<_>, _>>()?;
    if operations.is_empty() {
        return Err(list.refuse("an empty array", OPERATIONS));
    }
    let resources = match object.get("resources") {
        None => Vec::new(),
        Some(field) => {
            let fields = items(&field, RESOURCES)?;
            fields.iter().map(|field| resource(field)).collect::<Result<Vec<_>, _>>()?
        }
    };
    if resources.is_empty() && operations.iter().any(|operation| *operation != Operation::Connect) {
        let path = object.path_of("resources");
        return Err(ManifestError { path, found: "nothing".into(), allowed: RESOURCES.into() });
    }
    Ok(Rule { operations, resources })
}

fn resource(field: &Field<'_>) -> Result<String, ManifestError> {
    const ALLOWED: &str = "write a topic filter: + and # are whole levels, # the last, and no free topic begins with $ or devices/";
    let text = checked(field, ALLOWED)?;
    let mut levels = text.split('/').peekable();
    let mut is_right =
        !text.is_empty() && !text.contains('\0') && !text.starts_with('$') && !text.starts_with("devices/");
    while let Some(level) = levels.next() {
        is_right &= match level {
            "#" => levels.peek().is_none(),
            "+" => true,
            level => !level.contains(['+', '#']),
        };
    }
    if is_right { Ok(text) } else { Err(field.refuse(field.quoted(), ALLOWED)) }
}

/// A text whose variables are known.
fn checked(field: &Field<'_>, allowed: &str) -> Result<String, ManifestError> {
    let text = field.text().map_err(|_| field.refuse(kind(field.value), allowed))?;
    let mut rest = text;
    while let Some((_, behind)) = rest.split_once("{{") {
        let variable = behind.split_once("}}").filter(|(name, _)| VARIABLES.contains(&name.trim()));
        let Some((_, after)) = variable else {
            let allowed =
                format!("the variables are {}", VARIABLES.map(|name| format!("{{{{{name}}}}}")).join(", "));
            return Err(field.refuse(field.quoted(), allowed));
        };
        rest = after;
    }
    Ok(text.to_owned())
}

fn items<'a>(field: &Field<'a>, allowed: &str) -> Result<Vec<Field<'a>>, ManifestError> {
    let Value::Array(values) = field.value else { return Err(field.refuse(kind(field.value), allowed)) };
    let item = |(n, value)| Field { path: format!("{}[{n}]", field.path), value };
    Ok(values.iter().enumerate().map(item).collect())
}
