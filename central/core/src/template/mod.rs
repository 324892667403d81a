//! Device templates: a capability model for devices of one kind.

pub mod changes;
pub mod generate;
