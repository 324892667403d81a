//! The elements of a document, each checked against the table of its class. References between them are checked in
//! [`super::structure`].

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::context::{Context, ContextError};
use super::dtmi;
use super::element::{Element, Elements, Link, Target};
use super::element_types;
use super::literals::{self, Literal, Place};
use super::options::{Dialect, Options};
use super::problem::{Problems, Rule};
use super::semantics::{self, SemanticType};
use super::terms;
use super::vocabulary::{self, Class, Kind, Links, PropertySpec};

/// More elements than this in one document are refused.
pub const ELEMENTS_MAX: usize = 100_000;
/// Bytes of identifiers that are made for elements, all together: each repeats that of the element around it, of up to 2 kB.
const MADE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Position of an element.
struct Parent<'p> {
    id: &'p str,
    defined_in: &'p str,
    property: &'static str,
    links: &'p Links,
}

pub struct Reader<'o> {
    pub options: &'o Options,
    pub elements: Elements,
    pub problems: Problems,
    /// The JSON of each element, while definitions are compared.
    sources: BTreeMap<String, Option<&'o Map<String, Value>>>,
    /// Bytes of identifiers that were made.
    made_bytes: usize,
}

impl<'o> Reader<'o> {
    pub fn new(options: &'o Options) -> Self {
        let (elements, problems, sources) = Default::default();
        Self { options, elements, problems, sources, made_bytes: 0 }
    }

    fn is_iot_central(&self) -> bool {
        self.options.dialect == Dialect::IotCentral
    }

    /// Reads a document: an interface, or an array of such.
    pub fn read_document(&mut self, document: &'o Value) {
        match document {
            Value::Object(object) => self.read_top(object, ""),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("[{index}]");
                    match item {
                        Value::Object(object) => self.read_top(object, &path),
                        _ => self.problems.add(
                            None,
                            &path,
                            Rule::NotJsonObject,
                            "a model must be a JSON object",
                        ),
                    }
                }
            }
            _ => self.problems.add(
                None,
                "",
                Rule::NotJsonObject,
                "a model must be a JSON object or an array of such",
            ),
        }
    }

    fn read_top(&mut self, object: &'o Map<String, Value>, path: &str) {
        let id = object.get("@id").and_then(Value::as_str);
        if object.contains_key("@graph") {
            self.problems.add(
                id,
                path,
                Rule::TopLevelGraph,
                "`@graph` is not allowed at the top of a document",
            );
        }
        let implied = if self.is_iot_central() { Context::of_iot_central() } else { Context::default() };
        let Some(context) = self.context_of(&implied, object, id, path) else { return };
        if object.get("@id").is_none() {
            self.problems.add(
                None,
                path,
                Rule::MissingTopLevelId,
                "`@id` is missing; an interface needs a DTMI",
            );
            return;
        }
        let Some(id) = self.checked_id(&context, object, path) else { return };
        let types = element_types::written(object);
        let is_interface = |text: &&str| Class::named(text) == Some(Class::Interface);
        if !types.iter().flatten().any(is_interface) {
            let message = "`@type` must be \"Interface\" at the top of a document";
            self.problems.add(Some(&id), path, Rule::TypeNotRootable, message);
            return;
        }
        if self.read_typed(&context, object, &id, path, &[Class::Interface], None, None) {
            self.elements.top.push(id);
        }
    }

    fn context_of(
        &mut self,
        outer: &Context,
        object: &Map<String, Value>,
        id: Option<&str>,
        path: &str,
    ) -> Option<Context> {
        match outer.of_element(object.get("@context"), self.options.allow_undefined_extensions) {
            Ok(context) => Some(context),
            Err(ContextError { rule, message }) => {
                self.problems.add(id, path, rule, message);
                None
            }
        }
    }

    /// The element's own `@id`, when it is one that a model may hold.
    fn checked_id(&mut self, context: &Context, object: &Map<String, Value>, path: &str) -> Option<String> {
        let value = object.get("@id")?;
        let Some(id) = value.as_str().filter(|id| !id.is_empty()) else {
            self.problems.add(None, path, Rule::IdNotString, format!("`@id` is {value}; it must be a DTMI"));
            return None;
        };
        if id.len() > dtmi::LENGTH_MAX {
            let message =
                format!("`@id` has {} characters; at most {} are allowed", id.len(), dtmi::LENGTH_MAX);
            self.problems.add(None, path, Rule::IdTooLong, message);
            return None;
        }
        if !dtmi::is_user(id) {
            let message = format!("`@id` is {id:?}; it must be a DTMI such as dtmi:com:example:Thermostat;1");
            self.problems.add(Some(id), path, Rule::InvalidId, message);
            return None;
        }
        let is_central = context.has_iot_central() && id.starts_with(dtmi::RESERVED_BY_IOT_CENTRAL);
        if is_central || dtmi::RESERVED.iter().any(|reserved| id.starts_with(reserved)) {
            let message = format!("`@id` is {id:?}, which begins with a prefix that is reserved");
            self.problems.add(Some(id), path, Rule::ReservedId, message);
            return None;
        }
        Some(id.to_owned())
    }

    /// Reads an element that is a value of a property, and gives its identifier.
    fn read_inner(
        &mut self,
        outer: &Context,
        object: &'o Map<String, Value>,
        path: &str,
        parent: &Parent<'_>,
    ) -> Option<Target> {
        let (links, property) = (parent.links, parent.property);
        if object.len() == 1 && object.contains_key("@id") {
            if self.is_iot_central() {
                return self.reference(outer, object["@id"].as_str().unwrap_or_default(), path, parent);
            }
            let message =
                format!("`{property}` is an object with `@id` alone; write the identifier as a string");
            self.problems.add(Some(parent.id), path, Rule::IdReference, message);
            return None;
        }
        let context = self.context_of(outer, object, Some(parent.id), path)?;
        if object.contains_key("@graph") {
            self.problems.add(Some(parent.id), path, Rule::Graph, "`@graph` is not allowed in an element");
        }
        let id = if object.contains_key("@id") {
            self.checked_id(&context, object, path)?
        } else {
            self.made_id(object, path, parent)?
        };
        let read = self.read_typed(&context, object, &id, path, links.classes, links.inferred, Some(parent));
        read.then_some(Target::Element(id))
    }

    /// The identifier of an element that has none of its own.
    fn made_id(&mut self, object: &Map<String, Value>, path: &str, parent: &Parent<'_>) -> Option<String> {
        let property = parent.property;
        if parent.links.id_required {
            let message = format!("`@id` is missing; an element of `{property}` needs a DTMI");
            self.problems.add(Some(parent.id), path, Rule::MissingRequiredId, message);
            return None;
        }
        if !parent.links.by_name {
            return self.bounded_id(dtmi::of_child(parent.id, property, None), path);
        }
        let name = object.iter().find(|(name, _)| property_name(name) == "name").map(|(_, value)| value);
        let text = name.and_then(|value| literals::values(value).first().copied()).map(|value| match value {
            Value::String(text) => text.clone(),
            Value::Object(object) => object.get("@value").map(Value::to_string).unwrap_or_default(),
            other => other.to_string(),
        });
        let Some(text) = text else {
            let message = format!("`name` is missing in an element of `{property}`");
            self.problems.add(Some(parent.id), path, Rule::MissingNameForId, message);
            return None;
        };
        // Whatever is in the element repeats its identifier; a longer name is wrong in any case.
        let text: String = text.chars().take(literals::NAME_LENGTH_MAX).collect();
        self.bounded_id(dtmi::of_child(parent.id, property, Some(&text)), path)
    }

    /// Refuses a document whose elements would be given more identifiers than fit.
    fn bounded_id(&mut self, id: String, path: &str) -> Option<String> {
        self.made_bytes += id.len();
        if self.made_bytes <= MADE_BYTES_MAX {
            return Some(id);
        }
        let message = "the elements without `@id` stand in others with too long ones";
        self.problems.add(None, path, Rule::TooLarge, message);
        None
    }

    /// Reads an element whose identifier is known. Returns false when it is none of `classes`.
    #[expect(clippy::too_many_arguments, reason = "what is known of the element and of its position")]
    fn read_typed(
        &mut self,
        context: &Context,
        object: &'o Map<String, Value>,
        id: &str,
        path: &str,
        classes: &'static [Class],
        inferred: Option<Class>,
        parent: Option<&Parent<'_>>,
    ) -> bool {
        if self.elements.by_id.contains_key(id) || self.sources.contains_key(id) {
            return self.is_repeated(object, id, path, parent);
        }
        if self.elements.by_id.len() >= ELEMENTS_MAX {
            let message = format!("the document has more than {ELEMENTS_MAX} elements");
            self.problems.add(None, path, Rule::TooLarge, message);
            return false;
        }
        let mut element = Element::new(id, path);
        let types = element_types::written(object);
        let Some(class) =
            element_types::read(context, types, &mut element, classes, inferred, &mut self.problems)
        else {
            return false;
        };
        element.class = class;
        if class == Class::Interface {
            if id.len() > dtmi::INTERFACE_LENGTH_MAX {
                let message = format!(
                    "`@id` has {} characters; an interface's may have {}",
                    id.len(),
                    dtmi::INTERFACE_LENGTH_MAX
                );
                self.problems.add(Some(id), path, Rule::IdTooLongForType, message);
            }
        } else if let Some(parent) = parent {
            element.defined_in = parent.defined_in.to_owned();
        }
        // Kept before what is in it is read: an element that holds itself is a repetition.
        let source = Some(object).filter(|_| self.is_iot_central());
        self.sources.insert(id.to_owned(), source);
        self.read_properties(context, object, &mut element);
        self.elements.by_id.insert(id.to_owned(), element);
        true
    }

    /// A second definition: IoT Central writes an interface out at each component that has it.
    fn is_repeated(
        &mut self,
        object: &Map<String, Value>,
        id: &str,
        path: &str,
        parent: Option<&Parent<'_>>,
    ) -> bool {
        // Only an identical repetition is accepted: of two different definitions it would be unclear which one applies.
        if self.is_iot_central() && self.sources.get(id).copied().flatten() == Some(object) {
            return true;
        }
        match parent.filter(|_| !object.contains_key("@id")) {
            Some(parent) => {
                let name = object.get("name").and_then(Value::as_str).unwrap_or_default();
                let message = format!("`{}` has two elements with the name {name:?}", parent.property);
                self.problems.add(Some(parent.id), path, Rule::NonUniquePropertyValue, message);
            }
            None => {
                self.problems.add(
                    Some(id),
                    path,
                    Rule::DuplicateDefinition,
                    format!("{id} is defined twice"),
                );
            }
        }
        false
    }

    fn read_properties(&mut self, context: &Context, object: &'o Map<String, Value>, element: &mut Element) {
        let specs = vocabulary::properties(element.class);
        let mut seen: Vec<&'static str> = Vec::new();
        for (written, value) in object.iter().filter(|(name, _)| !name.starts_with('@')) {
            let name = property_name(written);
            let path = joined(&element.path, written);
            let spec = specs.iter().find(|spec| spec.name == name);
            let known =
                spec.map(|spec| spec.name).or((name == "unit" && element.has_unit()).then_some("unit"));
            let Some(known) = known else {
                self.read_other(object, written, value, &path, element);
                continue;
            };
            // A property has two spellings, its term and its IRI, so JSON's own check for repeated members does not find this.
            if seen.contains(&known) {
                let message = format!("`{known}` is written twice, by its term and by its identifier");
                self.problems.add(Some(&element.id), &path, Rule::DuplicatePropertyName, message);
                continue;
            }
            seen.push(known);
            match spec {
                Some(spec) => self.read_property(context, spec, value, &path, element),
                None => {
                    let unit_type = element.semantic_types.iter().find_map(|semantic| semantic.unit_type());
                    let mut place = Place {
                        element: &element.id,
                        property: "unit",
                        path: &path,
                        problems: &mut self.problems,
                    };
                    element.unit = terms::unit(value, unit_type.unwrap_or_default(), &mut place);
                }
            }
        }
        for spec in specs.iter().filter(|spec| spec.required && !seen.contains(&spec.name)) {
            let is_object = matches!(spec.kind, Kind::Links(_) | Kind::Term { .. });
            let rule = if is_object { Rule::MissingObjectProperty } else { Rule::MissingLiteralProperty };
            let message = format!("`{}` is missing; a {} needs it", spec.name, element.class.as_str());
            self.problems.add(Some(&element.id), &element.path, rule, message);
        }
        let needs_unit = |semantic: &&SemanticType| {
            matches!(semantic.constraint, semantics::Constraint::Quantity { .. }) && !seen.contains(&"unit")
        };
        if let Some(semantic) =
            element.semantic_types.iter().copied().find(|of| needs_unit(of) && !self.is_iot_central())
        {
            let message = format!("`unit` is missing; the semantic type {:?} needs it", semantic.name);
            self.problems.add(Some(&element.id), &element.path, Rule::MissingUnit, message);
        }
    }

    /// A property that neither the class nor a semantic type has.
    fn read_other(
        &mut self,
        object: &Map<String, Value>,
        name: &str,
        value: &Value,
        path: &str,
        element: &mut Element,
    ) {
        let of_template =
            self.is_iot_central() && (vocabulary::OF_TEMPLATES.contains(&name) || name == "unit");
        if !element.other_types.is_empty() || of_template {
            element.other_properties.insert(name.to_owned(), value.clone());
            return;
        }
        let class = element.class.as_str();
        let (rule, message) = if object.contains_key("@type") {
            (
                Rule::NoTypeThatAllows,
                format!("`{name}` is no property of a {class}, nor of another type in `@type`"),
            )
        } else {
            (Rule::InferredTypeDoesNotAllow, format!("`{name}` is no property of a {class}"))
        };
        self.problems.add(Some(&element.id), path, rule, message);
    }

    fn read_property(
        &mut self,
        context: &Context,
        spec: &PropertySpec,
        value: &'o Value,
        path: &str,
        element: &mut Element,
    ) {
        if let Kind::Links(links) = &spec.kind {
            return self.read_links(context, spec.name, links, value, path, element);
        }
        if matches!(spec.kind, Kind::Identifier) && self.is_iot_central() && !value.is_string() {
            return self.read_targets(context, value, path, element);
        }
        let mut place =
            Place { element: &element.id, property: spec.name, path, problems: &mut self.problems };
        let literal = match spec.kind {
            Kind::Text { length_max } => {
                literals::text(value, length_max, false, &mut place).map(Literal::Text)
            }
            Kind::Name => literals::name(value, &mut place).map(Literal::Text),
            Kind::Localized { length_max } => {
                Some(Literal::Localized(literals::localized(value, length_max, &mut place)))
            }
            Kind::Boolean => literals::boolean(value, &mut place).map(Literal::Boolean),
            Kind::Integer { min, max } => {
                literals::integer(value, min, max, &mut place).map(Literal::Integer)
            }
            Kind::EnumValue => literals::enum_value(value, &mut place),
            Kind::Identifier => literals::identifier(value, &mut place).map(Literal::Text),
            Kind::Term { prefix, terms } => {
                if let Some(term) = terms::read(value, prefix, terms, spec.required, &mut place) {
                    element.terms.insert(spec.name, term);
                }
                None
            }
            Kind::Links(_) => None,
        };
        if let Some(literal) = literal {
            element.literals.insert(spec.name, literal);
        }
    }

    /// IoT Central writes the interfaces of modules out where a relationship names its target.
    fn read_targets(&mut self, context: &Context, value: &'o Value, path: &str, element: &mut Element) {
        const TARGETS: Links = Links {
            classes: &[Class::Interface],
            schemas: false,
            inferred: None,
            min: 0,
            max: None,
            id_required: true,
            by_name: false,
        };
        self.read_links(context, "target", &TARGETS, value, path, element);
    }

    fn read_links(
        &mut self,
        context: &Context,
        property: &'static str,
        links: &Links,
        value: &'o Value,
        path: &str,
        element: &mut Element,
    ) {
        let (id, defined_in) = (element.id.clone(), element.defined_in.clone());
        let parent = Parent { id: &id, defined_in: &defined_in, property, links };
        let values = literals::values(value);
        let mut count = 0;
        for (index, item) in values.iter().enumerate() {
            if links.max == Some(1) && count > 0 {
                let message = format!("`{property}` has {} values; one is allowed", values.len());
                self.problems.add(Some(&id), path, Rule::ObjectMultipleValues, message);
                break;
            }
            let path = if value.is_array() { format!("{path}[{index}]") } else { path.to_owned() };
            let (target, is_reference) = match item {
                Value::String(text) => (self.reference(context, text, &path, &parent), true),
                Value::Object(object) => (self.read_inner(context, object, &path, &parent), false),
                other => {
                    let message = format!("`{property}` is {other}; it must be an element or a DTMI");
                    self.problems.add(Some(&id), &path, Rule::RefNotStringOrObject, message);
                    (None, false)
                }
            };
            if let Some(target) = target {
                count += 1;
                element.links.push(Link { property, target, path, is_reference });
            }
        }
        if count < links.min {
            let message =
                format!("`{property}` has {count} values that are right; at least {} are needed", links.min);
            self.problems.add(Some(&id), path, Rule::ObjectCountBelowMin, message);
        }
        if let Some(max) = links.max.filter(|max| *max > 1 && count > *max) {
            let message = format!("`{property}` has {count} values; at most {max} are allowed");
            self.problems.add(Some(&id), path, Rule::ObjectCountAboveMax, message);
        }
    }

    /// A value that is named by term or identifier.
    fn reference(
        &mut self,
        context: &Context,
        text: &str,
        path: &str,
        parent: &Parent<'_>,
    ) -> Option<Target> {
        let property = parent.property;
        if let Some(term) = vocabulary::schema_term(text, context.has_iot_central()) {
            if parent.links.schemas {
                return Some(Target::Schema(term));
            }
            let message = format!("`{property}` is {text:?}, which is a schema");
            self.problems.add(Some(parent.id), path, Rule::BadType, message);
            return None;
        }
        // Whether the element exists is checked in `structure`, after all were read: a document may define it further down.
        if dtmi::is_user(text) {
            return Some(Target::Element(text.to_owned()));
        }
        let is_class = Class::named(text).is_some() || vocabulary::is_other_class(text);
        let rule = if is_class { Rule::BadType } else { Rule::BadDtmiOrTerm };
        let message =
            format!("`{property}` is {text:?}, which is neither a DTMI nor a term that may stand here");
        self.problems.add(Some(parent.id), path, rule, message);
        None
    }
}

/// The term of a property that is written by term or by IRI.
fn property_name(written: &str) -> &str {
    dtmi::of_iri("dtmi:dtdl:property:", written).unwrap_or(written)
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
