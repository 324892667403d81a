//! Why a condition comes to what it comes to, as text: for operators, never on the way of a message.

use super::ast::{DollarReference, Expr, Reference};
use super::body::shown;
use super::eval::evaluate;
use super::subject::{Subject, in_section};
use super::value::Value;

/// What a condition comes to, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// What it comes to; it matches when that is `true`.
    pub value: Value<'static>,
    /// Why: the values that it looked at, or what made it undefined.
    pub reason: String,
}

pub(super) fn explain<S: Subject + ?Sized>(expr: &Expr, subject: &S) -> Explanation {
    let value = evaluate(expr, subject).into_owned();
    let reason = match value {
        Value::Undefined => why_undefined(expr, subject),
        _ => {
            let mut found = Vec::new();
            values(expr, subject, &mut found);
            if found.is_empty() { "it is a constant".to_owned() } else { found.join(", ") }
        }
    };
    Explanation { value, reason }
}

/// The parts of an expression.
fn parts(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::Literal(_) | Expr::Reference(_) | Expr::TwinChangeIncludes(..) => Vec::new(),
        Expr::Negate(part) | Expr::Not(part) => vec![part],
        Expr::Arithmetic(_, left, right) | Expr::Compare(_, left, right) | Expr::Coalesce(left, right) => {
            vec![left, right]
        }
        Expr::And(parts) | Expr::Or(parts) | Expr::Call(_, parts) => parts.iter().collect(),
    }
}

/// The places that an expression reads, with what is there.
fn values<S: Subject + ?Sized>(expr: &Expr, subject: &S, found: &mut Vec<String>) {
    let line = match expr {
        Expr::Reference(reference) => match evaluate(expr, subject) {
            Value::Undefined => Some(why_not_there(reference, subject)),
            value => Some(format!("{} is {}", name(expr), shown(&value.to_string()))),
        },
        Expr::TwinChangeIncludes(..) => {
            Some(format!("{} is {}", name(expr), shown(&evaluate(expr, subject).to_string())))
        }
        Expr::Compare(_, left, right) => different_kinds(&evaluate(left, subject), &evaluate(right, subject)),
        _ => None,
    };
    if let Some(line) = line
        && !found.contains(&line)
    {
        found.push(line);
    }
    for part in parts(expr) {
        values(part, subject, found);
    }
}

/// A reference as people write it.
fn name(expr: &Expr) -> String {
    match expr {
        Expr::Reference(Reference::Property(name)) => name.clone(),
        other => other.to_string(),
    }
}

fn why_undefined<S: Subject + ?Sized>(expr: &Expr, subject: &S) -> String {
    let is_undefined = |part: &&Expr| evaluate(part, subject) == Value::Undefined;
    // A part that is undefined, unless its text is what made it so.
    if let Some(part) = parts(expr).into_iter().find(|part| is_undefined(part)) {
        return why_undefined(part, subject);
    }
    match expr {
        Expr::Reference(reference) => why_not_there(reference, subject),
        Expr::TwinChangeIncludes(..) => "it is no twin change".to_owned(),
        Expr::Compare(_, left, right) => {
            let (left, right) = (evaluate(left, subject), evaluate(right, subject));
            format!("{} and {} are of different kinds", with_kind(&left), with_kind(&right))
        }
        other => {
            let inputs: Vec<String> =
                parts(other).iter().map(|part| with_kind(&evaluate(part, subject))).collect();
            if inputs.is_empty() {
                format!("its value is {other}")
            } else {
                format!("`{other}` has no value for {}", inputs.join(", "))
            }
        }
    }
}

fn why_not_there<S: Subject + ?Sized>(reference: &Reference, subject: &S) -> String {
    let place = match reference {
        Reference::Property(name) => return format!("there is no property `{name}`"),
        Reference::Dollar { place, .. } | Reference::Braced(place) => place,
    };
    let (name, value) = match place {
        DollarReference::System(_) => return format!("there is no system property `${place}`"),
        DollarReference::Body(path) => match subject.body() {
            Err(why) => return format!("`${place}`: {why}"),
            Ok(body) => ("the body", path.walk(body)),
        },
        DollarReference::Twin(section, path) => match subject.twin(*section) {
            None => return format!("`${place}`: there is no twin"),
            Some(members) => ("the twin", in_section(members, path)),
        },
    };
    match value {
        None => format!("{name} has no `${place}`"),
        Some(json) if json.is_array() => format!("`${place}` is an array"),
        Some(_) => format!("`${place}` is an object"),
    }
}

/// Says so when two values are of different kinds; nothing when one is not there.
fn different_kinds(left: &Value<'_>, right: &Value<'_>) -> Option<String> {
    let kind = |value: &Value<'_>| match value {
        Value::Undefined => None,
        Value::Null => Some("null"),
        Value::Bool(_) => Some("bool"),
        Value::Number(_) => Some("number"),
        Value::Text(_) | Value::Property(_) => Some("text"),
    };
    let is_number = |value: &Value<'_>| value.as_number().is_some();
    let is_alike = kind(left) == kind(right) || is_number(left) && is_number(right);
    (kind(left)? != "null" && kind(right)? != "null" && !is_alike)
        .then(|| format!("{} and {} are of different kinds", with_kind(left), with_kind(right)))
}

fn with_kind(value: &Value<'_>) -> String {
    let kind = match value {
        Value::Undefined | Value::Null | Value::Bool(_) => return value.to_string(),
        Value::Number(_) => "the number",
        Value::Text(_) => "the text",
        Value::Property(_) => "the property",
    };
    format!("{kind} {}", shown(&value.to_string()))
}
