//! Etags of stored objects.

/// Returns the etag of a numbered revision.
pub(crate) fn of_revision(revision: i64) -> String {
    format!("\"{revision:x}\"")
}
