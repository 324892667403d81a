//! Names of files in the data directory.

/// The store.
pub const FILE: &str = "central.db";
/// The lock of the data directory: of `central serve`, and of commands that replace the store.
pub const LOCK_FILE: &str = "central.lock";
/// Disk space for the store's file, which its log is moved into.
pub(super) const RESERVE_FILE: &str = "central.reserve";
/// In the data directory from before `central restore` changes anything there until all of it is done.
pub(super) const RESTORING_FILE: &str = "restore-unfinished";
