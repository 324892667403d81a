//! Cloud-to-device messages.

pub mod service;
mod source;
