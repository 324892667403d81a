//! The end of a gateway: its modules' containers go while no daemon runs.

use std::collections::BTreeSet;

use bollard::Docker;
use bollard::query_parameters::InspectNetworkOptions;
use futures_util::future::try_join_all;
use schemas::names::ModuleId;

use super::executor::{is_code, remove_container, stop_container};
use super::observe::observe;
use super::{DockerError, Engine, LABEL_OWNERSHIP, ModuleContext};
use crate::access::module_keys::ModuleKeys;
use crate::config::Config;

/// Stops and removes every container that this gateway's daemon created, each with its own time to end, all at once; then the
/// modules' network, if the daemon created it and nothing else uses it. Named volumes and images stay. Gives the modules that had one.
///
/// # Errors
/// [`DockerError`] when the engine does not answer or refuses; what was removed until then is gone.
pub async fn remove_all(config: &Config, keys: &ModuleKeys) -> Result<BTreeSet<ModuleId>, DockerError> {
    let docker = Engine::new(config.docker.socket.clone()).client().await?;
    let context = ModuleContext::new(config, keys);
    let observed = observe(&docker, &context).await?;
    let seen = observed.modules.iter().chain(&observed.replacements);
    let seen = seen.map(|(module, seen)| (module, &seen.container_id));
    let unreadable = observed.unreadable.iter().map(|(module, seen)| (module, &seen.container_id));
    let containers: Vec<(&ModuleId, &String)> = seen.chain(unreadable).collect();
    try_join_all(containers.iter().map(|(module, container)| remove(&docker, module, container))).await?;
    remove_network(&docker, &context).await?;
    Ok(containers.into_iter().map(|(module, _)| module.clone()).collect())
}

async fn remove(docker: &Docker, module: &ModuleId, container: &str) -> Result<(), DockerError> {
    let failed = |source| DockerError::Said { doing: format!("remove the container of `{module}`"), source };
    stop_container(docker, container).await.map_err(failed)?;
    remove_container(docker, container).await.map_err(failed)
}

/// A network without the daemon's mark is the operator's own.
async fn remove_network(docker: &Docker, context: &ModuleContext) -> Result<(), DockerError> {
    let name = &context.network;
    let failed = |source| DockerError::Said { doing: format!("remove the network `{name}`"), source };
    let network = match docker.inspect_network(name, None::<InspectNetworkOptions>).await {
        Ok(network) => network,
        Err(error) if is_code(&error, 404) => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let is_own = network.labels.is_some_and(|labels| labels.get(LABEL_OWNERSHIP) == Some(&context.ownership));
    if !is_own || network.containers.is_some_and(|containers| !containers.is_empty()) {
        return Ok(());
    }
    docker.remove_network(name).await.map_err(failed)
}
