//! Uploads of module logs and support bundles, each a task that its correlation id names.
//!
//! Guarantees: at most [`RUNNING_MAX`] run at once and [`OPEN_MAX`] wait or run; each has an end, and stops with the daemon. A file is
//! on disk, without a name, until it is sent ([`super::spool`]).
//!
//! [`OPEN_MAX`]: edge_core::upload::tasks::OPEN_MAX

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use edge_core::error_chain::chain;
use edge_core::module_logs::request::{ContentType, Encoding, LogsRequest};
use edge_core::redact;
use edge_core::upload::request::{BundleUpload, LogsUpload};
use edge_core::upload::sas_url::{SasUrl, blob_name};
use edge_core::upload::tasks::{TaskState, TaskStatus, TooManyUploads, UploadTasks};
use edge_hub::tasks;
use futures_util::future::LocalBoxFuture;
use schemas::names::ModuleId;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::blob_store::{BlobForm, BlobStore, PutError};
use super::log_reader::{LogReader, RequestedLog};
use super::spool::Spool;
use crate::clock::now_ms;
use crate::deployment::docker::DockerError;

/// Uploads that run at once: one over a slow line does not keep another one from its store.
const RUNNING_MAX: usize = 2;
/// How long one may run.
const RUN_MAX: Duration = Duration::from_secs(6 * 3600);
/// The waits before a file is sent again after a connection was lost or a store was busy. Source: IoT Edge, which tries thrice.
const RETRY_AFTER: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(20)];
/// Names of blobs that the end of a task lists.
const NAMES_SHOWN: usize = 20;

/// Writes the support bundle of the daemon with this configuration. It is handed in, because a bundle has what the whole daemon knows
/// (`super::bundle`).
pub type WriteBundle = fn(PathBuf, BundleUpload, Spool) -> LocalBoxFuture<'static, io::Result<Spool>>;

/// What uploads need of the gateway.
#[derive(Debug, Clone)]
pub struct UploadSettings {
    /// The daemon's configuration, of which a support bundle is made.
    pub config: PathBuf,
    pub write_bundle: WriteBundle,
    /// Where files are kept until they are sent.
    pub data_dir: PathBuf,
    /// Bytes that stay free on its disk.
    pub keep_free_bytes: u64,
    pub store: BlobStore,
}

/// The uploads under way, and how the last ones ended. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Uploads(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: UploadSettings,
    logs: LogReader,
    table: Mutex<UploadTasks>,
    turns: Semaphore,
    running: TaskTracker,
    stop: CancellationToken,
}

/// Why an upload failed.
#[derive(Debug, thiserror::Error)]
enum UploadError {
    #[error("reading the log of module `{module}`")]
    Log {
        module: ModuleId,
        #[source]
        source: DockerError,
    },
    #[error("writing `{name}` to disk")]
    Spool {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("uploading `{name}`")]
    Put {
        name: String,
        #[source]
        source: PutError,
    },
    #[error("edge-agent stops")]
    Stopped,
    #[error("it took longer than {} h", RUN_MAX.as_secs() / 3600)]
    TooLong,
}

/// What a task does.
enum Job {
    Logs(LogsUpload),
    Bundle(BundleUpload),
}

impl Uploads {
    pub fn new(settings: UploadSettings, logs: LogReader) -> Self {
        Self(Arc::new(Shared {
            settings,
            logs,
            table: Mutex::default(),
            turns: Semaphore::new(RUNNING_MAX),
            running: TaskTracker::new(),
            stop: CancellationToken::new(),
        }))
    }

    /// Begins to upload the logs of modules, each as a blob of its own.
    ///
    /// # Errors
    /// [`TooManyUploads`].
    pub fn start_logs(&self, upload: LogsUpload) -> Result<TaskStatus, TooManyUploads> {
        self.start(Job::Logs(upload))
    }

    /// Begins to upload a support bundle.
    ///
    /// # Errors
    /// [`TooManyUploads`].
    pub fn start_bundle(&self, upload: BundleUpload) -> Result<TaskStatus, TooManyUploads> {
        self.start(Job::Bundle(upload))
    }

    pub fn status(&self, correlation_id: &str) -> TaskStatus {
        self.0.table().get(correlation_id)
    }

    /// Ends those that run.
    pub async fn close(&self) {
        self.0.stop.cancel();
        self.0.running.close();
        self.0.running.wait().await;
    }

    fn start(&self, job: Job) -> Result<TaskStatus, TooManyUploads> {
        let id = Uuid::new_v4().to_string();
        let added = self.0.table().add(id.clone())?;
        let (shared, of_panic) = (self.0.clone(), self.0.clone());
        let run = {
            let id = id.clone();
            async move { shared.run(&id, job).await }
        };
        tasks::spawn_recovering(Some(&self.0.running), "upload", run, move || {
            let message = "a fault of edge-agent, which is in its log".to_owned();
            of_panic.table().set(&id, TaskState::Failed, message);
        });
        Ok(added)
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, UploadTasks> {
        self.table.lock().expect("nothing panics while it holds the table")
    }

    async fn run(&self, id: &str, job: Job) {
        let ended = tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(UploadError::Stopped),
            ended = self.run_in_turn(id, job) => ended,
        };
        let (state, message) = match ended {
            Ok(names) => {
                tracing::info!(task = id, files = names.len(), "upload completed");
                (TaskState::Completed, completed(&names))
            }
            Err(error) => {
                tracing::warn!(task = id, error = %chain(&error), "upload failed");
                (TaskState::Failed, redact::text(&chain(&error).to_string()).into_owned())
            }
        };
        self.table().set(id, state, message);
    }

    async fn run_in_turn(&self, id: &str, job: Job) -> Result<Vec<String>, UploadError> {
        let _turn = self.turns.acquire().await.expect("it is never closed");
        self.table().set(id, TaskState::Running, String::new());
        let run = async {
            match job {
                Job::Logs(upload) => self.upload_logs(&upload).await,
                Job::Bundle(upload) => self.upload_bundle(upload).await,
            }
        };
        tokio::time::timeout(RUN_MAX, run).await.unwrap_or(Err(UploadError::TooLong))
    }

    async fn upload_logs(&self, upload: &LogsUpload) -> Result<Vec<String>, UploadError> {
        let (mut names, mut failed) = (Vec::new(), None);
        let form = BlobForm {
            content_type: match upload.logs.content {
                ContentType::Text => "text/plain",
                ContentType::Json => "application/json",
            },
            is_gzip: upload.logs.encoding == Encoding::Gzip,
        };
        for log in self.logs.desired(&upload.logs) {
            let name = self.name(log.module.as_str(), extension(&upload.logs));
            let (reader, logs) = (self.logs.clone(), upload.logs.clone());
            let spooled =
                self.spooled(&name, move |spool| Box::pin(write_log(reader, log, logs, spool))).await;
            match spooled {
                Ok(spool) => {
                    self.put(&upload.to, &name, &spool, form).await?;
                    names.push(name);
                }
                // The others have theirs nevertheless.
                Err(error @ (UploadError::Log { .. } | UploadError::Spool { .. })) => {
                    failed.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        failed.map_or(Ok(names), Err)
    }

    async fn upload_bundle(&self, upload: BundleUpload) -> Result<Vec<String>, UploadError> {
        let name = self.name("support-bundle", "tar.gz");
        let (write, config) = (self.settings.write_bundle, self.settings.config.clone());
        let to = upload.to.clone();
        let spool = self
            .spooled(&name, move |spool| Box::pin(async move { Ok(write(config, upload, spool).await?) }))
            .await?;
        let form = BlobForm { content_type: "application/gzip", is_gzip: false };
        self.put(&to, &name, &spool, form).await?;
        Ok(vec![name])
    }

    fn name(&self, id: &str, extension: &str) -> String {
        blob_name(&self.logs.hub_name, self.logs.gateway.as_str(), id, now_ms(), extension)
    }

    /// A file that `write` has written, on a thread that may wait for the disk.
    async fn spooled(
        &self,
        name: &str,
        write: impl FnOnce(Spool) -> LocalBoxFuture<'static, Result<Spool, WriteError>> + Send + 'static,
    ) -> Result<Spool, UploadError> {
        // The thread ends when this future is dropped.
        let stop = self.stop.child_token();
        let _ends = stop.clone().drop_guard();
        let (dir, keep_free_bytes) = (self.settings.data_dir.clone(), self.settings.keep_free_bytes);
        let handle = Handle::current();
        let written = tokio::task::spawn_blocking(move || {
            let spool = Spool::create(&dir, keep_free_bytes)?;
            handle.block_on(async {
                tokio::select! {
                    () = stop.cancelled() => Err(WriteError::Stopped),
                    written = write(spool) => written,
                }
            })
        });
        let written = match written.await.map_err(JoinError::try_into_panic) {
            Ok(written) => written,
            Err(Ok(panicked)) => std::panic::resume_unwind(panicked),
            // The runtime ends.
            Err(Err(_)) => Err(WriteError::Stopped),
        };
        written.map_err(|error| match error {
            WriteError::Log { module, source } => UploadError::Log { module, source },
            WriteError::Disk(source) => UploadError::Spool { name: name.to_owned(), source },
            WriteError::Stopped => UploadError::Stopped,
        })
    }

    async fn put(&self, to: &SasUrl, name: &str, spool: &Spool, form: BlobForm) -> Result<(), UploadError> {
        let mut waits = RETRY_AFTER.iter();
        loop {
            match self.settings.store.put(to, name, spool, form).await {
                Ok(()) => {
                    tracing::info!(blob = name, store = %to, bytes = spool.size_bytes(), "blob uploaded");
                    return Ok(());
                }
                Err(source) => match waits.next().filter(|_| source.is_transient()) {
                    Some(wait) => {
                        tracing::warn!(blob = name, error = %chain(&source), ?wait, "upload is tried again");
                        tokio::time::sleep(*wait).await;
                    }
                    None => return Err(UploadError::Put { name: name.to_owned(), source }),
                },
            }
        }
    }
}

/// Why a file was not written.
enum WriteError {
    Log { module: ModuleId, source: DockerError },
    Disk(io::Error),
    Stopped,
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

async fn write_log(
    reader: LogReader,
    log: RequestedLog,
    request: LogsRequest,
    mut spool: Spool,
) -> Result<Spool, WriteError> {
    let module = log.module.clone();
    let engine = |source| WriteError::Log { module: module.clone(), source };
    let mut parts = reader.open(log, request.content, request.encoding).await.map_err(engine)?;
    while let Some(part) = parts.next().await.map_err(engine)? {
        spool.write_all(&part)?;
    }
    Ok(spool)
}

/// Source: IoT Edge.
fn extension(logs: &LogsRequest) -> &'static str {
    match (logs.content, logs.encoding) {
        (ContentType::Text, Encoding::None) => "log",
        (ContentType::Text, Encoding::Gzip) => "log.gz",
        (ContentType::Json, Encoding::None) => "json",
        (ContentType::Json, Encoding::Gzip) => "json.gz",
    }
}

/// What a task has done.
fn completed(names: &[String]) -> String {
    if names.is_empty() {
        return "no module that `items` names has a container; nothing was uploaded".to_owned();
    }
    let shown = names.iter().take(NAMES_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(NAMES_SHOWN) {
        None | Some(0) => format!("uploaded {shown}"),
        Some(more) => format!("uploaded {shown} and {more} more"),
    }
}

#[cfg(test)]
impl Uploads {
    /// Of a gateway that keeps files in the directory of temporary files.
    pub(crate) fn without_containers() -> Self {
        let settings = UploadSettings {
            config: "/nonexistent/edge.toml".into(),
            write_bundle: |_, _, spool| Box::pin(async move { Ok(spool) }),
            data_dir: std::env::temp_dir(),
            keep_free_bytes: 0,
            store: BlobStore {
                proxy: crate::config::ProxyChoice::None,
                silence_max: super::blob_store::SILENCE_MAX,
            },
        };
        Self::new(settings, LogReader::without_containers())
    }
}
