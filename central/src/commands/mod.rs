//! Commands of operators to devices and modules.

mod request;
pub mod service;
pub mod waiting;
