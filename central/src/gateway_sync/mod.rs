//! What central sends to gateways on their links, and what gateways report there.

pub mod connections;
mod messages;
mod outbox;
pub mod reports;
pub mod service;
mod speaker;
mod turns;
