//! Asks a condition: what it comes to for a subject.
//!
//! Three values and null. Undefined AND false is false, undefined OR true is true, everything else that undefined is part
//! of is undefined. Null counts as false: `null AND true` is null, `null OR x` is x, `NOT null` is true (IoT Edge's rules).

use std::cmp::Ordering;

use super::ast::{Arithmetic, Compare, DollarReference, Expr, Reference};
use super::subject::{Nothing, Subject, in_section};
use super::value::Value;

/// What an expression comes to.
pub(super) fn evaluate<'a, S: Subject + ?Sized>(expr: &'a Expr, subject: &'a S) -> Value<'a> {
    match expr {
        Expr::Literal(value) => borrowed(value),
        Expr::Reference(reference) => resolve(reference, subject),
        Expr::Negate(part) => {
            evaluate(part, subject).as_number().map_or(Value::Undefined, |number| Value::number(-number))
        }
        Expr::Not(part) => not(&evaluate(part, subject)),
        Expr::Arithmetic(operator, left, right) => {
            arithmetic(*operator, &evaluate(left, subject), &evaluate(right, subject))
        }
        Expr::Compare(operator, left, right) => {
            // What kind a value of the body has is known only now; all other kinds were compared when the condition was read.
            let is_of_message = is_of_body(left) || is_of_body(right);
            compare(*operator, &operand(left, subject), &operand(right, subject), is_of_message)
        }
        Expr::And(parts) => {
            let mut all = Value::Bool(true);
            for part in parts {
                all = and(all, evaluate(part, subject));
                // `undefined AND false` is false, so only false ends the chain early.
                if all == Value::Bool(false) {
                    break;
                }
            }
            all
        }
        Expr::Or(parts) => {
            let mut any = evaluate(&parts[0], subject);
            for part in &parts[1..] {
                // `undefined OR true` is true, so only true ends the chain early.
                if any == Value::Bool(true) {
                    break;
                }
                any = or(any, evaluate(part, subject));
            }
            any
        }
        Expr::Coalesce(left, right) => match evaluate(left, subject) {
            Value::Undefined => evaluate(right, subject),
            defined => defined,
        },
        Expr::Call(function, arguments) => {
            let values: Vec<Value<'a>> =
                arguments.iter().map(|argument| evaluate(argument, subject)).collect();
            function.apply(&values)
        }
        Expr::TwinChangeIncludes(section, path) => match subject.twin_change() {
            None => Value::Undefined,
            // A null deletes: the change does not include it (IoT Edge).
            Some((changed, patch)) => {
                Value::Bool(changed == *section && path.walk(patch).is_some_and(|value| !value.is_null()))
            }
        },
    }
}

/// A side of a comparison: what the body does not have is null there (IoT Edge's `BodyQueryTest`), and undefined elsewhere.
fn operand<'a, S: Subject + ?Sized>(expr: &'a Expr, subject: &'a S) -> Value<'a> {
    let value = evaluate(expr, subject);
    match expr {
        Expr::Reference(
            Reference::Dollar { place: DollarReference::Body(path), .. }
            | Reference::Braced(DollarReference::Body(path)),
        ) if value == Value::Undefined && subject.body().is_ok_and(|body| path.walk(body).is_none()) => {
            Value::Null
        }
        _ => value,
    }
}

/// Whether the kind of the value is known only from the message's body.
fn is_of_body(expr: &Expr) -> bool {
    match expr {
        Expr::Reference(Reference::Dollar { place, .. } | Reference::Braced(place)) => {
            matches!(place, DollarReference::Body(_))
        }
        Expr::Literal(_) | Expr::Reference(Reference::Property(_)) | Expr::TwinChangeIncludes(..) => false,
        Expr::Negate(part) | Expr::Not(part) => is_of_body(part),
        Expr::Arithmetic(_, left, right) | Expr::Compare(_, left, right) | Expr::Coalesce(left, right) => {
            is_of_body(left) || is_of_body(right)
        }
        Expr::And(parts) | Expr::Or(parts) | Expr::Call(_, parts) => parts.iter().any(is_of_body),
    }
}

fn borrowed<'a>(value: &'a Value<'static>) -> Value<'a> {
    match value {
        Value::Text(text) => Value::Text(std::borrow::Cow::Borrowed(text)),
        Value::Property(text) => Value::Property(std::borrow::Cow::Borrowed(text)),
        Value::Undefined => Value::Undefined,
        Value::Null => Value::Null,
        Value::Bool(flag) => Value::Bool(*flag),
        Value::Number(number) => Value::Number(*number),
    }
}

fn resolve<'a, S: Subject + ?Sized>(reference: &Reference, subject: &'a S) -> Value<'a> {
    let property = |text: Option<&'a str>| text.map(|text| Value::Property(text.into()));
    let at = |place: &DollarReference| match place {
        DollarReference::System(name) => property(subject.system(name)).unwrap_or(Value::Undefined),
        DollarReference::Body(path) => {
            subject.body().ok().and_then(|body| path.walk(body)).map_or(Value::Undefined, Value::of_json)
        }
        DollarReference::Twin(section, path) => subject
            .twin(*section)
            .and_then(|section| in_section(section, path))
            .map_or(Value::Undefined, Value::of_json),
    };
    match reference {
        Reference::Property(name) => property(subject.property(name)).unwrap_or(Value::Undefined),
        Reference::Dollar { place, property: name } => {
            let own = name.as_deref().and_then(|name| property(subject.property(name)));
            own.unwrap_or_else(|| at(place))
        }
        Reference::Braced(place) => at(place),
    }
}

pub(super) fn not<'a>(value: &Value<'_>) -> Value<'a> {
    match value {
        Value::Bool(flag) => Value::Bool(!flag),
        Value::Null => Value::Bool(true),
        _ => Value::Undefined,
    }
}

pub(super) fn and<'a>(left: Value<'_>, right: Value<'_>) -> Value<'a> {
    match (left, right) {
        (Value::Bool(false), _) | (_, Value::Bool(false)) => Value::Bool(false),
        (Value::Null, _) | (_, Value::Null) => Value::Null,
        (Value::Bool(true), Value::Bool(true)) => Value::Bool(true),
        _ => Value::Undefined,
    }
}

pub(super) fn or<'a>(left: Value<'_>, right: Value<'_>) -> Value<'a> {
    match (left, right) {
        (Value::Bool(true), _) | (_, Value::Bool(true)) => Value::Bool(true),
        (Value::Null, Value::Null) => Value::Null,
        (Value::Bool(false) | Value::Null, Value::Bool(false) | Value::Null) => Value::Bool(false),
        _ => Value::Undefined,
    }
}

fn arithmetic<'a>(operator: Arithmetic, left: &Value<'_>, right: &Value<'_>) -> Value<'a> {
    let (Some(left), Some(right)) = (left.as_number(), right.as_number()) else { return Value::Undefined };
    Value::number(match operator {
        Arithmetic::Add => left + right,
        Arithmetic::Subtract => left - right,
        Arithmetic::Multiply => left * right,
        Arithmetic::Divide => left / right,
        Arithmetic::Modulo => left % right,
    })
}

/// Values of different kinds are different (IoT Edge's `BodyQueryTest`), and neither is less. A property whose text is no number
/// says nothing about a number of the condition.
fn compare<'a>(operator: Compare, left: &Value<'_>, right: &Value<'_>, is_of_message: bool) -> Value<'a> {
    let ordering = match (left, right) {
        (Value::Number(_), _) | (_, Value::Number(_)) => match (left.as_number(), right.as_number()) {
            (Some(left), Some(right)) => left.partial_cmp(&right),
            _ => None,
        },
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (Value::Null, Value::Null) => Some(Ordering::Equal),
        _ => match (left.as_text(), right.as_text()) {
            (Some(left), Some(right)) => Some(left.cmp(right)),
            _ => None,
        },
    };
    let Some(ordering) = ordering else {
        let is_undefined = *left == Value::Undefined || *right == Value::Undefined;
        return match operator {
            Compare::Equal if is_of_message && !is_undefined => Value::Bool(false),
            Compare::NotEqual if is_of_message && !is_undefined => Value::Bool(true),
            _ => Value::Undefined,
        };
    };
    Value::Bool(match operator {
        Compare::Equal => ordering.is_eq(),
        Compare::NotEqual => ordering.is_ne(),
        Compare::Less => ordering.is_lt(),
        Compare::LessOrEqual => ordering.is_le(),
        Compare::Greater => ordering.is_gt(),
        Compare::GreaterOrEqual => ordering.is_ge(),
    })
}

/// The same condition with every part worked out that depends on nothing.
pub(super) fn fold(expr: Expr) -> Expr {
    let pair = |left: Box<Expr>, right: Box<Expr>| (Box::new(fold(*left)), Box::new(fold(*right)));
    let is_fixed = |parts: &[Expr]| parts.iter().all(|part| matches!(part, Expr::Literal(_)));
    let each = |parts: Vec<Expr>| parts.into_iter().map(fold).collect::<Vec<_>>();
    let folded = match expr {
        Expr::Negate(part) => Expr::Negate(Box::new(fold(*part))),
        Expr::Not(part) => Expr::Not(Box::new(fold(*part))),
        Expr::Arithmetic(operator, left, right) => {
            let (left, right) = pair(left, right);
            Expr::Arithmetic(operator, left, right)
        }
        Expr::Compare(operator, left, right) => {
            let (left, right) = pair(left, right);
            Expr::Compare(operator, left, right)
        }
        Expr::Coalesce(left, right) => {
            let (left, right) = pair(left, right);
            Expr::Coalesce(left, right)
        }
        Expr::And(parts) => Expr::And(each(parts)),
        Expr::Or(parts) => Expr::Or(each(parts)),
        Expr::Call(function, arguments) => Expr::Call(function, each(arguments)),
        other @ (Expr::Literal(_) | Expr::Reference(_) | Expr::TwinChangeIncludes(..)) => return other,
    };
    let depends_on_nothing = match &folded {
        Expr::Negate(part) | Expr::Not(part) => is_fixed(std::slice::from_ref(part)),
        Expr::Arithmetic(_, left, right) | Expr::Compare(_, left, right) | Expr::Coalesce(left, right) => {
            is_fixed(std::slice::from_ref(left)) && is_fixed(std::slice::from_ref(right))
        }
        Expr::And(parts) | Expr::Or(parts) | Expr::Call(_, parts) => is_fixed(parts),
        Expr::Literal(_) | Expr::Reference(_) | Expr::TwinChangeIncludes(..) => false,
    };
    if depends_on_nothing { Expr::Literal(evaluate(&folded, &Nothing).into_owned()) } else { folded }
}
