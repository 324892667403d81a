//! What operators want of gateways and devices: desired properties, and manifests, which are desired properties too.

pub mod assignment;
pub mod preview;
pub mod quotes;
pub mod rollout;
pub mod service;
