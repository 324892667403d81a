//! The commands of `central`, one file for each group.

pub(crate) mod data;
pub(crate) mod devices;
pub(crate) mod gateways;
mod output;
pub(crate) mod store;
pub(crate) mod templates;
pub(crate) mod tokens;
pub(crate) mod users;
