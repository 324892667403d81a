//! What every operation of `/openapi.json` has in common: its id, and the answers that are given before its handler is called, or in
//! place of its own.

use std::collections::BTreeSet;

use axum::http::Method;
use utoipa::openapi::path::{Operation, Parameter, PathItem};
use utoipa::openapi::schema::{ArrayItems, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    ContentBuilder, InfoBuilder, License, OpenApi, Ref, RefOr, Response, ResponseBuilder,
    SecurityRequirement, Server,
};

use super::needed::{Needed, needed};
use super::query::{API_VERSION, VERSIONS};

/// The extension that names the permission of an operation.
const PERMISSION: &str = "x-lineside-permission";
/// The name of the errors' schema.
const ERROR: &str = "ErrorBody";
/// Answers of every operation that needs a token.
const OF_ALL: [(&str, &str); 5] = [
    ("400", "the path, the query or the API version is wrong"),
    ("401", "the token or session is missing, unknown or expired"),
    ("403", "the token or user lacks the permission, or a limit forbids it"),
    ("429", "too much at once; try again"),
    ("503", "the store fails, or central is stopping"),
];
/// Answers of those that change something.
const OF_CHANGES: [(&str, &str); 1] =
    [("415", "a request with a session has another content type than JSON")];
/// Answers of those that name something in their path.
const OF_NAMED: [(&str, &str); 1] = [("404", "there is no such thing")];
/// Answers of those that take a body.
const OF_BODIES: [(&str, &str); 4] = [
    ("408", "the body did not arrive in time"),
    ("409", "it contradicts what is stored"),
    ("413", "the body is too large"),
    ("422", "the body is wrong; the message names the field, what was found and what is allowed"),
];

/// Completes the description that is written beside the handlers.
pub(super) fn complete(description: &mut OpenApi) {
    // Not the router's own, which it takes from its crate.
    description.info = InfoBuilder::new()
        .title("Lineside central")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("IoT Central's REST paths, and what it has no path for under /api/ext."))
        .license(Some(License::new(env!("CARGO_PKG_LICENSE"))))
        .build();
    // Relative to where the document was read.
    description.servers = Some(vec![Server::new("/")]);
    let components = description.components.get_or_insert_default();
    let line = ApiKeyValue::with_description(
        "Authorization",
        "The whole line of an API token: `SharedAccessSignature …`.",
    );
    components.add_security_scheme("token", SecurityScheme::ApiKey(ApiKey::Header(line)));
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The same line as a bearer token."));
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer.build()));
    let session = ApiKeyValue::with_description(
        "lineside_session",
        "The cookie that signing in sets. Requests that change something have the content type application/json.",
    );
    components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(session)));
    let none: [&str; 0] = [];
    let either =
        || ["token", "bearer", "session"].map(|scheme| SecurityRequirement::new(scheme, none)).to_vec();
    description.security = Some(either());
    refuse_null(description);
    for (path, item) in &mut description.paths.paths {
        for (method, operation) in operations(item) {
            operation.operation_id = Some(operation_id(&method, path));
            match operation.security {
                Some(_) => operation.security = Some(either()),
                // Open to everybody.
                None => operation.security = Some(Vec::new()),
            }
            add_permission(&method, path, operation);
            add_answers(&method, path, operation);
            operation.parameters.iter_mut().flatten().for_each(describe_form);
        }
    }
}

/// Names what an operation needs, in an extension.
fn add_permission(method: &Method, path: &str, operation: &mut Operation) {
    if operation.security.as_ref().is_some_and(|security| !security.is_empty())
        && let Some(Needed::One(permission)) = needed(method, path)
    {
        operation.extensions.get_or_insert_default().insert(PERMISSION.to_owned(), permission.id().into());
    }
}

/// The operations of a path.
fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let all = [
        (Method::GET, &mut item.get),
        (Method::PUT, &mut item.put),
        (Method::POST, &mut item.post),
        (Method::PATCH, &mut item.patch),
        (Method::DELETE, &mut item.delete),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// Parameters whose form is checked by types that the description does not know: 1 to 128 of these characters.
const FORMS: [(&str, &str); 4] = [
    ("device_id", r"^[A-Za-z0-9:.%_*?!(),=@$'-]{1,128}$"),
    ("module_name", r"^[A-Za-z0-9:.%_*?!(),=@$'-]{1,128}$"),
    ("component_name", r"^[^ .$#/+?*\x00-\x1f\x7f-\x9f]{1,98}$"),
    ("group_id", r"^[A-Za-z0-9._-]{1,128}$"),
];

/// Fields of requests that may be `null`: it takes away what is stored ([`Update`](crate::types::update::Update)).
const NULLABLE: [&str; 3] = ["template", "organizations", "deploymentManifest"];

/// Takes `null` off the fields of bodies that are sent: it is refused there ([`strict`](super::strict)), and answers leave such a field
/// out.
fn refuse_null(description: &mut OpenApi) {
    let all = description.paths.paths.values_mut().flat_map(operations);
    let bodies = all.filter_map(|(_, operation)| match &operation.request_body {
        Some(RefOr::T(body)) => Some(body),
        _ => None,
    });
    let contents = bodies.flat_map(|body| body.content.values());
    let mut names: Vec<String> = contents
        .filter_map(|content| match content {
            RefOr::T(content) => reference(content.schema.as_ref()?),
            RefOr::Ref(_) => None,
        })
        .collect();
    let Some(components) = &mut description.components else { return };
    let mut seen = BTreeSet::new();
    while let Some(name) = names.pop() {
        let Some(RefOr::T(Schema::Object(object))) = components.schemas.get_mut(&name) else { continue };
        // Schemas name each other, and some name themselves.
        if !seen.insert(name) {
            continue;
        }
        for (field, schema) in &mut object.properties {
            if !NULLABLE.contains(&field.as_str()) {
                not_null(schema);
            }
            names.extend(references(schema));
        }
    }
}

fn reference(schema: &RefOr<Schema>) -> Option<String> {
    let RefOr::Ref(reference) = schema else { return None };
    reference.ref_location.rsplit('/').next().map(str::to_owned)
}

/// The schemas that a field names: its own, that of its items, or one of several.
fn references(schema: &RefOr<Schema>) -> Vec<String> {
    match schema {
        RefOr::Ref(_) => reference(schema).into_iter().collect(),
        RefOr::T(Schema::OneOf(one_of)) => one_of.items.iter().filter_map(reference).collect(),
        RefOr::T(Schema::Array(array)) => match &array.items {
            ArrayItems::RefOrSchema(items) => reference(items).into_iter().collect(),
            ArrayItems::False => Vec::new(),
        },
        RefOr::T(_) => Vec::new(),
    }
}

fn not_null(schema: &mut RefOr<Schema>) {
    let without = |kind: &mut SchemaType| {
        if let SchemaType::Array(kinds) = kind {
            kinds.retain(|kind| *kind != Type::Null);
            if let [only] = kinds.as_slice() {
                *kind = SchemaType::Type(only.clone());
            }
        }
    };
    match schema {
        RefOr::T(Schema::Object(object)) => without(&mut object.schema_type),
        RefOr::T(Schema::Array(array)) => without(&mut array.schema_type),
        RefOr::T(Schema::OneOf(one_of)) => {
            let named = one_of.items.iter().find(|item| matches!(item, RefOr::Ref(_))).cloned();
            // An optional reference is described as one of two: `null` and the reference.
            if let Some(named) = named.filter(|_| one_of.items.len() == 2) {
                *schema = named;
            }
        }
        _ => {}
    }
}

/// Describes what a parameter may be.
fn describe_form(parameter: &mut RefOr<Parameter>) {
    let RefOr::T(parameter) = parameter else { return };
    let text = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String));
    let form = FORMS.iter().find(|(name, _)| *name == parameter.name);
    let schema = match (parameter.name.as_str(), form) {
        (API_VERSION, _) => text.enum_values(Some(VERSIONS.iter().copied())),
        ("entry", _) => text.enum_values(Some(["primary", "secondary"])),
        (_, Some((_, pattern))) => text.pattern(Some(*pattern)),
        _ => return,
    };
    parameter.schema = Some(schema.build().into());
}

fn add_answers(method: &Method, path: &str, operation: &mut Operation) {
    let is_open = operation.security.as_ref().is_none_or(Vec::is_empty);
    let is_change = *method != Method::GET;
    let is_named = path.contains('{');
    let has_body = operation.request_body.is_some();
    let common = OF_ALL
        .iter()
        .filter(|_| !is_open)
        .chain(OF_CHANGES.iter().filter(|_| is_change))
        .chain(OF_NAMED.iter().filter(|_| is_named))
        .chain(OF_BODIES.iter().filter(|_| has_body));
    for (status, description) in common {
        let answers = &mut operation.responses.responses;
        // What a handler describes itself stays as it is.
        answers.entry((*status).to_owned()).or_insert_with(|| RefOr::T(error(description)));
    }
    for (status, answer) in &mut operation.responses.responses {
        let description = OF_ALL
            .iter()
            .chain(&OF_CHANGES)
            .chain(&OF_NAMED)
            .chain(&OF_BODIES)
            .find(|(known, _)| known == status);
        if let RefOr::T(answer) = answer
            && answer.description.is_empty()
        {
            description.map_or("done", |(_, description)| description).clone_into(&mut answer.description);
        }
    }
}

fn error(description: &str) -> Response {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name(ERROR))).build();
    ResponseBuilder::new().description(description).content("application/json", body).build()
}

/// An id from the method and the path, `getDeviceModules` of `GET /api/devices/{device_id}/modules`: unique, because what a name in
/// a path stands for says which list it is of.
fn operation_id(method: &Method, path: &str) -> String {
    let segments: Vec<&str> =
        path.split('/').filter(|segment| !segment.is_empty() && *segment != "api").collect();
    let mut id = method.as_str().to_lowercase();
    for (at, segment) in segments.iter().enumerate().filter(|(_, segment)| !segment.starts_with('{')) {
        let is_one = segments.get(at + 1).is_some_and(|next| next.starts_with('{'));
        let segment = segment.strip_suffix('s').filter(|_| is_one).unwrap_or(segment);
        for word in segment.split(|c: char| !c.is_ascii_alphanumeric()) {
            let mut characters = word.chars();
            id.extend(characters.next().map(|first| first.to_ascii_uppercase()));
            id.extend(characters);
        }
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_named_by_what_its_path_leads_to() {
        for (method, path, id) in [
            (Method::GET, "/status", "getStatus"),
            (Method::GET, "/openapi.json", "getOpenapiJson"),
            (Method::GET, "/api/devices", "getDevices"),
            (Method::PUT, "/api/devices/{device_id}", "putDevice"),
            (
                Method::POST,
                "/api/devices/{device_id}/modules/{module_name}/components/{component_name}/commands/{command_name}",
                "postDeviceModuleComponentCommand",
            ),
            (Method::GET, "/api/ext/devices/{device_id}/losses/totals", "getExtDeviceLossesTotals"),
        ] {
            assert_eq!(operation_id(&method, path), id);
        }
    }
}
