//! The MQTT server: the MQTT listener that a gateway and central both open. It knows who connects, lets each touch only
//! its own topics, and turns topics into calls of a [`service::Service`], which each program writes for itself.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod attempts;
mod bridge_state;
mod broker;
pub mod clients;
mod close_handle;
pub mod cloud_message_dispatcher;
pub mod config_file;
mod connection_slots;
pub mod counts;
pub mod data_lock;
pub mod delivery;
pub mod enrolling;
pub mod files;
mod flight;
pub mod http_server;
pub mod https;
mod inbox;
pub mod input_file;
mod journal;
mod keeper;
pub mod limits;
pub mod listen;
mod listener;
pub mod logging;
pub mod machine;
mod message;
pub mod mqtt_server;
pub mod private_files;
mod quota;
pub mod random;
pub mod refusals;
mod retained;
mod review;
mod sanitized;
pub mod service;
mod session;
mod session_queue;
pub mod settings;
pub mod single_flight;
mod subscription;
mod table;
pub mod takeovers;
pub mod tasks;
pub mod terminal;
pub mod tls;
