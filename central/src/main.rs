//! `central`: serves, makes an API token, or backs up and restores the store.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod users;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use central::admission::Admission;
use central::clock;
use central::config::Config;
use central::join;
use central::server;
use central::store::{Store, StoreError, backup, devices, tokens};
use central::token::{self, Role, TokenName};
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use edge_core::error_chain::chain;
use edge_hub::logging;
use edge_hub::tasks::{self, TaskFailure};
use edge_hub::terminal::{Output, Table, Tone};
use schemas::names::DeviceId;
use schemas::timestamp::rfc3339;
use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;
use users::UserCommand;

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
    place: Place,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the REST API, the status page and the gateways' MQTT server until SIGTERM.
    Serve,
    /// Prints the ID scope of devices that enrol themselves. Works while central serves.
    IdScope,
    /// Writes the store and the certificate authority to one file, which holds all keys. Works while central serves.
    Backup {
        /// Where to. Nothing may be there.
        file: PathBuf,
    },
    /// Puts the store and the certificate authority of a backup into the data directory.
    Restore {
        /// Move a store or authority that is there into a folder `replaced-…` in the data directory first.
        #[arg(long)]
        replace: bool,
        /// A file that `central backup` wrote.
        file: PathBuf,
    },
    /// Begins with an empty store beside the certificate authority that is there: gateways and devices must be registered
    /// again.
    NewStore,
    /// Gateways.
    Gateway {
        #[command(subcommand)]
        command: GatewayCommand,
    },
    /// Devices.
    Device {
        #[command(subcommand)]
        command: DeviceCommand,
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
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Writes a man page for each command.
    Man {
        /// Where to, for example /usr/local/share/man/man1; made when it is not there.
        dir: PathBuf,
    },
}

#[derive(Subcommand)]
enum GatewayCommand {
    /// Registers a gateway, unless it is there, and prints the command that makes it one: paste it on the gateway as root. It holds
    /// the gateway's key. Works while central serves.
    Add {
        /// The gateway's device id.
        id: DeviceId,
        /// The authority that signed `[tls] cert`, as a PEM file; central's own authority when left out.
        #[arg(long, value_name = "FILE")]
        ca: Option<PathBuf>,
    },
    /// Prints every gateway's id and name, whether it may connect, and when it was last seen; with tabs between where no terminal
    /// reads it.
    List,
}

#[derive(Subcommand)]
enum DeviceCommand {
    /// Tells why nothing comes from a gateway or device, or what is wrong with it: each cause with what shows it and what mends it. Asks
    /// the central that serves.
    Why {
        /// Its id.
        id: DeviceId,
    },
    /// Approves devices that enrolled themselves and wait: they connect when they ask next. Asks the central that serves.
    Approve {
        /// Their ids.
        #[arg(required = true, num_args = 1..=1000)]
        ids: Vec<DeviceId>,
    },
    /// Rejects devices that enrolled themselves and wait: they are blocked. Asks the central that serves.
    Reject {
        /// Their ids.
        #[arg(required = true, num_args = 1..=1000)]
        ids: Vec<DeviceId>,
    },
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Makes a token and prints it once: the value of an Authorization header. Works while central serves.
    Create {
        /// What the token may do.
        #[arg(long, value_enum)]
        role: Role,
        /// For people, for the log, and to revoke it by; made up when left out.
        #[arg(long)]
        name: Option<TokenName>,
        /// Days until it expires.
        #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36500))]
        expires_in: u32,
    },
    /// Prints every token's name, role, and when it was made, expires and was last used; with tabs between where no terminal reads it.
    List,
    /// Revokes a token: its next request is refused. Works while central serves.
    Revoke {
        /// Of the token.
        name: String,
    },
}

#[derive(Args)]
struct Place {
    /// central.toml; the defaults when left out.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the store and the certificate authority are; overrides `data_dir`.
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl Place {
    fn config(&self) -> anyhow::Result<Config> {
        let mut config = Config::load(self.config.as_deref(), std::env::vars_os())?;
        if let Some(dir) = &self.data_dir {
            config.data_dir.clone_from(dir);
        }
        Ok(config)
    }

    /// For commands that may begin a site.
    fn config_for_new(&self) -> anyhow::Result<Config> {
        let config = self.config()?;
        make_dir(&config.data_dir)?;
        Ok(config)
    }

    /// For commands about a site that is there: a mistyped path must not begin another one.
    fn config_for_existing(&self) -> anyhow::Result<Config> {
        let config = self.config()?;
        let store = config.data_dir.join(central::store::FILE);
        anyhow::ensure!(
            store.exists(),
            "there is no store at {}; give the --data-dir or --config that `central serve` has, which makes one at its first start",
            store.display()
        );
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
    let Cli { place, command } = Cli::parse();
    let done = match command {
        Command::Serve => serve(&place),
        Command::IdScope => id_scope(&place),
        Command::Backup { file } => back_up(&place, &file),
        Command::Restore { file, replace } => restore(&place, &file, replace),
        Command::NewStore => new_store(&place),
        Command::Gateway { command } => match command {
            GatewayCommand::Add { id, ca } => add_gateway(&place, id, ca.as_deref()),
            GatewayCommand::List => list_gateways(&place),
        },
        Command::Device { command: DeviceCommand::Why { id } } => device_why(&place, &id),
        Command::Device { command: DeviceCommand::Approve { ids } } => decide(&place, &ids, "approve"),
        Command::Device { command: DeviceCommand::Reject { ids } } => decide(&place, &ids, "reject"),
        Command::Token { command } => match command {
            TokenCommand::Create { role, name, expires_in } => {
                create_token(&place, role, &name.unwrap_or_else(TokenName::random), expires_in)
            }
            TokenCommand::List => list_tokens(&place),
            TokenCommand::Revoke { name } => revoke_token(&place, name),
        },
        Command::User { command } => users::run(&place, command),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "central", &mut script);
            logging::print(String::from_utf8_lossy(&script).trim_end());
            Ok(())
        }
        Command::Man { dir } => man(&dir),
    };
    match done {
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

fn serve(place: &Place) -> anyhow::Result<()> {
    edge_hub::private_files::make_new_files_private();
    let config = place.config_for_new()?;
    // Before anything opens files: what finds none left, such as the sources of random numbers, may panic.
    server::file_budget(&config).connections(edge_hub::files::raise()).context("limit of open files")?;
    let runtime = tokio::runtime::Runtime::new().context("starting the async runtime")?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        tasks::spawn_essential("signals", stop_on_signal(stop.clone())?);
        let running = server::start(config, stop).await?;
        logging::print(&format!("central ready: {} mqtts://{}", running.http_url(), running.mqtts));
        if let Err(error) = sd_notify::notify(false, &[NotifyState::Ready]) {
            tracing::warn!(error = %chain(&error), "systemd was not told that central is ready");
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

fn id_scope(place: &Place) -> anyhow::Result<()> {
    let config = place.config_for_existing()?;
    let wanted = config.dps.id_scope.clone();
    let scope = in_store(&config, move |c| central::store::enrollments::id_scope(c, wanted.as_deref()))?;
    logging::print(&scope.to_string());
    Ok(())
}

fn back_up(place: &Place, file: &Path) -> anyhow::Result<()> {
    let config = place.config_for_existing()?;
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
    let config = place.config_for_new()?;
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
    let config = place.config_for_new()?;
    backup::begin_anew(&config.data_dir, clock::now_ms())?;
    logging::print(&format!("an empty store was made in {}", config.data_dir.display()));
    Ok(())
}

fn add_gateway(place: &Place, id: DeviceId, ca: Option<&Path>) -> anyhow::Result<()> {
    let config = place.config_for_existing()?;
    let name = id.clone();
    let gateway = in_store(&config, move |c| join::add_gateway(c, id))?;
    let gateway = gateway.with_context(|| {
        format!("device `{name}` is registered and is not a gateway; choose another id, or delete that device first")
    })?;
    let word = join::word(&config, &gateway, ca)?;
    logging::print(&format!("edge-agent init --join {word}"));
    Ok(())
}

fn device_why(place: &Place, id: &DeviceId) -> anyhow::Result<()> {
    let id = percent_encoding::utf8_percent_encode(id.as_str(), percent_encoding::NON_ALPHANUMERIC);
    let path = format!("/api/ext/devices/{id}/why");
    let answer = ask_serving(place, |listen, line| central::ask::get(listen, &path, line))?;
    logging::print(answer["text"].as_str().unwrap_or("the answer has no text"));
    Ok(())
}

fn decide(place: &Place, ids: &[DeviceId], decision: &str) -> anyhow::Result<()> {
    let wish = serde_json::json!({"devices": ids, "decision": decision});
    let answer =
        ask_serving(place, |listen, line| central::ask::post(listen, "/api/ext/approvals", line, &wish))?;
    let outcomes = answer["value"].as_array().map(Vec::as_slice).unwrap_or_default();
    let (mut done, mut failed) = (0, Vec::new());
    for outcome in outcomes {
        let id = outcome["device"].as_str().unwrap_or("?");
        match outcome["outcome"].as_str() {
            Some("approved") => logging::print(&format!("device `{id}` is approved")),
            Some("rejected") => logging::print(&format!("device `{id}` is rejected and blocked")),
            Some("notRegistered") => failed.push(format!("device `{id}` is not registered")),
            _ => failed.push(format!("device `{id}` does not wait for approval")),
        }
        done += 1;
    }
    anyhow::ensure!(failed.is_empty() && done == ids.len(), "{}", failed.join("; "));
    Ok(())
}

/// Asks the central that serves this data directory. Whoever reads the directory may ask; the API knows nobody without a token.
fn ask_serving(
    place: &Place,
    ask: impl FnOnce(std::net::SocketAddr, &str) -> Result<serde_json::Value, central::ask::AskError>,
) -> anyhow::Result<serde_json::Value> {
    const WITHIN_MS: u64 = 60_000;
    let config = place.config_for_existing()?;
    let now_ms = clock::now_ms();
    let name = TokenName::of_command_line();
    let new = token::create(&config.hostname, &name, Role::Operator, now_ms, now_ms + WITHIN_MS);
    let (hash, grant) = (new.hash, new.grant);
    in_store(&config, move |c| tokens::insert(c, &hash, &grant))?;
    let answer = ask(config.http.listen, &new.line);
    let name = name.as_str().to_owned();
    in_store(&config, move |c| tokens::delete(c, &name))?;
    Ok(answer?)
}

fn create_token(place: &Place, role: Role, name: &TokenName, days: u32) -> anyhow::Result<()> {
    const DAY_MS: u64 = 24 * 3600 * 1000;
    let config = place.config_for_existing()?;
    let now_ms = clock::now_ms();
    let expires_ms = now_ms.saturating_add(u64::from(days) * DAY_MS);
    let new = token::create(&config.hostname, name, role, now_ms, expires_ms);
    let (hash, grant) = (new.hash, new.grant);
    let is_new = in_store(&config, move |c| tokens::insert(c, &hash, &grant))?;
    anyhow::ensure!(
        is_new,
        "there is a token `{}`; revoke it first, or choose another --name",
        name.as_str()
    );
    logging::print(&new.line);
    Ok(())
}

fn list_tokens(place: &Place) -> anyhow::Result<()> {
    let config = place.config_for_existing()?;
    let grants = in_store(&config, |c| tokens::list(c, "", u32::MAX))?;
    let time = |at_ms: Option<u64>, none: &str| at_ms.map_or_else(|| none.to_owned(), rfc3339);
    let mut table = Table::new(&["NAME", "ROLE", "CREATED", "EXPIRES", "LAST USED"]);
    let now_ms = clock::now_ms();
    for grant in grants {
        let expires = if grant.expires_ms <= now_ms { Tone::Bad } else { Tone::Plain };
        table.row([
            // Tokens of older versions may have any name.
            (Tone::Plain, grant.name.escape_debug().to_string()),
            (Tone::Plain, grant.role.as_str().to_owned()),
            (Tone::Plain, time(grant.created_ms, "unknown")),
            (expires, rfc3339(grant.expires_ms)),
            (Tone::Plain, time(grant.used_ms, "never")),
        ]);
    }
    print_table(&table);
    Ok(())
}

fn list_gateways(place: &Place) -> anyhow::Result<()> {
    let config = place.config_for_existing()?;
    let devices = in_store(&config, |c| devices::list(c, "", u32::MAX))?;
    let mut table = Table::new(&["ID", "NAME", "MAY CONNECT", "LAST SEEN"]);
    for gateway in devices.into_iter().filter(|device| device.is_gateway) {
        let enabled = match gateway.admission() {
            Admission::Admitted => (Tone::Good, "yes"),
            Admission::Waiting => (Tone::Bad, "no, it waits for approval"),
            Admission::Blocked => (Tone::Bad, "no"),
        };
        table.row([
            (Tone::Plain, gateway.id.to_string()),
            (Tone::Plain, gateway.display_name),
            (enabled.0, enabled.1.to_owned()),
            (Tone::Plain, gateway.last_seen_ms.map_or_else(|| "never".to_owned(), rfc3339)),
        ]);
    }
    print_table(&table);
    Ok(())
}

/// In columns on a terminal, with tabs for programs.
fn print_table(table: &Table) {
    logging::print(&match Output::of_stdout() {
        Output::Plain => table.with_tabs(),
        terminal => table.aligned(terminal),
    });
}

fn revoke_token(place: &Place, name: String) -> anyhow::Result<()> {
    let config = place.config_for_existing()?;
    let told = name.clone();
    let is_gone = in_store(&config, move |c| tokens::delete(c, &name))?;
    anyhow::ensure!(is_gone, "there is no token `{told}`; `central token list` names them");
    logging::print(&format!("token `{told}` is revoked"));
    Ok(())
}

/// Does something in the store, beside a central that serves or not.
fn in_store<T: Send + 'static>(
    config: &Config,
    work: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    in_store_with(config, move |c| Ok::<_, StoreError>(work(c)?))
}

/// [`in_store`] for work with errors of its own.
fn in_store_with<T, E>(
    config: &Config,
    work: impl FnOnce(&rusqlite::Connection) -> Result<T, E> + Send + 'static,
) -> anyhow::Result<T>
where
    T: Send + 'static,
    E: std::error::Error + From<StoreError> + Send + Sync + 'static,
{
    // The store looks at its file now and then.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.context("starting the async runtime")?;
    runtime.block_on(async {
        let store = Store::open(&config.data_dir, config.keep.limits())?;
        let done = store.submit(work).await;
        store.close().await;
        Ok(done?)
    })
}
