//! The tasks that run as long as the daemon does, beside the listeners and the link.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_hub::metrics::listener;
use edge_hub::tasks::Tasks;
use edge_tls::issue::Authority;
use futures_util::FutureExt as _;
use schemas::status::HealthReport;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::parts::Parts;
use super::report::{Reporter, host};
use crate::access::certificate;
use crate::control::context::Control;
use crate::deployment::container_limits::ContainerLimits;
use crate::deployment::docker::{Engine, ModuleContext};
use crate::deployment::reconciler::Reconciler;
use crate::deployment::restart_counts::RestartCounts;
use crate::deployment::rollout::Rollout;
use crate::deployment::status::ReconcilerStatus;
use crate::deployment::watched_folder;
use crate::deployment::workload::certificates::ModuleCertificates;
use crate::deployment::workload::{About, Workload};
use crate::metrics::Metrics;
use crate::upstream::status::LinkStatus;

/// Runs `run` on a clone of `part` until it is stopped, and again after a panic.
pub(super) fn restarted<P, F>(
    tasks: &mut Tasks,
    name: &'static str,
    stop: &CancellationToken,
    part: P,
    run: impl Fn(P, CancellationToken) -> F + Send + 'static,
) where
    P: Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let stop = stop.clone();
    tasks.restarted(name, move || run(part.clone(), stop.clone()).map(Ok));
}

/// Starts what each part does by itself.
pub(super) fn start(tasks: &mut Tasks, parts: &Parts, stop: &CancellationToken) {
    let removals = parts.authorizer.removals.clone();
    restarted(tasks, "removals", stop, removals, |removals, stop| removals.run(stop));
    restarted(tasks, "expiry of queues", stop, parts.queues.clone(), |queues, stop| queues.expire(stop));
    let quarantine = parts.quarantine.clone();
    restarted(tasks, "files of the quarantine", stop, quarantine, |quarantine, stop| {
        quarantine.check_files(stop)
    });
    restarted(tasks, "clock of ages", stop, parts.config.data_dir.clone(), crate::clock::keep);
    let dispatcher = parts.dispatcher.clone();
    restarted(tasks, "end of messages", stop, dispatcher, |dispatcher, stop| async move {
        dispatcher.expire(stop).await;
    });
    let commands = parts.commands.clone();
    restarted(tasks, "end of waiting commands", stop, commands, |commands, stop| async move {
        commands.expire(stop).await;
    });
    let authorizer = parts.authorizer.clone();
    restarted(tasks, "authorization of clients", stop, authorizer, |authorizer, stop| authorizer.run(stop));
    restarted(tasks, "budget of the link", stop, parts.meter.clone(), |meter, stop| meter.run(stop));
    if let Some(folder) = parts.config.deploy.watch.clone() {
        let watched = (folder, parts.deployments.clone(), parts.clients.clone(), parts.state.clone());
        restarted(
            tasks,
            "folder of manifests",
            stop,
            watched,
            |(folder, deployments, clients, state), stop| {
                watched_folder::run(folder, deployments, clients, state, stop)
            },
        );
    }
}

/// Starts the reconciler and its report; gives what it sees and does.
pub(super) fn start_reconciler(
    tasks: &mut Tasks,
    parts: &Parts,
    authority: Option<Authority>,
    health: watch::Receiver<Option<HealthReport>>,
    stop: &CancellationToken,
) -> watch::Receiver<ReconcilerStatus> {
    let (config, module_keys) = (&parts.config, &parts.authorizer.module_keys);
    let status = parts.reconciler_status.clone();
    let seen = status.subscribe();
    let reporter = Reporter {
        gateway: config.device_id.clone(),
        host: host(),
        twins: parts.twins.clone(),
        deployment: parts.outputs.reconciler.clone(),
        reconciler: seen.clone(),
        acceptance: parts.outputs.acceptance.clone(),
        health,
        history: parts.deployments.history().clone(),
    };
    restarted(tasks, "report", stop, reporter, |reporter, stop| reporter.run(stop));
    let about = About {
        keys: module_keys.clone(),
        trust_bundle: certificate::trust_bundle(config),
        certificates: authority.map(|authority| ModuleCertificates {
            authority,
            gateway: config.device_id.clone(),
            hub_name: parts.hub_name.clone(),
        }),
        reconciler: seen.clone(),
    };
    let reconciler = Reconciler {
        engine: Engine::new(config.docker.socket.clone()),
        workload: Arc::new(Workload::new(&config.data_dir, about)),
        context: ModuleContext::new(config, module_keys),
        deployments: parts.outputs.reconciler.clone(),
        status,
        artifacts: parts.artifacts.clone(),
        counts: RestartCounts::load(parts.state.clone()),
        limits: ContainerLimits::load(parts.state.clone()),
        requests: parts.restart_requests.clone(),
    };
    restarted(tasks, "reconciler", stop, reconciler, |reconciler, stop| reconciler.run(stop));
    seen
}

/// Starts what brings deployments to their end.
pub(super) fn start_rollout(
    tasks: &mut Tasks,
    parts: &Parts,
    reconciler: watch::Receiver<ReconcilerStatus>,
    link: Option<watch::Receiver<LinkStatus>>,
    stop: &CancellationToken,
) {
    let rollout = Rollout {
        gateway: parts.config.device_id.clone(),
        deployments: parts.deployments.clone(),
        deployment: parts.outputs.reconciler.clone(),
        reconciler,
        clients: parts.clients.clone(),
        link,
        engine: Engine::new(parts.config.docker.socket.clone()),
        artifacts: parts.artifacts.clone(),
        window: Duration::from_secs(parts.config.deploy.probation_secs),
    };
    restarted(tasks, "rollout", stop, rollout, |rollout, stop| rollout.run(stop));
}

/// Starts the listener of the metrics, when there is one. The daemon does its work without it.
pub(super) fn start_metrics(
    tasks: &mut Tasks,
    parts: &Parts,
    control: &Arc<Control>,
    stop: &CancellationToken,
) {
    let Some(address) = parts.config.listen.metrics else { return };
    let platform = host().platform;
    let metrics = Arc::new(Metrics {
        control: control.clone(),
        routing: parts.outputs.routing.clone(),
        data_dir: parts.config.data_dir.clone(),
        host: format!("{} {} {}", platform.os, platform.version, platform.architecture),
        started: Instant::now(),
        instance: Uuid::new_v4(),
    });
    restarted(tasks, "metrics", stop, metrics, move |metrics, stop| {
        let collect = move || std::future::ready(metrics.text());
        listener::serve("[listen] metrics", address, collect, stop)
    });
}
