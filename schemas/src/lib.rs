//! The types that gateways, modules and central share: names, messages, twins, methods, status and manifests.
//!
//! Nothing here does input or output, reads a clock or knows a runtime. A name has one address, for example
//! [`names::DeviceId`]; there are no shortcuts through this page.

#![warn(missing_docs)]
pub mod bag;
pub mod body;
pub mod cloud_message;
pub mod connection_string;
pub mod control;
pub mod gateway_status;
pub mod generation;
pub mod host_name;
pub mod join;
pub mod json;
pub mod link;
pub mod manifest;
pub mod method;
pub mod names;
pub mod provisioning;
pub mod received_report;
pub mod redaction;
pub mod status;
pub mod timestamp;
pub mod topics;
pub mod twin;
