//! From a document to the desired sections it writes into twins.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::error::{ManifestError, ROOT};
use super::field::{Field, Object};
use crate::json::{DEPTH_MAX, depth, depth_of_members};
use crate::names::ModuleId;

pub(super) const DESIRED: &str = "properties.desired";

/// Gives the desired section that a module has now.
pub(super) type Current<'a> = &'a dyn Fn(&ModuleId) -> Map<String, Value>;

/// Whether a section is written by flat keys alone, which are laid over what the module has.
pub(super) fn has_layer(document: &Value) -> bool {
    modules_content(document).is_ok_and(|modules| {
        modules.fields().any(|(_, content)| {
            content.object().is_ok_and(|content| {
                content.get(DESIRED).is_none() && content.members.keys().any(|key| flat_part(key).is_some())
            })
        })
    })
}

/// The part of a flat key behind `properties.desired.`.
pub(super) fn flat_part(key: &str) -> Option<&str> {
    let (prefix, rest) = key.split_at_checked(DESIRED.len() + 1)?;
    let is_flat = prefix.ends_with('.') && prefix[..DESIRED.len()].eq_ignore_ascii_case(DESIRED);
    is_flat.then_some(rest)
}

pub(super) fn of(
    document: &Value,
    current: Current<'_>,
) -> Result<BTreeMap<ModuleId, Map<String, Value>>, ManifestError> {
    let mut sections = BTreeMap::new();
    for (name, content) in modules_content(document)?.fields() {
        let module: ModuleId =
            name.parse().map_err(|why| content.refuse(format!("a module name: {why}"), "rename it"))?;
        if module.is_system() && module != ModuleId::edge_agent() && module != ModuleId::edge_hub() {
            return Err(content.refuse(
                format!("the module name {name:?}"),
                "of the names that begin with $ only $edgeAgent and $edgeHub are allowed",
            ));
        }
        if let Some(section) = section(&content.object()?, &|| current(&module))? {
            sections.insert(module, section);
        }
    }
    Ok(sections)
}

/// `modulesContent`, which early tools called `moduleContent`.
pub(super) const FORMER_ROOT: &str = "moduleContent";

fn root<'a>(object: &Object<'a>) -> Option<Field<'a>> {
    object.get(ROOT).or_else(|| object.get(FORMER_ROOT))
}

/// The envelope: `modulesContent`, alone or inside `content`.
pub(super) fn modules_content(document: &Value) -> Result<Object<'_>, ManifestError> {
    const ALLOWED: &str =
        "write an object with a key for $edgeAgent, for $edgeHub, and for each module with a twin";
    let top = Field { path: "manifest".into(), value: document }.object()?;
    let inside = match root(&top) {
        Some(field) => Some(field),
        None => top.object("content")?.and_then(|content| root(&content)),
    };
    match inside {
        Some(Field { value, .. }) => Field { path: ROOT.into(), value }.object(),
        None => Err(ManifestError { path: ROOT.into(), found: "nothing".into(), allowed: ALLOWED.into() }),
    }
}

/// `properties.desired`, or else what there is, with the flat keys merged into it; `None` when the document has neither.
fn section(
    content: &Object<'_>,
    current: &dyn Fn() -> Map<String, Value>,
) -> Result<Option<Map<String, Value>>, ManifestError> {
    let mut section = content.object(DESIRED)?.map(|whole| whole.members.clone());
    // Shorter keys first, so that `modules.a` does not wipe out what `modules.a.env` has written.
    let mut flat: Vec<(Vec<&str>, Field<'_>)> = content
        .members
        .iter()
        .filter_map(|(key, value)| Some((flat_part(key)?, Field { path: content.path_of(key), value })))
        // Before anything of that depth is made: to make, compare or drop it would take as much stack.
        .map(|(rest, field)| {
            if rest.split('.').count() + depth(field.value) <= DEPTH_MAX {
                Ok((rest.split('.').collect(), field))
            } else {
                Err(too_deep(&field))
            }
        })
        .collect::<Result<_, _>>()?;
    flat.sort_by_key(|(keys, _)| keys.len());
    for (keys, field) in flat {
        put(section.get_or_insert_with(current), &keys, &field)?;
    }
    if section.as_ref().is_some_and(|section| depth_of_members(section) > DEPTH_MAX) {
        let field =
            content.get(DESIRED).unwrap_or(Field { path: content.path_of(DESIRED), value: &Value::Null });
        return Err(too_deep(&field));
    }
    if section.is_none()
        && let Some(nested) = content.get("properties")
    {
        return Err(nested.refuse("the key `properties`", "write the one flat key `properties.desired`"));
    }
    Ok(section)
}

fn too_deep(field: &Field<'_>) -> ManifestError {
    /// A flat key of many parts is its own path.
    const SHOWN: usize = 200;
    let error = field
        .refuse("JSON nested deeper", format!("{DEPTH_MAX} levels are allowed, the parts of a key counted"));
    match error.path.char_indices().nth(SHOWN) {
        Some((end, _)) => ManifestError { path: format!("{}…", &error.path[..end]), ..error },
        None => error,
    }
}

/// Puts a value at a place, making the objects on the way.
fn put(section: &mut Map<String, Value>, keys: &[&str], field: &Field<'_>) -> Result<(), ManifestError> {
    let (last, parents) = keys.split_last().expect("splitting a text gives at least one part");
    if keys.iter().any(|key| key.is_empty()) {
        return Err(field.refuse("a key with an empty part", "write properties.desired.PART.PART"));
    }
    let mut place = section;
    for (depth, key) in parents.iter().enumerate() {
        // `modules` and `routes` are read without regard to case; what is below them are names.
        let written = place.keys().find(|written| depth == 0 && written.eq_ignore_ascii_case(key)).cloned();
        let key =
            if place.contains_key(*key) { (*key).to_owned() } else { written.unwrap_or((*key).to_owned()) };
        place = place
            .entry(key.as_str())
            .or_insert_with(|| Value::Object(Map::new()))
            .as_object_mut()
            .ok_or_else(|| {
                field.refuse(format!("{key:?} written as a plain value too"), "write it only once")
            })?;
    }
    // As in every desired section, null takes a member away.
    if field.value.is_null() {
        place.remove(*last);
    } else {
        place.insert((*last).to_owned(), field.value.clone());
    }
    Ok(())
}
