//! `/api/ext/audit`: who asked for which change, and who signed in.

use axum::Json;
use axum::extract::State;
use schemas::timestamp::rfc3339;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::error::{Answer, ApiError};
use super::extract::StrictQuery;
use crate::audit::entry::StoredEntry;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::audit::{self, AuditQuery};

/// Rows when the client does not say.
const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MAX: u32 = 500;

/// Which rows.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditParameters {
    /// Rows, 1 to 500; 100 when left out.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// From a `nextBefore`: rows older than this one.
    before: Option<i64>,
    /// Of this user or token.
    who: Option<String>,
    /// With paths that begin so, for example `/api/devices/press-1`.
    path: Option<String>,
}

/// Rows of the audit log, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuditPage {
    value: Vec<AuditRow>,
    /// Where the next page begins; null on the last one.
    next_before: Option<i64>,
}

/// One row.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuditRow {
    id: i64,
    #[schema(format = DateTime)]
    at: String,
    /// The user's or token's name, or the command; empty when nobody is known.
    who: String,
    /// `user`, `token`, `commandLine` or `nobody`.
    who_kind: &'static str,
    /// `created`, `updated`, `deleted`, `command`, `action`, `read`, `signIn`, `signOut`, `setup` or `refused`.
    kind: &'static str,
    /// Empty for commands on central's machine.
    method: String,
    path: String,
    /// Null: no answer was given, or none as yet.
    status: Option<u16>,
    /// Of the client.
    address: String,
    /// What stood before and does not any more, without secrets.
    #[schema(value_type = Option<Value>)]
    before: Option<Value>,
    /// The value since then, or what was sent, without secrets.
    #[schema(value_type = Option<Value>)]
    after: Option<Value>,
    organization: String,
}

impl From<StoredEntry> for AuditRow {
    fn from(shown: StoredEntry) -> Self {
        let entry = shown.entry;
        Self {
            id: shown.id,
            at: rfc3339(entry.at_ms),
            who: entry.who,
            who_kind: entry.who_kind.as_str(),
            kind: entry.kind.as_str(),
            method: entry.method,
            path: entry.path,
            status: shown.status,
            address: entry.address,
            before: shown.before,
            after: shown.after,
            organization: shown.organization,
        }
    }
}

/// Lists who asked for which change, and who signed in or was refused, newest first.
#[utoipa::path(get, path = "/api/ext/audit", tag = "ext", params(AuditParameters), security(("token" = [])),
    responses((status = 200, body = AuditPage)))]
pub(super) async fn list(
    State(store): State<Store>,
    StrictQuery(parameters): StrictQuery<AuditParameters>,
) -> Answer<Json<AuditPage>> {
    let limit = match parameters.limit.unwrap_or(LIMIT_DEFAULT) {
        limit @ 1..=LIMIT_MAX => limit,
        limit => {
            let why = format!("limit: found {limit}; write 1 to {LIMIT_MAX}");
            return Err(ApiError::bad_request("InvalidQuery", why));
        }
    };
    let query = AuditQuery { before: parameters.before, who: parameters.who, path: parameters.path, limit };
    let rows = store.read(move |c| Ok::<_, StoreError>(audit::list(c, &query)?)).await?;
    // A page that is not full is the last one.
    let next_before = rows.last().filter(|_| u32::try_from(rows.len()) == Ok(limit)).map(|last| last.id);
    Ok(Json(AuditPage { value: rows.into_iter().map(AuditRow::from).collect(), next_before }))
}
