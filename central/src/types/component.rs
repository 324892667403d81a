//! Components of models in twins, by the conventions of IoT Plug and Play: an object at the top of a section that is marked with
//! `"__t": "c"`, in every patch of it too.

use std::fmt;
use std::str::FromStr;

use schemas::twin::Section;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// What marks a component.
pub const MARKER: &str = "__t";
/// What the marker is.
const MARKER_VALUE: &str = "c";
/// The longest name; together with a method's name it has at most 100 characters (IoT Hub).
const NAME_CHARS_MAX: usize = 98;

/// The name of a component: a twin's key that may stand before a `*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
pub struct ComponentName(String);

/// A text that is no name of a component.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "component `{0}`: write 1 to {NAME_CHARS_MAX} characters without control characters, blanks and . $ # / + ? *"
)]
pub struct InvalidComponentName(String);

impl FromStr for ComponentName {
    type Err = InvalidComponentName;

    fn from_str(text: &str) -> Result<Self, InvalidComponentName> {
        let is_forbidden = |c: char| c.is_control() || " .$#/+?*".contains(c);
        if (1..=NAME_CHARS_MAX).contains(&text.chars().count()) && !text.contains(is_forbidden) {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidComponentName(text.chars().take(NAME_CHARS_MAX).collect()))
    }
}

impl TryFrom<String> for ComponentName {
    type Error = InvalidComponentName;

    fn try_from(text: String) -> Result<Self, InvalidComponentName> {
        text.parse()
    }
}

impl From<ComponentName> for String {
    fn from(name: ComponentName) -> Self {
        name.0
    }
}

impl fmt::Display for ComponentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ComponentName {
    /// The key in the twin.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The direct method of a command of the component.
    pub fn method(&self, command: &str) -> String {
        format!("{self}*{command}")
    }

    /// The key under which a section keeps when a property of the component changed. No key of a twin has a dot.
    pub fn touched_key(component: &str, property: &str) -> String {
        format!("{component}.{property}")
    }
}

/// Whether a value at the top of a section is a component.
pub fn is_component(value: &Value) -> bool {
    value.get(MARKER).is_some_and(|marker| marker == MARKER_VALUE)
}

/// Whether a section has a component of this name.
pub fn has_component(section: &Section, name: &str) -> bool {
    section.properties.get(name).is_some_and(is_component)
}

/// A marker of a component that is no marker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{MARKER}: found `{0}`; it marks a component, and is \"{MARKER_VALUE}\" or left out")]
pub struct InvalidMarker(String);

/// Marks an object as a component.
///
/// # Errors
/// [`InvalidMarker`] if it has a property in place of the marker.
pub fn set_marker(component: &mut Map<String, Value>) -> Result<(), InvalidMarker> {
    match component.insert(MARKER.to_owned(), MARKER_VALUE.into()) {
        Some(other) if other != MARKER_VALUE => Err(InvalidMarker(other.to_string())),
        _ => Ok(()),
    }
}

/// Marks the objects of a patch that are components of one of the sections: devices know a component in a patch by its marker.
///
/// # Errors
/// As [`set_marker`].
pub fn set_known_markers(
    patch: &mut Map<String, Value>,
    sections: [&Section; 2],
) -> Result<(), InvalidMarker> {
    for (name, value) in patch {
        if let Value::Object(inner) = value
            && sections.iter().any(|section| has_component(section, name))
        {
            set_marker(inner)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_name_that_a_twin_or_a_method_cannot_have_is_refused() {
        let long = "x".repeat(99);
        for wrong in ["", "a b", "a.b", "$a", "a#", "a/b", "a*b", "a\n", &long] {
            assert!(wrong.parse::<ComponentName>().is_err(), "{wrong}");
        }
        let name: ComponentName = "thermostat_1".parse().unwrap();
        assert_eq!(name.method("reboot"), "thermostat_1*reboot");
    }

    #[test]
    fn a_patch_of_a_component_carries_its_marker_and_one_of_anything_else_does_not() {
        let section =
            |properties: Value| Section { version: 1, properties: properties.as_object().unwrap().clone() };
        let desired = section(json!({"a": {"__t": "c", "x": 1}, "plain": {"x": 1}}));
        let reported = section(json!({"b": {"__t": "c"}, "odd": {"__t": 1}, "text": "c"}));
        let mut patch =
            json!({"a": {"x": 2}, "b": {"y": 1}, "plain": {"x": 2}, "odd": {"x": 1}, "text": {}, "new": {}});
        set_known_markers(patch.as_object_mut().unwrap(), [&desired, &reported]).unwrap();
        for marker in [json!(null), json!("d"), json!({"x": 1})] {
            let mut patch = json!({"b": {"__t": marker}});
            assert!(
                set_known_markers(patch.as_object_mut().unwrap(), [&desired, &reported]).is_err(),
                "{marker}"
            );
        }
        assert_eq!(
            patch,
            json!({"a": {"__t": "c", "x": 2}, "b": {"__t": "c", "y": 1}, "plain": {"x": 2}, "odd": {"x": 1}, "text": {}, "new": {}})
        );
    }
}
