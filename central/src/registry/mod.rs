//! The registry of gateways and devices.

pub mod approval;
pub mod attest;
pub mod registration;
mod relationships;
pub mod service;
