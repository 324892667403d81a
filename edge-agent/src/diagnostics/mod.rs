//! What a gateway gives to operators about itself: logs of its modules ([`log_reader`]), an archive for whoever helps ([`bundle`]),
//! and both of them in a store of blobs ([`uploads`]).

pub mod blob_store;
pub mod bundle;
pub mod log_reader;
pub mod spool;
pub mod uploads;
