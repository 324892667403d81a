//! `central`: serves, makes an API token, or backs up and restores the store.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use central::clock;
use central::config::Config;
use central::server;
use central::store::{Store, backup};
use central::token::{self, Role};
use clap::{Args, Parser, Subcommand};
use edge_hub::logging;
use tokio_util::sync::CancellationToken;

/// The operators' server of Lineside.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the REST API, the status page and the gateways' front door until SIGTERM.
    Serve {
        #[command(flatten)]
        place: Place,
    },
    /// Prints the ID scope of devices that enrol themselves. Works while central serves.
    IdScope {
        #[command(flatten)]
        place: Place,
    },
    /// Writes the store and the certificate authority to one file, which holds all keys. Works while central serves.
    Backup {
        #[command(flatten)]
        place: Place,
        /// Where to. Nothing may be there.
        file: PathBuf,
    },
    /// Puts the store and the certificate authority of a backup into the data directory.
    Restore {
        #[command(flatten)]
        place: Place,
        /// Move a store or authority that is there into a folder `replaced-…` in the data directory first.
        #[arg(long)]
        replace: bool,
        /// A file that `central backup` wrote.
        file: PathBuf,
    },
    /// Begins with an empty store beside the certificate authority that is there: gateways and devices must be registered
    /// again.
    NewStore {
        #[command(flatten)]
        place: Place,
    },
    /// API tokens.
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Makes a token and prints it once: the value of an Authorization header. Works while central serves.
    Create {
        #[command(flatten)]
        place: Place,
        /// What the token may do.
        #[arg(long, value_enum)]
        role: Role,
        /// For people and for the log.
        #[arg(long, default_value = "token")]
        name: String,
    },
}

#[derive(Args)]
struct Place {
    /// central.toml; the defaults when left out.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where the store and the certificate authority are; overrides `data_dir`.
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

impl Place {
    fn config(&self) -> anyhow::Result<Config> {
        let mut config = Config::load(self.config.as_deref(), std::env::vars())?;
        if let Some(dir) = &self.data_dir {
            config.data_dir.clone_from(dir);
        }
        make_dir(&config.data_dir)?;
        Ok(config)
    }
}

/// Makes the data directory for its owner alone: the store in it holds the keys of devices.
fn make_dir(dir: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("making the data directory {}", dir.display()))
}

fn main() -> ExitCode {
    // Without a log central would not say what it loses.
    let Ok(_logging) = logging::start() else { return ExitCode::FAILURE };
    let done = match Cli::parse().command {
        Command::Serve { place } => serve(&place),
        Command::IdScope { place } => id_scope(&place),
        Command::Backup { place, file } => back_up(&place, &file),
        Command::Restore { place, replace, file } => restore(&place, &file, replace),
        Command::NewStore { place } => new_store(&place),
        Command::Token { command: TokenCommand::Create { place, role, name } } => {
            create_token(&place, role, &name)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::print_error(&format!("central: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn serve(place: &Place) -> anyhow::Result<()> {
    edge_hub::private_files::make_new_files_private();
    let config = place.config()?;
    let runtime = tokio::runtime::Runtime::new().context("starting the async runtime")?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        tokio::spawn(stop_on_signal(stop.clone())?);
        let running = server::start(config, stop).await?;
        logging::print(&format!("central ready: http://{} mqtts://{}", running.http, running.mqtts));
        running.ended().await
    })
}

fn stop_on_signal(stop: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("central is stopping");
        stop.cancel();
    })
}

fn id_scope(place: &Place) -> anyhow::Result<()> {
    let config = place.config()?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().build().context("starting the async runtime")?;
    let scope = runtime.block_on(async {
        let store = Store::open(&config.data_dir, config.keep.limits())?;
        let read = store.submit(move |c| {
            let wanted = config.dps.id_scope.as_deref();
            Ok::<_, central::store::StoreError>(central::store::enrollments::id_scope(c, wanted)?)
        });
        let scope = read.await?;
        store.close().await;
        anyhow::Ok(scope)
    })?;
    logging::print(&scope.to_string());
    Ok(())
}

fn back_up(place: &Place, file: &Path) -> anyhow::Result<()> {
    let config = place.config()?;
    let made = backup::make(&config.data_dir, file, clock::now_ms())?;
    logging::print(&format!(
        "backup written and checked: {}, {} commits, telemetry up to message {}",
        file.display(),
        made.position.commits,
        made.position.messages
    ));
    Ok(())
}

fn restore(place: &Place, file: &Path, replace: bool) -> anyhow::Result<()> {
    let config = place.config()?;
    let restored = backup::restore(&config.data_dir, file, replace, clock::now_ms())?;
    logging::print(&format!(
        "restored into {}: the store of {}, {} commits, telemetry up to message {}; what came later is not in it",
        config.data_dir.display(),
        schemas::timestamp::rfc3339(restored.made_ms),
        restored.position.commits,
        restored.position.messages
    ));
    Ok(())
}

fn new_store(place: &Place) -> anyhow::Result<()> {
    let config = place.config()?;
    backup::begin_anew(&config.data_dir, clock::now_ms())?;
    logging::print(&format!("an empty store was made in {}", config.data_dir.display()));
    Ok(())
}

fn create_token(place: &Place, role: Role, name: &str) -> anyhow::Result<()> {
    let config = place.config()?;
    let now_ms = clock::now_ms();
    let new = token::create(&config.hostname, name, role, now_ms);
    let line = new.line.clone();
    let runtime =
        tokio::runtime::Builder::new_current_thread().build().context("starting the async runtime")?;
    runtime.block_on(async {
        let store = Store::open(&config.data_dir, config.keep.limits())?;
        let kept = store.submit(move |c| {
            Ok::<_, central::store::StoreError>(central::store::tokens::insert(c, &new.hash, &new.grant)?)
        });
        kept.await?;
        store.close().await;
        anyhow::Ok(())
    })?;
    logging::print(&line);
    Ok(())
}
