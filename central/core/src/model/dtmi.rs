//! Digital twin model identifiers: `dtmi:com:example:Thermostat;1`.

/// The most characters of an identifier in a model.
pub const LENGTH_MAX: usize = 2048;
/// The most characters of an interface's identifier.
pub const INTERFACE_LENGTH_MAX: usize = 128;
/// Identifiers that the language keeps for itself.
pub const RESERVED: [&str; 2] = ["dtmi:dtdl:", "dtmi:standard:"];
/// Identifiers that IoT Central's extension keeps for itself.
pub const RESERVED_BY_IOT_CENTRAL: &str = "dtmi:iotcentral:";

/// A letter, then letters, digits and underscores, not an underscore at the end: the form of `name` and of a segment.
pub fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic()) && is_tail(text)
}

fn is_tail(text: &str) -> bool {
    !text.ends_with('_') && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// As [`is_name`], or one that begins with an underscore: what processors of models make up.
fn is_system_or_name(segment: &str) -> bool {
    segment.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') && is_tail(segment)
}

/// One to `digits` digits, the first not zero.
fn is_number(text: &str, digits: usize) -> bool {
    // A leading zero would give one version two spellings, and identifiers are compared as text.
    !text.starts_with('0')
        && (1..=digits).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns true for an identifier that a model may hold: segments that are names, and a version of one number.
pub fn is_user(text: &str) -> bool {
    let Some((path, version)) = text.strip_prefix("dtmi:").and_then(|rest| rest.split_once(';')) else {
        return false;
    };
    text.len() <= LENGTH_MAX && path.split(':').all(is_name) && is_number(version, 9)
}

/// Returns true for any identifier of the DTMI specification: system segments, no version or a minor version, a fragment.
pub fn is_any(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("dtmi:") else { return false };
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (path, version) = rest.split_once(';').map_or((rest, None), |(path, version)| (path, Some(version)));
    let is_version = |version: &str| match version.split_once('.') {
        None => is_number(version, 9),
        Some((major, minor)) => is_number(major, 9) && is_number(minor, 6),
    };
    path.split(':').all(is_system_or_name)
        && version.is_none_or(is_version)
        && (fragment.is_empty() || is_system_or_name(fragment))
}

/// The identifier of an element without an `@id`: its parent's, with the property and, in sets by name, the name.
pub fn of_child(parent: &str, property: &str, name: Option<&str>) -> String {
    // The parent's identifier was checked or made here, so it always has a version.
    let (path, version) = parent.split_once(';').unwrap_or((parent, "1"));
    let name = name.map(|name| format!(":__{name}")).unwrap_or_default();
    // Segments with an underscore in front are not allowed in a model's own identifiers, so a made one never equals a written
    // one.
    format!("{path}:_{property}{name};{version}")
}

/// The name in an IRI of this version: `name` in `dtmi:dtdl:property:name;2`.
pub fn of_iri<'t>(prefix: &str, iri: &'t str) -> Option<&'t str> {
    iri.strip_prefix(prefix)?.strip_suffix(";2")
}
