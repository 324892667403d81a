//! A device that a test leads step by step, with a foreign MQTT client (rumqttc). What comes while the test waits for something else
//! is kept: a server may send a message before the acknowledgement that the test reads.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, Publish, QoS};
use serde_json::Value;

use crate::STEP;
use crate::leaf::LeafOptions;
use crate::patient;

/// Between two attempts to connect.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

pub struct Device {
    pub client: AsyncClient,
    /// To read from past what is kept, when the connection is to end.
    pub events: EventLoop,
    pub found_session: bool,
    kept: VecDeque<Publish>,
}

impl Device {
    /// Connects, if it is let in now.
    ///
    /// # Errors
    /// When it is not.
    pub async fn once(mut options: MqttOptions) -> Result<Self> {
        // It pings only when it is read from, which a test may not do for a while.
        options.set_keep_alive(Duration::ZERO);
        let (client, mut events) = patient::client(options, 100);
        match tokio::time::timeout(STEP, events.poll()).await.context("no CONNACK came")?? {
            Event::Incoming(Packet::ConnAck(ack)) => {
                Ok(Self { client, events, found_session: ack.session_present, kept: VecDeque::new() })
            }
            other => bail!("{other:?} instead of CONNACK"),
        }
    }

    /// Connects as soon as it is let in.
    ///
    /// # Errors
    /// When it is not let in within a minute.
    pub async fn connect(options: MqttOptions) -> Result<Self> {
        let deadline = tokio::time::Instant::now() + STEP;
        loop {
            match Self::once(options.clone()).await {
                Ok(device) => return Ok(device),
                Err(error) if tokio::time::Instant::now() > deadline => {
                    return Err(error).context("the device is not let in");
                }
                Err(_) => tokio::time::sleep(AGAIN_AFTER).await,
            }
        }
    }

    /// Connects a leaf device; its session ends with its connection.
    ///
    /// # Errors
    /// As [`Device::connect`].
    pub async fn leaf(options: &LeafOptions) -> Result<Self> {
        Self::connect(options.client(10).1.mqtt_options).await
    }

    /// Reads until `pick` gives a value for a packet that is no message.
    ///
    /// # Errors
    /// When the connection ends, or nothing comes for a minute.
    async fn control<T>(&mut self, pick: impl Fn(&Packet) -> Option<T>) -> Result<T> {
        loop {
            match self.packet().await? {
                Packet::Publish(publish) => self.kept.push_back(publish),
                packet => {
                    if let Some(picked) = pick(&packet) {
                        return Ok(picked);
                    }
                }
            }
        }
    }

    async fn packet(&mut self) -> Result<Packet> {
        loop {
            let event = tokio::time::timeout(STEP, self.events.poll()).await.context("nothing came")?;
            if let Event::Incoming(packet) = event.context("the connection ended")? {
                return Ok(packet);
            }
        }
    }

    /// The first message not asked for yet.
    ///
    /// # Errors
    /// When the connection ends, or nothing comes for a minute.
    pub async fn message(&mut self) -> Result<Publish> {
        loop {
            if let Some(kept) = self.kept.pop_front() {
                return Ok(kept);
            }
            if let Packet::Publish(publish) = self.packet().await? {
                return Ok(publish);
            }
        }
    }

    /// The first message not asked for yet whose topic holds `part`. Others stay.
    ///
    /// # Errors
    /// As [`Device::message`].
    pub async fn message_with(&mut self, part: &str) -> Result<Publish> {
        loop {
            if let Some(at) = self.kept.iter().position(|kept| kept.topic.contains(part)) {
                return self.kept.remove(at).context("it was just found");
            }
            if let Packet::Publish(publish) = self.packet().await? {
                self.kept.push_back(publish);
            }
        }
    }

    /// Subscribes, until it is acknowledged.
    ///
    /// # Errors
    /// When the connection ends, or nothing comes for a minute.
    pub async fn subscribe(&mut self, filter: &str) -> Result<()> {
        self.client.subscribe(filter, QoS::AtLeastOnce).await?;
        self.control(|packet| matches!(packet, Packet::SubAck(_)).then_some(())).await
    }

    /// Publishes at QoS 1, until it is acknowledged.
    ///
    /// # Errors
    /// When the connection ends, or nothing comes for a minute.
    pub async fn publish(&mut self, topic: &str, body: &str) -> Result<()> {
        self.client.publish(topic, QoS::AtLeastOnce, false, body).await?;
        self.control(|packet| matches!(packet, Packet::PubAck(_)).then_some(())).await
    }

    /// Asks its twin, with `$iothub/twin/res/#` subscribed.
    ///
    /// # Errors
    /// When the connection ends, or nothing comes for a minute.
    pub async fn twin(&mut self) -> Result<Value> {
        self.client.publish("$iothub/twin/GET/?$rid=twin", QoS::AtLeastOnce, false, "").await?;
        let answer = self.message_with("$rid=twin").await?;
        serde_json::from_slice(&answer.payload).context("the twin is JSON")
    }

    /// Reports properties, with `$iothub/twin/res/#` subscribed, until that is answered.
    ///
    /// # Errors
    /// When the connection ends, nothing comes for a minute, or the report is refused.
    pub async fn report(&mut self, patch: &Value) -> Result<()> {
        let topic = "$iothub/twin/PATCH/properties/reported/?$rid=report";
        self.client.publish(topic, QoS::AtLeastOnce, false, patch.to_string()).await?;
        let answer = self.message_with("$rid=report").await?;
        anyhow::ensure!(answer.topic.starts_with("$iothub/twin/res/204"), "{}", answer.topic);
        Ok(())
    }

    /// The topics of the messages not asked for, once the answer to a question asked now has come.
    ///
    /// # Errors
    /// As [`Device::twin`].
    pub async fn unasked(&mut self) -> Result<Vec<String>> {
        self.twin().await?;
        Ok(self.kept.iter().map(|kept| kept.topic.clone()).collect())
    }
}
