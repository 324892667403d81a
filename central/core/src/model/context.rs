//! `@context`: the version of the language, and the extensions whose terms an element knows.

use serde_json::Value;

use super::dtmi;
use super::problem::Rule;

/// The context of the language in this version.
pub const DTDL: &str = "dtmi:dtdl:context";
/// The context of IoT Central's extension.
pub const IOT_CENTRAL: &str = "dtmi:iotcentral:context";
const VERSION: &str = "2";
/// Later versions, which are known by name alone.
const LATER: [&str; 2] = ["dtmi:dtdl:context;3", "dtmi:dtdl:context;4"];
/// Extensions that are known, by context and version. Of all but IoT Central's only the names of types are known: those are
/// for later versions of the language, and a model of this version that has them gets an error that says so.
const EXTENSIONS: [(&str, &[&str]); 4] = [
    (IOT_CENTRAL, &["2"]),
    ("dtmi:dtdl:extension:historization", &["1", "2"]),
    ("dtmi:dtdl:extension:annotation", &["1", "2"]),
    ("dtmi:dtdl:extension:layering", &["1"]),
];

/// What is in force at an element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    has_dtdl: bool,
    extensions: Vec<&'static str>,
    /// Whether a context is unknown: its terms can be anything.
    has_unknown: bool,
}

/// Why a context is refused.
#[derive(Debug)]
pub struct ContextError {
    pub rule: Rule,
    pub message: String,
}

fn error(rule: Rule, message: impl Into<String>) -> ContextError {
    ContextError { rule, message: message.into() }
}

impl Context {
    /// What IoT Central takes for granted in the model of a device template.
    pub fn of_iot_central() -> Self {
        Self { has_dtdl: true, extensions: vec![IOT_CENTRAL], has_unknown: false }
    }

    pub fn extensions(&self) -> &[&'static str] {
        &self.extensions
    }

    pub fn has_iot_central(&self) -> bool {
        self.extensions.contains(&IOT_CENTRAL)
    }

    pub fn is_complete(&self) -> bool {
        !self.has_unknown
    }

    /// The context of an element inside, from its `@context`.
    ///
    /// # Errors
    /// The first rule that `@context` breaks.
    pub fn of_element(&self, value: Option<&Value>, allow_unknown: bool) -> Result<Self, ContextError> {
        let components = match value {
            None if self.has_dtdl => return Ok(self.clone()),
            None => {
                let message = "`@context` is missing; it must be or begin with \"dtmi:dtdl:context;2\"";
                return Err(error(Rule::MissingContext, message));
            }
            Some(Value::Array(items)) if items.is_empty() && self.has_dtdl => return Ok(self.clone()),
            Some(Value::Array(items)) if items.is_empty() => {
                return Err(error(Rule::EmptyContext, "`@context` is empty"));
            }
            Some(Value::Array(items)) => items.as_slice(),
            Some(single) => std::slice::from_ref(single),
        };
        let mut context = self.clone();
        let mut left = components;
        // IoT Central's context stands for the language's too.
        while let [Value::String(first), rest @ ..] = left {
            if *first != format!("{IOT_CENTRAL};{VERSION}") {
                break;
            }
            context.add(IOT_CENTRAL);
            left = rest;
        }
        // The last of several versions counts.
        while let [Value::String(first), rest @ ..] = left {
            let is_language = |text: &str| text.starts_with("dtmi:dtdl:context;") || text == DTDL;
            if !is_language(first) {
                break;
            }
            let is_last = !rest.first().and_then(Value::as_str).is_some_and(is_language);
            // A document may name other versions of the language before this one; only the last one has to be ours.
            if is_last || !LATER.contains(&first.as_str()) {
                check_language(first)?;
            }
            context.has_dtdl = true;
            left = rest;
        }
        if !context.has_dtdl {
            if let Some(wrong) = components.iter().find(|value| !value.is_string() && !value.is_object()) {
                return Err(error(
                    Rule::InvalidContext,
                    format!("`@context` has {wrong}, which is no string"),
                ));
            }
            let message = "`@context` must begin with \"dtmi:dtdl:context;2\"";
            return Err(error(Rule::MissingDtdlContext, message));
        }
        context.extend(left, allow_unknown)?;
        Ok(context)
    }

    fn add(&mut self, extension: &'static str) {
        if !self.extensions.contains(&extension) {
            self.extensions.push(extension);
        }
    }

    fn extend(&mut self, components: &[Value], allow_unknown: bool) -> Result<(), ContextError> {
        for (index, component) in components.iter().enumerate() {
            let text = match component {
                Value::String(text) => text,
                Value::Object(_) if index + 1 == components.len() => {
                    let message = "terms cannot be defined in `@context` in this version of the language";
                    return Err(error(Rule::LocalContext, message));
                }
                Value::Object(_) => {
                    let message =
                        "terms cannot be defined in `@context`, least of all before another context";
                    return Err(error(Rule::LocalContextNotLast, message));
                }
                other => {
                    return Err(error(
                        Rule::InvalidContext,
                        format!("`@context` has {other}, which is no string"),
                    ));
                }
            };
            self.has_unknown |= !self.add_extension(text, allow_unknown)?;
        }
        Ok(())
    }

    /// Returns false for an extension that is not known, when such are allowed.
    fn add_extension(&mut self, text: &str, allow_unknown: bool) -> Result<bool, ContextError> {
        if text.starts_with(DTDL) {
            let message = format!("{text:?} must stand before all other contexts");
            return Err(error(Rule::DtdlContextFollowsAffiliate, message));
        }
        if !text.starts_with("dtmi:") {
            return Err(error(Rule::NonDtmiContext, format!("{text:?} is no DTMI")));
        }
        if !dtmi::is_any(text) || text.contains('#') {
            return Err(error(Rule::InvalidContextSpecifier, format!("{text:?} is no DTMI of a context")));
        }
        let Some((name, version)) = text.split_once(';') else {
            return Err(error(Rule::MissingContextVersion, format!("{text:?} has no version")));
        };
        if !dtmi::is_user(text) {
            let message =
                format!("{text:?} needs a version of one whole number in this version of the language");
            return Err(error(Rule::InvalidContextSpecifierForVersion, message));
        }
        let known = EXTENSIONS.iter().find(|(known, _)| *known == name);
        if let Some((known, _)) = known.filter(|(_, versions)| versions.contains(&version)) {
            self.add(known);
            return Ok(true);
        }
        if allow_unknown {
            return Ok(false);
        }
        let rule = if known.is_some() { Rule::UnresolvableContextVersion } else { Rule::UnresolvableContext };
        Err(error(rule, format!("{text:?} is not known here")))
    }
}

/// Refuses every version of the language but this one.
fn check_language(text: &str) -> Result<(), ContextError> {
    if !dtmi::is_any(text) {
        return Err(error(Rule::InvalidContextSpecifier, format!("{text:?} is no DTMI of a context")));
    }
    if text.contains('#') {
        let message = format!("{text:?} has a fragment, which this version of the language does not know");
        return Err(error(Rule::ContextFragment, message));
    }
    match text.split_once(';').map(|(_, version)| version) {
        None => Err(error(Rule::MissingContextVersion, format!("{text:?} has no version"))),
        Some(VERSION) => Ok(()),
        Some(version) if version.starts_with("2.") => {
            let message =
                format!("{text:?} needs a version of one whole number in this version of the language");
            Err(error(Rule::InvalidContextSpecifierForVersion, message))
        }
        Some(_) => {
            let message =
                format!("{text:?} is another version of the language; this is \"dtmi:dtdl:context;2\"");
            Err(error(Rule::UnrecognizedContextVersion, message))
        }
    }
}
