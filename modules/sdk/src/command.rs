//! What passes between the module's handle and the task behind it.

use bytes::Bytes;
use schemas::bag::PropertyBag;
use schemas::twin::Twin;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::twin_error::TwinError;

/// Messages and twin requests that may be without an answer. A further one waits until there is space.
pub(crate) const UNANSWERED_MAX: usize = 32;
/// Inputs and calls that may wait for the module.
pub(crate) const WAITING_MAX: usize = 256;

/// What the module's handle asks of the task.
#[derive(Debug)]
pub(crate) enum Command {
    Send(Telemetry),
    Ask(Question, OwnedSemaphorePermit),
    Acknowledge(Receipt),
    Answer { connection: u64, request_id: String, status: i64, body: String },
}

/// What waits for the module.
#[derive(Debug)]
pub(crate) enum Waiting {
    Input(Input),
    Method(MethodCall),
}

/// One message of the module.
#[derive(Debug)]
pub(crate) struct Telemetry {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    /// Gets a value at the PUBACK; dropped if the module stops before.
    pub(crate) done: oneshot::Sender<()>,
    /// Its place among what may be unanswered.
    pub(crate) _slot: OwnedSemaphorePermit,
}

/// What a module asks of its twin.
#[derive(Debug)]
pub(crate) enum Question {
    /// The whole twin.
    Get(oneshot::Sender<Result<Twin, TwinError>>),
    /// A merge patch of the reported section; the answer is its new version.
    Report(Bytes, oneshot::Sender<Result<u64, TwinError>>),
}

/// A message on an input.
#[derive(Debug)]
pub struct Input {
    /// The input's name.
    pub name: String,
    /// The message's properties.
    pub bag: PropertyBag,
    /// The message.
    pub payload: Bytes,
    pub(crate) receipt: Receipt,
}

/// Where an input is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub(crate) connection: u64,
    /// `None` when the message came without a delivery promise.
    pub(crate) packet_id: Option<u16>,
}

/// A call of one of the module's methods.
#[derive(Debug)]
pub struct MethodCall {
    /// The method's name.
    pub name: String,
    /// What it was called with; `null` when with nothing.
    pub payload: Value,
    pub(crate) request_id: String,
    pub(crate) connection: u64,
    pub(crate) commands: mpsc::Sender<Command>,
}

impl MethodCall {
    /// Answers the call, with an HTTP-like status. When the connection on which it came has ended, so has the call, and
    /// the answer is dropped. A call that is not answered ends at the caller's deadline.
    pub async fn answer(self, status: i64, payload: &Value) {
        let (connection, request_id, body) = (self.connection, self.request_id, payload.to_string());
        // An error means that the module has stopped: nobody waits for the answer any more.
        let _ = self.commands.send(Command::Answer { connection, request_id, status, body }).await;
    }
}
