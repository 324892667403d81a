//! What the text of an expression tells of its value before there is a message to evaluate it on.

use super::ast::{DollarReference, Expr, Reference};
use super::kind::Kind;
use super::value::Value;

/// Kind of an expression's value, as far as its text tells.
pub(super) fn kind_of(expr: &Expr) -> Kind {
    match expr {
        Expr::Literal(Value::Undefined) => Kind::Undefined,
        Expr::Literal(Value::Null) => Kind::Null,
        Expr::Literal(Value::Bool(_)) => Kind::Bool,
        Expr::Literal(Value::Number(_)) | Expr::Negate(_) | Expr::Arithmetic(..) => Kind::Number,
        Expr::Literal(Value::Text(_)) => Kind::Text,
        Expr::Literal(Value::Property(_)) => Kind::Property,
        Expr::Reference(
            Reference::Property(_)
            | Reference::Dollar { place: DollarReference::System(_), .. }
            | Reference::Braced(DollarReference::System(_)),
        ) => Kind::Property,
        Expr::Reference(_) => Kind::Any,
        Expr::Not(_) | Expr::Compare(..) | Expr::TwinChangeIncludes(..) => Kind::Bool,
        // They may come to null, which counts as false.
        Expr::And(_) | Expr::Or(_) => Kind::Any,
        Expr::Coalesce(left, right) => match (kind_of(left), kind_of(right)) {
            (left, right) if left == right => left,
            (Kind::Undefined, right) => right,
            (left, Kind::Undefined) => left,
            (Kind::Property | Kind::Text, Kind::Property | Kind::Text) => Kind::Property,
            _ => Kind::Any,
        },
        Expr::Call(function, _) => function.result(),
    }
}

/// A part as text: what it is, and its text when it is short.
pub(super) fn described(expr: &Expr) -> String {
    match (kind_of(expr), expr) {
        (_, Expr::Literal(Value::Text(text))) if text.chars().count() <= 40 => format!("the text {text:?}"),
        (_, Expr::Literal(value @ (Value::Number(_) | Value::Bool(_) | Value::Null))) => value.to_string(),
        (_, Expr::Reference(Reference::Property(name))) => format!("property `{name}`, a text"),
        (_, Expr::Reference(Reference::Dollar { place, .. } | Reference::Braced(place))) => {
            let text = format!("${place}");
            match place {
                DollarReference::System(_) => format!("`{text}`, a text"),
                _ => format!("`{text}`"),
            }
        }
        (Kind::Bool, _) => "true or false".to_owned(),
        (Kind::Number, _) => "a number".to_owned(),
        (Kind::Text | Kind::Property, _) => "a text".to_owned(),
        (Kind::Null, _) => "null".to_owned(),
        (Kind::Undefined, _) => "undefined".to_owned(),
        (Kind::Any, _) => "a value".to_owned(),
    }
}
