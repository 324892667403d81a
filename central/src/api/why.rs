//! `/api/ext/devices/{device_id}/why`: why a device is silent, or not well.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use central_core::access::permission::Permission;
use edge_hub::mqtt_server::MqttServer;
use edge_hub::refusals::Refused;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{Answer, ErrorBody};
use super::extract::{OfDevice, StrictPath};
use crate::clock::now_ms;
use crate::diagnosis::causes::{self, Cause};
use crate::diagnosis::device_state::Verdict;
use crate::diagnosis::device_states::DeviceStates;
use crate::diagnosis::why::gather;
use crate::mqtt_service::CentralService;
use crate::people::caller::Caller;
use crate::store::Store;

/// Why a device is as it is.
#[derive(Serialize, ToSchema)]
pub(super) struct WhyBody {
    verdict: Verdict,
    /// Those that decide first; empty when nothing is known to be wrong.
    causes: Vec<Cause>,
    /// The same for a terminal.
    text: String,
}

/// Attempts that were refused, for whoever may see them by `connectivity.view`. Without it a cause that only they show is not known.
pub(super) fn refusals_for(
    caller: &Caller,
    mqtt_server: &MqttServer<CentralService>,
) -> Option<Vec<Refused>> {
    caller.may(Permission::ConnectivityView).then(|| mqtt_server.refusals().all())
}

/// Why nothing comes from a gateway or device, or what is wrong with it: each cause with what shows it and what mends it.
#[utoipa::path(get, path = "/api/ext/devices/{device_id}/why", tag = "ext", params(OfDevice),
    security(("token" = [])), responses((status = 200, body = WhyBody), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    State(store): State<Store>,
    Extension(states): Extension<DeviceStates>,
    Extension(mqtt_server): Extension<Arc<MqttServer<CentralService>>>,
    Extension(caller): Extension<Caller>,
    StrictPath(of): StrictPath<OfDevice>,
) -> Answer<Json<WhyBody>> {
    let refused = refusals_for(&caller, &mqtt_server);
    let read =
        move |c: &rusqlite::Connection| gather(c, &states, refused.as_deref(), &of.device_id, now_ms());
    let (state, facts) = store.read(read).await?;
    let causes = causes::causes(&facts);
    let text = causes::text(state.verdict.as_str(), &causes);
    Ok(Json(WhyBody { verdict: state.verdict, causes, text }))
}
