//! What a condition says, and its text. Reading the text of an expression gives the same expression.

use std::fmt;

use super::functions::Function;
use super::lexer::quote;
use super::path::Path;
use super::subject::TwinSection;
use super::value::Value;

#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// As written, or as it comes out whatever it is evaluated for.
    Literal(Value<'static>),
    /// Something that is looked up.
    Reference(Reference),
    /// `-a`
    Negate(Box<Expr>),
    /// `NOT a`
    Not(Box<Expr>),
    /// `a + b`
    Arithmetic(Arithmetic, Box<Expr>, Box<Expr>),
    /// `a < b`
    Compare(Compare, Box<Expr>, Box<Expr>),
    /// `a AND b AND …`: two at least.
    And(Vec<Expr>),
    /// `a OR b OR …`: two at least.
    Or(Vec<Expr>),
    /// `a ?? b`: `b` when `a` is undefined.
    Coalesce(Box<Expr>, Box<Expr>),
    /// `f(a, …)`; `a || b` is `concat(a, b)`.
    Call(Function, Vec<Expr>),
    /// `twin_change_includes(properties.reported.path)`
    TwinChangeIncludes(TwinSection, Path),
}

/// Something that is looked up.
#[derive(Debug, Clone, PartialEq)]
pub enum Reference {
    /// `name`: an application property.
    Property(String),
    /// `$name`: an application property of just that name (with its `$`) when there is one, the place otherwise.
    Dollar {
        place: DollarReference,
        /// The text with its `$`; `None` when no property can be meant.
        property: Option<String>,
    },
    /// `{$name}`: the place, whatever the application properties are.
    Braced(DollarReference),
}

/// Where a name with a `$` leads.
#[derive(Debug, Clone, PartialEq)]
pub enum DollarReference {
    /// `$name`: a system property.
    System(String),
    /// `$body.path`
    Body(Path),
    /// `$twin.properties.reported.path`
    Twin(TwinSection, Path),
}

impl Reference {
    /// `$name`, which a property of that name takes the place of.
    pub fn dollar(place: DollarReference) -> Self {
        let is_plain = match &place {
            DollarReference::System(_) => true,
            DollarReference::Body(path) | DollarReference::Twin(_, path) => path.is_plain(),
        };
        let property = is_plain.then(|| format!("${place}"));
        Self::Dollar { place, property }
    }
}

/// The operators that make numbers of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`, with the sign of the left side
    Modulo,
}

impl Arithmetic {
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
        }
    }
}

/// The operators that compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// `=`
    Equal,
    /// `!=`, `<>`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

impl Compare {
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

/// How tightly an operator binds; the parser and the printer share it.
pub(super) mod binding {
    pub(in super::super) const COALESCE: u8 = 1;
    pub(in super::super) const OR: u8 = 2;
    pub(in super::super) const AND: u8 = 3;
    pub(in super::super) const EQUALITY: u8 = 4;
    pub(in super::super) const ORDER: u8 = 5;
    pub(in super::super) const SUM: u8 = 6;
    pub(in super::super) const PRODUCT: u8 = 7;
    pub(in super::super) const UNARY: u8 = 8;
    pub(in super::super) const PRIMARY: u8 = 9;
}

impl Expr {
    fn binding(&self) -> u8 {
        match self {
            Self::Coalesce(..) => binding::COALESCE,
            Self::Or(_) => binding::OR,
            Self::And(_) => binding::AND,
            Self::Compare(Compare::Equal | Compare::NotEqual, ..) => binding::EQUALITY,
            Self::Compare(..) => binding::ORDER,
            Self::Arithmetic(Arithmetic::Add | Arithmetic::Subtract, ..) => binding::SUM,
            Self::Arithmetic(..) => binding::PRODUCT,
            Self::Negate(_) | Self::Not(_) => binding::UNARY,
            // Only folding makes one of those.
            Self::Literal(Value::Number(number)) if number.is_sign_negative() => binding::UNARY,
            _ => binding::PRIMARY,
        }
    }

    /// Writes a part that must bind at least so tightly, in parentheses where it does not.
    fn write_part(&self, least: u8, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.binding() < least { write!(f, "({self})") } else { write!(f, "{self}") }
    }
}

fn write_joined(parts: &[Expr], word: &str, least: u8, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    parts.iter().enumerate().try_for_each(|(index, part)| {
        if index > 0 {
            f.write_str(word)?;
        }
        part.write_part(least, f)
    })
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(value) => write!(f, "{value}"),
            Self::Reference(reference) => write!(f, "{reference}"),
            Self::Negate(part) => {
                f.write_str("-")?;
                part.write_part(binding::UNARY, f)
            }
            Self::Not(part) => {
                f.write_str("NOT ")?;
                part.write_part(binding::UNARY, f)
            }
            Self::Arithmetic(operator, left, right) => {
                left.write_part(self.binding(), f)?;
                write!(f, " {} ", operator.symbol())?;
                // Operators of equal binding are read from left to right, so an equal one on the right needs parentheses.
                right.write_part(self.binding() + 1, f)
            }
            Self::Compare(operator, left, right) => {
                left.write_part(self.binding(), f)?;
                write!(f, " {} ", operator.symbol())?;
                right.write_part(self.binding() + 1, f)
            }
            // A chain within a chain keeps its parentheses: reading the text must give the same expression.
            Self::And(parts) => write_joined(parts, " AND ", binding::AND + 1, f),
            Self::Or(parts) => write_joined(parts, " OR ", binding::OR + 1, f),
            Self::Coalesce(left, right) => {
                left.write_part(binding::COALESCE, f)?;
                f.write_str(" ?? ")?;
                right.write_part(binding::COALESCE + 1, f)
            }
            Self::Call(function, arguments) => {
                write!(f, "{}(", function.name())?;
                write_joined(arguments, ", ", binding::COALESCE, f)?;
                f.write_str(")")
            }
            Self::TwinChangeIncludes(section, path) => {
                write!(f, "twin_change_includes({}{path})", section.as_str())
            }
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Property(name) => write!(f, "[{}]", quote(name)),
            Self::Dollar { place, .. } => write!(f, "${place}"),
            Self::Braced(place) => write!(f, "{{${place}}}"),
        }
    }
}

impl fmt::Display for DollarReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(name) => write!(f, "{name}"),
            Self::Body(path) => write!(f, "body{path}"),
            Self::Twin(section, path) => write!(f, "twin.{}{path}", section.as_str()),
        }
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undefined => f.write_str("undefined"),
            Self::Null => f.write_str("null"),
            Self::Bool(flag) => write!(f, "{flag}"),
            // 1/0 has no other text.
            Self::Number(number) if number.is_infinite() => {
                f.write_str(if *number > 0.0 { "1e999" } else { "-1e999" })
            }
            Self::Number(number) if number.fract() == 0.0 && number.abs() < 1e15 => write!(f, "{number:.0}"),
            Self::Number(number) => write!(f, "{number:?}"),
            Self::Text(text) | Self::Property(text) => f.write_str(&quote(text)),
        }
    }
}
