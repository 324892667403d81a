//! The topics of IoT Hub's MQTT dialect as a device or module writes and reads them.
//! Source: IoT Hub MQTT support; measured forms of the Python and Node SDKs (docs/protocol.md has the table).

use crate::bag::PropertyBag;
use crate::names::{DeviceId, Identity};

/// Filter for answers to twin requests.
pub const TWIN_RESPONSES: &str = "$iothub/twin/res/#";
/// Filter for desired property patches.
pub const TWIN_DESIRED: &str = "$iothub/twin/PATCH/properties/desired/#";
/// Filter for method calls.
pub const METHOD_CALLS: &str = "$iothub/methods/POST/#";
/// Everything that central tells a gateway on their link.
pub const LINK: &str = "$ls/#";

/// `devices/{device}` or `devices/{device}/modules/{module}`.
pub fn identity_prefix(identity: &Identity) -> String {
    match &identity.module {
        None => format!("devices/{}", identity.device),
        Some(module) => format!("devices/{}/modules/{module}", identity.device),
    }
}

/// Where an identity publishes telemetry.
pub fn telemetry(identity: &Identity, bag: &PropertyBag) -> String {
    format!("{}/messages/events/{bag}", identity_prefix(identity))
}

/// Where a module receives messages on an input. The slash before the bag stays even when the bag is empty.
pub fn module_input(identity: &Identity, input: &str, bag: &PropertyBag) -> String {
    format!("{}/inputs/{input}/{bag}", identity_prefix(identity))
}

/// Where a device receives cloud-to-device messages. The slash before the bag stays even when the bag is empty: Azure's
/// Node SDK drops a message without it.
pub fn cloud_message(device: &DeviceId, bag: &PropertyBag) -> String {
    format!("devices/{device}/messages/devicebound/{bag}")
}

/// The filter under which a module receives all its inputs.
pub fn module_inputs(identity: &Identity) -> String {
    format!("{}/inputs/#", identity_prefix(identity))
}

/// Asks for the twin.
pub fn twin_get(request_id: &str) -> String {
    format!("$iothub/twin/GET/?$rid={request_id}")
}

/// Patches the reported section.
pub fn twin_reported(request_id: &str) -> String {
    format!("$iothub/twin/PATCH/properties/reported/?$rid={request_id}")
}

/// Carries a desired patch.
pub fn twin_desired(version: u64) -> String {
    format!("$iothub/twin/PATCH/properties/desired/?$version={version}")
}

/// Answers a twin request; `version` is the new reported version after a patch.
pub fn twin_response(status: u16, request_id: &str, version: Option<u64>) -> String {
    match version {
        None => format!("$iothub/twin/res/{status}/?$rid={request_id}"),
        Some(version) => format!("$iothub/twin/res/{status}/?$rid={request_id}&$version={version}"),
    }
}

/// The topic on which a device or module receives a direct method.
pub fn method_call(name: &str, request_id: &str) -> String {
    format!("$iothub/methods/POST/{name}/?$rid={request_id}")
}

/// Answers a method call.
pub fn method_response(status: i64, request_id: &str) -> String {
    format!("$iothub/methods/res/{status}/?$rid={request_id}")
}
