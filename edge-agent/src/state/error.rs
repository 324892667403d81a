//! Why the state cannot be used.

use std::path::PathBuf;

/// Why state could not be opened, read or saved.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The directory could not be used.
    #[error("state in {dir}: {doing}")]
    Directory {
        dir: PathBuf,
        /// What was being done.
        doing: &'static str,
        #[source]
        source: std::io::Error,
    },
    /// The journal could not be used.
    #[error("state in {dir}: its journal cannot be used")]
    Journal {
        dir: PathBuf,
        #[source]
        source: edge_buffer::OpenError,
    },
    /// Neither the database nor an export can be read, and the journal does not reach back to the beginning.
    #[error(
        "state in {dir}: the database is damaged and no export can take its place; restore {dir} from a backup"
    )]
    Damaged { dir: PathBuf },
    /// The write did not reach the disk.
    #[error("state was not saved: {0}")]
    NotSaved(String),
}
