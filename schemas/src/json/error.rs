//! Why JSON from outside is refused.

/// Why a text was not read.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Its objects and arrays are nested too deep.
    #[error("JSON is nested deeper than {max} levels")]
    TooDeep {
        /// How many are allowed.
        max: usize,
    },
    /// A number would be another one when it is given back.
    #[error(
        "number `{literal}` cannot be kept as it is written: whole numbers go from -2^63 to 2^64-1, others have the precision of a \
         double; write it as a text"
    )]
    Number {
        /// As written, shortened.
        literal: String,
    },
    /// A key that an object may not have.
    #[error("key `{key}`: {why}")]
    Key {
        /// Shortened.
        key: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It is not JSON, or has another shape than was expected.
    #[error(transparent)]
    Wrong(#[from] serde_json::Error),
}

impl JsonError {
    /// Whether the text is JSON within its limit, but has another shape than was expected.
    pub fn is_shape(&self) -> bool {
        matches!(self, Self::Wrong(error) if error.is_data())
    }
}
