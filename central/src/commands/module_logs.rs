//! Logs of modules, read from their gateways by `$edgeAgent`'s `GetModuleLogs`.

use std::io::Read as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edge_core::error_chain::chain;
use edge_core::module_logs::one_module::{LogLine, LogSelection};
use edge_core::module_logs::request::LogsRequest;
use flate2::read::GzDecoder;
use schemas::method::{MethodFailure, MethodRequest, MethodResponse};
use schemas::names::{DeviceId, Identity, ModuleId};
use serde::Deserialize;
use serde_json::Value;

use super::service::Commands;
use crate::clock::now_ms;
use crate::error::ServiceError;
use crate::lookup::require;
use crate::store::Store;
use crate::store::commands::Outcome;

/// How long a gateway may take, in seconds: more than a log of gigabytes takes that is filtered, less than a person waits.
const RESPONSE_SECONDS: u64 = 20;
/// Bytes of a log as it is unpacked: a gateway answers with 127,000 packed ones at most, and they may be anything.
const LOG_BYTES_MAX: u64 = 4 << 20;
/// How the gateway names the conditions of this request's one item.
const ITEM: &str = "items.0.filter.";

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// Begins with the condition's name.
    #[error("{0}")]
    Selection(String),
    #[error(
        "gateway `{gateway}` is not connected, and the logs of its modules are on it; `central device why {gateway}` prints why it is away"
    )]
    GatewayAway { gateway: DeviceId },
    #[error(
        "module `{module}` has no container on gateway `{gateway}`, so there is no log; its state says why, also in \
         `edge-agent status` on the gateway"
    )]
    NoContainer { gateway: DeviceId, module: ModuleId },
    #[error("gateway `{gateway}` refused: {message}")]
    Refused { gateway: DeviceId, message: String },
    #[error("gateway `{gateway}` could not read the log: {message}")]
    Failed { gateway: DeviceId, message: String },
    #[error("gateway `{gateway}` answered with what is no log of at most {LOG_BYTES_MAX} bytes")]
    Unreadable { gateway: DeviceId },
    #[error(transparent)]
    NoAnswer(MethodFailure),
}

/// The logs of all gateways' modules. Cheap to clone.
#[derive(Clone)]
pub struct ModuleLogs {
    store: Store,
    commands: Arc<Commands>,
}

impl ModuleLogs {
    pub fn new(store: Store, commands: Arc<Commands>) -> Self {
        Self { store, commands }
    }

    /// Reads lines of a module's log from its gateway.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn read(
        &self,
        gateway: &DeviceId,
        module: &ModuleId,
        selection: &LogSelection,
    ) -> Result<Vec<LogLine>, LogError> {
        let payload = selection.payload(module);
        LogsRequest::read(&payload, now_ms()).map_err(|error| {
            let message = chain(&error).to_string();
            LogError::Selection(message.strip_prefix(ITEM).unwrap_or(&message).to_owned())
        })?;
        let of = Identity::module(gateway.clone(), module.clone());
        self.store.read(move |c| require(c, &of).map(drop)).await?;
        let request = MethodRequest {
            method_name: "GetModuleLogs".into(),
            payload,
            response_timeout_in_seconds: RESPONSE_SECONDS,
            connect_timeout_in_seconds: 0,
        };
        let agent = Identity::module(gateway.clone(), ModuleId::edge_agent());
        lines(gateway, module, self.commands.read(agent, request).await?)
    }
}

/// What a gateway answers for one module.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Packed {
    id: String,
    payload_bytes: String,
}

fn lines(gateway: &DeviceId, module: &ModuleId, outcome: Outcome) -> Result<Vec<LogLine>, LogError> {
    let answer = match outcome {
        Ok(answer) => answer,
        Err(MethodFailure::NotConnected { .. }) => {
            return Err(LogError::GatewayAway { gateway: gateway.clone() });
        }
        Err(failure) => return Err(LogError::NoAnswer(failure)),
    };
    let MethodResponse { status, payload } = answer;
    if status != 200 {
        let (gateway, message) = (gateway.clone(), message_of(&payload, status));
        return Err(match status {
            400 => LogError::Refused { gateway, message },
            _ => LogError::Failed { gateway, message },
        });
    }
    let unreadable = || LogError::Unreadable { gateway: gateway.clone() };
    let all: Vec<Packed> = serde_json::from_value(payload).map_err(|_| unreadable())?;
    // A gateway compares names without case.
    let Some(own) = all.into_iter().find(|one| one.id == module.as_str()) else {
        return Err(LogError::NoContainer { gateway: gateway.clone(), module: module.clone() });
    };
    let packed = STANDARD.decode(own.payload_bytes).map_err(|_| unreadable())?;
    let mut text = Vec::new();
    GzDecoder::new(&*packed).take(LOG_BYTES_MAX + 1).read_to_end(&mut text).map_err(|_| unreadable())?;
    if text.len() as u64 > LOG_BYTES_MAX {
        return Err(unreadable());
    }
    serde_json::from_slice(&text).map_err(|_| unreadable())
}

fn message_of(payload: &Value, status: i64) -> String {
    let message = payload["message"].as_str().map(|text| text.strip_prefix(ITEM).unwrap_or(text).to_owned());
    message.unwrap_or_else(|| format!("it gave the status {status} and no reason"))
}
