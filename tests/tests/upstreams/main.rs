//! Upstreams on real parts: messages that one refuses, brokers beside central, metered links, proxies. No containers run.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod broker;
mod budget;
mod hub;
mod keep_alive;
mod kills;
mod poison;
mod proxies;
mod publisher;
