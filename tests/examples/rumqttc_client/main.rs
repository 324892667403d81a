//! rumqttc, told what to do line by line and telling what it saw, as tests/clients/python/paho_client.py does.

mod v4;
mod v5;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;

/// How it connects.
#[derive(Deserialize)]
struct How {
    port: u16,
    ca: Option<std::path::PathBuf>,
    version: u8,
    client_id: String,
    user: String,
    password: String,
    clean: bool,
    will: Option<Will>,
}

#[derive(Deserialize)]
struct Will {
    topic: String,
    payload: String,
    qos: u8,
    retain: bool,
}

/// One line of what to do.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
enum Command {
    Subscribe { filter: String, qos: u8 },
    Publish { topic: String, payload: String, qos: u8, retain: bool, properties: Properties },
    Die,
}

/// The properties of MQTT 5 that the tests use, by the names of the specification.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Properties {
    user_property: Vec<(String, String)>,
    content_type: Option<String>,
    response_topic: Option<String>,
    correlation_data: Option<String>,
}

impl How {
    fn trust(&self) -> Result<Option<rumqttc::TlsConfiguration>> {
        let Some(ca) = &self.ca else { return Ok(None) };
        Ok(Some(rumqttc::TlsConfiguration::Rustls(site_tests::leaf::trust(&std::fs::read(ca)?)?)))
    }
}

fn emit(event: &Value) {
    println!("{event}");
}

/// The next command; `None` at the end of the input.
async fn next(lines: &mut mpsc::Receiver<String>) -> Result<Option<Command>> {
    let Some(line) = lines.recv().await else { return Ok(None) };
    Ok(Some(serde_json::from_str(&line).with_context(|| line.clone())?))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let (sender, mut lines) = mpsc::channel(100);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    let how: How = serde_json::from_str(&lines.recv().await.context("no first line")?)?;
    match how.version {
        5 => v5::run(how, lines).await,
        _ => v4::run(how, lines).await,
    }
}
