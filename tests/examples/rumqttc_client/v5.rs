//! MQTT 5.

use anyhow::{Context as _, Result};
use rumqttc::v5::mqttbytes::qos;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet, Publish, PublishProperties, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use rumqttc::{Outgoing, Transport};
use serde_json::{Map, Value, json};
use site_tests::patient::CONNECT_SECS;
use tokio::sync::mpsc::Receiver;

use crate::{Command, How, Properties, emit, next};

pub(crate) async fn run(how: How, mut lines: Receiver<String>) -> Result<()> {
    let mut options = MqttOptions::new(&how.client_id, "localhost", how.port);
    options
        .set_credentials(&how.user, &how.password)
        .set_clean_start(how.clean)
        .set_connection_timeout(CONNECT_SECS);
    if !how.clean {
        options.set_session_expiry_interval(Some(600));
    }
    if let Some(trust) = how.trust()? {
        options.set_transport(Transport::Tls(trust));
    }
    if let Some(will) = &how.will {
        let level = qos(will.qos).context("0, 1 or 2")?;
        options.set_last_will(LastWill::new(&will.topic, will.payload.as_str(), level, will.retain, None));
    }
    let (client, mut events) = AsyncClient::new(options, 100);
    tokio::spawn(async move {
        while let Some(command) = next(&mut lines).await? {
            match command {
                Command::Subscribe { filter, qos: level } => {
                    client.subscribe(filter, qos(level).context("0, 1 or 2")?).await?;
                }
                Command::Publish { topic, payload, qos: level, retain, properties } => {
                    let level = qos(level).context("0, 1 or 2")?;
                    let properties = sent(properties);
                    client.publish_with_properties(topic, level, retain, payload, properties).await?;
                }
                Command::Die => std::process::exit(0),
            }
        }
        client.disconnect().await?;
        Ok::<_, anyhow::Error>(())
    });
    loop {
        match events.poll().await? {
            Event::Incoming(Packet::ConnAck(ack)) => {
                emit(
                    &json!({"event": "connected", "session_present": ack.session_present, "code": ack.code as u8}),
                );
            }
            Event::Incoming(Packet::SubAck(ack)) => {
                let codes: Vec<u8> = ack
                    .return_codes
                    .iter()
                    .map(|code| match code {
                        SubscribeReasonCode::Success(qos) => *qos as u8,
                        _ => 0x80,
                    })
                    .collect();
                emit(&json!({"event": "subscribed", "codes": codes}));
            }
            // QoS 0 has the identifier 0, and nothing to wait for.
            Event::Outgoing(Outgoing::Publish(0))
            | Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)) => {
                emit(&json!({"event": "published"}));
            }
            Event::Incoming(Packet::Publish(publish)) => emit(&heard(&publish)),
            Event::Outgoing(Outgoing::Disconnect) => return Ok(()),
            _ => {}
        }
    }
}

fn sent(properties: Properties) -> PublishProperties {
    PublishProperties {
        user_properties: properties.user_property,
        content_type: properties.content_type,
        response_topic: properties.response_topic,
        correlation_data: properties.correlation_data.map(Into::into),
        ..PublishProperties::default()
    }
}

fn heard(publish: &Publish) -> Value {
    let mut properties = Map::new();
    if let Some(own) = &publish.properties {
        if !own.user_properties.is_empty() {
            properties.insert("UserProperty".into(), json!(own.user_properties));
        }
        let correlation =
            own.correlation_data.as_ref().map(|data| String::from_utf8_lossy(data).into_owned());
        for (name, value) in [
            ("ContentType", &own.content_type),
            ("ResponseTopic", &own.response_topic),
            ("CorrelationData", &correlation),
        ] {
            if let Some(value) = value {
                properties.insert(name.into(), json!(value));
            }
        }
    }
    json!({
        "event": "message", "topic": String::from_utf8_lossy(&publish.topic),
        "payload": String::from_utf8_lossy(&publish.payload), "qos": publish.qos as u8, "retain": publish.retain,
        "properties": properties,
    })
}
