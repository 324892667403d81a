//! The operators' server: registry of gateways and devices, twins, manifests, commands, telemetry, behind IoT Central's
//! REST paths and the same MQTT server as on gateways.
//!
//! A request comes in by `api` (REST) or `mqtt_service` (MQTT); `fleet` decides; `store` keeps; `link` tells gateways.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod admission;
pub mod api;
pub mod approval;
pub mod ask;
pub mod attest;
pub mod audit;
pub mod authorize;
pub mod c2d;
pub mod clock;
pub mod commands;
pub mod component;
pub mod config;
pub mod conformance;
pub mod deploy;
mod device_attestation;
pub mod device_import;
pub mod device_state;
pub mod device_states;
pub mod diagnosis;
pub mod enroll;
pub mod error;
mod evidence;
pub mod fleet;
pub mod gateway_report;
#[cfg(test)]
mod generations_test;
pub mod health;
pub mod identity;
pub mod ingest;
pub mod join;
pub mod link;
pub mod live;
pub mod lookup;
mod message_values;
pub mod metrics;
pub mod mqtt_service;
mod new_device;
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
pub mod single_line;
pub mod store;
pub mod templates;
pub mod token;
pub mod update;
pub mod waiting;
pub mod why;
