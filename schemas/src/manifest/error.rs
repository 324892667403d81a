//! Why a manifest is refused, and how errors name its sections.

/// Where the sections stand in a document, and how errors call them wherever the sections came from.
pub const ROOT: &str = "modulesContent";

/// Why a manifest was refused. Nothing secret is ever part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: found {found}; {allowed}")]
pub struct ManifestError {
    /// The field, from the top of the document, its parts joined with dots.
    pub path: String,
    /// What stood there.
    pub found: String,
    /// What may stand there.
    pub allowed: String,
}
