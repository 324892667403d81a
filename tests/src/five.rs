//! A device that speaks MQTT 5, waits for the answer to each of its messages, and tells what the answer says.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, Publish};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::STEP;
use crate::patient::CONNECT_SECS;
use crate::raw::Login;

/// What a PUBACK says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub reason: PubAckReason,
    /// Its reason string, empty when there is none.
    pub why: String,
}

pub struct Device {
    client: AsyncClient,
    answers: mpsc::Receiver<Answer>,
    messages: mpsc::Receiver<Publish>,
    task: JoinHandle<()>,
}

impl Device {
    /// Connects to a plain port of this machine.
    pub async fn connect(login: &Login, port: u16) -> Result<Self> {
        let mut options = MqttOptions::new(&login.client_id, "127.0.0.1", port);
        if let Some((user, password)) = &login.account {
            options.set_credentials(user, password);
        }
        options.set_keep_alive(Duration::from_secs(30)).set_connection_timeout(CONNECT_SECS);
        let (client, mut events) = AsyncClient::new(options, 10);
        match tokio::time::timeout(STEP, events.poll()).await.context("no CONNACK")?? {
            Event::Incoming(Packet::ConnAck(_)) => {}
            other => bail!("{other:?} instead of CONNACK"),
        }
        let (answered, answers) = mpsc::channel(10);
        let (heard, messages) = mpsc::channel(100);
        // It ends with the connection: nothing is sent again behind the test's back.
        let task = tokio::spawn(async move {
            while let Ok(event) = events.poll().await {
                let is_gone = match event {
                    Event::Incoming(Packet::PubAck(ack)) => {
                        let why = ack.properties.and_then(|properties| properties.reason_string);
                        let answer = Answer { reason: ack.reason, why: why.unwrap_or_default() };
                        answered.send(answer).await.is_err()
                    }
                    Event::Incoming(Packet::Publish(publish)) => heard.send(publish).await.is_err(),
                    _ => false,
                };
                if is_gone {
                    return;
                }
            }
        });
        Ok(Self { client, answers, messages, task })
    }

    /// Publishes at QoS 1 and waits for the PUBACK.
    ///
    /// # Errors
    /// When the connection ended instead.
    pub async fn publish(&mut self, topic: &str, payload: impl Into<Vec<u8>>) -> Result<Answer> {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload.into()).await?;
        self.answer().await
    }

    /// As [`Device::publish`], with the retain flag.
    pub async fn publish_retained(&mut self, topic: &str, payload: impl Into<Vec<u8>>) -> Result<Answer> {
        self.client.publish(topic, QoS::AtLeastOnce, true, payload.into()).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<Answer> {
        let answer = tokio::time::timeout(STEP, self.answers.recv()).await.context("no PUBACK")?;
        answer.context("the connection ended before the PUBACK")
    }

    /// Subscribes at QoS 1.
    pub async fn subscribe(&self, filter: &str) -> Result<()> {
        Ok(self.client.subscribe(filter, QoS::AtLeastOnce).await?)
    }

    /// The next message: its topic and its body.
    pub async fn message(&mut self) -> Result<(String, Vec<u8>)> {
        let message = tokio::time::timeout(STEP, self.messages.recv()).await.context("no message")?;
        let message = message.context("the connection ended before the message")?;
        Ok((String::from_utf8_lossy(&message.topic).into_owned(), message.payload.to_vec()))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.task.abort();
    }
}
