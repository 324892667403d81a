//! `/api/ext/devices/{device_id}/names`: what a device has sent, each name with its newest value.

use axum::extract::State;
use axum::{Extension, Json};
use central_core::access::permission::Permission;
use schemas::names::ModuleId;
use schemas::redaction::REDACTED;
use schemas::timestamp::rfc3339;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::error::{Answer, ErrorBody};
use super::extract::{OfDevice, StrictPath, StrictQuery};
use super::list::Page;
use crate::error::{ServiceError, no_device};
use crate::people::caller::Caller;
use crate::store::Store;
use crate::store::devices;
use crate::store::last_values::{self, NamedValue};
use edge_core::redact::names::is_secret_name;

/// Whose names.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct NamesQuery {
    /// A module of the gateway; the device and all its modules when left out.
    #[param(value_type = Option<String>)]
    module: Option<ModuleId>,
    /// A component of the model; all when left out.
    component: Option<String>,
}

/// A name with its newest value.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NameBody {
    /// The module that sent it; null for the device itself.
    module: Option<String>,
    /// Null for none.
    component: Option<String>,
    name: String,
    /// When the value was made.
    #[schema(format = DateTime)]
    at: String,
    /// When its message was accepted.
    #[schema(format = DateTime)]
    enqueued_at: String,
    /// As it was written; null too when it is longer than 4096 bytes, and is in its message only.
    #[schema(value_type = Value)]
    value: Option<Box<RawValue>>,
    is_number: bool,
}

/// The newest value of each name that a device and its modules have sent, and when it was made.
#[utoipa::path(get, path = "/api/ext/devices/{device_id}/names", tag = "ext", params(OfDevice, NamesQuery),
    security(("token" = [])), responses((status = 200, body = Page<NameBody>), (status = 404, body = ErrorBody)))]
pub(super) async fn list(
    State(store): State<Store>,
    Extension(caller): Extension<Caller>,
    StrictPath(of): StrictPath<OfDevice>,
    StrictQuery(query): StrictQuery<NamesQuery>,
) -> Answer<Json<Page<NameBody>>> {
    let read = move |c: &rusqlite::Connection| {
        devices::get(c, &of.device_id)?.ok_or_else(|| no_device(&of.device_id))?;
        Ok::<_, ServiceError>(last_values::list(c, &of.device_id)?)
    };
    let named = store.read(read).await?;
    let is_requested = |named: &NamedValue| {
        (query.module.is_none() || query.module == named.from.module)
            && query.component.as_ref().is_none_or(|component| *component == named.component)
    };
    let shown =
        named.into_iter().filter(is_requested).map(|named| body(named, caller.may(Permission::SecretsView)));
    Ok(Json(Page::whole(shown.collect())))
}

fn body(named: NamedValue, sees_secrets: bool) -> NameBody {
    let NamedValue { from, component, name, at_ms, enqueued_ms, value } = named;
    let is_hidden = !sees_secrets && is_secret_name(&name);
    let value = if is_hidden { Some(redacted()) } else { value };
    let is_number = value.as_ref().is_some_and(|value| is_number(value.get()));
    NameBody {
        module: from.module.map(|module| module.to_string()),
        component: Some(component).filter(|component| !component.is_empty()),
        name,
        at: rfc3339(at_ms),
        enqueued_at: rfc3339(enqueued_ms),
        value,
        is_number,
    }
}

fn redacted() -> Box<RawValue> {
    serde_json::value::to_raw_value(REDACTED).expect("a text is JSON")
}

/// Whether a JSON value is a number.
fn is_number(value: &str) -> bool {
    value.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}
