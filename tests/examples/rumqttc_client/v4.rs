//! MQTT 3.1.1.

use anyhow::Result;
use rumqttc::{Event, LastWill, MqttOptions, Outgoing, Packet, Transport, qos};
use serde_json::json;
use tokio::sync::mpsc::Receiver;

use crate::{Command, How, emit, next};

pub(crate) async fn run(how: How, mut lines: Receiver<String>) -> Result<()> {
    let mut options = MqttOptions::new(&how.client_id, "localhost", how.port);
    options.set_credentials(&how.user, &how.password).set_clean_session(how.clean);
    if let Some(trust) = how.trust()? {
        options.set_transport(Transport::Tls(trust));
    }
    if let Some(will) = &how.will {
        options.set_last_will(LastWill::new(&will.topic, will.payload.as_str(), qos(will.qos)?, will.retain));
    }
    let (client, mut events) = site_tests::patient::client(options, 100);
    tokio::spawn(async move {
        while let Some(command) = next(&mut lines).await? {
            match command {
                Command::Subscribe { filter, qos: level } => client.subscribe(filter, qos(level)?).await?,
                Command::Publish { topic, payload, qos: level, retain, .. } => {
                    client.publish(topic, qos(level)?, retain, payload).await?;
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
                        rumqttc::SubscribeReasonCode::Success(qos) => *qos as u8,
                        rumqttc::SubscribeReasonCode::Failure => 0x80,
                    })
                    .collect();
                emit(&json!({"event": "subscribed", "codes": codes}));
            }
            // QoS 0 has the identifier 0, and nothing to wait for.
            Event::Outgoing(Outgoing::Publish(0))
            | Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)) => {
                emit(&json!({"event": "published"}));
            }
            Event::Incoming(Packet::Publish(publish)) => emit(&json!({
                "event": "message", "topic": publish.topic, "payload": String::from_utf8_lossy(&publish.payload),
                "qos": publish.qos as u8, "retain": publish.retain, "properties": {},
            })),
            Event::Outgoing(Outgoing::Disconnect) => return Ok(()),
            _ => {}
        }
    }
}
