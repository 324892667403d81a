//! The MQTT server through the eyes of its clients: real MQTT clients, real sockets, a small program behind it.

#![allow(clippy::unwrap_used, reason = "tests; the leave for them does not reach helper functions")]

mod access;
mod amqps;
mod amqps_client;
mod bridges;
mod disk;
mod failing_disk;
mod five;
mod free;
mod limits;
mod link;
mod methods;
mod octets;
mod panics;
mod quotas;
mod raw;
mod retained;
mod sessions;
mod site;
mod slow;
mod telemetry;
mod tls;
mod twins;
mod v3_statements;
mod v5;
mod v5_statements;
mod websocket;
mod wills;
mod wire;
