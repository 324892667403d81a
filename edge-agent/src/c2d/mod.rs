//! Cloud-to-device messages.

pub mod cloud_message_store;
