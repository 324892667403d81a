//! How a device enrols itself: what it proves and requests, and what it is answered. Sources: Azure Device Provisioning Service
//! over MQTT (`$dps/registrations/…`), as the Azure SDKs speak it; the link's two messages are ours.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::names::DeviceId;

/// What a device shows and asks for. A gateway passes it on to central, which alone holds the keys of enrolment groups.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Enrolment {
    /// Of the site, as the device says it.
    pub id_scope: String,
    /// What the device calls itself; becomes its device id.
    pub registration_id: DeviceId,
    /// A SAS token for `{scope}/registrations/{registration id}`, made with the device's key; empty for a device with a
    /// certificate.
    #[serde(default)]
    pub token: String,
    /// The certificates that the device showed in its TLS handshake, its own first, DER in base64. That it has the key of
    /// its own was proven there, to whoever passes this on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<String>,
    /// Operation that the device requests; on the link it keeps the name that earlier versions gave it.
    #[serde(rename = "wish")]
    pub request: EnrolmentRequest,
}

impl std::fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Enrolment({}, {:?}, token not shown)", self.registration_id, self.request)
    }
}

/// Operation of a device that enrols itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EnrolmentRequest {
    /// Check the proof, change nothing.
    Prove,
    /// Register the device and assign it to a hub.
    Register,
    /// Get the state of a registration.
    Status {
        /// From the answer to its registration.
        operation_id: String,
    },
}

/// Sent in reply to an [`EnrolmentRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrolmentAnswer {
    /// HTTP-like: 200, 202, 401, 404, 503.
    pub status: u16,
    /// Seconds after which the device may repeat the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// The body; `null` for an empty one.
    #[serde(default)]
    pub body: Value,
}

impl EnrolmentAnswer {
    /// An answer that says what is wrong, in the shape that the SDKs show.
    pub fn failure(status: u16, message: &str) -> Self {
        let code = u32::from(status) * 1000;
        Self { status, retry_after: None, body: serde_json::json!({"errorCode": code, "message": message}) }
    }

    /// The answer to a device that waits for an operator's approval, or was blocked: IoT Central's error 400209.
    pub fn not_approved(message: &str) -> Self {
        let body = serde_json::json!({"errorCode": 400_209, "message": message});
        Self { status: 401, retry_after: None, body }
    }

    /// An answer that asks to try again.
    pub fn later(message: &str) -> Self {
        Self { retry_after: Some(RETRY_AFTER_SECS), ..Self::failure(503, message) }
    }
}

/// How long a device waits before it asks again.
pub const RETRY_AFTER_SECS: u64 = 3;
