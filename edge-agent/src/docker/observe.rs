//! Asks the engine what runs.

use std::collections::{BTreeMap, HashMap};

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, HealthStatusEnum};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptions};
use edge_core::deploy::observed::{ContainerState, Observed, ObservedModule};
use schemas::names::{DeviceId, ModuleId};
use schemas::timestamp::parse_rfc3339;

use super::{DockerError, LABEL_FINGERPRINT, LABEL_GATEWAY, LABEL_MODULE};

/// The containers of a gateway, by module.
///
/// # Errors
/// [`DockerError::Said`].
pub async fn observe(docker: &Docker, gateway: &DeviceId) -> Result<Observed, DockerError> {
    let said = |source| DockerError::Said { doing: "list the containers".to_owned(), source };
    let options = ListContainersOptions {
        all: true,
        filters: Some(HashMap::from([("label".to_owned(), vec![format!("{LABEL_GATEWAY}={gateway}")])])),
        ..ListContainersOptions::default()
    };
    let mut modules = BTreeMap::new();
    for listed in docker.list_containers(Some(options)).await.map_err(said)? {
        let Some(id) = listed.id else { continue };
        match docker.inspect_container(&id, None::<InspectContainerOptions>).await {
            Ok(container) => {
                if let Some((module, observed)) = read(container) {
                    modules.insert(module, observed);
                }
            }
            // It went between the two questions.
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => {}
            Err(source) => return Err(said(source)),
        }
    }
    Ok(Observed { modules })
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
            fingerprint: labels.remove(LABEL_FINGERPRINT).unwrap_or_default(),
            state: container_state,
            is_unhealthy: health == Some(HealthStatusEnum::UNHEALTHY),
            started_at_ms: time(state.started_at),
            finished_at_ms: time(state.finished_at),
        },
    ))
}
