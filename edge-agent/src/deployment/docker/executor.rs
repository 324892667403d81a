//! Does one step of a plan. It has no choices left; doing a step that is done already is no error.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, ContainerStateStatusEnum, ContainerUpdateBody, NetworkCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptions, CreateImageOptions, InspectContainerOptions, InspectNetworkOptions,
    RemoveContainerOptions, RenameContainerOptions, StartContainerOptions, StopContainerOptions,
    WaitContainerOptions,
};
use bollard::{Docker, body_full};
use edge_core::deploy::desired::{Desired, DesiredModule};
use edge_core::deploy::limits::ContainerResources;
use edge_core::deploy::plan::Action;
use edge_core::error_chain::chain;
use futures_util::{StreamExt as _, TryStreamExt as _};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::CONTENT_LENGTH;
use schemas::manifest::DesiredStatus;
use schemas::names::ModuleId;
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use super::preflight::Requirements;
use super::spec::{Own, container, container_name, replacement_name};
use super::{DockerError, LABEL_OWNERSHIP, ModuleContext, SharedView};
use crate::deployment::status::Deployment;
use crate::deployment::workload::Workload;

/// How long the engine may take to remove a container before its name counts as taken.
const REMOVED_WITHIN: Duration = Duration::from_secs(60);

/// Where steps are done. Those of several modules may be done at one time.
pub struct Executor {
    pub docker: Docker,
    pub view: SharedView,
    /// What every container gets.
    pub context: Arc<ModuleContext>,
    pub workload: Arc<Workload>,
    pub deployment: Arc<Deployment>,
    /// Held while the modules' network is looked up and created: the engine creates two of one name for two requests.
    pub network: Arc<Mutex<()>>,
}

fn said(action: &Action) -> impl FnOnce(Error) -> DockerError {
    let doing = action.to_string();
    move |source| DockerError::Said { doing, source }
}

/// Stops a container, which has its own time to end: the engine's default is 10 s. One that somebody removed is stopped.
pub(super) async fn stop_container(docker: &Docker, container: &str) -> Result<(), Error> {
    unless_gone(docker.stop_container(container, None::<StopContainerOptions>).await)
}

/// Removes a container at once. One that somebody removed is removed.
pub(super) async fn remove_container(docker: &Docker, container: &str) -> Result<(), Error> {
    let options = RemoveContainerOptions { force: true, ..RemoveContainerOptions::default() };
    unless_gone(docker.remove_container(container, Some(options)).await)
}

fn unless_gone(done: Result<(), Error>) -> Result<(), Error> {
    match done {
        Err(error) if is_code(&error, 404) => Ok(()),
        done => done,
    }
}

/// Whether an error only says that there is nothing left to do.
pub(super) fn is_code(error: &Error, code: u16) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code, .. } if *status_code == code)
}

impl Executor {
    /// Does a step. Pulls are not among them: see [`is_present`] and [`pull`].
    ///
    /// # Errors
    /// [`DockerError`] naming the step.
    pub async fn apply(&self, action: &Action) -> Result<(), DockerError> {
        match action {
            Action::Pull { .. } => Ok(()),
            Action::Create { module, .. } => self.create(action, module, &container_name(module)).await,
            Action::Prepare { module, .. } => self.create(action, module, &replacement_name(module)).await,
            Action::Start { module, container_id } => {
                // A container that this plan has created has the module's name.
                self.start(action, container_id.as_deref().unwrap_or(&container_name(module))).await
            }
            Action::Restart { container_id, .. } => {
                self.stop(action, container_id).await?;
                self.start(action, container_id).await
            }
            Action::Replace { module, container_id, .. } => self.replace(action, module, container_id).await,
            Action::Rename { module, container_id } => self.rename(action, container_id, module).await,
            Action::Update { module, container_id, restored } => {
                self.update(action, module, container_id, restored).await
            }
            Action::Stop { container_id, .. } => self.stop(action, container_id).await,
            Action::Remove { module, container_id } => {
                self.remove(action, container_id).await?;
                if !self.deployment.desired.modules.contains_key(module) {
                    self.workload.close(module);
                }
                Ok(())
            }
        }
    }

    async fn start(&self, action: &Action, container: &str) -> Result<(), DockerError> {
        self.docker.start_container(container, None::<StartContainerOptions>).await.map_err(said(action))
    }

    async fn stop(&self, action: &Action, container: &str) -> Result<(), DockerError> {
        stop_container(&self.docker, container).await.map_err(said(action))
    }

    async fn remove(&self, action: &Action, container: &str) -> Result<(), DockerError> {
        remove_container(&self.docker, container).await.map_err(said(action))
    }

    async fn rename(&self, action: &Action, container: &str, module: &ModuleId) -> Result<(), DockerError> {
        let name = container_name(module);
        match self.docker.rename_container(container, RenameContainerOptions { name: name.to_string() }).await
        {
            Err(error) if is_code(&error, 409) => Err(DockerError::NameTaken { name: name.into_owned() }),
            renamed => renamed.map_err(said(action)),
        }
    }

    /// Sets limits back. A kernel may not do what the engine takes.
    async fn update(
        &self,
        action: &Action,
        module: &ModuleId,
        container: &str,
        restored: &BTreeMap<String, Value>,
    ) -> Result<(), DockerError> {
        let body = restored.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let body: ContainerUpdateBody =
            serde_json::from_value(Value::Object(body)).map_err(|error| said(action)(Error::from(error)))?;
        self.docker.update_container(container, body).await.map_err(said(action))?;
        let found = self.docker.inspect_container(container, None::<InspectContainerOptions>).await;
        let found = found.map_err(said(action))?.host_config.unwrap_or_default();
        let now = ContainerResources::of(&serde_json::to_value(found).unwrap_or_default());
        if now.have(restored) { Ok(()) } else { Err(DockerError::NotSetBack { module: module.to_string() }) }
    }

    /// Lets the old container run again when the one that was prepared does not start: ports and devices are taken only then.
    async fn replace(&self, action: &Action, module: &ModuleId, old: &str) -> Result<(), DockerError> {
        let target = self.target(module);
        let name = replacement_name(module);
        let was_running = self.is_running(action, old).await?;
        self.stop(action, old).await?;
        if target.spec.status == DesiredStatus::Running
            && let Err(error) = self.start(action, &name).await
        {
            if let Err(left) = self.remove(action, &name).await {
                tracing::warn!(error = %chain(&left), "a container that did not start was not removed");
            }
            if was_running {
                self.start(action, old).await?;
                tracing::warn!(%module, "the new container did not start; the former one runs again");
            }
            return Err(error);
        }
        // Removed before the rename: the new one takes its name.
        self.remove(action, old).await?;
        self.rename(action, &name, module).await
    }

    async fn is_running(&self, action: &Action, container: &str) -> Result<bool, DockerError> {
        match self.docker.inspect_container(container, None::<InspectContainerOptions>).await {
            Ok(found) => Ok(found.state.and_then(|state| state.running).unwrap_or(false)),
            Err(error) if is_code(&error, 404) => Ok(false),
            Err(error) => Err(said(action)(error)),
        }
    }

    fn target(&self, module: &ModuleId) -> &DesiredModule {
        self.deployment.desired.modules.get(module).expect("a plan creates modules of its desired only")
    }

    async fn create(&self, action: &Action, module: &ModuleId, name: &str) -> Result<(), DockerError> {
        let target = self.target(module);
        self.context.policy.check_module(module, target)?;
        self.ensure_network(action).await?;
        let workload_dir = self.workload.dir_of(module);
        let own = Own { generation_id: self.workload.generation_id(module), workload_dir: &workload_dir };
        let body = container(module, target, &self.context, &own)?;
        let mut created = create_container(&self.docker, name, &body).await;
        if created.as_ref().is_err_and(|error| is_code(error, 409)) {
            self.wait_until_gone(action, name).await?;
            created = create_container(&self.docker, name, &body).await;
        }
        created.map_err(said(action))?;
        let requirements = Requirements::of(&body);
        let image = &target.spec.image;
        let gateway = &self.context.gateway;
        if let Err(unmet) = requirements.check(&self.docker, self.view, gateway, module.as_str(), image).await
        {
            if let Err(left) = self.remove(action, name).await {
                tracing::warn!(error = %chain(&left), "a container that cannot start was not removed");
            }
            return Err(unmet);
        }
        Ok(())
    }

    /// Waits for the end of a container that is being removed, somebody's `docker rm -f` for example.
    async fn wait_until_gone(&self, action: &Action, name: &str) -> Result<(), DockerError> {
        let found = match self.docker.inspect_container(name, None::<InspectContainerOptions>).await {
            Ok(found) => found,
            Err(error) if is_code(&error, 404) => return Ok(()),
            Err(error) => return Err(said(action)(error)),
        };
        let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
        if labels.get(LABEL_OWNERSHIP) != Some(&self.context.ownership) {
            return Err(DockerError::NameTaken { name: name.to_owned() });
        }
        let status = found.state.and_then(|state| state.status);
        if !matches!(status, Some(ContainerStateStatusEnum::REMOVING | ContainerStateStatusEnum::DEAD)) {
            return Ok(());
        }
        let options = WaitContainerOptions { condition: "removed".to_owned() };
        let mut removed = std::pin::pin!(self.docker.wait_container(name, Some(options)));
        // The code that the container ended with says nothing here.
        let _ended = tokio::time::timeout(REMOVED_WITHIN, removed.next()).await;
        Ok(())
    }

    async fn ensure_network(&self, action: &Action) -> Result<(), DockerError> {
        let _alone = self.network.lock().await;
        let name = &self.context.network;
        match self.docker.inspect_network(name, None::<InspectNetworkOptions>).await {
            Ok(_) => return Ok(()),
            Err(error) if !is_code(&error, 404) => return Err(said(action)(error)),
            Err(_) => {}
        }
        let labels = HashMap::from([(LABEL_OWNERSHIP.to_owned(), self.context.ownership.clone())]);
        let request = NetworkCreateRequest {
            name: name.clone(),
            labels: Some(labels),
            ..NetworkCreateRequest::default()
        };
        self.docker.create_network(request).await.map_err(said(action))?;
        tracing::info!(network = name, "network made");
        Ok(())
    }
}

/// Creates a container from a body that is sent as it is: bollard's own type would drop what it does not know.
///
/// # Errors
/// The engine's refusal, or why it was not reached.
pub async fn create_container(docker: &Docker, name: &str, body: &Map<String, Value>) -> Result<(), Error> {
    let body = Bytes::from(serde_json::to_vec(body)?);
    let docker = docker.clone().with_request_modifier(move |request| {
        let (mut head, _) = request.into_parts();
        // It is of bollard's body; hyper writes that of ours.
        head.headers.remove(CONTENT_LENGTH);
        Request::from_parts(head, body_full(body.clone()))
    });
    let options = CreateContainerOptions { name: Some(name.to_owned()), ..CreateContainerOptions::default() };
    docker.create_container(Some(options), ContainerCreateBody::default()).await?;
    Ok(())
}

/// Whether an image is on this machine.
///
/// # Errors
/// [`DockerError::Said`].
pub async fn is_present(docker: &Docker, image: &str) -> Result<bool, DockerError> {
    match docker.inspect_image(image).await {
        Ok(_) => Ok(true),
        Err(error) if is_code(&error, 404) => Ok(false),
        Err(source) => Err(DockerError::Said { doing: format!("look for image {image}"), source }),
    }
}

/// The engine's id of an image; `None` when it is not on this machine, or the engine does not answer.
pub async fn image_id(docker: &Docker, image: &str) -> Option<String> {
    docker.inspect_image(image).await.ok().and_then(|image| image.id)
}

/// Fetches an image with the login of its registry. `first_within` is how long the registry may take to describe the image; `None`
/// is for as long as the engine waits.
///
/// # Errors
/// [`DockerError::Pull`], and [`DockerError::RegistrySilent`].
pub async fn pull(
    docker: &Docker,
    desired: &Desired,
    image: &str,
    first_within: Option<Duration>,
) -> Result<(), DockerError> {
    // The login goes along with each pull. The engine stores none of it.
    let credentials = desired.credential_for(image).map(|login| DockerCredentials {
        username: Some(login.username.clone()),
        password: Some(login.password.clone()),
        serveraddress: Some(login.address.clone()),
        ..DockerCredentials::default()
    });
    let options = CreateImageOptions { from_image: Some(image.to_owned()), ..CreateImageOptions::default() };
    let said = |source| DockerError::Pull { image: image.to_owned(), source };
    let mut progress = docker.create_image(Some(options), None, credentials);
    let first = progress.try_next();
    match first_within {
        None => first.await.map_err(said)?,
        Some(limit) => tokio::time::timeout(limit, first)
            .await
            .map_err(|_| DockerError::RegistrySilent { image: image.to_owned(), seconds: limit.as_secs() })?
            .map_err(said)?,
    };
    progress.try_for_each(|_progress| std::future::ready(Ok(()))).await.map_err(said)
}
