//! The front door: the MQTT listener that a gateway and central both open. It knows who connects, lets each touch only
//! its own topics, and turns topics into calls of a [`service::Service`], which each program writes for itself.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod attempts;
mod bridge_state;
mod broker;
pub mod client;
pub mod clients;
pub mod codec;
pub mod config_file;
pub mod data_lock;
pub mod delivery;
pub mod door;
pub mod enrolling;
pub mod files;
mod flight;
pub mod http_server;
pub mod https;
mod inbox;
mod journal;
mod keeper;
pub mod limits;
pub mod listen;
mod listener;
pub mod logging;
pub mod machine;
mod mailbox;
mod message;
mod places;
pub mod postman;
pub mod private_files;
mod quota;
pub mod random;
mod reach;
pub mod refusals;
mod retained;
mod review;
pub mod rounds;
pub mod service;
mod session;
mod shown;
mod table;
pub mod takeovers;
pub mod tasks;
pub mod tls;
mod websocket;
