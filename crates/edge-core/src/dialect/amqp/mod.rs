//! IoT Hub's device dialect over AMQP 1.0: addresses of links, messages, tokens, and the conditions of errors.
//!
//! ```text
//! attach    ──► address::parse      ──► what the link is for
//! delivery  ──► message::telemetry  ──► bag and body, as over MQTT
//!           ──► put_token::read     ──► token, whose audience is the identity
//! SASL      ──► plain::audience     ──► whom a user name claims to be
//! ```

pub mod address;
pub mod error_condition;
pub mod message;
pub mod plain;
pub mod put_token;
