//! A twin: what an operator wants of a device or module (desired) and what it says of itself (reported).
//! Source: IoT Hub device twins; sections carry `$version`, patches are JSON merge patches (RFC 7396).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One section of a twin. On the wire it is the properties with `$version` among them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Section {
    /// Grows by one with every change.
    #[serde(rename = "$version", default)]
    pub version: u64,
    /// By name, without `$version`.
    #[serde(flatten)]
    pub properties: Map<String, Value>,
}

/// Both sections, as the answer to a twin GET carries them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Twin {
    /// Written by operators.
    #[serde(default)]
    pub desired: Section,
    /// Written by the device or module.
    #[serde(default)]
    pub reported: Section,
}
