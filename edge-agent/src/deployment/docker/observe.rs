//! Asks the engine what runs.

use std::collections::{BTreeMap, HashMap};

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary, HealthStatusEnum, MountPoint,
};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptions};
use edge_core::deploy::limits::ContainerResources;
use edge_core::deploy::observed::{ContainerState, Observed, ObservedModule, Unreadable};
use edge_core::error_chain::chain;
use schemas::names::ModuleId;
use schemas::timestamp::parse_rfc3339;

use super::spec::{container_name, replacement_name};
use super::{
    DockerError, LABEL_FINGERPRINT, LABEL_GATEWAY, LABEL_MODULE, LABEL_OWNERSHIP, ModuleContext,
    is_engine_failure,
};

/// The containers of a gateway, by module. Only those that carry its mark, or that its daemon made before there were marks.
///
/// A module's container is the one that has its name. If there is none, it is the one that somebody gave another name; one that was made
/// of an image that somebody committed of a module's container has the mark as well, and counts only under the module's name.
///
/// # Errors
/// [`DockerError::Said`].
pub async fn observe(docker: &Docker, context: &ModuleContext) -> Result<Observed, DockerError> {
    let gateway = &context.gateway;
    let said = |source| DockerError::Said { doing: "list the containers".to_owned(), source };
    let options = ListContainersOptions {
        all: true,
        filters: Some(HashMap::from([("label".to_owned(), vec![format!("{LABEL_GATEWAY}={gateway}")])])),
        ..ListContainersOptions::default()
    };
    let mut observed = Observed::default();
    let mut renamed = BTreeMap::new();
    for listed in docker.list_containers(Some(options)).await.map_err(said)? {
        let Some(id) = listed.id.clone() else { continue };
        match docker.inspect_container(&id, None::<InspectContainerOptions>).await {
            Ok(container) => {
                let Some((module, named)) = module_and_name(&container) else { continue };
                if !is_own(docker, &container, &context.ownership, named).await.map_err(said)? {
                    tracing::debug!(
                        container = id,
                        "a container has this gateway's labels and was not created by it"
                    );
                    continue;
                }
                let Some(seen) = read(container) else { continue };
                match named {
                    Named::AsModule => observed.modules.insert(module, seen),
                    Named::AsReplacement => observed.replacements.insert(module, seen),
                    Named::Otherwise => renamed.insert(module, ObservedModule { is_renamed: true, ..seen }),
                };
            }
            // It went between the two questions.
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => {}
            Err(error) if is_engine_failure(&error) => match whose(&listed, &context.ownership) {
                Whose::Module(module) => {
                    let why = chain(&error).to_string();
                    observed.unreadable.insert(module, Unreadable { container_id: id, why });
                }
                Whose::Others => {}
                Whose::Unknown => return Err(said(error)),
            },
            Err(source) => return Err(said(source)),
        }
    }
    for (module, seen) in renamed {
        observed.modules.entry(module).or_insert(seen);
    }
    Ok(observed)
}

/// Whose a container is that is listed and not described.
enum Whose {
    Module(ModuleId),
    Others,
    /// Only a description would tell.
    Unknown,
}

fn whose(listed: &ContainerSummary, ownership: &str) -> Whose {
    let label = |name: &str| listed.labels.as_ref().and_then(|labels| labels.get(name));
    match label(LABEL_OWNERSHIP) {
        Some(found) if found != ownership => return Whose::Others,
        Some(_) => {}
        None => return Whose::Unknown,
    }
    let Some(module) = label(LABEL_MODULE).and_then(|name| name.parse::<ModuleId>().ok()) else {
        return Whose::Others;
    };
    let own = [container_name(&module).into_owned(), replacement_name(&module)];
    let mut names = listed.names.iter().flatten();
    let is_named = names.any(|name| own.iter().any(|own| own == name.trim_start_matches('/')));
    // Under another name it may be of an image that somebody committed, with all labels.
    if is_named { Whose::Module(module) } else { Whose::Unknown }
}

/// Which of the daemon's names a container has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    AsModule,
    AsReplacement,
    /// Somebody gave it another one.
    Otherwise,
}

/// The module that a container's labels name, if they name one.
fn module_and_name(container: &ContainerInspectResponse) -> Option<(ModuleId, Named)> {
    let labels = container.config.as_ref()?.labels.as_ref()?;
    let module: ModuleId = labels.get(LABEL_MODULE)?.parse().ok()?;
    // The engine writes a slash before it.
    let name = container.name.as_deref().unwrap_or_default().trim_start_matches('/');
    let named = if name == container_name(&module) {
        Named::AsModule
    } else if name == replacement_name(&module) {
        Named::AsReplacement
    } else {
        Named::Otherwise
    };
    Some((module, named))
}

/// Whether this gateway's daemon made a container. Its mark proves it, but under another name only if it is not the image's: of a
/// container that somebody committed, the image has all labels. Without any mark it is one of a former version, unless the labels
/// came with its image.
async fn is_own(
    docker: &Docker,
    container: &ContainerInspectResponse,
    ownership: &str,
    named: Named,
) -> Result<bool, Error> {
    let labels = container.config.as_ref().and_then(|config| config.labels.as_ref());
    let owner = labels.and_then(|labels| labels.get(LABEL_OWNERSHIP));
    match owner {
        Some(found) if found != ownership => return Ok(false),
        Some(_) if named != Named::Otherwise => return Ok(true),
        _ => {}
    }
    let Some(image) = &container.image else { return Ok(false) };
    let of_image = match docker.inspect_image(image).await {
        Ok(image) => image.config.and_then(|config| config.labels).unwrap_or_default(),
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => return Ok(false),
        Err(error) => return Err(error),
    };
    let proving: &[&str] = match owner {
        Some(_) => &[LABEL_OWNERSHIP],
        None => &[LABEL_GATEWAY, LABEL_MODULE, LABEL_FINGERPRINT],
    };
    Ok(!proving.iter().any(|label| of_image.contains_key(*label)))
}

/// `None` for a container that is being removed.
fn read(container: ContainerInspectResponse) -> Option<ObservedModule> {
    let config = container.config?;
    let mut labels = config.labels.unwrap_or_default();
    let state = container.state?;
    let code = state.exit_code.unwrap_or(0);
    let container_state = match state.status? {
        ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::STOPPING => ContainerState::Running,
        ContainerStateStatusEnum::PAUSED => ContainerState::Paused,
        ContainerStateStatusEnum::RESTARTING => ContainerState::Restarting,
        ContainerStateStatusEnum::EXITED => ContainerState::Exited { code },
        ContainerStateStatusEnum::DEAD => ContainerState::Dead,
        ContainerStateStatusEnum::CREATED | ContainerStateStatusEnum::EMPTY => ContainerState::Created,
        ContainerStateStatusEnum::REMOVING => return None,
    };
    // The engine writes year 1 for "never", which is before 1970 and reads as none.
    let time = |text: Option<String>| text.as_deref().and_then(parse_rfc3339);
    let health = state.health.and_then(|health| health.status);
    let host_config = serde_json::to_value(container.host_config.unwrap_or_default()).unwrap_or_default();
    Some(ObservedModule {
        limits: ContainerResources::of(&host_config),
        edit: None,
        container_id: container.id?,
        is_renamed: false,
        image: config.image.unwrap_or_default(),
        image_id: container.image.unwrap_or_default(),
        anonymous_volumes: container.mounts.into_iter().flatten().filter_map(anonymous_volume).collect(),
        fingerprint: labels.remove(LABEL_FINGERPRINT).unwrap_or_default(),
        state: container_state,
        is_unhealthy: health == Some(HealthStatusEnum::UNHEALTHY),
        is_healthy: health == Some(HealthStatusEnum::HEALTHY),
        is_starting: health == Some(HealthStatusEnum::STARTING),
        is_out_of_memory: state.oom_killed.unwrap_or(false),
        started_at_ms: time(state.started_at),
        finished_at_ms: time(state.finished_at),
    })
}

/// The name of a volume that the engine made for one container: 64 hexadecimal digits.
fn anonymous_volume(mount: MountPoint) -> Option<String> {
    let is_generated = |name: &str| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    mount.name.filter(|name| mount.typ.as_deref() == Some("volume") && is_generated(name))
}
