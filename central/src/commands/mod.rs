//! Commands of operators to devices and modules.

pub mod module_logs;
mod request;
pub mod service;
pub mod waiting;
