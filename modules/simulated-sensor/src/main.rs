//! A machine that gets warm: sends a reading of temperature and pressure again and again, as IoT Edge's simulated
//! temperature sensor does, with an interval that operators set and a method that cools it down.

mod machine;

use std::time::Duration;

use anyhow::Result;
use machine::Machine;
use module_sdk::module::{Event, MethodCall, Module, SendError};
use schemas::bag::{PropertyBag, system};
use schemas::twin::Section;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::{info, warn};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The output that readings leave on.
const OUTPUT: &str = "temperatureOutput";
/// Milliseconds between two readings until an operator says otherwise.
const INTERVAL_MS: u64 = 1000;
/// What an operator may say: 20 readings a second to one an hour.
const INTERVAL_MS_ALLOWED: std::ops::RangeInclusive<u64> = 50..=3_600_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let levels: Option<Targets> = std::env::var("RUST_LOG").ok().and_then(|levels| levels.parse().ok());
    let levels = levels.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    tracing_subscriber::registry().with(fmt::layer().with_ansi(false)).with(levels).init();
    let mut module = Module::connect()?;
    let mut machine = Machine::default();
    let mut interval_ms = INTERVAL_MS;
    let mut ticks = every(interval_ms);
    loop {
        tokio::select! {
            event = module.next() => match event {
                Event::Desired(desired) => {
                    let (configured, report) = configured(&desired, interval_ms);
                    if configured != interval_ms {
                        info!(interval_ms = configured, "interval changed");
                        interval_ms = configured;
                        ticks = every(interval_ms);
                    }
                    if let Err(error) = module.report(&report).await {
                        warn!(%error, "interval not reported");
                    }
                }
                Event::Method(call) => method(call, &mut machine).await,
                Event::Input(input) => warn!(input = input.name, "input ignored: a sensor has none"),
                Event::Stop => return Ok(()),
            },
            _ = ticks.tick() => {
                let (bag, reading) = message(&mut machine)?;
                match module.send(OUTPUT, &bag, reading).await {
                    // Stopped: the next event says so.
                    Ok(()) | Err(SendError::Stopped) => {}
                    Err(error) => warn!(%error, "reading not sent"),
                }
            }
        }
    }
}

/// Ticks now and every `interval_ms` from then on. Ticks missed while the gateway was away are not made up for.
fn every(interval_ms: u64) -> Interval {
    let mut ticks = interval(Duration::from_millis(interval_ms));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The next reading and its properties.
fn message(machine: &mut Machine) -> Result<(PropertyBag, Vec<u8>)> {
    let created = OffsetDateTime::now_utc().format(&Rfc3339)?;
    let reading = machine.measure(rand::random_range(-1.0..=1.0), created);
    let mut bag = PropertyBag::new();
    bag.set(system::CONTENT_TYPE, "application/json");
    bag.set(system::CONTENT_ENCODING, "utf-8");
    Ok((bag, serde_json::to_vec(&reading)?))
}

/// The interval that the desired properties ask for, and what to report about it. A wrong one changes nothing, and the
/// report says why; a good one takes the complaint away.
fn configured(desired: &Section, present: u64) -> (u64, Map<String, Value>) {
    let (interval_ms, error) = match desired.properties.get("intervalMs") {
        None => (INTERVAL_MS, Value::Null),
        Some(found) => match found.as_u64().filter(|ms| INTERVAL_MS_ALLOWED.contains(ms)) {
            Some(interval_ms) => (interval_ms, Value::Null),
            None => {
                let (low, high) = (INTERVAL_MS_ALLOWED.start(), INTERVAL_MS_ALLOWED.end());
                let error =
                    format!("found {found}; write a whole number from {low} to {high}; {present} is kept");
                warn!(error, "intervalMs refused");
                (present, json!(error))
            }
        },
    };
    let mut report = Map::new();
    report.insert("intervalMs".into(), json!(interval_ms));
    report.insert("errors".into(), json!({"intervalMs": error}));
    (interval_ms, report)
}

async fn method(call: MethodCall, machine: &mut Machine) {
    match call.name.as_str() {
        "reset" => {
            *machine = Machine::default();
            info!("machine cooled down by method");
            call.answer(200, &json!({"reset": true})).await;
        }
        name => {
            let message = format!("method `{name}` is not known; this module has: reset");
            call.answer(404, &json!({"message": message})).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desired(properties: Value) -> Section {
        Section { version: 1, properties: properties.as_object().cloned().unwrap() }
    }

    #[test]
    fn a_good_interval_is_taken_and_reported_and_clears_the_complaint() {
        let (interval_ms, report) = configured(&desired(json!({"intervalMs": 200, "other": true})), 1000);
        assert_eq!(interval_ms, 200);
        assert_eq!(json!(report), json!({"intervalMs": 200, "errors": {"intervalMs": null}}));
        assert_eq!(configured(&desired(json!({})), 200).0, INTERVAL_MS);
    }

    #[test]
    fn a_wrong_interval_is_refused_with_its_name_and_the_old_one_kept() {
        for found in [json!(49), json!(3_600_001), json!(-1), json!(99.5), json!("200"), json!(null)] {
            let (interval_ms, report) = configured(&desired(json!({"intervalMs": found})), 200);
            assert_eq!((interval_ms, &report["intervalMs"]), (200, &json!(200)));
            assert_eq!(
                report["errors"]["intervalMs"],
                format!("found {found}; write a whole number from 50 to 3600000; 200 is kept")
            );
        }
    }
}
