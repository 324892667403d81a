//! Turns readings above a limit into alarms, and drops the rest: IoT Edge's filter module, with the limit set by operators.

mod filter;

use anyhow::Result;
use filter::{Filter, Verdict};
use module_sdk::module::{Event, Input, Module, SendError};
use schemas::bag::system;
use serde_json::json;
use tracing::{debug, info, warn};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The input that readings come in on.
const INPUT: &str = "readings";
/// The output that alarms leave on.
const OUTPUT: &str = "alarms";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let levels: Option<Targets> = std::env::var("RUST_LOG").ok().and_then(|levels| levels.parse().ok());
    let levels = levels.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    tracing_subscriber::registry().with(fmt::layer().with_ansi(false)).with(levels).init();
    let mut module = Module::connect()?;
    let mut filter = Filter::default();
    loop {
        match module.next().await {
            Event::Input(input) => apply(&module, &mut filter, input).await,
            Event::Desired(desired) => {
                let report = filter.configure(&desired);
                info!(limit = filter.limit(), "limit in force");
                if let Err(error) = module.report(&report).await {
                    warn!(%error, "limit not reported");
                }
            }
            Event::Method(call) => {
                let message = format!("method `{}` is not known; this module has none", call.name);
                call.answer(404, &json!({"message": message})).await;
            }
            Event::Stop => return Ok(()),
        }
    }
}

/// Sends the alarm before the next event acknowledges the reading: a module killed in between gets it again.
async fn apply(module: &Module, filter: &mut Filter, input: Input) {
    if input.name != INPUT {
        warn!(input = input.name, "message dropped: the only input is {INPUT}");
        return;
    }
    match filter.apply(&input.payload) {
        Verdict::Normal { temperature } => debug!(temperature, "reading within the limit"),
        Verdict::Malformed { count } => {
            warn!(count, bytes = input.payload.len(), "malformed reading dropped")
        }
        Verdict::Alarm { temperature } => {
            // The sender's own properties stay; those that say who it was are the gateway's to set.
            let mut bag = input.bag;
            for name in [system::CONNECTION_DEVICE_ID, system::CONNECTION_MODULE_ID, system::OUTPUT_NAME] {
                bag.remove(name);
            }
            bag.set("MessageType", "Alarm");
            match module.send(OUTPUT, &bag, input.payload).await {
                Ok(()) => info!(temperature, limit = filter.limit(), "alarm sent"),
                // The reading stays unacknowledged and comes again.
                Err(SendError::Stopped) => {}
                Err(error) => warn!(%error, "alarm not sent"),
            }
        }
    }
}
