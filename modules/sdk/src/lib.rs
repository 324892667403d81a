//! The SDK of module containers: a module's telemetry, inputs, twin and methods, over the gateway's MQTT listener.
//!
//! ```no_run
//! use module_sdk::module::{Event, Module};
//! use schemas::bag::PropertyBag;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut module = Module::connect()?;
//! loop {
//!     match module.next().await {
//!         Event::Input(input) => module.send("copies", &PropertyBag::new(), input.payload).await?,
//!         Event::Desired(desired) => println!("wanted: {:?}", desired.properties),
//!         Event::Method(call) => call.answer(404, &serde_json::json!({"message": "no such method"})).await,
//!         Event::Stop => return Ok(()),
//!     }
//! }
//! # }
//! ```
//!
//! # Guarantees
//! - What [`module::Module::send`] acknowledged is on the gateway's disk. What a cut left unacknowledged is sent again:
//!   at least once, in order.
//! - An input is acknowledged only when the module asks for the next event. What a module was killed over comes again.
//! - Desired properties are always given whole: after every connect and after every change.
//! - The gateway may be away for as long as it likes: the module waits, and connects with backoff.

#![warn(missing_docs)]
pub mod module;
pub mod settings;

mod command;
mod connection;
mod link;
mod outbox;
mod twin_error;
mod wire;
mod workload;
