//! How strictly a model is read.

/// Whose rules apply where two readers of the language differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The language as it is specified.
    Dtdl,
    /// Device templates as IoT Central writes and takes them: `@context` is implied, quantities need no unit, an interface may be
    /// written out again where it is used again, `{"@id": ...}` names an element, and some properties stand without a type.
    IotCentral,
}

#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub dialect: Dialect,
    /// Whether `@context` may name extensions that are not known.
    pub allow_undefined_extensions: bool,
}

impl Options {
    pub const DTDL: Self = Self { dialect: Dialect::Dtdl, allow_undefined_extensions: true };
    pub const IOT_CENTRAL: Self = Self { dialect: Dialect::IotCentral, allow_undefined_extensions: true };
}
