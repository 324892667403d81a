//! The logic of central: device models for now. Nothing here reads a file, waits or asks for the time.

pub mod model;
