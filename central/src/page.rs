//! The status page: every gateway with its modules, and every device, as they are now. Plain HTML; no script runs on it.

use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse};
use edge_core::redact::quotes::Quotes;
use rusqlite::Connection;
use schemas::names::{Identity, ModuleId};
use schemas::received_report::{ReceivedModule, ReceivedStatus};
use schemas::status::{FindingReport, RefusalReport};
use schemas::timestamp::rfc3339;
use std::fmt::Write as _;

use crate::access::admission::Admission;
use crate::api::error::Answer;
use crate::clock::now_ms;
use crate::deployments::quotes::GatewayQuotes;
use crate::diagnosis::gateway_report;
use crate::error::ServiceError;
use crate::gateway_sync::connections::Connections;
use crate::lookup::modules;
use crate::services::Services;
use crate::store::devices::{self, Device};
use crate::store::twins::{self, Half};
use crate::store::{manifests, telemetry_reading};

/// Rows on the page; beyond that it says so, and the REST API has the rest.
const ROWS_MAX: u32 = 1000;

const STYLE: &str = "body{font:15px system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}
table{border-collapse:collapse;width:100%;margin-bottom:2rem}th,td{text-align:left;padding:.3rem .6rem;
border-bottom:1px solid #8884;vertical-align:top}.yes{color:#17803d}.no{color:#b3261e}.warn{color:#a15c00}:root{color-scheme:light dark}";

/// One row.
struct Row {
    device: Device,
    last_seen_ms: Option<u64>,
    deployment: String,
    /// Name and state as the gateway reported it.
    modules: Vec<(ModuleId, String)>,
    /// What the gateway finds wrong with itself.
    findings: Vec<FindingReport>,
    /// The clients that it refused last.
    refusals: Vec<RefusalReport>,
}

/// Shows gateways and devices.
#[utoipa::path(get, path = "/status", tag = "page", security(("token" = [])),
    responses((status = 200, description = "the status page; a browser's password is the token", content_type = "text/html")))]
pub(crate) async fn page(State(services): State<Services>) -> Answer<impl IntoResponse> {
    let rows = services.store.read(rows).await?;
    let quotes = services.manifest_quotes.now().await?;
    let html = render(&rows, &services.connections, &quotes);
    // Nothing but the style of this page: should a name ever get through unescaped, it would still not run. No other page
    // may show it in a frame.
    let policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let policy = [(header::CONTENT_SECURITY_POLICY, policy)];
    Ok((policy, Html(html)))
}

fn rows(c: &Connection) -> Result<Vec<Row>, ServiceError> {
    devices::list(c, "", ROWS_MAX)?.into_iter().map(|device| row(c, device)).collect()
}

fn row(c: &Connection, device: Device) -> Result<Row, ServiceError> {
    let last_seen_ms = device.last_seen_ms.max(telemetry_reading::last_received(c, &device.id)?);
    let agent = Identity::module(device.id.clone(), ModuleId::edge_agent());
    let desired = twins::section(c, &agent, Half::Desired)?.section.version;
    let reported = gateway_report::section(c, &device.id, Half::Reported)?;
    let deployment = match &device.manifest_id {
        None => String::new(),
        Some(id) => {
            let name = manifests::display_name(c, id)?.unwrap_or_else(|| id.clone());
            let ReceivedStatus { code, description } = &reported.last_desired_status;
            match reported.last_desired_version {
                Some(version) if version == desired => match code {
                    Some(200) => format!("{name}: done"),
                    Some(code) => format!("{name}: {code} {}", description.as_deref().unwrap_or("")),
                    None => name,
                },
                _ => format!("{name}: not yet taken up by the gateway"),
            }
        }
    };
    let mut states = Vec::new();
    for module in modules(c, &device.id)?.into_iter().filter(|module| !module.is_system()) {
        let state = reported.module(module.as_str());
        states.push((module, state.map_or_else(|| "not reported".to_owned(), state_text)));
    }
    let health = reported.health.unwrap_or_default();
    let findings = health.findings.into_iter().filter(|finding| finding.level != "info").collect();
    Ok(Row { device, last_seen_ms, deployment, modules: states, findings, refusals: health.refusals })
}

/// `backoff: ended with code 3; restart 2 of 20; next try …`
fn state_text(state: &ReceivedModule) -> String {
    let of = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let status = of(&state.runtime_status).unwrap_or_else(|| "not reported".to_owned());
    let reason = of(&state.status_description).filter(|reason| *reason != status);
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    let next = of(&state.next_try_utc).map(|at| format!("; next try {at}")).unwrap_or_default();
    format!("{status}{reason}{next}")
}

/// Rows of a gateway's refusals on the page; the REST API has the rest.
const REFUSALS_SHOWN_MAX: usize = 8;

/// What is wrong with a gateway, and whom it refused, in a row of its own.
fn put_health(html: &mut String, row: &Row, quotes: &Quotes) {
    if row.findings.is_empty() && row.refusals.is_empty() {
        return;
    }
    html.push_str("<tr><td><td colspan=4>");
    for finding in &row.findings {
        let class = if finding.level == "error" { "no" } else { "warn" };
        // Writing to a String cannot fail.
        let _ = write!(
            html,
            "<div><b class=\"{class}\">{} {}</b> {}<br><small>{}</small></div>",
            escape(&finding.level),
            escape(&finding.id),
            escape(&quotes.hide(&finding.evidence)),
            escape(&quotes.hide(&finding.mend))
        );
    }
    for refused in row.refusals.iter().take(REFUSALS_SHOWN_MAX) {
        let who = if refused.identity.is_empty() { "somebody" } else { &refused.identity };
        let proof = refused.proof.as_ref().map(|proof| format!(" ({proof})")).unwrap_or_default();
        let _ = write!(
            html,
            "<div><small>refused {} from {} by {}, {} times, last {}: {}{}</small></div>",
            escape(who),
            escape(&refused.from),
            escape(&refused.protocol),
            refused.count,
            escape(&refused.last),
            escape(&refused.why),
            escape(&proof)
        );
    }
}

fn render(rows: &[Row], connections: &Connections, quotes: &GatewayQuotes) -> String {
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>central</title><style>{STYLE}</style><h1>central</h1>\
         <p>As of {}. <a href=\"/openapi.json\">REST API</a></p>",
        rfc3339(now_ms())
    );
    html.push_str(
        "<h2>Gateways</h2><table><tr><th>Gateway<th>Connected<th>Last seen<th>Deployment<th>Modules",
    );
    for row in rows.iter().filter(|row| row.device.is_gateway) {
        let quotes = quotes.of(row.device.id.as_str());
        let modules: Vec<String> = row
            .modules
            .iter()
            .map(|(name, state)| format!("{}: {}", escape(name.as_str()), escape(&quotes.hide(state))))
            .collect();
        put(
            &mut html,
            row,
            connections,
            &format!("<td>{}<td>{}", escape(&quotes.hide(&row.deployment)), modules.join("<br>")),
        );
        put_health(&mut html, row, &quotes);
    }
    html.push_str("</table><h2>Devices</h2><table><tr><th>Device<th>Connected<th>Last seen<th>Gateway");
    for row in rows.iter().filter(|row| !row.device.is_gateway) {
        let gateway = row.device.gateway.as_ref().map_or("", |gateway| gateway.as_str());
        put(&mut html, row, connections, &format!("<td>{}", escape(gateway)));
    }
    html.push_str("</table>");
    if u32::try_from(rows.len()) == Ok(ROWS_MAX) {
        let _ =
            write!(html, "<p>Only the first {ROWS_MAX} are shown; GET /api/devices lists all of them.</p>");
    }
    html
}

fn put(html: &mut String, row: &Row, connections: &Connections, rest: &str) {
    let device = &row.device;
    let (class, connected) =
        match connections.since(&Identity::device(device.id.clone()), device.gateway.as_ref()) {
            _ if device.admission() == Admission::Blocked => ("no", "blocked".to_owned()),
            _ if device.admission() == Admission::Waiting => ("no", "waiting for approval".to_owned()),
            Some(since) => ("yes", format!("since {}", rfc3339(since))),
            None => ("no", "no".to_owned()),
        };
    let seen = row.last_seen_ms.map_or("never".to_owned(), rfc3339);
    // Writing to a String cannot fail.
    let _ = write!(
        html,
        "<tr><td>{}<br><small>{}</small><td class=\"{class}\">{connected}<td>{seen}{rest}",
        escape(&device.display_name),
        escape(device.id.as_str())
    );
}

/// Text as it may stand in HTML, in an attribute's quotes too, without its secrets: the page is the same for every role.
fn escape(text: &str) -> String {
    let text = edge_core::redact::text(text);
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, character| {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
        escaped
    })
}
