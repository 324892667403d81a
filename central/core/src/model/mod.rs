//! Device models in DTDL version 2 (Digital Twins Definition Language), with IoT Central's extension.
//!
//! [`parse::parse`] turns a document into a [`types::Model`], or into every problem of the document: each with the rule, the `@id` of the
//! element and the path to it. [`values::check`] says whether a value conforms to a schema. The stages, from text to model:
//!
//! ```text
//! json      bytes -> JSON, bounded in size and nesting, no member twice
//! context   @context -> which terms are known
//! reader    JSON -> elements, each property checked against its class (vocabulary, literals, semantics)
//! structure references, depth, inheritance, uniqueness across elements
//! build     elements -> types
//! ```

pub mod build;
pub mod calendar;
pub mod context;
pub mod dtmi;
pub mod element;
pub mod element_types;
pub mod graph;
pub mod json;
pub mod literals;
pub mod options;
pub mod parse;
pub mod problem;
pub mod reader;
pub mod semantics;
pub mod structure;
pub mod terms;
pub mod types;
pub mod values;
pub mod vocabulary;
