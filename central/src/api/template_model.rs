//! A capability model as the console shows it and makes forms of it: interfaces with their capabilities, and the schemas of values.

use std::collections::BTreeMap;

use central_core::model::literals::Localized;
use central_core::model::problem::{Problem, Problems};
use central_core::model::types::{Content, ContentKind, Field, Interface, Model, Payload, Schema};
use central_core::template::changes::schema_kind;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// Capabilities and schemas in one answer. Objects may share schemas, so a small document can describe more of them than fit anywhere.
const PARTS_MAX: usize = 20_000;

/// What a capability is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum CapabilityKind {
    /// The device sends values.
    Telemetry,
    /// A property of the device.
    Property,
    /// A property that central keeps and never sends to the device.
    CloudProperty,
    /// The device offers a command.
    Command,
    /// Another interface under a name.
    Component,
    /// A link to other devices.
    Relationship,
}

/// An interface of the model: the root, one that it extends, or one of a component.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct InterfaceBody {
    id: String,
    display_name: Option<String>,
    /// The component that has it; null for the device itself.
    component: Option<String>,
    /// Whether another interface extends it.
    is_inherited: bool,
    capabilities: Vec<CapabilityBody>,
}

/// Something that devices of the template send, keep or do.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CapabilityBody {
    kind: CapabilityKind,
    name: String,
    display_name: Option<String>,
    description: Option<String>,
    /// `Temperature`, `State`, `Event`.
    semantic_types: Vec<String>,
    /// Of the values; null for commands, components and relationships.
    schema: Option<SchemaBody>,
    /// `degreeCelsius`
    unit: Option<String>,
    /// Whether operators write it.
    is_writable: bool,
    /// Whether the command waits for a device that is not connected.
    is_durable: bool,
    /// What a command is run with; null for nothing.
    request: Option<PayloadBody>,
    /// What a command answers; null for nothing.
    response: Option<PayloadBody>,
    /// What IoT Central's extension adds, by name: `minValue`, `maxValue`, `decimalPlaces`, `initialValue`, `displayUnit`.
    #[schema(value_type = BTreeMap<String, Value>)]
    extension: BTreeMap<String, Value>,
}

/// What a command takes or gives.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct PayloadBody {
    name: String,
    display_name: Option<String>,
    schema: SchemaBody,
}

/// What values look like.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SchemaBody {
    /// `boolean`, `date`, `dateTime`, `double`, `duration`, `float`, `integer`, `long`, `string` or `time`; `geopoint`, `vector`, or a GeoJSON
    /// geometry such as `point`; `array`, `enum`, `map` or `object`.
    kind: &'static str,
    /// Of an enum.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    values: Vec<EnumValueBody>,
    /// Of an object.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    fields: Vec<FieldBody>,
    /// Of an array's items or a map's values.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(no_recursion)]
    element: Option<Box<SchemaBody>>,
}

/// One value that an enum may have.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct EnumValueBody {
    name: String,
    display_name: Option<String>,
    /// A string or a whole number: what is sent.
    #[schema(value_type = Value)]
    value: Value,
}

/// A field of an object.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct FieldBody {
    name: String,
    display_name: Option<String>,
    #[schema(no_recursion)]
    schema: SchemaBody,
}

/// The interfaces of a model, and whether all of it is in them.
pub(super) fn interfaces(model: &Model) -> (Vec<InterfaceBody>, bool) {
    let mut writer = Writer { left: PARTS_MAX };
    let mut shown = Vec::new();
    if let Some(root) = model.root() {
        shown.extend(writer.lineage(model, root, None));
        for content in model.contents(root) {
            if let ContentKind::Component { interface } = &content.kind
                && let Some(interface) = model.interfaces.get(interface)
            {
                shown.extend(writer.lineage(model, interface, Some(&content.name)));
            }
        }
    }
    (shown, writer.left > 0)
}

/// In English, or in the first language that there is.
fn text(of: &Localized) -> Option<String> {
    of.get("en").or_else(|| of.values().next()).cloned()
}

struct Writer {
    left: usize,
}

impl Writer {
    /// Counts a part; false when there are too many.
    fn has_space(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        self.left > 0
    }

    fn lineage(&mut self, model: &Model, of: &Interface, component: Option<&str>) -> Vec<InterfaceBody> {
        let lineage = model.lineage(of);
        let body = |interface: &&Interface| InterfaceBody {
            id: interface.id.clone(),
            display_name: text(&interface.label.display_name),
            component: component.map(str::to_owned),
            is_inherited: interface.id != of.id,
            capabilities: interface.contents.iter().map_while(|content| self.capability(content)).collect(),
        };
        lineage.iter().map(body).collect()
    }

    fn capability(&mut self, content: &Content) -> Option<CapabilityBody> {
        if !self.has_space() {
            return None;
        }
        let mut body = CapabilityBody {
            kind: CapabilityKind::Telemetry,
            name: content.name.clone(),
            display_name: text(&content.label.display_name),
            description: text(&content.label.description),
            semantic_types: content.types.iter().filter(|of| *of != "Cloud").cloned().collect(),
            schema: None,
            unit: None,
            is_writable: false,
            is_durable: false,
            request: None,
            response: None,
            extension: content.other.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        };
        match &content.kind {
            ContentKind::Telemetry { schema, unit } => {
                body.schema = Some(self.schema(schema));
                body.unit = unit.map(str::to_owned);
            }
            ContentKind::Property { schema, unit, writable } => {
                body.kind = CapabilityKind::Property;
                if content.is_cloud_property() {
                    body.kind = CapabilityKind::CloudProperty;
                }
                body.schema = Some(self.schema(schema));
                body.unit = unit.map(str::to_owned);
                body.is_writable = *writable || content.is_cloud_property();
            }
            ContentKind::Command { request, response, .. } => {
                body.kind = CapabilityKind::Command;
                body.is_durable = content.other.get("durable") == Some(&Value::Bool(true));
                body.request = request.as_ref().map(|of| self.payload(of));
                body.response = response.as_ref().map(|of| self.payload(of));
            }
            ContentKind::Component { .. } => body.kind = CapabilityKind::Component,
            ContentKind::Relationship(_) => body.kind = CapabilityKind::Relationship,
        }
        Some(body)
    }

    fn payload(&mut self, of: &Payload) -> PayloadBody {
        PayloadBody {
            name: of.name.clone(),
            display_name: text(&of.label.display_name),
            schema: self.schema(&of.schema),
        }
    }

    /// Recursion is as deep as the schema, at most six.
    fn schema(&mut self, schema: &Schema) -> SchemaBody {
        let mut body =
            SchemaBody { kind: schema_kind(schema), values: Vec::new(), fields: Vec::new(), element: None };
        if !self.has_space() {
            return body;
        }
        match schema {
            Schema::Enum(values) => {
                body.values = values
                    .iter()
                    .take_while(|_| self.has_space())
                    .map(|of| EnumValueBody {
                        name: of.name.clone(),
                        display_name: text(&of.label.display_name),
                        value: of.value.clone(),
                    })
                    .collect();
            }
            Schema::Object(fields) => {
                body.fields = fields.iter().map_while(|field| self.field(field)).collect();
            }
            Schema::Array(of) | Schema::Map(of) => body.element = Some(Box::new(self.schema(of))),
            Schema::Primitive(_) | Schema::Geometry(_) | Schema::Geopoint | Schema::Vector => {}
        }
        body
    }

    fn field(&mut self, field: &Field) -> Option<FieldBody> {
        self.has_space().then(|| FieldBody {
            name: field.name.clone(),
            display_name: text(&field.label.display_name),
            schema: self.schema(&field.schema),
        })
    }
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
                problems: problems.reported.iter().cloned().map(Into::into).collect(),
                more_problems: problems.more,
            },
        }
    }
}
