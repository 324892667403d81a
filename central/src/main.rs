//! `central`: serves, makes an API token, or backs up and restores the store.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod cli;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use central::server;
use clap::{CommandFactory as _, Parser, Subcommand};
use cli::data::DataArgs;
use cli::devices::DeviceCommand;
use cli::gateways::GatewayCommand;
use cli::modules::ModuleCommand;
use cli::roles::RoleCommand;
use cli::templates::TemplateCommand;
use cli::tokens::TokenCommand;
use cli::users::UserCommand;
use cli::{devices, gateways, modules, roles, store, templates, tokens, users};
use edge_core::error_chain::chain;
use edge_hub::logging;
use edge_hub::tasks::{self, TaskFailure};
use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

const EXIT_CODES: &str = "Exit codes:
  0   done
  1   failed; the message on standard error tells why
  2   the command line is wrong
  70  serve: a part that central cannot go on without failed; the log tells which
";

/// The operators' server of Lineside.
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    data: DataArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the REST API, the status page and the gateways' MQTT server until SIGTERM.
    Serve,
    /// Prints the ID scope for devices that enrol. Works while central runs.
    IdScope,
    /// Writes the store and the certificate authority to one file, which contains all keys. Works while central runs.
    Backup {
        /// The file to write; it must not exist.
        file: PathBuf,
    },
    /// Restores the store and the certificate authority of a backup into the data directory.
    Restore {
        /// Move an existing store or certificate authority into a folder `replaced-…` in the data directory first.
        #[arg(long)]
        replace: bool,
        /// A file that `central backup` wrote.
        file: PathBuf,
    },
    /// Creates an empty store beside the existing certificate authority: gateways and devices must be registered again.
    NewStore,
    /// Makes a new certificate authority where its files are missing: every gateway and device must be given the new ca.pem.
    NewAuthority,
    /// Manage gateways.
    Gateway {
        #[command(subcommand)]
        command: GatewayCommand,
    },
    /// Manage devices.
    Device {
        #[command(subcommand)]
        command: DeviceCommand,
    },
    /// Modules of gateways.
    Module {
        #[command(subcommand)]
        command: ModuleCommand,
    },
    /// Device templates.
    Template {
        #[command(subcommand)]
        command: TemplateCommand,
    },
    /// Roles of users and tokens.
    Role {
        #[command(subcommand)]
        command: RoleCommand,
    },
    /// API tokens.
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Users of the console.
    User {
        #[command(subcommand)]
        command: UserCommand,
    },
    /// Prints completions for a shell, for example: central completions bash > /etc/bash_completion.d/central
    Completions {
        /// The shell to print completions for.
        shell: clap_complete::Shell,
    },
    /// Writes a man page for each command.
    Man {
        /// The directory, for example /usr/local/share/man/man1; created if it does not exist.
        dir: PathBuf,
    },
}

fn main() -> ExitCode {
    // Without a log central would not say what it loses.
    let Ok(_logging) = logging::start() else { return ExitCode::FAILURE };
    let Cli { data, command } = Cli::parse();
    let done = match command {
        Command::Serve => serve(&data),
        Command::IdScope => store::id_scope(&data),
        Command::Backup { file } => store::back_up(&data, &file),
        Command::Restore { file, replace } => store::restore(&data, &file, replace),
        Command::NewStore => store::new_store(&data),
        Command::NewAuthority => store::new_authority(&data),
        Command::Gateway { command } => gateways::run(&data, command),
        Command::Device { command } => devices::run(&data, command),
        Command::Module { command } => modules::run(&data, command),
        Command::Template { command } => templates::run(&data, command),
        Command::Role { command } => roles::run(&data, command),
        Command::Token { command } => tokens::run(&data, command),
        Command::User { command } => users::run(&data, command),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "central", &mut script);
            logging::print(String::from_utf8_lossy(&script).trim_end());
            Ok(())
        }
        Command::Man { dir } => man(&dir),
    };
    match done.and_then(|()| {
        logging::stdout_failure().map_or(Ok(()), |error| Err(error).context("writing to standard output"))
    }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::print_error(&format!("central: {error:#}"));
            if error.is::<TaskFailure>() { ExitCode::from(tasks::EXIT_CODE) } else { ExitCode::FAILURE }
        }
    }
}

fn man(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    clap_mangen::generate_to(Cli::command(), dir)
        .with_context(|| format!("writing man pages to {}", dir.display()))
}

fn serve(data: &DataArgs) -> anyhow::Result<()> {
    // Before any file is made: the store and the certificate authority hold keys.
    edge_hub::private_files::make_new_files_private();
    let config = data.config_for_new()?;
    // Before anything opens files: what finds none left, such as the sources of random numbers, may panic.
    server::file_budget(&config).connections(edge_hub::files::raise()).context("limit of open files")?;
    let runtime = tokio::runtime::Runtime::new().context("starting the async runtime")?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        // Before the start, which may take long: a signal to stop is not lost meanwhile.
        tasks::spawn_essential("signals", stop_on_signal(stop.clone())?);
        let running = server::start(config, stop).await?;
        logging::print(&format!("central ready: {} mqtts://{}", running.http_url(), running.mqtts));
        if let Err(error) = sd_notify::notify(false, &[NotifyState::Ready]) {
            tracing::warn!(error = %chain(&error), "notifying systemd that central is ready failed");
        }
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
