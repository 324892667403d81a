//! The condition language: IoT Hub's routing query language, which IoT Edge's routes speak too. It knows nothing of
//! messages or routes: what it is evaluated for is a [`Subject`].
//!
//! ```text
//! text ─ lexer ─> tokens ─ parser, kind ─> expression ─ fold ─> Condition ─ eval ─> true, false, null, undefined
//! ```
//!
//! Where it differs from IoT Edge's own reading, it says so in docs/decisions/0007-conditions.md.

pub mod ast;
pub mod body;
mod error;
mod eval;
mod explain;
mod functions;
mod inference;
mod kind;
mod lexer;
mod parser;
mod path;
mod subject;
#[cfg(test)]
mod tests;
mod value;

pub(crate) use error::Wrong;
pub use error::{Position, SyntaxError};
pub use explain::Explanation;
pub use functions::Function;
pub use path::{Path, PathStep};
pub use subject::{Subject, TwinSection};
pub use value::Value;

use ast::Expr;

/// The longest text of a condition, in bytes.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;

/// A condition that can be evaluated.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    expr: Expr,
}

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// [`SyntaxError`] with the place, what was found there, and what may stand there.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        parse_expr(text).map(|expr| Self { expr: eval::fold(expr) })
    }

    /// Reads the condition within a longer text, from a byte to the word that ends it; gives that word's place.
    pub(crate) fn parse_part(text: &str, from: usize, stop: &str) -> Result<(Self, usize), Wrong> {
        let (expr, end) = parser::parse(text, from, Some(stop))?;
        Ok((Self { expr: eval::fold(expr) }, end))
    }

    /// Whether it holds: whether it comes to `true`. False, null and undefined do not hold.
    pub fn holds<S: Subject + ?Sized>(&self, subject: &S) -> bool {
        eval::evaluate(&self.expr, subject) == Value::Bool(true)
    }

    /// What it comes to.
    pub fn value<'a, S: Subject + ?Sized>(&'a self, subject: &'a S) -> Value<'a> {
        eval::evaluate(&self.expr, subject)
    }

    /// What it comes to, and why.
    pub fn explain<S: Subject + ?Sized>(&self, subject: &S) -> Explanation {
        explain::explain(&self.expr, subject)
    }

    /// Its expression, with everything worked out that depends on nothing.
    pub fn expr(&self) -> &Expr {
        &self.expr
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.expr.fmt(f)
    }
}

/// Reads a condition as it is written, nothing worked out.
///
/// # Errors
/// As [`Condition::parse`].
pub fn parse_expr(text: &str) -> Result<Expr, SyntaxError> {
    if text.len() > TEXT_BYTES_MAX {
        let wrong = Wrong::new(0, format!("{} bytes", text.len()), format!("{TEXT_BYTES_MAX} are allowed"));
        return Err(wrong.in_text(""));
    }
    parser::parse(text, 0, None).map(|(expr, _)| expr).map_err(|wrong| wrong.in_text(text))
}
