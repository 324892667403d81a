//! The images that this gateway pulled and the volumes of its containers: kept in the state, and removed when no deployment that can be
//! gone back to needs them.

use std::sync::{Arc, Mutex, MutexGuard};

use bollard::errors::Error;
use bollard::query_parameters::{RemoveImageOptions, RemoveVolumeOptions};
use edge_core::deploy::desired::Desired;
use edge_core::deploy::garbage;
use edge_core::deploy::observed::Observed;
use edge_core::error_chain::chain;
use serde_json::Value;

use super::docker::Engine;
use super::history::History;
use crate::state::{Namespace, State, shaped};

const KEY: &str = "artifacts";

/// Cheap to clone. Without a state nothing is kept.
#[derive(Clone, Default)]
pub struct Artifacts {
    state: Option<State>,
    kept: Arc<Mutex<garbage::Artifacts>>,
}

impl Artifacts {
    /// What was kept.
    pub fn load(state: State) -> Self {
        let found = state.load::<Value>(Namespace::Rollouts).into_iter().find(|(key, _)| key == KEY);
        let kept = found.and_then(|(key, value)| shaped(Namespace::Rollouts, &key, value));
        Self { state: Some(state), kept: Arc::new(Mutex::new(kept.unwrap_or_default())) }
    }

    fn lock(&self) -> MutexGuard<'_, garbage::Artifacts> {
        self.kept.lock().expect("nothing panics while it holds it")
    }

    fn change(&self, change: impl FnOnce(&mut garbage::Artifacts)) {
        let mut kept = self.lock();
        let before = kept.clone();
        change(&mut kept);
        if let (Some(state), true) = (&self.state, *kept != before) {
            state.put(Namespace::Rollouts, KEY, &*kept).later();
        }
    }

    /// Notes an image that this gateway pulled.
    pub fn pulled(&self, image_id: String) {
        self.change(|kept| kept.pulled(image_id));
    }

    /// Notes what the containers of a deployment have.
    pub fn seen(&self, number: u64, desired: &Desired, observed: &Observed) {
        self.change(|kept| kept.seen(number, desired, observed));
    }

    /// Removes what no deployment needs. What somebody else uses stays, and is tried again after the next deployment.
    pub async fn collect(&self, engine: &Engine, history: &History, observed: &Observed, is_verified: bool) {
        let garbage = self.lock().garbage(&history.needed(), observed, is_verified);
        if garbage == garbage::Garbage::default() {
            return;
        }
        let docker = match engine.client().await {
            Ok(docker) => docker,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "images and volumes of earlier deployments were not removed");
                return;
            }
        };
        for image in garbage.images {
            let removed = docker.remove_image(&image, None::<RemoveImageOptions>, None).await.map(drop);
            if is_gone("image", &image, removed) {
                self.change(|kept| kept.images.retain(|id, _| *id != image));
            }
        }
        for volume in garbage.volumes {
            let removed = docker.remove_volume(&volume, None::<RemoveVolumeOptions>).await;
            if is_gone("volume", &volume, removed) {
                self.change(|kept| kept.volumes.retain(|name, _| *name != volume));
            }
        }
    }
}

fn is_gone(kind: &'static str, name: &str, removed: Result<(), Error>) -> bool {
    match removed {
        Ok(()) => {
            tracing::info!(kind, name, "removed what no deployment needs any more");
            true
        }
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => true,
        Err(error) => {
            tracing::debug!(kind, name, error = %chain(&error), "what no deployment needs any more is in use and stays");
            false
        }
    }
}
