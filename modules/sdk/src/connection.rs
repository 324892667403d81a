//! The task behind a module: connects with a fresh token, serves the connection until it ends, and begins again.
//!
//! ```text
//!   away --trust, token, CONNACK--> serving --cut---------------> away, after a wait that doubles
//!                                   serving --token grows old---> leaving --DISCONNECT--> away, at once
//!                                   serving --told to stop------> leaving --DISCONNECT--> ended
//! ```
//! What a cut left open is kept by the outbox: packet ids mean nothing on the next connection.

use std::future::Future;
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mqtt::client::{Incoming, ReceiveError, Receiver, Sender};
use schemas::topics;
use schemas::twin::Section;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use crate::command::{Command, Input, MethodCall, Question, Receipt, Waiting};
use crate::link::{GOODBYE, KEEP_ALIVE, Link, LinkError, Reason, UNWRITTEN_BYTES_MAX, open};
use crate::outbox::{Outbox, Questions};
use crate::settings::Settings;
use crate::wire::{Arrival, arrival};

/// The gateway is on the same machine: what is gained by waiting longer than the cap is small.
const BACKOFF_CAP: Duration = Duration::from_secs(5);
/// The wait after the first failure.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);

/// How long the rest of a connection that cannot be written is read.
const TAKE_LAST: Duration = Duration::from_secs(1);

/// How serving ended.
enum Ended {
    Stopped,
    Renewed,
    Lost(LinkError),
}

/// The task and what it keeps from connection to connection.
pub(crate) struct Connection {
    settings: Arc<Settings>,
    commands: mpsc::Receiver<Command>,
    /// For calls to bring their answers home.
    commands_sender: mpsc::Sender<Command>,
    events: mpsc::Sender<Waiting>,
    desired: watch::Sender<Option<Section>>,
    /// Counts connections.
    number: Arc<AtomicU64>,
    outbox: Outbox,
    questions: Questions,
}

impl Connection {
    pub(crate) fn new(
        settings: Settings,
        (commands_sender, commands): (mpsc::Sender<Command>, mpsc::Receiver<Command>),
        events: mpsc::Sender<Waiting>,
        desired: watch::Sender<Option<Section>>,
        number: Arc<AtomicU64>,
    ) -> Self {
        let (outbox, questions) = (Outbox::default(), Questions::default());
        let settings = Arc::new(settings);
        Self { settings, commands, commands_sender, events, desired, number, outbox, questions }
    }

    /// Runs until `terminated`, or until the module lets go of its handle.
    pub(crate) async fn run(mut self, terminated: impl Future<Output = ()>) {
        let events = self.events.clone();
        let mut stop = pin!(async move {
            tokio::select! {
                () = terminated => {}
                () = events.closed() => {}
            }
        });
        let mut failures = 0;
        loop {
            let opened = match self.while_away(stop.as_mut(), open(self.settings.clone())).await {
                None => break,
                Some(opened) => opened,
            };
            let ended = match opened {
                Err(error) => Ended::Lost(error),
                Ok((sender, receiver)) => {
                    let since = Instant::now();
                    let ended = self.serve(sender, receiver, stop.as_mut()).await;
                    // A gateway that accepts the module and soon disconnects it gets no more attempts for it.
                    if since.elapsed() >= BACKOFF_CAP {
                        failures = 0;
                    }
                    self.outbox.cut();
                    self.questions.cut();
                    ended
                }
            };
            match ended {
                Ended::Stopped => break,
                Ended::Renewed => info!("connection left for one with a new token"),
                Ended::Lost(error) => {
                    let wait = backoff(failures, rand::random());
                    failures += 1;
                    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                    warn!(error = chain(&error), failures, wait_ms, "gateway not connected; trying again");
                    if self.while_away(stop.as_mut(), sleep(wait)).await.is_none() {
                        break;
                    }
                }
            }
        }
        info!(unacknowledged = self.outbox.len(), "module stopped");
    }

    /// Waits for something while not connected, and takes the module's requests meanwhile. `None` if the module stops.
    async fn while_away<T>(
        &mut self,
        mut stop: Pin<&mut impl Future<Output = ()>>,
        wait: impl Future<Output = T>,
    ) -> Option<T> {
        let mut wait = pin!(wait);
        loop {
            tokio::select! {
                value = &mut wait => return Some(value),
                () = &mut stop => return None,
                Some(command) = self.commands.recv() => self.keep(command),
            }
        }
    }

    /// Keeps what is to be sent. Acknowledgements and answers are for a connection that has ended: nobody waits for them.
    fn keep(&mut self, command: Command) {
        match command {
            Command::Send(telemetry) => self.outbox.push(telemetry),
            Command::Ask(question, slot) => self.questions.push(question, slot),
            Command::Acknowledge(_) | Command::Answer { .. } => {}
        }
    }

    async fn serve(
        &mut self,
        mut sender: Sender,
        mut receiver: Receiver,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Ended {
        let number = self.number.fetch_add(1, Ordering::AcqRel) + 1;
        info!(gateway = self.settings.gateway, identity = %self.settings.identity, "gateway connected");
        let now = Instant::now();
        let mut link = Link::new(number, now + self.settings.token_valid * 5 / 6);
        link.subscribe(&self.settings, &mut sender);
        let mut ping = Ping { due: now + KEEP_ALIVE, is_unanswered: false };
        loop {
            if let Err(error) = self.send_queued(&mut link, &mut sender) {
                return Ended::Lost(error);
            }
            let wake = self.wake(&link).min(ping.due);
            // Each of these can be dropped half-way: nothing that was read or queued is lost.
            let step = tokio::select! {
                received = receiver.next() => match received {
                    Ok(incoming) => self.on_incoming(&mut link, &mut sender, &mut ping, incoming),
                    Err(ReceiveError::SubscriptionRefused(_)) => Err(LinkError::Subscription),
                    Err(source) => Err(LinkError::Receive { gateway: self.settings.gateway.clone(), source }),
                },
                flushed = sender.flush(), if sender.has_output() => match flushed {
                    Ok(()) => Ok(link.goodbye_written()),
                    Err(source) => {
                        self.take_last(&mut receiver).await;
                        Err(LinkError::Write { gateway: self.settings.gateway.clone(), source })
                    }
                },
                Some(command) = self.commands.recv() => {
                    self.on_command(&mut link, command);
                    Ok(ControlFlow::Continue(()))
                }
                () = &mut stop, if !link.is_stopping() => {
                    link.leave(Reason::Stop, Instant::now());
                    Ok(ControlFlow::Continue(()))
                }
                () = sleep_until(wake) => match ping.on_wake(&mut sender) {
                    Ok(()) => Ok(self.on_wake(&mut link, &mut sender)),
                    Err(error) => Err(error),
                },
            };
            match step {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(Reason::Renew)) => return Ended::Renewed,
                Ok(ControlFlow::Break(Reason::Stop)) => return Ended::Stopped,
                Err(_) if link.is_stopping() => return Ended::Stopped,
                Err(error) => return Ended::Lost(error),
            }
        }
    }

    /// Takes the acknowledgements that the gateway had sent when writing to it failed, so that what it has is not sent again.
    async fn take_last(&mut self, receiver: &mut Receiver) {
        let rest = async {
            while let Ok(incoming) = receiver.next().await {
                if let Incoming::Acknowledged(packet_id) = incoming {
                    self.outbox.acknowledged(packet_id);
                }
            }
        };
        // The end of a connection that cannot be written may never be read.
        let _ = timeout(TAKE_LAST, rest).await;
    }

    /// Gives the MQTT client what is to go out next, or DISCONNECT when it is time to leave.
    fn send_queued(&mut self, link: &mut Link, sender: &mut Sender) -> Result<(), LinkError> {
        if link.leaving.is_none() {
            self.outbox.send_with(|telemetry| sender.publish(&telemetry.topic, &telemetry.payload));
            let now = Instant::now();
            while let Some((id, question)) = self.questions.next(now, || link.next_request()) {
                match question {
                    Question::Get(_) => link.say(topics::twin_get(&id), " "),
                    Question::Report(patch, _) => link.say(topics::twin_reported(&id), patch.clone()),
                }
            }
        }
        link.write(sender);
        if let Some(leaving) = &mut link.leaving
            && !leaving.has_said_goodbye
            && !self.outbox.is_awaiting()
        {
            leaving.has_said_goodbye = true;
            sender.disconnect();
        }
        if sender.waiting_bytes() > UNWRITTEN_BYTES_MAX { Err(LinkError::Unwritten) } else { Ok(()) }
    }

    /// When something is due without anyone saying so.
    fn wake(&self, link: &Link) -> Instant {
        match &link.leaving {
            Some(leaving) => leaving.deadline,
            None => [Some(link.renew_at), link.twin_due, self.questions.deadline()]
                .into_iter()
                .flatten()
                .min()
                .expect("the token always grows old"),
        }
    }

    fn on_wake(&mut self, link: &mut Link, sender: &mut Sender) -> ControlFlow<Reason> {
        let now = Instant::now();
        if let Some(leaving) = &mut link.leaving {
            if leaving.deadline > now {
                return ControlFlow::Continue(());
            }
            if leaving.has_said_goodbye {
                return ControlFlow::Break(leaving.reason);
            }
            // What is in flight gets no more time: DISCONNECT now, and one moment more for it to be written.
            leaving.has_said_goodbye = true;
            leaving.deadline = now + GOODBYE / 3;
            sender.disconnect();
            return ControlFlow::Continue(());
        }
        self.questions.expire(now);
        if link.twin_due.is_some_and(|due| due <= now) {
            link.ask_twin(now);
        }
        if link.renew_at <= now {
            link.leave(Reason::Renew, now);
        }
        ControlFlow::Continue(())
    }

    fn on_command(&mut self, link: &mut Link, command: Command) {
        match command {
            Command::Acknowledge(receipt) if receipt.connection == link.number => {
                link.acknowledge(receipt.packet_id);
            }
            Command::Answer { connection, request_id, status, body } if connection == link.number => {
                link.say(topics::method_response(status, &request_id), body);
            }
            command => self.keep(command),
        }
    }

    fn on_incoming(
        &mut self,
        link: &mut Link,
        sender: &mut Sender,
        ping: &mut Ping,
        incoming: Incoming,
    ) -> Result<ControlFlow<Reason>, LinkError> {
        match incoming {
            Incoming::Acknowledged(packet_id) => {
                sender.acknowledged(packet_id);
                self.outbox.acknowledged(packet_id);
            }
            Incoming::Subscribed(packet_id) => sender.acknowledged(packet_id),
            Incoming::Message { topic, payload, packet_id } => {
                self.on_message(link, &topic, payload, packet_id)?;
            }
            Incoming::Pong => ping.is_unanswered = false,
            // Only MQTT 5 refuses a message and keeps the connection.
            Incoming::Refused { .. } => {}
        }
        Ok(ControlFlow::Continue(()))
    }

    fn on_message(
        &mut self,
        link: &mut Link,
        topic: &str,
        payload: Bytes,
        packet_id: Option<u16>,
    ) -> Result<(), LinkError> {
        let receipt = Receipt { connection: link.number, packet_id };
        match arrival(&self.settings.identity, topic) {
            Some(Arrival::Input { name, bag }) => {
                let input = Input { name, bag, payload, receipt };
                return match self.events.try_send(Waiting::Input(input)) {
                    Err(mpsc::error::TrySendError::Full(_)) => Err(LinkError::Unread),
                    // Closed: the module is letting go, and the input stays unacknowledged.
                    Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
                };
            }
            Some(Arrival::Method { name, request_id }) => self.on_method(link, name, request_id, &payload),
            Some(Arrival::TwinAnswer { status, request_id, version }) => {
                if link.twin_request.as_ref() == Some(&request_id) {
                    link.on_twin(status, &payload, &self.desired);
                } else {
                    self.questions.answered(&request_id, status, version, &payload);
                }
            }
            Some(Arrival::DesiredPatch { version }) => link.on_patch(version, &payload, &self.desired),
            None => warn!(topic, "message of unknown meaning dropped"),
        }
        link.acknowledge(packet_id);
        Ok(())
    }

    fn on_method(&mut self, link: &mut Link, name: String, request_id: String, payload: &[u8]) {
        let connection = link.number;
        let mut refuse = |status, message: &str| {
            link.say(topics::method_response(status, &request_id), json!({"message": message}).to_string());
        };
        let payload = match payload.trim_ascii() {
            [] => Value::Null,
            text => match serde_json::from_slice(text) {
                Ok(payload) => payload,
                Err(_) => return refuse(400, "the payload is not JSON"),
            },
        };
        let commands = self.commands_sender.clone();
        let call = MethodCall { name, payload, request_id: request_id.clone(), connection, commands };
        match self.events.try_send(Waiting::Method(call)) {
            Err(mpsc::error::TrySendError::Full(_)) => {
                refuse(503, "too many inputs and calls wait; call later");
            }
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
        }
    }
}

/// The keep-alive of one connection.
struct Ping {
    due: Instant,
    is_unanswered: bool,
}

impl Ping {
    /// Pings when it is due.
    ///
    /// # Errors
    /// [`LinkError::Silent`] when the ping before was not answered.
    fn on_wake(&mut self, sender: &mut Sender) -> Result<(), LinkError> {
        let now = Instant::now();
        if self.due > now {
            return Ok(());
        }
        if self.is_unanswered {
            return Err(LinkError::Silent);
        }
        (self.due, self.is_unanswered) = (now + KEEP_ALIVE, true);
        sender.ping();
        Ok(())
    }
}

/// The wait after so many failures in a row; `jitter` in 0..1 spreads it over its upper half.
fn backoff(failures: u32, jitter: f64) -> Duration {
    let whole = BACKOFF_FIRST.saturating_mul(1 << failures.min(10)).min(BACKOFF_CAP);
    whole.mul_f64(0.5 + jitter / 2.0)
}

/// An error and its sources in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_cap() {
        let waits: Vec<u128> = (0..7).map(|failures| backoff(failures, 1.0).as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 5000, 5000]);
        assert_eq!(backoff(u32::MAX, 0.0), BACKOFF_CAP / 2);
    }
}
