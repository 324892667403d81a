//! The gateway's daemon: it makes the running containers match a deployment manifest, is the MQTT broker of the leaf
//! devices and modules, keeps their telemetry on disk until central has it, and relays commands.
//!
//! [`agent`] starts the parts and joins them: each is handed the channels and the traits that it needs.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod access;
pub mod agent;
pub mod c2d;
pub mod check;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod control;
pub mod data_parts;
pub mod deployment;
pub mod diagnostics;
pub mod gateway_service;
pub mod messages;
pub mod metrics;
pub mod open_files;
pub mod state;
pub mod upstream;
