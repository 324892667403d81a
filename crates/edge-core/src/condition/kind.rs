//! Kinds of values, by which a comparison that can never be true is refused when a condition is read.

/// What an expression comes to, as far as its text tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only what it is evaluated for tells.
    Any,
    /// `undefined`
    Undefined,
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    Number,
    Text,
    /// A text that may stand for a number.
    Property,
}

impl Kind {
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
