//! A value of any type, for what the peer may fill as it likes: properties, annotations, filters, bodies.

use bytes::Bytes;

use super::symbol::Symbol;

/// A value with its type. Two encodings of one type, such as a small and a large `uint`, are the same value.
#[derive(Debug, Clone, PartialEq, Default)]
#[expect(missing_docs, reason = "the names of the specification, section 1.6")]
pub enum Value {
    #[default]
    Null,
    Boolean(bool),
    Ubyte(u8),
    Ushort(u16),
    Uint(u32),
    Ulong(u64),
    Byte(i8),
    Short(i16),
    Int(i32),
    Long(i64),
    Float(f32),
    Double(f64),
    /// IEEE 754-2008, kept as it came.
    Decimal32([u8; 4]),
    Decimal64([u8; 8]),
    Decimal128([u8; 16]),
    Char(char),
    Timestamp(Timestamp),
    /// In the order of RFC 4122.
    Uuid([u8; 16]),
    /// A part of the frame that it came with, which lives as long.
    Binary(Bytes),
    String(String),
    Symbol(Symbol),
    List(Vec<Value>),
    Map(Map),
    Array(Array),
    Described(Box<Described>),
}

/// Milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

/// A value whose meaning the descriptor gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Described {
    /// A `ulong` or a symbol by convention.
    pub descriptor: Value,
    /// What is described.
    pub value: Value,
}

/// Pairs in the order of the wire. The specification forbids a key twice; if one comes twice, the first counts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Map(pub Vec<(Value, Value)>);

impl Map {
    /// The value of a key that is a symbol or a string: clients use both for the same.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let found = self.0.iter().find(|(name, _)| name.as_text() == Some(key));
        found.map(|(_, value)| value)
    }

    /// Returns true if it has no pairs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Values of one type.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    descriptor: Option<Box<Value>>,
    element_code: u8,
    elements: Vec<Value>,
}

impl Array {
    /// `element_code` is the widest format code of the elements' type.
    pub(super) fn new(descriptor: Option<Box<Value>>, element_code: u8, elements: Vec<Value>) -> Self {
        debug_assert!(elements.iter().all(|value| value.wide_format_code() == element_code));
        Self { descriptor, element_code, elements }
    }

    /// What describes every element.
    pub fn descriptor(&self) -> Option<&Value> {
        self.descriptor.as_deref()
    }

    pub(super) fn element_code(&self) -> u8 {
        self.element_code
    }

    /// Without their descriptor.
    pub fn elements(&self) -> &[Value] {
        &self.elements
    }
}

impl Value {
    /// The text of a string or a symbol.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            Self::Symbol(symbol) => Some(symbol.as_str()),
            _ => None,
        }
    }

    /// The format code with the most bytes of its type, which every value of the type can have: elements of an array share one.
    pub(super) fn wide_format_code(&self) -> u8 {
        use super::format_code as code;
        match self {
            Self::Null => code::NULL,
            Self::Boolean(_) => code::BOOLEAN,
            Self::Ubyte(_) => code::UBYTE,
            Self::Ushort(_) => code::USHORT,
            Self::Uint(_) => code::UINT,
            Self::Ulong(_) => code::ULONG,
            Self::Byte(_) => code::BYTE,
            Self::Short(_) => code::SHORT,
            Self::Int(_) => code::INT,
            Self::Long(_) => code::LONG,
            Self::Float(_) => code::FLOAT,
            Self::Double(_) => code::DOUBLE,
            Self::Decimal32(_) => code::DECIMAL_32,
            Self::Decimal64(_) => code::DECIMAL_64,
            Self::Decimal128(_) => code::DECIMAL_128,
            Self::Char(_) => code::CHAR,
            Self::Timestamp(_) => code::TIMESTAMP,
            Self::Uuid(_) => code::UUID,
            Self::Binary(_) => code::BINARY_32,
            Self::String(_) => code::STRING_32,
            Self::Symbol(_) => code::SYMBOL_32,
            Self::List(_) => code::LIST_32,
            Self::Map(_) => code::MAP_32,
            Self::Array(_) => code::ARRAY_32,
            Self::Described(_) => code::DESCRIBED,
        }
    }
}

impl From<Symbol> for Value {
    fn from(symbol: Symbol) -> Self {
        Self::Symbol(symbol)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}
