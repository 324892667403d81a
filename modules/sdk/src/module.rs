//! A module as its program sees it: it sends, asks its twin, and takes one event after the other.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use schemas::bag::{PropertyBag, system};
use schemas::names::Identity;
use schemas::twin::{Section, Twin};
use serde_json::{Map, Value};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::command::{Command, Question, Receipt, Telemetry, UNANSWERED_MAX, WAITING_MAX, Waiting};
pub use crate::command::{Input, MethodCall};
use crate::connection::Connection;
use crate::settings::{Settings, SettingsError};
pub use crate::twin_error::TwinError;

/// The largest message, in bytes of topic and payload (IoT Hub: 256 KB).
const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// The longest topic that MQTT can carry, in bytes.
const TOPIC_BYTES_MAX: usize = 65_535;

/// A connection to the gateway that lasts as long as the module does, through every cut.
pub struct Module {
    identity: Identity,
    commands: mpsc::Sender<Command>,
    slots: Arc<Semaphore>,
    events: mpsc::Receiver<Waiting>,
    desired: watch::Receiver<Option<Section>>,
    /// The number of the present connection: what waits from one before it will come again.
    connection: Arc<AtomicU64>,
    /// What the event given out last is acknowledged with.
    receipt: Option<Receipt>,
    task: JoinHandle<()>,
}

/// What a module receives.
#[derive(Debug)]
pub enum Event {
    /// A message on an input. Asking for the next event acknowledges it.
    Input(Input),
    /// What an operator wants, whole: after each connect, and after each change.
    Desired(Section),
    /// A call that wants an answer.
    Method(MethodCall),
    /// The module got SIGTERM or SIGINT, and has disconnected from the gateway. Nothing follows.
    Stop,
}

/// Why a message was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The module stops; the message may or may not have arrived.
    #[error("the module stops; the message was not acknowledged")]
    Stopped,
    /// Too large to be sent, ever.
    #[error("found {bytes} bytes; a message has at most {MESSAGE_BYTES_MAX} and its topic {TOPIC_BYTES_MAX}")]
    TooLarge {
        /// Of topic and payload.
        bytes: usize,
    },
}

impl Module {
    /// The module that this container is. It connects in the background, for as long as that takes, and stops on SIGTERM
    /// and SIGINT. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// [`SettingsError`] when this is not the environment of a module container.
    pub fn connect() -> Result<Self, SettingsError> {
        Ok(Self::start(Settings::from_environment()?))
    }

    /// As [`Module::connect`], with settings from elsewhere.
    pub fn start(settings: Settings) -> Self {
        let (commands, commands_receiver) = mpsc::channel(UNANSWERED_MAX);
        let (events_sender, events) = mpsc::channel(WAITING_MAX);
        let (desired_sender, desired) = watch::channel(None);
        let number = Arc::new(AtomicU64::new(0));
        let identity = settings.identity.clone();
        let connection = Connection::new(
            settings,
            (commands.clone(), commands_receiver),
            events_sender,
            desired_sender,
            number.clone(),
        );
        let task = tokio::spawn(connection.run(terminated()));
        Self {
            identity,
            commands,
            slots: Arc::new(Semaphore::new(UNANSWERED_MAX)),
            events,
            desired,
            connection: number,
            receipt: None,
            task,
        }
    }

    /// The next event; the event before it is then acknowledged. Dropping the future loses nothing, so it may stand in
    /// a `select!`.
    pub async fn next(&mut self) -> Event {
        if self.receipt.is_some() {
            // The space first: if this future is dropped while it waits, the receipt must still be here.
            if let Ok(permit) = self.commands.reserve().await
                && let Some(receipt) = self.receipt.take()
            {
                permit.send(Command::Acknowledge(receipt));
            }
        }
        loop {
            tokio::select! {
                biased;
                Ok(()) = self.desired.changed() => {
                    if let Some(section) = self.desired.borrow_and_update().clone() {
                        return Event::Desired(section);
                    }
                }
                waiting = self.events.recv() => {
                    let present = self.connection.load(Ordering::Acquire);
                    match waiting {
                        None => return Event::Stop,
                        Some(Waiting::Input(input)) if input.receipt.connection == present => {
                            self.receipt = Some(input.receipt).filter(|receipt| receipt.packet_id.is_some());
                            return Event::Input(input);
                        }
                        Some(Waiting::Method(call)) if call.connection == present => return Event::Method(call),
                        // From a connection that has ended: the gateway sends an input again, and a caller gets an error.
                        Some(Waiting::Input(_) | Waiting::Method(_)) => {}
                    }
                }
            }
        }
    }

    /// Sends a message on an output and waits until the gateway has it on disk, however long the gateway is away. At
    /// most 32 messages are under way; a further call waits for space. A message whose future was dropped may still be
    /// sent.
    ///
    /// # Errors
    /// [`SendError`]: too large, or the module stops.
    pub async fn send(
        &self,
        output: &str,
        bag: &PropertyBag,
        payload: impl Into<Bytes>,
    ) -> Result<(), SendError> {
        let (mut bag, payload) = (bag.clone(), payload.into());
        bag.set(system::OUTPUT_NAME, output);
        let topic = schemas::topics::telemetry(&self.identity, &bag);
        let bytes = topic.len() + payload.len();
        if bytes > MESSAGE_BYTES_MAX || topic.len() > TOPIC_BYTES_MAX {
            return Err(SendError::TooLarge { bytes });
        }
        let (done, acknowledged) = oneshot::channel();
        let telemetry = Telemetry { topic, payload, done, _slot: self.slot().await };
        self.commands.send(Command::Send(telemetry)).await.map_err(|_| SendError::Stopped)?;
        acknowledged.await.map_err(|_| SendError::Stopped)
    }

    /// The whole twin, requested from the gateway now.
    ///
    /// # Errors
    /// [`TwinError`]: refused, no answer, or the module stops.
    pub async fn twin(&self) -> Result<Twin, TwinError> {
        let (done, answer) = oneshot::channel();
        self.ask(Question::Get(done)).await?;
        answer.await.map_err(|_| TwinError::Stopped)?
    }

    /// Patches the reported properties (a merge patch: `null` removes) and gives the section's new version.
    ///
    /// # Errors
    /// [`TwinError`]: refused, no answer, or the module stops.
    pub async fn report(&self, patch: &Map<String, Value>) -> Result<u64, TwinError> {
        let (done, answer) = oneshot::channel();
        let patch = serde_json::to_vec(patch).expect("a JSON map has a text");
        self.ask(Question::Report(patch.into(), done)).await?;
        answer.await.map_err(|_| TwinError::Stopped)?
    }

    /// Stops: waits a moment for what is under way, says goodbye to the gateway and ends.
    pub async fn stop(mut self) {
        self.events.close();
        // An error would be a panic of the task, which has printed itself.
        let _ = self.task.await;
    }

    async fn ask(&self, question: Question) -> Result<(), TwinError> {
        let slot = self.slot().await;
        self.commands.send(Command::Ask(question, slot)).await.map_err(|_| TwinError::Stopped)
    }

    async fn slot(&self) -> OwnedSemaphorePermit {
        self.slots.clone().acquire_owned().await.expect("the semaphore is never closed")
    }
}

/// Resolves at SIGTERM or SIGINT. As the first process of its container the module would otherwise ignore both.
fn terminated() -> impl Future<Output = ()> + Send {
    let listen = |kind| signal(kind).expect("a tokio runtime with I/O can listen for signals");
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate()), listen(SignalKind::interrupt()));
    async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}
