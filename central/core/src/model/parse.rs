//! The way from text to a model.

use serde_json::Value;

use super::build;
use super::json;
use super::options::Options;
use super::problem::{Problems, Rule};
use super::reader::Reader;
use super::structure;
use super::types::Model;

/// Reads a document: one interface, or an array of such.
///
/// # Errors
/// Every problem of the document, not only the first.
pub fn parse(text: &[u8], options: &Options) -> Result<Model, Problems> {
    let mut problems = Problems::default();
    match json::read(text, &mut problems) {
        Some(document) => parse_documents(std::slice::from_ref(&document), options),
        None => Err(problems),
    }
}

/// As [`parse`], for documents that were read already and refer to each other.
///
/// # Errors
/// As [`parse`].
pub fn parse_documents(documents: &[Value], options: &Options) -> Result<Model, Problems> {
    let mut reader = Reader::new(options);
    for document in documents {
        // Checked first, because the reader recurses once for each level.
        if json::is_nested_within_bounds(document) {
            reader.read_document(document);
        } else {
            let message =
                format!("arrays and objects stand more than {} deep in each other", json::NESTING_MAX);
            reader.problems.add(None, "", Rule::NestedTooDeep, message);
        }
    }
    let Reader { elements, mut problems, .. } = reader;
    // Checked even if elements were refused: an author gets all problems at once.
    structure::check(&elements, &mut problems);
    if problems.is_empty() { Ok(build::model(&elements)) } else { Err(problems) }
}
