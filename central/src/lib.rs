//! The operators' server: registry of gateways and devices, twins, manifests, commands, telemetry, behind IoT Central's
//! REST paths and the same MQTT front door that gateways open.
//!
//! A request comes in by `api` (REST) or `door` (MQTT); `fleet` decides; `store` keeps; `link` tells gateways.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod api;
pub mod ask;
pub mod attest;
pub mod audit;
pub mod authorize;
pub mod calls;
pub mod clock;
pub mod component;
pub mod config;
pub mod deploy;
pub mod device_state;
pub mod device_states;
pub mod diagnosis;
pub mod door;
pub mod enroll;
pub mod fleet;
pub mod gateway_report;
#[cfg(test)]
mod generations_test;
pub mod health;
pub mod identity;
pub mod ingest;
pub mod join;
pub mod line;
pub mod link;
pub mod live;
pub mod mail;
mod message_values;
pub mod organizations;
pub mod page;
pub mod people;
mod placement;
pub mod precondition;
pub mod presence;
pub mod proving;
pub mod redact;
pub mod series;
pub mod server;
pub mod store;
pub mod token;
pub mod update;
pub mod waiting;
pub mod why;
