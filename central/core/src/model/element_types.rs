//! `@type` of an element: its class, and the types beside it.

use serde_json::{Map, Value};

use super::context::Context;
use super::dtmi;
use super::element::Element;
use super::problem::{Problems, Rule};
use super::semantics::{self, TypeTerm};
use super::vocabulary::{self, Class};

/// Reads the types into the element, and gives its class when there is exactly one that may stand here.
pub fn read(
    context: &Context,
    types: Option<Vec<&str>>,
    element: &mut Element,
    classes: &'static [Class],
    inferred: Option<Class>,
    problems: &mut Problems,
) -> Option<Class> {
    let allowed = || classes.iter().map(|class| class.as_str()).collect::<Vec<_>>().join(", ");
    let (id, path) = (element.id.clone(), element.path.clone());
    // Where only one class is possible, the language lets authors omit `@type`.
    let Some(types) = types else {
        if inferred.is_none() {
            let message = format!("`@type` is missing; it must be one of {}", allowed());
            problems.add(Some(&id), &path, Rule::BadType, message);
        }
        return inferred;
    };
    // An element with a wrong type is not read further: properties of that type would be reported as unknown besides.
    let before = problems.count();
    let mut found: Vec<Class> = Vec::new();
    for text in &types {
        match Class::named(text) {
            Some(class) if classes.contains(&class) => {
                if !found.contains(&class) {
                    found.push(class);
                }
            }
            Some(_) => {
                let message = format!("`@type` is {text:?}; it must be one of {}", allowed());
                problems.add(Some(&id), &path, Rule::BadType, message);
            }
            None => read_cotype(context, text, element, &allowed(), problems),
        }
    }
    if let [class] = *found.as_slice() {
        let is_later =
            |text: &&&str| semantics::type_term(text, context.extensions()) == Some(TypeTerm::LaterVersion);
        if let Some(text) = types.iter().find(is_later) {
            let has_values = matches!(class, Class::Property | Class::Telemetry);
            let rule = if has_values { Rule::InvalidCotypeVersion } else { Rule::InvalidCotype };
            let message = format!("`@type` has {text:?}, which is for later versions of the language");
            problems.add(Some(&id), &path, rule, message);
        }
        check_cotypes(element, class, problems);
        return (problems.count() == before).then_some(class);
    }
    let (rule, message) = if found.is_empty() {
        (Rule::BadType, format!("`@type` must have one of {}", allowed()))
    } else {
        (
            Rule::MultipleMaterialTypes,
            format!("`@type` has {} types of elements; one is allowed", found.len()),
        )
    };
    problems.add(Some(&id), &path, rule, message);
    None
}

/// A type beside the element's class.
fn read_cotype(context: &Context, text: &str, element: &mut Element, allowed: &str, problems: &mut Problems) {
    let (rule, message) = if text.is_empty() {
        (Rule::BadType, "`@type` has a value that is no string".to_owned())
    } else if vocabulary::is_other_class(text) {
        (Rule::BadType, format!("`@type` is {text:?}; it must be one of {allowed}"))
    } else {
        match semantics::type_term(text, context.extensions()) {
            Some(TypeTerm::Semantic(semantic)) => {
                if !element.semantic_types.contains(&semantic) {
                    element.semantic_types.push(semantic);
                }
                return;
            }
            Some(TypeTerm::Abstract) => (
                Rule::AbstractType,
                format!("`@type` has {text:?}, which is a kind of types and none itself"),
            ),
            Some(TypeTerm::Unit) => {
                (Rule::BadType, format!("`@type` is {text:?}, a type of units; it must be one of {allowed}"))
            }
            Some(TypeTerm::BesideUnit) => {
                (Rule::InvalidCotype, format!("`@type` has {text:?}, which units alone have"))
            }
            // Reported when the class is known.
            Some(TypeTerm::LaterVersion) => return,
            None if text.starts_with("dtmi:") && !dtmi::is_user(text) => {
                (Rule::TypeInvalidDtmi, format!("`@type` has {text:?}, which is no DTMI"))
            }
            None => {
                let is_irrelevant = text.starts_with("dtmi:")
                    || vocabulary::is_term_without_type(text, context.has_iot_central());
                // An unknown context can define any term, so such a type is an error only where all contexts are known.
                if !(is_irrelevant && context.is_complete()) {
                    element.other_types.push(text.to_owned());
                    return;
                }
                (Rule::TypeIrrelevant, format!("`@type` has {text:?}, which is no type"))
            }
        }
    };
    problems.add(Some(&element.id), &element.path, rule, message);
}

fn check_cotypes(element: &Element, class: Class, problems: &mut Problems) {
    if class == Class::Telemetry || class == Class::Property {
        let with_unit = element.semantic_types.iter().filter(|semantic| semantic.unit_type().is_some());
        if with_unit.count() > 1 {
            let message = "`@type` has two semantic types, each with a unit of its own";
            problems.add(Some(&element.id), &element.path, Rule::ConflictingTypes, message);
        }
        return;
    }
    for semantic in &element.semantic_types {
        let message = format!(
            "`@type` has {:?}, which Telemetry and Property can have, not {}",
            semantic.name,
            class.as_str()
        );
        problems.add(Some(&element.id), &element.path, Rule::InvalidCotype, message);
    }
}

/// The strings in `@type`; what is none becomes "".
pub fn written(object: &Map<String, Value>) -> Option<Vec<&str>> {
    let types = object.get("@type")?;
    Some(match types {
        // `read_cotype` reports ""; leaving the item out would accept the element without a report.
        Value::Array(items) => items.iter().map(|item| item.as_str().unwrap_or_default()).collect(),
        single => single.as_str().into_iter().collect(),
    })
}
