//! The front door: the MQTT listener that a gateway and central both open. It knows who connects, lets each touch only
//! its own topics, and turns topics into calls of a [`service::Service`], which each program writes for itself.

pub mod client;
pub mod clients;
pub mod codec;
pub mod delivery;
pub mod door;
pub mod https;
mod listener;
mod outbox;
pub mod postman;
pub mod service;
mod session;
mod table;
pub mod tls;
mod websocket;
