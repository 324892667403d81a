//! What elements must be to each other: references that lead somewhere, bounded depth, no element in itself, names that are unique,
//! also among inherited contents.

use std::collections::{BTreeMap, BTreeSet};

use super::dtmi;
use super::element::{Element, Elements, Link, Target};
use super::graph::{self, Height};
use super::literals::Literal;
use super::problem::{Problems, Rule};
use super::semantics::Constraint;
use super::vocabulary::{self, Class, Kind, Links};

/// Complex schemas in complex schemas.
const SCHEMA_DEPTH_MAX: usize = 5;
/// Interfaces that extend interfaces.
const EXTENDS_DEPTH_MAX: usize = 10;
/// Contents of an interface with those that it inherits.
const CONTENTS_MAX: usize = 300;
/// Interfaces that one interface extends. Of more, which is a problem by itself, no further one is followed.
const EXTENDS_MAX: usize = 2;
/// Interfaces of all documents, each with all that it extends: extending multiplies what a document is to be checked for.
pub const EXTENDED_MAX: usize = 50_000;

/// Checks all elements of a document against each other.
pub fn check(elements: &Elements, problems: &mut Problems) {
    let before = problems.count();
    for element in elements.by_id.values() {
        check_references(element, elements, problems);
        check_names(element, elements, problems);
        if element.class == Class::Enum {
            check_enum(element, elements, problems);
        }
    }
    check_schemas(elements, problems);
    check_interfaces(elements, problems);
    // Quantities are checked when the schemas are known to be right.
    if problems.count() == before {
        for element in elements.by_id.values() {
            check_semantics(element, elements, problems);
        }
    }
}

fn links_spec(element: &Element, property: &str) -> Option<Links> {
    vocabulary::properties(element.class).iter().find(|spec| spec.name == property).and_then(
        |spec| match spec.kind {
            Kind::Links(links) => Some(links),
            _ => None,
        },
    )
}

fn check_references(element: &Element, elements: &Elements, problems: &mut Problems) {
    for link in &element.links {
        let Target::Element(id) = &link.target else { continue };
        let mut add = |rule, message: String| problems.add(Some(&element.id), &link.path, rule, message);
        let Some(target) = elements.by_id.get(id) else {
            // A definition that was refused has its own problem.
            if link.is_reference {
                let is_reserved = dtmi::RESERVED.iter().any(|of| id.starts_with(of))
                    || id.starts_with(dtmi::RESERVED_BY_IOT_CENTRAL);
                let rule = if is_reserved { Rule::UndefinedReservedId } else { Rule::UndefinedId };
                add(rule, format!("`{}` names {id}, which is not defined in the document", link.property));
            }
            continue;
        };
        if let Some(links) = links_spec(element, link.property)
            && !links.classes.contains(&target.class)
        {
            let allowed = links.classes.iter().map(|class| class.as_str()).collect::<Vec<_>>().join(", ");
            let class = target.class.as_str();
            add(
                Rule::BadType,
                format!("`{}` names {id}, which is a {class}; it must be {allowed}", link.property),
            );
        }
        // An interface is a partition of the language: what is defined inside is used from inside only.
        if target.class != Class::Interface && target.defined_in != element.defined_in {
            let message = format!(
                "`{}` names {id}, which is defined in another interface, {}",
                link.property, target.defined_in
            );
            add(Rule::CrossPartitionReference, message);
        }
    }
}

/// Elements that a set names, each once.
fn members<'e>(
    element: &'e Element,
    property: &'static str,
    elements: &'e Elements,
) -> impl Iterator<Item = (&'e Link, &'e Element)> {
    element.links_of(property).filter_map(|link| match &link.target {
        Target::Element(id) => elements.by_id.get(id).map(|target| (link, target)),
        Target::Schema(_) => None,
    })
}

fn check_names(element: &Element, elements: &Elements, problems: &mut Problems) {
    for spec in vocabulary::properties(element.class) {
        let Kind::Links(Links { by_name: true, .. }) = spec.kind else { continue };
        let mut seen = BTreeMap::new();
        for (link, target) in members(element, spec.name, elements) {
            let Some(name) = target.name() else { continue };
            let other = seen.insert(name, &target.id);
            // One element that is named twice is still one element.
            if other.is_some_and(|other| *other != target.id) {
                let message = format!("`{}` has two elements with the name {name:?}", spec.name);
                problems.add(Some(&element.id), &link.path, Rule::NonUniquePropertyValue, message);
            }
        }
    }
}

fn check_enum(element: &Element, elements: &Elements, problems: &mut Problems) {
    let schema = element.terms.get("valueSchema").copied();
    let mut seen = BTreeSet::new();
    for (link, value) in members(element, "enumValues", elements) {
        let Some(literal) = value.literals.get("enumValue") else { continue };
        let fits = match literal {
            Literal::Text(_) => schema != Some("integer"),
            Literal::Integer(_) => schema != Some("string"),
            _ => false,
        };
        if !fits {
            let message =
                format!("`enumValue` is no {}, which `valueSchema` asks for", schema.unwrap_or_default());
            problems.add(Some(&value.id), &value.path, Rule::NonConformantDatatype, message);
        }
        if !seen.insert(literal) {
            let message = "`enumValues` has two elements with the same `enumValue`";
            problems.add(Some(&element.id), &link.path, Rule::NonUniquePropertyValue, message);
        }
    }
}

/// How many complex schemas stand in each other in a schema of the language or of IoT Central's extension.
fn standard_height(term: &str) -> usize {
    match term {
        "geopoint" | "vector" => 1,
        "point" => 2,
        "lineString" | "multiPoint" => 3,
        "polygon" | "multiLineString" => 4,
        "multiPolygon" => 5,
        _ => 0,
    }
}

/// The elements that a schema is made of, and how much each adds to its depth.
fn schema_children<'e>(element: &'e Element) -> Vec<graph::Edge<'e>> {
    let edges = element.links.iter().filter(|link| link.property != "extends" && link.property != "contents");
    edges
        .map(|link| {
            // Fields, map values and enum values are parts of one complex schema and add no depth of their own.
            let weight = usize::from(matches!(link.property, "schema" | "elementSchema"));
            match &link.target {
                Target::Element(id) => graph::Edge { to: Some(id), weight },
                Target::Schema(term) => graph::Edge { to: None, weight: weight + standard_height(term) },
            }
        })
        .collect()
}

fn check_schemas(elements: &Elements, problems: &mut Problems) {
    let of_schema = |element: &&Element| {
        element.class.is_complex_schema()
            || matches!(element.class, Class::Field | Class::MapValue | Class::MapKey | Class::EnumValue)
    };
    let schemas: BTreeMap<&str, &Element> =
        elements.by_id.values().filter(of_schema).map(|element| (element.id.as_str(), element)).collect();
    let heights = graph::heights(&schemas, schema_children);
    for (id, height) in &heights {
        let element = schemas[id];
        if !element.class.is_complex_schema() {
            continue;
        }
        match height {
            Height::InItself => {
                let message = "the schema is made of itself";
                problems.add(Some(id), &element.path, Rule::RecursiveSchema, message);
            }
            Height::Levels(levels) if *levels > SCHEMA_DEPTH_MAX => {
                let message = format!("{levels} schemas stand in each other; at most {SCHEMA_DEPTH_MAX} may");
                problems.add(Some(id), &element.path, Rule::SchemaTooDeep, message);
            }
            Height::Levels(_) => {}
        }
    }
    let holds_array = holders_of_arrays(&schemas);
    for property in elements.by_id.values().filter(|element| element.class == Class::Property) {
        let is_array = |link: &Link| match &link.target {
            Target::Schema(term) => vocabulary::GEOSPATIAL.contains(term),
            Target::Element(id) => holds_array.contains(id.as_str()),
        };
        if let Some(link) = property.links_of("schema").find(|link| is_array(link)) {
            let message = "`schema` has an Array in it, which a Property may not have";
            problems.add(Some(&property.id), &link.path, Rule::ExcludedType, message);
        }
    }
}

/// The schemas that are an Array or have one in them.
fn holders_of_arrays<'e>(schemas: &BTreeMap<&'e str, &'e Element>) -> BTreeSet<&'e str> {
    let mut holders_of: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut found: BTreeSet<&str> = BTreeSet::new();
    for (id, element) in schemas {
        let has_standard = |link: &Link| matches!(&link.target, Target::Schema(term) if vocabulary::GEOSPATIAL.contains(term));
        if element.class == Class::Array || element.links.iter().any(has_standard) {
            found.insert(*id);
        }
        for link in &element.links {
            if let Target::Element(target) = &link.target {
                holders_of.entry(target).or_default().push(*id);
            }
        }
    }
    // From the arrays up to what holds them: each schema is visited once, however many others share it.
    let mut left: Vec<&str> = found.iter().copied().collect();
    while let Some(id) = left.pop() {
        let holders = holders_of.get(id).into_iter().flatten();
        left.extend(holders.copied().filter(|holder| found.insert(*holder)).collect::<Vec<_>>());
    }
    found
}

fn check_interfaces(elements: &Elements, problems: &mut Problems) {
    let interfaces: BTreeMap<&str, &Element> = elements
        .by_id
        .values()
        .filter(|element| element.class == Class::Interface)
        .map(|element| (element.id.as_str(), element))
        .collect();
    let heights = graph::heights(&interfaces, |element| {
        let edges = element.links_of("extends").filter_map(target_id);
        edges.map(|id| graph::Edge { to: Some(id), weight: 1 }).collect()
    });
    let mut extended = 0;
    for (id, height) in &heights {
        let element = interfaces[id];
        match height {
            Height::InItself => {
                let message = "the interface extends itself";
                problems.add(Some(id), &element.path, Rule::RecursiveExtends, message);
            }
            Height::Levels(levels) if *levels > EXTENDS_DEPTH_MAX => {
                let message = format!(
                    "the interface extends over {levels} levels; at most {EXTENDS_DEPTH_MAX} are allowed"
                );
                problems.add(Some(id), &element.path, Rule::ExtendsTooDeep, message);
            }
            Height::Levels(_) => {
                let lineage = lineage(element, elements);
                extended += lineage.len();
                if extended > EXTENDED_MAX {
                    let message = format!(
                        "the interfaces, each with all that it extends, are more than {EXTENDED_MAX}, the most that is allowed"
                    );
                    // Ends the check: going on would take the time that this limit prevents (decision 0064).
                    problems.add(Some(id), &element.path, Rule::TooLarge, message);
                    return;
                }
                check_contents(element, &lineage, elements, problems);
            }
        }
    }
    // The others have a problem of their own, and lead anywhere.
    let bounded: BTreeMap<&str, &Element> = interfaces
        .into_iter()
        .filter(
            |(id, _)| matches!(heights.get(id), Some(Height::Levels(levels)) if *levels <= EXTENDS_DEPTH_MAX),
        )
        .collect();
    check_components(elements, &bounded, problems);
}

fn target_id(link: &Link) -> Option<&str> {
    match &link.target {
        Target::Element(id) => Some(id),
        Target::Schema(_) => None,
    }
}

/// An interface and all that it extends, itself first, each once.
pub fn lineage<'e>(element: &'e Element, elements: &'e Elements) -> Vec<&'e Element> {
    let (mut lineage, mut seen) = (vec![element], BTreeSet::from([element.id.as_str()]));
    let mut next = 0;
    while let Some(element) = lineage.get(next).copied() {
        next += 1;
        for (_, target) in members(element, "extends", elements).take(EXTENDS_MAX) {
            if seen.insert(target.id.as_str()) {
                lineage.push(target);
            }
        }
    }
    lineage
}

fn check_contents(element: &Element, lineage: &[&Element], elements: &Elements, problems: &mut Problems) {
    // Its own contents alone were checked by the reader and by `check_names`.
    if element.links_of("extends").next().is_none() {
        return;
    }
    let mut names: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for of in lineage {
        for (_, content) in members(of, "contents", elements) {
            let Some(name) = content.name() else { continue };
            let earlier = names.insert(name, (content.id.as_str(), of.id.as_str()));
            // Two of one interface are reported by `check_names`, and one element that two paths lead to is no repetition.
            if let Some((_, other)) = earlier.filter(|(id, other)| *id != content.id && *other != of.id) {
                let message = format!(
                    "`extends` brings two contents with the name {name:?}, of {other} and of {}",
                    of.id
                );
                let rule = Rule::NonUniqueImportedPropertyValue;
                return problems.add(Some(&element.id), &element.path, rule, message);
            }
        }
        if names.len() > CONTENTS_MAX {
            let message = format!("`contents` with those of `extends` has more than {CONTENTS_MAX} elements");
            return problems.add(Some(&element.id), &element.path, Rule::ObjectCountAboveMax, message);
        }
    }
}

/// A component's interface has no components, not by inheritance either.
fn check_components(elements: &Elements, interfaces: &BTreeMap<&str, &Element>, problems: &mut Problems) {
    // By interface, since many components can have one.
    let mut has_component: BTreeMap<&str, bool> = BTreeMap::new();
    for component in elements.by_id.values().filter(|element| element.class == Class::Component) {
        let Some(link) = component.links_of("schema").next() else { continue };
        let Some(interface) = target_id(link).and_then(|id| interfaces.get(id)) else { continue };
        if interface.id == component.defined_in {
            let message = "`schema` is the interface that contains the component";
            problems.add(Some(&component.id), &link.path, Rule::RecursiveExtends, message);
            continue;
        }
        let nested = *has_component.entry(&interface.id).or_insert_with(|| {
            lineage(interface, elements).into_iter().any(|of| {
                members(of, "contents", elements).any(|(_, content)| content.class == Class::Component)
            })
        });
        if nested {
            let message = format!("`schema` is {}, which has components itself", interface.id);
            problems.add(Some(&component.id), &link.path, Rule::ExcludedType, message);
        }
    }
}

fn check_semantics(element: &Element, elements: &Elements, problems: &mut Problems) {
    for semantic in &element.semantic_types {
        let Some(link) = element.links_of("schema").next() else { continue };
        let (term, class) = match &link.target {
            Target::Schema(term) => (Some(*term), None),
            Target::Element(id) => (None, elements.by_id.get(id).map(|target| target.class)),
        };
        let is = |terms: &[&str]| term.is_some_and(|term| terms.contains(&term));
        let (rule, allowed) = match semantic.constraint {
            Constraint::Quantity { .. } if !is(&["double", "float", "integer", "long"]) => {
                (Rule::SchemaNotRequiredType, "double, float, integer or long".to_owned())
            }
            Constraint::Schema { schemas, .. } if !is(schemas) => {
                let by_value = schemas.contains(&"vector") || schemas.contains(&"geopoint");
                let rule = if by_value { Rule::SchemaNotRequiredValue } else { Rule::SchemaNotRequiredType };
                (rule, schemas.join(", "))
            }
            Constraint::Enumeration if class != Some(Class::Enum) => {
                (Rule::SchemaNotRequiredType, "an Enum".to_owned())
            }
            _ => continue,
        };
        let message = format!("`schema` must be {allowed}, since `@type` has {:?}", semantic.name);
        problems.add(Some(&element.id), &link.path, rule, message);
    }
}
