//! Asks the engine what runs.

use std::collections::{BTreeMap, HashMap};

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, HealthStatusEnum, MountPoint};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptions};
use edge_core::deploy::observed::{ContainerState, Observed, ObservedModule};
use schemas::names::ModuleId;
use schemas::timestamp::parse_rfc3339;

use super::spec::replacement_name;
use super::{DockerError, LABEL_FINGERPRINT, LABEL_GATEWAY, LABEL_MODULE, LABEL_OWNERSHIP, ModuleContext};

/// The containers of a gateway, by module. Only those that carry its mark, or that its daemon made before there were marks.
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
    let (mut modules, mut replacements) = (BTreeMap::new(), BTreeMap::new());
    for listed in docker.list_containers(Some(options)).await.map_err(said)? {
        let Some(id) = listed.id else { continue };
        match docker.inspect_container(&id, None::<InspectContainerOptions>).await {
            Ok(container) => {
                if !is_own(docker, &container, &context.ownership).await.map_err(said)? {
                    tracing::debug!(
                        container = id,
                        "a container has this gateway's labels and was not created by it"
                    );
                    continue;
                }
                let name = container.name.clone().unwrap_or_default();
                if let Some((module, observed)) = read(container) {
                    let is_replacement = name.trim_start_matches('/') == replacement_name(&module);
                    let of_kind = if is_replacement { &mut replacements } else { &mut modules };
                    of_kind.insert(module, observed);
                }
            }
            // It went between the two questions.
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => {}
            Err(source) => return Err(said(source)),
        }
    }
    Ok(Observed { modules, replacements })
}

/// Whether this gateway's daemon made a container. Its mark proves it. Without any mark it is one of a former version, unless
/// the labels came with its image.
async fn is_own(
    docker: &Docker,
    container: &ContainerInspectResponse,
    ownership: &str,
) -> Result<bool, Error> {
    let labels = container.config.as_ref().and_then(|config| config.labels.as_ref());
    if let Some(found) = labels.and_then(|labels| labels.get(LABEL_OWNERSHIP)) {
        return Ok(found == ownership);
    }
    let Some(image) = &container.image else { return Ok(false) };
    let of_image = match docker.inspect_image(image).await {
        Ok(image) => image.config.and_then(|config| config.labels).unwrap_or_default(),
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => return Ok(false),
        Err(error) => return Err(error),
    };
    Ok(![LABEL_GATEWAY, LABEL_MODULE, LABEL_FINGERPRINT].iter().any(|label| of_image.contains_key(*label)))
}

/// `None` for a container that is being removed, or whose labels name no module.
fn read(container: ContainerInspectResponse) -> Option<(ModuleId, ObservedModule)> {
    let config = container.config?;
    let mut labels = config.labels.unwrap_or_default();
    let module = labels.remove(LABEL_MODULE)?.parse().ok()?;
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
    Some((
        module,
        ObservedModule {
            container_id: container.id?,
            image: config.image.unwrap_or_default(),
            image_id: container.image.unwrap_or_default(),
            anonymous_volumes: container.mounts.into_iter().flatten().filter_map(anonymous_volume).collect(),
            fingerprint: labels.remove(LABEL_FINGERPRINT).unwrap_or_default(),
            state: container_state,
            is_unhealthy: health == Some(HealthStatusEnum::UNHEALTHY),
            is_starting: health == Some(HealthStatusEnum::STARTING),
            is_out_of_memory: state.oom_killed.unwrap_or(false),
            started_at_ms: time(state.started_at),
            finished_at_ms: time(state.finished_at),
        },
    ))
}

/// The name of a volume that the engine made for one container: 64 hexadecimal digits.
fn anonymous_volume(mount: MountPoint) -> Option<String> {
    let is_generated = |name: &str| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    mount.name.filter(|name| mount.typ.as_deref() == Some("volume") && is_generated(name))
}
