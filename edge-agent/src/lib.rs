//! The gateway's daemon: it makes the running containers match a deployment manifest, is the MQTT broker of the leaf
//! devices and modules, keeps their telemetry on disk until central has it, and relays commands.
//!
//! [`agent`] joins the rooms; no other room imports its neighbours' tasks.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod agent;
pub mod authorizer;
pub mod certificate;
pub mod check;
pub mod cli;
pub mod clock;
pub mod cloud_message_store;
pub mod commands;
pub mod config;
pub mod control;
pub mod deployments;
pub mod devices;
pub mod docker;
pub mod enrolments;
pub mod gateway_service;
pub mod generations;
pub mod init;
pub mod meter;
pub mod methods;
pub mod module_generations;
pub mod module_keys;
pub mod passwords;
pub mod presence;
pub mod quarantine;
pub mod queues;
pub mod reconciler;
pub mod record;
pub mod removals;
pub mod repair;
pub mod routes_test;
pub mod routing;
pub mod state;
pub mod twins;
pub mod unrouted;
pub mod uplink;
pub mod upstreams;
pub mod users;
pub mod watch;
pub mod workload;
