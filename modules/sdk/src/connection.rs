//! The task behind a module: connects with a fresh token, serves the connection until it ends, and begins again.
//!
//! ```text
//!   away --trust, token, CONNACK--> serving --cut---------------> away, after a wait that doubles
//!                                   serving --token grows old---> leaving --DISCONNECT--> away, at once
//!                                   serving --told to stop------> leaving --DISCONNECT--> ended
//! ```
//! Every connection has an MQTT client of its own: what a cut left open is kept by the outbox, not by the client, which
//! forgets it when the gateway has forgotten the session.

use std::future::Future;
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rumqttc::{AsyncClient, EventLoop, Outgoing, Packet, Publish, QoS, SubscribeReasonCode};
use schemas::topics;
use schemas::twin::Section;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use crate::command::{Command, Input, MethodCall, Question, Receipt, UNANSWERED_MAX, Waiting};
use crate::link::{GOODBYE, Link, LinkError, Reason, open};
use crate::outbox::{Outbox, Questions};
use crate::settings::Settings;
use crate::wire::{Arrival, arrival};

/// The gateway is on the same machine: what is gained by waiting longer than the cap is small.
const BACKOFF_CAP: Duration = Duration::from_secs(5);
/// The wait after the first failure.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);

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
                Ok((client, mqtt)) => {
                    let since = Instant::now();
                    let ended = self.serve(client, mqtt, stop.as_mut()).await;
                    // A gateway that lets the module in and soon throws it out is not asked faster for it.
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

    /// Waits for something while not connected, and takes what the module says meanwhile. `None` when told to stop.
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
        client: AsyncClient,
        mut mqtt: EventLoop,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Ended {
        let number = self.number.fetch_add(1, Ordering::AcqRel) + 1;
        info!(gateway = self.settings.gateway, identity = %self.settings.identity, "gateway connected");
        let mut link = Link::new(client, number, Instant::now() + self.settings.token_valid * 5 / 6);
        if let Err(error) = link.subscribe(&self.settings) {
            return Ended::Lost(error);
        }
        let (arrived, mut arrivals) = mpsc::channel(UNANSWERED_MAX);
        // The client's poll must not be dropped half-way, so it runs through on its own beside the rest.
        let mut pump = pin!(async move {
            loop {
                match mqtt.poll().await {
                    // The receiver lives as long as this future.
                    Ok(event) => drop(arrived.send(event).await),
                    Err(error) => {
                        // What was read together with the end counts: it may be an acknowledgement.
                        for event in mqtt.state.events.drain(..) {
                            drop(arrived.send(event).await);
                        }
                        return error;
                    }
                }
            }
        });
        let mut error = None;
        loop {
            let handed_over = if error.is_none() { self.hand_over(&mut link) } else { Ok(()) };
            let wake = self.wake(&link);
            let step = match handed_over {
                Err(failed) => Err(failed),
                Ok(()) => tokio::select! {
                    ended = &mut pump, if error.is_none() => {
                        error = Some(ended);
                        Ok(ControlFlow::Continue(()))
                    }
                    event = arrivals.recv() => match (event, error.take()) {
                        (Some(event), kept) => {
                            error = kept;
                            self.on_mqtt(&mut link, event)
                        }
                        (None, Some(error)) => Err(self.lost(error)),
                        (None, None) => unreachable!("the sender ends with the pump, which leaves its error"),
                    },
                    Some(command) = self.commands.recv() => self.on_command(&link, command),
                    () = &mut stop, if !link.is_stopping() => {
                        link.leave(Reason::Stop, Instant::now());
                        Ok(ControlFlow::Continue(()))
                    }
                    () = sleep_until(wake) => self.on_wake(&mut link),
                },
            };
            match step {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(Reason::Renew)) => return Ended::Renewed,
                Ok(ControlFlow::Break(Reason::Stop)) => return Ended::Stopped,
                Err(_) if link.is_stopping() => return Ended::Stopped,
                // When the connection is gone, that is the cause of whatever failed on it.
                Err(consequence) => return Ended::Lost(error.map_or(consequence, |error| self.lost(error))),
            }
        }
    }

    fn lost(&self, error: rumqttc::ConnectionError) -> LinkError {
        LinkError::Mqtt { gateway: self.settings.gateway.clone(), error: Box::new(error) }
    }

    /// Gives the MQTT client what is to go out next, or DISCONNECT when it is time to leave.
    fn hand_over(&mut self, link: &mut Link) -> Result<(), LinkError> {
        if let Some(leaving) = &mut link.leaving {
            if !leaving.has_said_goodbye && !self.outbox.is_awaiting() {
                leaving.has_said_goodbye = true;
                link.client.try_disconnect()?;
            }
            return Ok(());
        }
        while let Some(telemetry) = self.outbox.hand_over() {
            let (topic, payload) = (telemetry.topic.as_str(), telemetry.payload.to_vec());
            link.client.try_publish(topic, QoS::AtLeastOnce, false, payload)?;
        }
        let now = Instant::now();
        while let Some((id, question)) = self.questions.hand_over(now, || link.next_request()) {
            match question {
                Question::Get(_) => link.say(topics::twin_get(&id), " ")?,
                Question::Report(patch, _) => link.say(topics::twin_reported(&id), patch.to_vec())?,
            }
        }
        Ok(())
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

    fn on_wake(&mut self, link: &mut Link) -> Result<ControlFlow<Reason>, LinkError> {
        let now = Instant::now();
        if let Some(leaving) = &mut link.leaving {
            if leaving.deadline <= now && leaving.has_said_goodbye {
                return Ok(ControlFlow::Break(leaving.reason));
            }
            // Out of patience with what is under way: goodbye now, and one moment more for it to be written.
            leaving.has_said_goodbye = true;
            leaving.deadline = now + GOODBYE / 3;
            link.client.try_disconnect()?;
            return Ok(ControlFlow::Continue(()));
        }
        self.questions.expire(now);
        if link.twin_due.is_some_and(|due| due <= now) {
            link.ask_twin(now)?;
        }
        if link.renew_at <= now {
            link.leave(Reason::Renew, now);
        }
        Ok(ControlFlow::Continue(()))
    }

    fn on_command(&mut self, link: &Link, command: Command) -> Result<ControlFlow<Reason>, LinkError> {
        match command {
            Command::Acknowledge(receipt) if receipt.connection == link.number => {
                link.acknowledge(receipt.packet_id)?;
            }
            Command::Answer { connection, request_id, status, body } if connection == link.number => {
                link.say(topics::method_response(status, &request_id), body)?;
            }
            command => self.keep(command),
        }
        Ok(ControlFlow::Continue(()))
    }

    fn on_mqtt(&mut self, link: &mut Link, event: rumqttc::Event) -> Result<ControlFlow<Reason>, LinkError> {
        use rumqttc::Event::{Incoming, Outgoing as Written};
        match event {
            // Only telemetry has a packet id; the rest is published without a delivery promise.
            Written(Outgoing::Publish(packet_id)) if packet_id != 0 => self.outbox.written(packet_id),
            Written(Outgoing::Disconnect) => {
                if let Some(leaving) = &link.leaving {
                    return Ok(ControlFlow::Break(leaving.reason));
                }
            }
            Incoming(Packet::PubAck(ack)) => self.outbox.acknowledged(ack.pkid),
            Incoming(Packet::SubAck(ack)) if ack.return_codes.contains(&SubscribeReasonCode::Failure) => {
                return Err(LinkError::Subscription);
            }
            Incoming(Packet::Publish(publish)) => self.on_publish(link, publish)?,
            _ => {}
        }
        Ok(ControlFlow::Continue(()))
    }

    fn on_publish(&mut self, link: &mut Link, publish: Publish) -> Result<(), LinkError> {
        let (packet_id, payload) = (publish.pkid, publish.payload);
        let receipt = Receipt { connection: link.number, packet_id };
        match arrival(&self.settings.identity, &publish.topic) {
            Some(Arrival::Input { name, bag }) => {
                let input = Input { name, bag, payload, receipt };
                return match self.events.try_send(Waiting::Input(input)) {
                    Err(mpsc::error::TrySendError::Full(_)) => Err(LinkError::Unread),
                    // Closed: the module is letting go, and the input stays unacknowledged.
                    Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
                };
            }
            Some(Arrival::Method { name, request_id }) => self.on_method(link, name, request_id, &payload)?,
            Some(Arrival::TwinAnswer { status, request_id, version }) => {
                if link.twin_request.as_ref() == Some(&request_id) {
                    link.on_twin(status, &payload, &self.desired)?;
                } else {
                    self.questions.answered(&request_id, status, version, &payload);
                }
            }
            Some(Arrival::DesiredPatch { version }) => link.on_patch(version, &payload, &self.desired)?,
            None => warn!(topic = publish.topic, "message of unknown meaning dropped"),
        }
        link.acknowledge(packet_id)
    }

    fn on_method(
        &mut self,
        link: &Link,
        name: String,
        request_id: String,
        payload: &[u8],
    ) -> Result<(), LinkError> {
        let refuse = |status, message: &str| {
            link.say(topics::method_response(status, &request_id), json!({"message": message}).to_string())
        };
        let payload = match payload.trim_ascii() {
            [] => Value::Null,
            text => match serde_json::from_slice(text) {
                Ok(payload) => payload,
                Err(_) => return refuse(400, "the payload is not JSON"),
            },
        };
        let (connection, commands) = (link.number, self.commands_sender.clone());
        let call = MethodCall { name, payload, request_id: request_id.clone(), connection, commands };
        match self.events.try_send(Waiting::Method(call)) {
            Err(mpsc::error::TrySendError::Full(_)) => {
                refuse(503, "too many inputs and calls wait; call later")
            }
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
        }
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
