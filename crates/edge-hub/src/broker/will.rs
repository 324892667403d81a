//! A will: what a client leaves to be said when it is gone.

use std::sync::Arc;

use crate::message::Message;

/// The will of a client that is here.
#[derive(Debug)]
pub(crate) struct Will {
    pub message: Arc<Message>,
    pub delay_s: u32,
}

/// A will that is to be published now.
#[derive(Debug)]
pub(crate) struct DueWill {
    pub client_id: Box<str>,
    pub message: Arc<Message>,
}
