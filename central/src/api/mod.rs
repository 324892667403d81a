//! The REST API: IoT Central's paths, bodies and status codes under `/api`, and ours under `/api/ext`.
//!
//! Every path is registered together with its description, so `/openapi.json` is the server and nothing else.

mod answers;
pub mod api_tokens;
pub mod approvals;
mod assets;
pub mod attestation;
pub mod audit;
mod audited;
pub mod auth;
mod caller;
pub mod cloud_messages;
pub mod commands;
pub mod components;
mod connection;
mod credentials;
mod description;
pub mod device_files;
pub mod device_templates;
pub mod devices;
pub mod enrollment_groups;
pub mod error;
mod etags;
pub mod ext;
pub mod extract;
pub mod grid;
pub mod group_approval;
pub mod group_certificates;
pub mod links;
pub mod list;
pub mod live;
mod log_path;
pub mod losses;
pub mod manifest_previews;
pub mod manifests;
mod module_logs;
pub mod names;
pub mod needed;
mod noted_reads;
pub mod overview;
pub mod overview_tiles;
pub mod paging;
mod path_text;
pub mod properties;
mod query;
pub mod relationships;
pub mod request_counts;
mod roles;
pub mod rollouts;
pub mod series;
pub mod session;
pub mod shown;
mod shown_models;
mod state;
mod strict;
pub mod telemetry;
pub mod template_model;
pub mod template_views;
mod token_use;
mod users;
pub mod why;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router, middleware};
use edge_hub::mqtt_server::MqttServer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config::Config;
use crate::device_import::RunningImport;
use crate::diagnosis::device_states::DeviceStates;
use crate::diagnosis::health::Health;
use crate::live::LiveFeed;
use crate::mqtt_service::CentralService;
use crate::people::service::People;
use crate::services::Services;
use error::ApiError;
use links::PublicAddress;
use noted_reads::NotedReads;
use query::DescribedParameters;
use request_counts::RequestCounts;
use shown_models::ShownModels;

/// The largest body: the largest manifest, and the JSON around it.
const BODY_BYTES_MAX: usize = schemas::manifest::DOCUMENT_BYTES_MAX + 64 * 1024;

/// Everything that central answers over HTTP.
pub fn router(
    services: Services,
    mqtt_server: Arc<MqttServer<CentralService>>,
    people: Arc<People>,
    live: LiveFeed,
    states: DeviceStates,
    config: Arc<Config>,
    requests: Arc<RequestCounts>,
) -> Router {
    let address = PublicAddress::new(&config.http);
    let access = auth::Access::new(&services, people.clone(), &address);
    let audit = people.audit().clone();
    let (router, description) = described();
    let parameters = Arc::new(DescribedParameters::of(&description));
    let inner: Router = router
        .route_layer(middleware::from_fn_with_state(parameters, query::check_parameters))
        .route_layer(middleware::from_fn(path_text::check))
        .route_layer(middleware::from_fn(etags::tag))
        .layer(Extension(address))
        .layer(Extension(config))
        .layer(Extension(people))
        .layer(Extension(live))
        .layer(Extension(states))
        .layer(Extension(DescriptionText::of(&description)))
        .layer(Extension(mqtt_server))
        .layer(Extension(Arc::new(Health::default())))
        .layer(Extension(Arc::new(RunningImport::default())))
        .layer(Extension(Arc::new(ShownModels::default())))
        .fallback(assets::fallback)
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(services);
    let recorder = audited::Recorder { audit, reads: inner.clone(), noted: NotedReads::default() };
    inner
        .layer(middleware::from_fn_with_state(recorder, audited::record))
        .layer(middleware::from_fn_with_state(access, auth::authorize))
        .layer(middleware::map_response(with_browser_headers))
        .layer(middleware::from_fn_with_state(requests, request_counts::count))
}

/// Tells browsers and proxies to keep no answer, to hand none to another origin, and to take none for a script or a page, unless
/// the answer says otherwise itself.
async fn with_browser_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// The paths and their description.
pub fn described() -> (Router<Services>, OpenApi) {
    let (router, mut description) = OpenApiRouter::<Services>::new()
        .routes(routes!(devices::list))
        .routes(routes!(devices::get, devices::put, devices::patch, devices::delete))
        .routes(routes!(devices::apply_manifest))
        .routes(routes!(devices::credentials))
        .routes(routes!(attestation::get, attestation::put, attestation::patch, attestation::delete))
        .routes(routes!(devices::modules))
        .routes(routes!(relationships::list))
        .routes(routes!(relationships::get, relationships::put, relationships::patch, relationships::delete))
        .routes(routes!(properties::get, properties::patch, properties::put))
        .routes(routes!(properties::get_of_module, properties::patch_of_module, properties::put_of_module))
        .routes(routes!(telemetry::get))
        .routes(routes!(telemetry::get_of_module))
        .routes(routes!(components::list))
        .routes(routes!(components::list_of_module))
        .routes(routes!(components::properties, components::patch_properties, components::put_properties))
        .routes(routes!(
            components::properties_of_module,
            components::patch_properties_of_module,
            components::put_properties_of_module
        ))
        .routes(routes!(components::telemetry))
        .routes(routes!(components::telemetry_of_module))
        .routes(routes!(components::history, components::run))
        .routes(routes!(components::history_of_module, components::run_of_module))
        .routes(routes!(commands::history, commands::run))
        .routes(routes!(commands::recent))
        .routes(routes!(commands::history_of_module, commands::run_of_module))
        .merge(deployments())
        .routes(routes!(device_templates::list))
        .routes(routes!(
            device_templates::get,
            device_templates::put,
            device_templates::patch,
            device_templates::delete
        ))
        .routes(routes!(device_templates::make))
        .routes(routes!(template_views::list))
        .routes(routes!(template_views::get))
        .routes(routes!(template_views::preview))
        .routes(routes!(overview_tiles::get, overview_tiles::put))
        .routes(routes!(device_files::preview))
        .routes(routes!(device_files::import))
        .routes(routes!(device_files::export))
        .routes(routes!(device_files::operations))
        .routes(routes!(device_files::operation))
        .routes(routes!(enrollment_groups::list))
        .routes(routes!(
            enrollment_groups::get,
            enrollment_groups::put,
            enrollment_groups::patch,
            enrollment_groups::delete
        ))
        .routes(routes!(group_certificates::get, group_certificates::put, group_certificates::delete))
        .routes(routes!(group_certificates::generate_verification_code))
        .routes(routes!(group_certificates::verify))
        .routes(routes!(enrollment_groups::provisioning))
        .routes(routes!(group_approval::list))
        .routes(routes!(group_approval::get, group_approval::put))
        .routes(routes!(approvals::approve))
        .routes(routes!(approvals::reject))
        .routes(routes!(approvals::decide))
        .routes(routes!(api_tokens::list))
        .routes(routes!(api_tokens::get, api_tokens::put, api_tokens::delete))
        .routes(routes!(audit::list))
        .routes(routes!(users::list))
        .routes(routes!(users::get, users::put, users::patch, users::delete))
        .routes(routes!(users::set_password))
        .merge(roles())
        .routes(routes!(session::current, session::sign_in, session::sign_out))
        .routes(routes!(session::setup_needed, session::set_up))
        .routes(routes!(ext::health))
        .routes(routes!(ext::mqtt_server))
        .routes(routes!(connection::get))
        .routes(routes!(connection::join))
        .routes(routes!(ext::status))
        .routes(routes!(module_logs::get))
        .routes(routes!(ext::messages))
        .routes(routes!(live::events))
        .routes(routes!(grid::list))
        .routes(routes!(grid::counts))
        .routes(routes!(names::list))
        .routes(routes!(overview::get))
        .routes(routes!(why::get))
        .routes(routes!(series::get))
        .routes(routes!(losses::list))
        .routes(routes!(losses::totals))
        .routes(routes!(cloud_messages::list, cloud_messages::send, cloud_messages::purge))
        .routes(routes!(cloud_messages::feedback))
        .routes(routes!(ext::twin))
        .routes(routes!(crate::page::page))
        .routes(routes!(open_api))
        .split_for_parts();
    description::complete(&mut description);
    etags::describe(&mut description);
    (router, description)
}

/// The paths of roles.
fn roles() -> OpenApiRouter<Services> {
    OpenApiRouter::new()
        .routes(routes!(roles::list))
        .routes(routes!(roles::get))
        .routes(routes!(roles::list_with_permissions))
        .routes(routes!(roles::get_with_permissions, roles::put, roles::patch, roles::delete))
}

/// The paths of deployment manifests.
fn deployments() -> OpenApiRouter<Services> {
    OpenApiRouter::new()
        .routes(routes!(manifests::list))
        .routes(routes!(manifests::get, manifests::put, manifests::patch, manifests::delete))
        .routes(routes!(manifest_previews::preview))
        .routes(routes!(manifest_previews::test_routes))
        .routes(routes!(rollouts::get))
}

/// Describes this API as OpenAPI 3.1.
#[utoipa::path(get, path = "/openapi.json", tag = "page", responses((status = 200, body = BTreeMap<String, serde_json::Value>)))]
async fn open_api(Extension(description): Extension<DescriptionText>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], description.0)
}

/// The description as it is sent: anybody may ask for it as often as he likes.
#[derive(Clone)]
struct DescriptionText(Bytes);

impl DescriptionText {
    fn of(description: &OpenApi) -> Self {
        Self(serde_json::to_vec(description).expect("a description has a JSON form").into())
    }
}
