//! The logic of central: who may do what, device models, and device templates made from what a device sends. Nothing here reads a
//! file, waits or asks for the time.

pub mod access;
pub mod devices;
pub mod model;
pub mod template;
