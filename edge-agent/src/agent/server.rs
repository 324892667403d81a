//! The MQTT server of the gateway and its listeners.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use edge_hub::mqtt_server::MqttServer;
use edge_hub::sessions::Sessions;
use edge_hub::tasks::Tasks;
use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;

use super::parts::Parts;
use crate::commands::methods;
use crate::gateway_service::GatewayService;
use crate::messages::routing::Router;

/// Opens the server and every listener of the configuration.
pub(super) async fn open(
    parts: &Parts,
    sessions: Sessions,
    tls: Arc<rustls::ServerConfig>,
    stop: &CancellationToken,
) -> Result<(Arc<MqttServer<GatewayService>>, Tasks)> {
    let config = &parts.config;
    let service = Arc::new(service(parts));
    let api = methods::router(service.clone(), parts.clients.clone());
    let server = MqttServer::new(sessions, service);
    let mut listeners = Tasks::new(stop.clone());
    let bind = async |address| {
        edge_hub::listen::bind(address).await.with_context(|| format!("listening on {address}"))
    };
    let listener = bind(config.listen.mqtts).await?;
    listeners.essential(
        "MQTT over TLS",
        server.clone().serve_tls(listener, tls.clone(), stop.clone()).map(anyhow::Ok),
    );
    tracing::info!(address = %config.listen.mqtts, "MQTT over TLS is served");
    if let Some(address) = config.listen.https {
        let listener = bind(address).await.context(
            "[listen] https: MQTT over WebSocket and the modules' method API; write \"\" for none",
        )?;
        listeners.essential(
            "HTTPS",
            server.clone().serve_https(listener, tls.clone(), api, stop.clone()).map(anyhow::Ok),
        );
        tracing::info!(%address, "MQTT over WebSocket and the modules' method API are served");
    }
    if let Some(address) = config.listen.amqps {
        let listener = bind(address).await.context("[listen] amqps: AMQP over TLS; write \"\" for none")?;
        listeners.essential(
            "AMQP over TLS",
            server.clone().serve_amqps(listener, tls, stop.clone()).map(anyhow::Ok),
        );
        tracing::info!(%address, "AMQP over TLS is served, for telemetry");
    }
    if let Some(address) = config.listen.mqtt {
        if !address.ip().is_loopback() {
            bail!("[listen] mqtt: found {address}; plain MQTT is served on loopback only");
        }
        listeners.essential(
            "plain MQTT",
            server.clone().serve_tcp(bind(address).await?, stop.clone()).map(anyhow::Ok),
        );
        let anonymous_user = config.listen.anonymous_user.as_ref().map(tracing::field::display);
        tracing::info!(%address, anonymous_user, "plain MQTT is served on loopback");
    }
    Ok((server, listeners))
}

/// What the server asks of the gateway.
fn service(parts: &Parts) -> GatewayService {
    GatewayService {
        gateway: parts.config.device_id.clone(),
        hosts: parts.hosts.clone(),
        authorizer: parts.authorizer.clone(),
        passwords: parts.passwords.clone(),
        twins: parts.twins.clone(),
        router: Router {
            gateway: parts.config.device_id.clone(),
            queues: parts.queues.clone(),
            twins: parts.twins.clone(),
            routing: parts.outputs.routing.clone(),
            takes_free: parts.outputs.takes_free.clone(),
            unrouted: parts.unrouted.clone(),
        },
        routing: parts.outputs.routing.clone(),
        presence: parts.presence.clone(),
        commands: parts.commands.clone(),
        dispatcher: parts.dispatcher.clone(),
        enrolments: parts.enrolments.clone(),
    }
}
