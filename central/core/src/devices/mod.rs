//! Lists of devices in files.

pub mod csv;
pub mod import;
