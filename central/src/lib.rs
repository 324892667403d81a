//! The operators' server: registry of gateways and devices, twins, manifests, commands, telemetry, behind IoT Central's
//! REST paths and the same MQTT server as on gateways.
//!
//! A request comes in by `api` (REST) or `mqtt_service` (MQTT) and goes to a service: `registry`, `commands`, `deployments`,
//! `c2d`, `telemetry`, `gateway_sync` or `enrollment`. Each owns its state and a handle to `store`; `services` joins them.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod access;
pub mod api;
pub mod ask;
pub mod audit;
pub mod c2d;
pub(crate) mod checking;
pub mod clock;
pub mod commands;
pub mod config;
pub mod conformance;
pub mod deployments;
pub mod device_import;
pub mod diagnosis;
pub mod enrollment;
pub mod error;
pub mod gateway_sync;
#[cfg(test)]
mod generations_test;
pub mod identity;
pub mod join;
pub mod live;
pub mod lookup;
pub mod metrics;
pub mod mqtt_service;
mod new_device;
pub mod page;
pub mod people;
pub mod redelivery;
pub mod registry;
pub mod series;
pub mod server;
pub mod services;
pub mod store;
pub mod telemetry;
pub mod templates;
pub mod token;
pub mod types;
