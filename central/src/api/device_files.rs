//! `/api/ext/devices/import` and `/export`: many devices by IoT Central's file; `/api/ext/operations`: how far such an operation is.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::{Extension, Json};
use central_core::access::further;
use central_core::devices::import::read;
use rusqlite::Connection;
use schemas::timestamp::rfc3339;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::audited;
use super::caller::ClientAddress;
use super::error::{Answer, ApiError, ErrorBody};
use super::extract::{Body, StrictPath, UnrecordedBody};
use crate::audit::entry::EntryKind;
use crate::device_import::{self, RunningImport};
use crate::error::ServiceError;
use crate::people::caller::Caller;
use crate::people::service::People;
use crate::services::Services;
use crate::store::Store;
use crate::store::operations::{self, Operation, OperationFault};
use crate::types::single_line::{SingleLine, TemplateId};

/// Faults in an answer to a preview.
const PREVIEW_FAULTS_MAX: usize = 1000;
/// Devices in one part of an export.
const EXPORT_MAX: u32 = 10_000;

/// A file of devices.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct ImportRequest {
    /// The file as text: the first line names the columns, `IOTC_DEVICEID` and where wanted `IOTC_DEVICENAME`, `IOTC_SASKEY_PRIMARY`,
    /// `IOTC_SASKEY_SECONDARY`, `IOTC_X509THUMBPRINT_PRIMARY`, `IOTC_X509THUMBPRINT_SECONDARY`. At most 10,000 devices.
    csv: String,
    /// The template of all of them; none when it is left out.
    #[schema(value_type = Option<String>)]
    template: Option<TemplateId>,
    /// Name of the file, for people.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 148)]
    file_name: Option<SingleLine<148>>,
}

/// A line of a file that cannot be done.
#[derive(Serialize, ToSchema)]
pub(super) struct FaultBody {
    /// The first line of the file is 1.
    line: u64,
    /// The device's id, as far as the line says it.
    device: Option<String>,
    why: String,
}

impl From<OperationFault> for FaultBody {
    fn from(of: OperationFault) -> Self {
        Self { line: of.line, device: of.device, why: of.why }
    }
}

/// What a file would do.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ImportPreview {
    /// Lines behind the first one, without empty ones.
    lines: usize,
    /// Devices that would be added.
    valid: usize,
    failed: usize,
    /// At most 1,000 of the lines that cannot be done.
    faults: Vec<FaultBody>,
    /// Columns that central does not know and does not read.
    ignored_columns: Vec<String>,
}

/// An operation that was begun.
#[derive(Serialize, ToSchema)]
pub(super) struct BegunBody {
    /// Id of the operation.
    operation: i64,
}

/// How an operation is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum OperationState {
    /// It goes on.
    Running,
    /// Every line was tried.
    Done,
    /// central ended before it did. The lines behind `done` were not tried.
    Interrupted,
}

/// An operation on many devices.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct OperationBody {
    id: i64,
    /// `importDevices`
    kind: String,
    /// Name of the file.
    title: String,
    organization: String,
    /// Who began it.
    who: String,
    state: OperationState,
    #[schema(format = DateTime)]
    started_at: String,
    #[schema(format = DateTime)]
    ended_at: Option<String>,
    /// Lines of the file.
    total: u64,
    /// Lines that were tried.
    done: u64,
    /// Of those, the ones that could not be done.
    failed: u64,
}

impl OperationBody {
    fn of(of: Operation, running: &RunningImport) -> Self {
        // One that has ended counts as running until the next may begin.
        let state = match of.ended_ms {
            _ if running.is(of.id) => OperationState::Running,
            Some(_) => OperationState::Done,
            None => OperationState::Interrupted,
        };
        Self {
            id: of.id,
            kind: of.kind,
            title: of.title,
            organization: of.organization,
            who: of.who,
            state,
            started_at: rfc3339(of.started_ms),
            ended_at: of.ended_ms.map(rfc3339),
            total: of.total,
            done: of.done,
            failed: of.failed,
        }
    }
}

/// Operations, newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct OperationList {
    value: Vec<OperationBody>,
}

/// An operation with what it could not do.
#[derive(Serialize, ToSchema)]
pub(super) struct OperationDetail {
    #[serde(flatten)]
    operation: OperationBody,
    /// Every line that could not be done.
    faults: Vec<FaultBody>,
}

/// `/api/ext/operations/{operation_id}`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfOperation {
    /// Id of an operation.
    operation_id: i64,
}

fn prepare(
    request: &ImportRequest,
    caller: &Caller,
) -> Result<(device_import::Import, Vec<String>), ApiError> {
    let mut file = read(&request.csv).map_err(|why| ApiError::unprocessable(format!("csv: {why}")))?;
    if file.has_credentials() {
        caller.also_needs(&further::IMPORT_CREDENTIALS)?;
    }
    let ignored = std::mem::take(&mut file.ignored);
    Ok((device_import::prepare(file, request.template.as_ref()), ignored))
}

/// Says what a file of devices would do, line by line, and changes nothing.
#[utoipa::path(post, path = "/api/ext/devices/import/preview", tag = "ext", request_body = ImportRequest,
    security(("token" = [])), responses((status = 200, body = ImportPreview),
        (status = 422, description = "the whole file cannot be read", body = ErrorBody)))]
pub(super) async fn preview(
    State(store): State<Store>,
    Extension(caller): Extension<Caller>,
    UnrecordedBody(request): UnrecordedBody<ImportRequest>,
) -> Answer<Json<ImportPreview>> {
    let (import, ignored_columns) = prepare(&request, &caller)?;
    let lines = import.count();
    let mut faults = store.read(move |c| import.faults(c)).await?;
    let failed = faults.len();
    faults.truncate(PREVIEW_FAULTS_MAX);
    Ok(Json(ImportPreview {
        lines,
        valid: lines - failed,
        failed,
        faults: faults.into_iter().map(Into::into).collect(),
        ignored_columns,
    }))
}

/// Begins to add the devices of a file. Lines that cannot be done do not keep the others; the operation tells of each.
#[utoipa::path(post, path = "/api/ext/devices/import", tag = "ext", request_body = ImportRequest, security(("token" = [])),
    responses((status = 202, body = BegunBody), (status = 409, description = "another import runs", body = ErrorBody),
        (status = 422, description = "the whole file cannot be read", body = ErrorBody)))]
pub(super) async fn import(
    State(services): State<Services>,
    Extension(running): Extension<Arc<RunningImport>>,
    Extension(people): Extension<Arc<People>>,
    Extension(caller): Extension<Caller>,
    Extension(address): Extension<ClientAddress>,
    UnrecordedBody(request): UnrecordedBody<ImportRequest>,
) -> Answer<(StatusCode, Json<BegunBody>)> {
    let (import, _) = prepare(&request, &caller)?;
    let title = request.file_name.map_or_else(|| "devices.csv".to_owned(), Into::into);
    let operation =
        device_import::begin(&services, &running, import, title, caller.name().to_owned()).await?;
    // The row of this request has no body, which may hold keys: this one names what has the result of each line.
    let path = format!("/api/ext/operations/{operation}");
    let entry = audited::entry(Some(&caller), EntryKind::Created, &Method::POST, &path, address);
    people.audit().note(entry, StatusCode::ACCEPTED.as_u16());
    Ok((StatusCode::ACCEPTED, Json(BegunBody { operation })))
}

/// Operations on many devices, newest first. The last 20 are kept.
#[utoipa::path(get, path = "/api/ext/operations", tag = "ext", security(("token" = [])),
    responses((status = 200, body = OperationList)))]
pub(super) async fn operations(
    State(store): State<Store>,
    Extension(running): Extension<Arc<RunningImport>>,
) -> Answer<Json<OperationList>> {
    let found = store.read(|c| Ok::<_, ServiceError>(operations::list(c)?)).await?;
    Ok(Json(OperationList { value: found.into_iter().map(|of| OperationBody::of(of, &running)).collect() }))
}

/// One operation, with every line that could not be done.
#[utoipa::path(get, path = "/api/ext/operations/{operation_id}", tag = "ext", params(OfOperation), security(("token" = [])),
    responses((status = 200, body = OperationDetail), (status = 404, body = ErrorBody)))]
pub(super) async fn operation(
    State(store): State<Store>,
    Extension(running): Extension<Arc<RunningImport>>,
    StrictPath(of): StrictPath<OfOperation>,
) -> Answer<Json<OperationDetail>> {
    let id = of.operation_id;
    let read = move |c: &Connection| {
        let found = operations::get(c, id)?;
        let found = found.ok_or_else(|| ServiceError::NotFound(format!("there is no operation {id}")))?;
        Ok::<_, ServiceError>((found, operations::faults(c, id)?))
    };
    let (found, faults) = store.read(read).await?;
    Ok(Json(OperationDetail {
        operation: OperationBody::of(found, &running),
        faults: faults.into_iter().map(Into::into).collect(),
    }))
}

/// Which devices to write into a file.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct ExportRequest {
    /// Whether keys and thumbprints are in it, which needs the permission connectivity.exportKeys.
    keys: Option<bool>,
    /// Of this template only; empty for those that have none.
    template: Option<String>,
    /// `next` of the part before.
    after: Option<String>,
}

/// Part of a file of devices.
#[derive(Serialize, ToSchema)]
pub(super) struct ExportBody {
    /// The lines of this part; the first part begins with a byte order mark and the header. An id or name that a spreadsheet would take
    /// for a formula has an apostrophe before it, which an import takes off.
    csv: String,
    /// Devices in this part.
    devices: usize,
    /// What to send as `after` for the next part; null at the end.
    next: Option<String>,
}

/// Writes devices into a file that IoT Central and central read, in parts of up to 10,000 devices.
#[utoipa::path(post, path = "/api/ext/devices/export", tag = "ext", request_body = ExportRequest, security(("token" = [])),
    responses((status = 200, body = ExportBody),
        (status = 403, description = "keys need the permission connectivity.exportKeys", body = ErrorBody)))]
pub(super) async fn export(
    State(store): State<Store>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<ExportRequest>,
) -> Answer<Json<ExportBody>> {
    let with_keys = request.keys.unwrap_or(false);
    if with_keys {
        caller.also_needs(&further::EXPORT_KEYS)?;
    }
    let read = move |c: &Connection| {
        let after = request.after.unwrap_or_default();
        let part = device_import::export(c, &after, request.template.as_deref(), with_keys, EXPORT_MAX)?;
        Ok::<_, ServiceError>(part)
    };
    let part = store.read(read).await?;
    Ok(Json(ExportBody { csv: part.csv, devices: part.devices, next: part.next }))
}
