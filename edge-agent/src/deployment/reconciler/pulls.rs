//! The images that are being fetched, and what became of those that were.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use edge_core::deploy::plan::{Action, Plan};
use edge_core::error_chain::chain;
use edge_hub::tasks;
use schemas::names::ModuleId;
use tokio::task::{AbortHandle, JoinError, JoinSet};

use super::steps::Failure;
use crate::deployment::docker::DockerError;
use crate::deployment::docker::executor::{image_id, is_present, pull};
use crate::deployment::status::Deployment;

/// How long a registry may take to describe an image that is on this machine already.
const REGISTRY_WITHIN: Duration = Duration::from_secs(30);
/// Images that are fetched at one time.
const PULLS_MAX: usize = 3;

/// An image, and whether it was fetched; the engine's id of it if it was not on this machine before.
pub(super) type Pulled = (String, Result<Option<String>, DockerError>);

#[derive(Default)]
pub(super) struct Pulls {
    tasks: JoinSet<Pulled>,
    in_progress: BTreeMap<String, AbortHandle>,
    /// The images that the registry gave, or has not, for containers that are still to be created.
    fetched: BTreeSet<String>,
    /// Those that failed since the last look, and why.
    failed: BTreeMap<String, Failure>,
}

/// What a plan's images are like.
pub(super) struct Fetch {
    /// Whether one is still to come.
    pub(super) is_fetching: bool,
    /// The modules whose image could not be fetched and is not on this machine, and why.
    pub(super) failed: BTreeMap<ModuleId, Failure>,
}

impl Pulls {
    /// The images that are being fetched.
    pub(super) fn in_progress(&self) -> BTreeSet<String> {
        self.in_progress.keys().cloned().collect()
    }

    /// Starts the pulls that the plan needs: every image is asked for before a container is created from it, because a tag may have
    /// moved in the registry; only one that is named by its digest cannot have. When the registry gives nothing, the image on this
    /// machine is used, if there is one.
    ///
    /// # Errors
    /// [`DockerError`] when the engine does not answer. When it fails to look for one image, the modules of that image fail.
    pub(super) async fn fetch(
        &mut self,
        docker: &Docker,
        planned: &Plan,
        deployment: &Arc<Deployment>,
    ) -> Result<Fetch, DockerError> {
        let mut needed: BTreeMap<&str, Vec<&ModuleId>> = BTreeMap::new();
        for action in &planned.actions {
            if let Action::Pull { module, image } = action {
                needed.entry(image.as_str()).or_default().push(module);
            }
        }
        self.fetched.retain(|image| needed.contains_key(image.as_str()));
        let failures = std::mem::take(&mut self.failed);
        let mut fetch = Fetch { is_fetching: false, failed: BTreeMap::new() };
        for (image, modules) in needed {
            if self.fetched.contains(image) {
                continue;
            }
            if self.in_progress.contains_key(image) {
                fetch.is_fetching = true;
                continue;
            }
            let is_here = match is_present(docker, image).await {
                Err(error) if error.is_engine_failure() => {
                    let problem = Failure::from(&error);
                    fetch.failed.extend(modules.into_iter().map(|module| (module.clone(), problem.clone())));
                    continue;
                }
                is_here => is_here?,
            };
            match failures.get(image) {
                Some(problem) if is_here => {
                    tracing::warn!(
                        image,
                        problem = problem.why,
                        "image was not pulled; the one on this machine is used"
                    );
                    self.fetched.insert(image.to_owned());
                }
                Some(problem) => {
                    fetch.failed.extend(modules.into_iter().map(|module| (module.clone(), problem.clone())));
                }
                None if is_here && image.contains("@sha256:") => {
                    self.fetched.insert(image.to_owned());
                }
                None => {
                    fetch.is_fetching = true;
                    if self.in_progress.len() < PULLS_MAX {
                        self.start(docker.clone(), deployment.clone(), image.to_owned(), is_here);
                    }
                }
            }
        }
        Ok(fetch)
    }

    fn start(&mut self, docker: Docker, deployment: Arc<Deployment>, image: String, is_here: bool) {
        tracing::info!(image, "image is being pulled");
        let name = image.clone();
        let first_within = is_here.then_some(REGISTRY_WITHIN);
        let task = tasks::spawn_in(&mut self.tasks, "image pull", async move {
            let before = image_id(&docker, &name).await;
            let pulled = pull(&docker, &deployment.desired, &name, first_within).await;
            let now = image_id(&docker, &name).await;
            (name, pulled.map(|()| now.filter(|now| before.as_ref() != Some(now))))
        });
        self.in_progress.insert(image, task);
    }

    /// Ends the pulls of images that no module of a new deployment needs: a slow one must not hold up the deployment that mends
    /// it. What failed before may go well now.
    pub(super) fn deployed(&mut self, deployment: &Deployment) {
        self.failed.clear();
        let modules = &deployment.desired.modules;
        self.in_progress.retain(|image, task| {
            let is_needed = modules.values().any(|module| module.spec.image == *image);
            if !is_needed {
                tracing::info!(image, "pull ended: no module needs the image any more");
                task.abort();
            }
            is_needed
        });
    }

    /// The next pull that has ended; `None` at once when none is under way. Loses nothing when it is dropped.
    pub(super) async fn ended(&mut self) -> Option<Result<Pulled, JoinError>> {
        self.tasks.join_next().await
    }

    /// Notes how a pull ended; gives the engine's id of an image that has come.
    pub(super) fn note(&mut self, ended: Result<Pulled, JoinError>) -> Option<String> {
        match ended {
            Ok((image, Ok(image_id))) => {
                tracing::info!(image, "image pulled");
                self.in_progress.remove(&image);
                self.fetched.insert(image);
                return image_id;
            }
            Ok((image, Err(error))) => {
                self.in_progress.remove(&image);
                self.failed.insert(image, Failure::from(&error));
            }
            Err(error) if error.is_cancelled() => {}
            // Which one it was is not known: those that are still needed are asked for again.
            Err(error) => {
                tracing::error!(error = %chain(&error), "a pull ended by a fault of this program");
                self.in_progress.clear();
            }
        }
        None
    }
}
