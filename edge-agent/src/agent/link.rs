//! The connection upstream: the link to central, or the forwarder to another upstream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};

use edge_hub::tasks::Tasks;
use mqtt::client::Transport;
use schemas::connection_string::ConnectionString;
use schemas::names::DeviceId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::parts::Parts;
use crate::access::devices::Devices;
use crate::clock::now_ms;
use crate::config::{Kind, Upstream};
use crate::messages::quarantine::Quarantine;
use crate::messages::queues::Queues;
use crate::upstream::address::Address;
use crate::upstream::central;
use crate::upstream::central::uplink::Uplink;
use crate::upstream::endpoint;
use crate::upstream::forward::{Forwarder, UpstreamProfile};
use crate::upstream::meter::Meter;
use crate::upstream::sent_updates::SentUpdates;
use crate::upstream::status::LinkStatus;

/// Starts it; gives its status, or `None` without an upstream.
pub(super) fn start(
    tasks: &mut Tasks,
    parts: &Parts,
    stop: &CancellationToken,
) -> Option<watch::Receiver<LinkStatus>> {
    let Some(upstream) = parts.config.upstream.clone() else {
        tracing::warn!("no upstream is configured: telemetry stays on this gateway");
        return None;
    };
    let (status, receiver) = watch::channel(LinkStatus {
        is_connected: false,
        since_ms: now_ms(),
        why: String::new(),
        failure: None,
    });
    let proxy = upstream.proxy();
    if let Some(proxy) = &proxy {
        tracing::info!(%proxy, "upstream is reached through a proxy");
    }
    let stop = stop.clone();
    match upstream.kind.clone() {
        Kind::Central(connection_string) => {
            // The transport is replaced before it runs, as soon as its files can be used.
            let address = Address::new(&upstream, Transport::Plain, proxy);
            let mut uplink = uplink(parts, address, connection_string, status);
            // A panic of a connection is the end of that connection (`central::run`).
            tasks.essential("link", async move {
                let transport = endpoint::usable_transport(&upstream, &uplink.status, &stop).await;
                if let Some(transport) = transport {
                    uplink.address.transport = transport;
                    central::run(uplink, stop).await;
                }
                anyhow::Ok(())
            });
        }
        Kind::IotHub(_) | Kind::Mqtt(_) => {
            let carried = Carried {
                gateway: parts.config.device_id.clone(),
                queues: parts.queues.clone(),
                quarantine: parts.quarantine.clone(),
                devices: parts.authorizer.devices.clone(),
                meter: parts.meter.clone(),
            };
            tasks.restarted("link", move || {
                let (upstream, status, stop) = (upstream.clone(), status.clone(), stop.clone());
                let (carried, proxy) = (carried.clone(), proxy.clone());
                async move {
                    let transport = endpoint::usable_transport(&upstream, &status, &stop).await;
                    if let Some(transport) = transport {
                        let address = Address::new(&upstream, transport, proxy);
                        carried.forwarder(&upstream, address, status).run(stop).await;
                    }
                    Ok(())
                }
            });
        }
    }
    Some(receiver)
}

fn uplink(
    parts: &Parts,
    address: Address,
    connection_string: ConnectionString,
    status: watch::Sender<LinkStatus>,
) -> Uplink {
    Uplink {
        upstream: connection_string,
        address,
        queues: parts.queues.clone(),
        quarantine: parts.quarantine.clone(),
        meter: parts.meter.clone(),
        twins: parts.twins.clone(),
        authorizer: parts.authorizer.clone(),
        deployments: parts.deployments.clone(),
        commands: parts.commands.clone(),
        cloud_messages: parts.cloud_messages.clone(),
        dispatcher: parts.dispatcher.clone(),
        enrolments: parts.enrolments.clone(),
        clients: parts.clients.clone(),
        presence: parts.presence.clone(),
        status,
        central_version: AtomicU32::new(0),
        // As the state was when it was opened: this is called once.
        sent_updates: SentUpdates::load(parts.state.clone()),
        is_store_unnamed: AtomicBool::new(false),
    }
}

/// What a forwarder takes from the other parts.
#[derive(Clone)]
struct Carried {
    gateway: DeviceId,
    queues: Arc<Queues>,
    quarantine: Arc<Quarantine>,
    devices: Devices,
    meter: Meter,
}

impl Carried {
    fn forwarder(
        self,
        upstream: &Upstream,
        address: Address,
        status: watch::Sender<LinkStatus>,
    ) -> Forwarder {
        if matches!(address.transport, Transport::Plain) {
            tracing::warn!(
                "[upstream] transport = \"plain\": everybody on the way can read and change what is sent"
            );
        }
        let profile = UpstreamProfile::new(upstream, self.devices);
        Forwarder {
            gateway: self.gateway,
            profile: Arc::new(profile),
            address,
            queues: self.queues,
            quarantine: self.quarantine,
            meter: self.meter,
            status,
        }
    }
}
