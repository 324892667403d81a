//! What can be told of a part of a condition before there is anything to ask: a comparison that can never come out is
//! refused, and not found out by a message that goes nowhere.

use super::ast::{Expr, Place, Reference};
use super::value::Value;

/// What an expression comes to, as far as its text tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only what it is asked about tells.
    Any,
    /// `undefined`
    Undefined,
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number.
    Number,
    /// A text.
    Text,
    /// A text that may stand for a number.
    Property,
}

impl Kind {
    pub(super) fn of(expr: &Expr) -> Self {
        match expr {
            Expr::Literal(Value::Undefined) => Self::Undefined,
            Expr::Literal(Value::Null) => Self::Null,
            Expr::Literal(Value::Bool(_)) => Self::Bool,
            Expr::Literal(Value::Number(_)) | Expr::Negate(_) | Expr::Arithmetic(..) => Self::Number,
            Expr::Literal(Value::Text(_)) => Self::Text,
            Expr::Literal(Value::Property(_)) => Self::Property,
            Expr::Reference(
                Reference::Property(_)
                | Reference::Dollar { place: Place::System(_), .. }
                | Reference::Braced(Place::System(_)),
            ) => Self::Property,
            Expr::Reference(_) => Self::Any,
            Expr::Not(_) | Expr::Compare(..) | Expr::TwinChangeIncludes(..) => Self::Bool,
            // They may come to null, which counts as false.
            Expr::And(_) | Expr::Or(_) => Self::Any,
            Expr::Coalesce(left, right) => match (Self::of(left), Self::of(right)) {
                (left, right) if left == right => left,
                (Self::Undefined, right) => right,
                (left, Self::Undefined) => left,
                (Self::Property | Self::Text, Self::Property | Self::Text) => Self::Property,
                _ => Self::Any,
            },
            Expr::Call(function, _) => function.result(),
        }
    }

    /// Whether two of them can be compared.
    pub(super) fn fits(self, other: Self) -> bool {
        let is_open = |kind| matches!(kind, Self::Any | Self::Undefined);
        self == other
            || is_open(self)
            || is_open(other)
            || (self == Self::Property && matches!(other, Self::Text | Self::Number))
            || (other == Self::Property && matches!(self, Self::Text | Self::Number))
    }

    /// Whether it can be one side of AND, OR or NOT, or a whole condition.
    pub(super) fn is_condition(self) -> bool {
        matches!(self, Self::Any | Self::Undefined | Self::Bool | Self::Null)
    }
}

/// A part in words: what it is, and its text when it is short.
pub(super) fn described(expr: &Expr) -> String {
    match (Kind::of(expr), expr) {
        (_, Expr::Literal(Value::Text(text))) if text.chars().count() <= 40 => format!("the text {text:?}"),
        (_, Expr::Literal(value @ (Value::Number(_) | Value::Bool(_) | Value::Null))) => value.to_string(),
        (_, Expr::Reference(Reference::Property(name))) => format!("property `{name}`, a text"),
        (_, Expr::Reference(Reference::Dollar { place, .. } | Reference::Braced(place))) => {
            let text = format!("${place}");
            match place {
                Place::System(_) => format!("`{text}`, a text"),
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
