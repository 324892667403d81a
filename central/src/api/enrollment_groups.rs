//! `/api/enrollmentGroups`: IoT Central's paths for groups of devices that enrol themselves.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rusqlite::Connection;
use schemas::names::DeviceId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::{Answer, ApiError, ErrorBody};
use super::extract::{ApiVersion, Body, StrictPath, StrictQuery};
use super::group_certificates::{CertificateRequest, Entry, SigningCertificatesBody, certificates_body};
use super::links::ListAddress;
use super::list::Page;
use super::paging::Paging;
use crate::enrollment::proving::GROUPS_MAX;
use crate::enrollment::service::Enrollment;
use crate::error::{ServiceError, no_group};
use crate::new_device::new_keys;
use crate::services::Services;
use crate::store::Store;
use crate::store::devices;
use crate::store::enrollments::{self, Group, GroupAttestation, SigningCertificates};
use crate::types::precondition::Precondition;
use crate::types::single_line::DisplayName;

/// Gateways that one group may list.
const GATEWAYS_MAX: usize = 1_000;

/// `/api/enrollmentGroups/{group_id}`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfGroup {
    /// Chosen by the operator.
    pub(super) group_id: String,
}

/// A group to store. What is left out stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct GroupRequest {
    /// As in the path, when it is given.
    id: Option<String>,
    /// 1 to 148 characters on one line.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 148)]
    display_name: Option<DisplayName>,
    /// False: nobody enrols by it.
    enabled: Option<bool>,
    /// `iot`, or `iotEdge` for gateways; only for a new group.
    #[serde(rename = "type")]
    kind: Option<String>,
    attestation: Option<AttestationRequest>,
    /// Gateways through which devices of an X.509 group may enrol; none for a new group.
    #[schema(value_type = Option<Vec<String>>)]
    gateways: Option<Vec<DeviceId>>,
    /// As read, to change nothing else than that.
    etag: Option<String>,
    /// Given back by scripts that changed what they read; not compared.
    #[serde(rename = "idScope")]
    _id_scope: Option<String>,
}

/// How devices of a group prove themselves.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
struct AttestationRequest {
    /// `symmetricKey` or `x509`; only for a new group.
    #[serde(rename = "type")]
    kind: String,
    symmetric_key: Option<KeysRequest>,
    x509: Option<X509Request>,
}

/// The authorities that give certificates to devices of the group.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
struct X509Request {
    #[serde(default)]
    signing_certificates: SigningRequest,
}

/// One or two authorities; what is left out stays.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
struct SigningRequest {
    primary: Option<CertificateRequest>,
    secondary: Option<CertificateRequest>,
}

/// Base64 keys of 16 to 64 bytes; made when they are left out.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
struct KeysRequest {
    primary_key: Option<String>,
    secondary_key: Option<String>,
}

impl GroupRequest {
    /// The group that is requested, in place of the stored one.
    fn group(self, id: String, stored: Option<Group>) -> Result<Group, ServiceError> {
        let wrong = |why: String| Err(ServiceError::Wrong(why));
        if let Some(other) = self.id.filter(|other| *other != id) {
            return wrong(format!("id: found `{other}`; the path says `{id}`"));
        }
        if id.is_empty()
            || id.len() > 128
            || !id.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        {
            return wrong(format!("id: found `{id}`; write 1 to 128 letters, digits and - _ ."));
        }
        let is_new = stored.is_none();
        let mut group = match stored {
            Some(group) => group,
            None => {
                let Some(request) = &self.attestation else {
                    return wrong(
                        "attestation: missing; write {\"type\": \"symmetricKey\"} or {\"type\": \"x509\"}"
                            .into(),
                    );
                };
                Group {
                    display_name: id.clone(),
                    id,
                    enabled: true,
                    is_edge: false,
                    attestation: request.empty()?,
                    gateways: Vec::new(),
                    auto_approve: true,
                    revision: 0,
                }
            }
        };
        if let Some(kind) = self.kind {
            let is_edge = match kind.as_str() {
                "iot" => false,
                "iotEdge" => true,
                other => return wrong(format!("type: found `{other}`; allowed are iot and iotEdge")),
            };
            if !is_new && is_edge != group.is_edge {
                return wrong("type: it is chosen when the group is made; make another group".into());
            }
            group.is_edge = is_edge;
        }
        if let Some(request) = self.attestation {
            group.attestation = request.over(group.attestation)?;
        }
        if let Some(gateways) = self.gateways {
            if !gateways.is_empty() && matches!(group.attestation, GroupAttestation::Keys(_)) {
                return wrong("gateways: devices with keys enrol through every gateway; leave it out".into());
            }
            if gateways.len() > GATEWAYS_MAX {
                return wrong(format!(
                    "gateways: found {}; write {GATEWAYS_MAX} at the most",
                    gateways.len()
                ));
            }
            group.gateways = gateways;
        }
        group.display_name = self.display_name.map_or(group.display_name, Into::into);
        group.enabled = self.enabled.unwrap_or(group.enabled);
        Ok(group)
    }
}

impl AttestationRequest {
    /// What a new group of this kind begins with.
    fn empty(&self) -> Result<GroupAttestation, ServiceError> {
        match self.kind.as_str() {
            "symmetricKey" => Ok(GroupAttestation::Keys(new_keys())),
            "x509" => Ok(GroupAttestation::X509(SigningCertificates::default())),
            other => {
                let why =
                    format!("attestation.type: found `{other}`; symmetricKey and x509 are what is offered");
                Err(ServiceError::Wrong(why))
            }
        }
    }

    /// The stored value, changed by this request.
    fn over(self, stored: GroupAttestation) -> Result<GroupAttestation, ServiceError> {
        let wrong = |why: &str| Err(ServiceError::Wrong(why.to_owned()));
        // Only its kind counts here; the keys that it makes are thrown away.
        match (self.empty()?, stored) {
            (GroupAttestation::Keys(_), GroupAttestation::Keys(mut keys)) => {
                if self.x509.is_some() {
                    return wrong("attestation.x509: the group's devices prove themselves by keys");
                }
                let request = self.symmetric_key.unwrap_or_default();
                for (name, key) in
                    [("primaryKey", &request.primary_key), ("secondaryKey", &request.secondary_key)]
                {
                    let bytes = key.as_ref().map(|key| STANDARD.decode(key).map_or(0, |key| key.len()));
                    if bytes.is_some_and(|bytes| !(16..=64).contains(&bytes)) {
                        let why = format!("attestation.symmetricKey.{name}: write base64 of 16 to 64 bytes");
                        return Err(ServiceError::Wrong(why));
                    }
                }
                keys.primary = request.primary_key.unwrap_or(keys.primary);
                keys.secondary = request.secondary_key.unwrap_or(keys.secondary);
                Ok(GroupAttestation::Keys(keys))
            }
            (GroupAttestation::X509(_), GroupAttestation::X509(mut certificates)) => {
                if self.symmetric_key.is_some() {
                    return wrong(
                        "attestation.symmetricKey: the group's devices prove themselves by certificate",
                    );
                }
                let request = self.x509.unwrap_or_default().signing_certificates;
                for (entry, request) in
                    [(Entry::Primary, request.primary), (Entry::Secondary, request.secondary)]
                {
                    let Some(request) = request else { continue };
                    let of = entry.of(&mut certificates);
                    let field = format!("attestation.x509.signingCertificates.{}", entry.as_str());
                    *of = request.over(of.take(), &field)?;
                }
                Ok(GroupAttestation::X509(certificates))
            }
            _ => wrong("attestation.type: it is chosen when the group is made; make another group"),
        }
    }
}

/// A group of devices that enrol themselves.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupBody {
    id: String,
    display_name: String,
    /// False: nobody enrols by it.
    enabled: bool,
    #[serde(rename = "type")]
    kind: GroupKind,
    attestation: GroupAttestationBody,
    etag: String,
    /// ID scope of this site, which devices send when they enrol.
    id_scope: String,
    /// Of a group with certificates: the gateways through which its devices may enrol.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    gateways: Option<Vec<DeviceId>>,
}

/// What enrols by a group.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum GroupKind {
    /// Devices enrol by it.
    Iot,
    /// Gateways enrol by it.
    IotEdge,
}

/// How devices of a group prove themselves. A list, which viewers may read, has neither keys nor certificates.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct GroupAttestationBody {
    #[serde(rename = "type")]
    kind: GroupAttestationKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    symmetric_key: Option<GroupKeysBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x509: Option<GroupX509Body>,
}

/// In which way devices of a group prove themselves.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum GroupAttestationKind {
    /// By keys that are made of the group's.
    SymmetricKey,
    /// By certificates of the group's authorities.
    X509,
}

impl GroupKind {
    pub(super) fn of(group: &Group) -> Self {
        if group.is_edge { Self::IotEdge } else { Self::Iot }
    }
}

impl GroupAttestationKind {
    pub(super) fn of(group: &Group) -> Self {
        match group.attestation {
            GroupAttestation::Keys(_) => Self::SymmetricKey,
            GroupAttestation::X509(_) => Self::X509,
        }
    }
}

/// The keys of a group, base64.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct GroupKeysBody {
    primary_key: String,
    secondary_key: String,
}

/// The authorities of a group.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct GroupX509Body {
    signing_certificates: SigningCertificatesBody,
}

/// Keys and certificates are shown to those who may change the group.
fn body(group: &Group, id_scope: &str, has_keys: bool) -> GroupBody {
    let (symmetric_key, x509) = match &group.attestation {
        GroupAttestation::Keys(keys) => {
            let (primary_key, secondary_key) = (keys.primary.clone(), keys.secondary.clone());
            (Some(GroupKeysBody { primary_key, secondary_key }), None)
        }
        GroupAttestation::X509(certificates) => {
            let signing_certificates = certificates_body(certificates);
            (None, Some(GroupX509Body { signing_certificates }))
        }
    };
    let is_x509 = x509.is_some();
    GroupBody {
        id: group.id.clone(),
        display_name: group.display_name.clone(),
        enabled: group.enabled,
        kind: GroupKind::of(group),
        attestation: GroupAttestationBody {
            kind: GroupAttestationKind::of(group),
            symmetric_key: symmetric_key.filter(|_| has_keys),
            x509: x509.filter(|_| has_keys),
        },
        etag: group.etag(),
        id_scope: id_scope.to_owned(),
        gateways: is_x509.then(|| group.gateways.clone()),
    }
}

/// What a device must know to enrol at this site.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProvisioningBody {
    /// The ID scope of this site.
    id_scope: String,
    /// Host name at which central answers enrolments.
    host: String,
}

/// Lists enrolment groups by id, without their keys.
#[utoipa::path(get, path = "/api/enrollmentGroups", tag = "enrollmentGroups", params(Paging),
    security(("token" = [])), responses((status = 200, body = Page<GroupBody>)))]
pub(super) async fn list(
    State(services): State<Services>,
    StrictQuery(paging): StrictQuery<Paging>,
    address: ListAddress,
) -> Answer<Json<Page<GroupBody>>> {
    let (limit, after) = (paging.limit()?, paging.after());
    let groups =
        services.store.read(move |c| Ok::<_, ServiceError>(enrollments::groups(c, &after, limit)?)).await?;
    let bodies = groups.iter().map(|group| body(group, services.enrollment.id_scope(), false)).collect();
    Ok(Json(Page::new(bodies, limit, &address, |last: &GroupBody| last.id.clone())))
}

/// One enrolment group, with its keys.
#[utoipa::path(get, path = "/api/enrollmentGroups/{group_id}", tag = "enrollmentGroups",
    params(OfGroup, ApiVersion), security(("token" = [])),
    responses((status = 200, body = GroupBody), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    State(services): State<Services>,
    StrictPath(of): StrictPath<OfGroup>,
) -> Answer<Json<GroupBody>> {
    let read =
        move |c: &Connection| enrollments::group(c, &of.group_id)?.ok_or_else(|| no_group(&of.group_id));
    let group = services.store.read(read).await?;
    Ok(Json(body(&group, services.enrollment.id_scope(), true)))
}

/// Makes an enrolment group or changes it. A new one gets keys when none are given.
#[utoipa::path(put, path = "/api/enrollmentGroups/{group_id}", tag = "enrollmentGroups",
    params(OfGroup, ApiVersion), request_body = GroupRequest, security(("token" = [])),
    responses((status = 200, body = GroupBody), (status = 422, body = ErrorBody)))]
pub(super) async fn put(
    State(services): State<Services>,
    StrictPath(of): StrictPath<OfGroup>,
    precondition: Precondition,
    Body(request): Body<GroupRequest>,
) -> Answer<Json<GroupBody>> {
    write(&services, of.group_id, request, false, precondition).await
}

/// Changes an enrolment group.
#[utoipa::path(patch, path = "/api/enrollmentGroups/{group_id}", tag = "enrollmentGroups",
    params(OfGroup, ApiVersion), request_body = GroupRequest, security(("token" = [])),
    responses((status = 200, body = GroupBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn patch(
    State(services): State<Services>,
    StrictPath(of): StrictPath<OfGroup>,
    precondition: Precondition,
    Body(request): Body<GroupRequest>,
) -> Answer<Json<GroupBody>> {
    write(&services, of.group_id, request, true, precondition).await
}

async fn write(
    services: &Services,
    id: String,
    mut request: GroupRequest,
    must_exist: bool,
    precondition: Precondition,
) -> Answer<Json<GroupBody>> {
    let precondition = precondition.with_body(request.etag.take());
    let written = services.store.submit(move |c| {
        let stored = enrollments::group(c, &id)?;
        if stored.is_none() {
            if must_exist {
                return Err(no_group(&id));
            }
            if enrollments::groups(c, "", GROUPS_MAX)?.len() >= GROUPS_MAX as usize {
                return Err(ServiceError::Wrong(format!(
                    "id: {GROUPS_MAX} groups are stored; delete one first"
                )));
            }
        }
        precondition.check(stored.as_ref().map(Group::etag).as_deref())?;
        let mut group = request.group(id, stored)?;
        for gateway in &group.gateways {
            if !devices::get(c, gateway)?.is_some_and(|device| device.is_gateway) {
                return Err(ServiceError::Wrong(format!(
                    "gateways: `{gateway}` is not a registered gateway"
                )));
            }
        }
        group.revision = enrollments::put_group(c, &group)?;
        Ok(group)
    });
    Ok(Json(body(&written.await?, services.enrollment.id_scope(), true)))
}

/// Deletes an enrolment group. Its devices stay registered and connect as before.
#[utoipa::path(delete, path = "/api/enrollmentGroups/{group_id}", tag = "enrollmentGroups",
    params(OfGroup, ApiVersion), security(("token" = [])),
    responses((status = 204), (status = 404, body = ErrorBody)))]
pub(super) async fn delete(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfGroup>,
    precondition: Precondition,
) -> Answer<StatusCode> {
    let deleted = store.submit(move |c| {
        let stored = enrollments::group(c, &of.group_id)?;
        if let Some(stored) = &stored {
            precondition.check(Some(&stored.etag()))?;
        }
        let is_deleted = enrollments::delete_group(c, &of.group_id)?;
        is_deleted.then_some(()).ok_or_else(|| no_group(&of.group_id))
    });
    deleted.await.map_err(ApiError::from)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Where devices enrol, and with which ID scope.
#[utoipa::path(get, path = "/api/ext/provisioning", tag = "ext", security(("token" = [])),
    responses((status = 200, body = ProvisioningBody)))]
pub(super) async fn provisioning(State(enrollment): State<Arc<Enrollment>>) -> Json<ProvisioningBody> {
    Json(ProvisioningBody { id_scope: enrollment.id_scope().to_owned(), host: enrollment.hub().to_owned() })
}
