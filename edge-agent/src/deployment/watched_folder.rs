//! A folder of manifests on the gateway: whoever puts a file there deploys it, as `edge-agent apply` does.
//!
//! The folder's newest `*.json` counts. Its checksum is remembered, so that a restart of the daemon does not bring an old
//! file back over what central has wanted since. A wrong manifest is logged and changes nothing.

use edge_core::error_chain::chain;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use edge_hub::clients::Clients;
use edge_tls::input_file;
use schemas::manifest::DOCUMENT_BYTES_MAX;
use tokio_util::sync::CancellationToken;

use crate::deployment::deployments::Deployments;
use crate::deployment::watched_folder::follow::FollowedFolder;
use crate::state::{Namespace, State};

mod follow;

const LAST_SEEN: &str = "watched";
/// How often the path of the folder is looked at when nothing says that something changed.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// Watches `folder` until `stop`.
pub async fn run(
    folder: PathBuf,
    deployments: Arc<Deployments>,
    clients: Clients,
    state: State,
    stop: CancellationToken,
) {
    let last: Option<u32> =
        state.load(Namespace::Deployment).into_iter().find(|(key, _)| key == LAST_SEEN).map(|(_, seen)| seen);
    let mut last_seen = last;
    let mut folder = FollowedFolder::new(folder, CHECK_EVERY);
    while stop.run_until_cancelled(folder.changed()).await.is_some() {
        let Some((path, text)) = newest(folder.path()).await else { continue };
        let checksum = crc32c::crc32c(&text);
        if last_seen == Some(checksum) {
            continue;
        }
        last_seen = Some(checksum);
        match apply(&deployments, &clients, &text).await {
            Ok(version) => tracing::info!(file = %path.display(), version, "manifest of the folder applied"),
            Err(error) => {
                tracing::error!(file = %path.display(), error = format!("{error:#}"), "manifest of the folder refused");
            }
        }
        state.put(Namespace::Deployment, LAST_SEEN, &checksum).later();
    }
}

async fn apply(deployments: &Arc<Deployments>, clients: &Clients, text: &[u8]) -> Result<u64> {
    let document = schemas::manifest::Manifest::document(text)?;
    let (version, changes) = deployments.apply(&document, "watched folder").await?;
    for (identity, change) in changes {
        clients.send_desired(&identity, change.version, &change.patch);
    }
    Ok(version)
}

/// The newest manifest and its text. A file that vanished meanwhile is looked for again at the next change.
async fn newest(folder: &Path) -> Option<(PathBuf, Vec<u8>)> {
    let mut entries = tokio::fs::read_dir(folder).await.ok()?;
    let mut newest: Option<(SystemTime, PathBuf)> = None;
    while let Ok(Some(entry)) = entries.next_entry().await {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        // Of the file that a link leads to: Kubernetes' files are links into a folder that it exchanges.
        let Ok(file) = tokio::fs::metadata(&path).await.and_then(|m| m.modified()) else { continue };
        // And of the link: it may be led to an older file.
        let Ok(link) = tokio::fs::symlink_metadata(&path).await.and_then(|m| m.modified()) else { continue };
        let at = file.max(link);
        if newest.as_ref().is_none_or(|(before, _)| *before < at) {
            newest = Some((at, path));
        }
    }
    let (_, path) = newest?;
    let of_file = path.clone();
    let read = tokio::task::spawn_blocking(move || input_file::read(&of_file, DOCUMENT_BYTES_MAX as u64));
    let text = read.await.ok()?.inspect_err(|error| tracing::error!(file = %path.display(), error = %chain(error), "manifest of the folder not read")).ok()?;
    Some((path, text))
}
