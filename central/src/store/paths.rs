//! Names of files in the data directory.

/// The store.
pub const FILE: &str = "central.db";
/// The lock of the data directory: of `central serve`, and of commands that replace the store.
pub const LOCK_FILE: &str = "central.lock";
