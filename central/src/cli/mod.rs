//! The commands of `central`, one file for each group.

pub(crate) mod data;
pub(crate) mod devices;
pub(crate) mod gateways;
pub(crate) mod modules;
mod noted;
mod output;
pub(crate) mod roles;
mod serving;
pub(crate) mod store;
pub(crate) mod templates;
pub(crate) mod tokens;
pub(crate) mod users;
