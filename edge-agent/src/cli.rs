//! The command line. Exit codes: 0 done, 1 failed, 2 the manifest or the command was refused, 3 the deployment failed, 70 a part of the daemon failed that
//! it cannot go on without.

mod access;
mod exit;
mod global_options;
mod history;
pub mod init;
mod logs;
mod manifest;
mod quarantine;
mod routes_test;
mod status;
mod support_bundle;
mod text;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser, Subcommand};
use edge_core::health::finding::{Finding, Level};
use edge_core::route::sample::SampleMessage;
use edge_hub::data_lock::DataLock;
use edge_hub::logging;
use edge_hub::terminal::{Output, Tone};
use schemas::control::{Applied, CallRequest, DeploymentHistory};
use schemas::gateway_status::{GatewayStatus, RefusalList};
use schemas::method::{MethodRequest, MethodResponse};
use schemas::names::ModuleId;
use serde_json::{Value, json};

use access::{Device, User};
use exit::Exit;
use global_options::GlobalOptions;
use history::history_text;
use init::Init;
use logs::Logs;
use manifest::{ManifestFile, refused, warn};
use quarantine::Quarantine;
use status::{modules_text, refusals_text, status_text};
use support_bundle::SupportBundle;
use text::{encoded, first_word};

use crate::access::module_keys::ModuleKeys;
use crate::check;
use crate::deployment::docker::host_policy::HostPolicy;
use crate::deployment::docker::removal::remove_all;
use crate::deployment::reconciler::plan_once;

const EXIT_CODES: &str = "Exit codes:
  0   done; check: nothing is wrong
  1   failed; the message on standard error tells why
  2   the manifest or the command was refused; the message names the field or the argument
  3   apply --wait, rollback --wait: the deployment failed; the last verified one is in force again, or it is held
  70  run: a part that the daemon cannot go on without failed; the log tells which
";

/// The gateway's daemon and its commands.
#[derive(Parser)]
#[command(name = "edge-agent", version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    options: GlobalOptions,
}

#[derive(Subcommand)]
enum Command {
    /// Write edge.toml, keys and certificates; refuses to overwrite.
    Init(Box<Init>),
    /// Run the daemon.
    Run,
    /// Check this gateway: what is wrong and how to repair it, one line each; exit code 1 if something does not work.
    Check,
    /// Show what applying a manifest would do; changes nothing.
    Plan {
        /// A deployment manifest; `-` for the standard input.
        file: PathBuf,
    },
    /// Apply a manifest on this gateway, until central changes its own.
    Apply {
        /// A deployment manifest; `-` for the standard input.
        file: PathBuf,
        /// Wait until it is verified or rolled back, for at most this many seconds.
        #[arg(long, value_name = "SECS", num_args = 0..=1, default_missing_value = "600")]
        wait: Option<u64>,
    },
    /// List the last deployments: who gave them, what they changed, and how they ended.
    History,
    /// Put a deployment of the past in force again, until central changes its own.
    Rollback {
        /// Its number in `edge-agent history`; the last verified one before the one in force when left out.
        number: Option<u64>,
        /// Wait until it is verified or rolled back, for at most this many seconds.
        #[arg(long, value_name = "SECS", num_args = 0..=1, default_missing_value = "600")]
        wait: Option<u64>,
    },
    /// Show the state of this gateway: connection, modules, queues, losses.
    Status,
    /// List the modules.
    List,
    /// Show what a module has written to its standard output and standard error.
    Logs(Logs),
    /// Write what somebody needs who helps with this gateway into one archive without secrets: findings, state, history, logs.
    SupportBundle(SupportBundle),
    /// Stop a module's container, if it runs, and start it; also one that was given up after too many restarts.
    Restart {
        /// The module's id in the manifest.
        module: String,
    },
    /// Stop and remove the containers of this gateway's modules; for its end, while the daemon does not run. Named volumes stay.
    RemoveModules,
    /// Call a direct method of a module or leaf device.
    Call {
        /// A module, or device/ID for a leaf device.
        target: String,
        /// The name of the direct method.
        method: String,
        /// Its payload, as JSON.
        payload: Option<String>,
        /// How long to wait for the answer.
        #[arg(long, value_name = "SECS", default_value_t = 30)]
        timeout: u64,
    },
    /// Manage leaf devices.
    #[command(subcommand)]
    Device(Device),
    /// Manage local users: plain MQTT clients with a name and a password.
    #[command(subcommand)]
    User(User),
    /// List the clients that were refused last: identity, reason, time, address.
    Refusals,
    /// Manage messages that upstream rejected because of their content.
    #[command(subcommand)]
    Quarantine(Quarantine),
    /// Test routes.
    #[command(subcommand)]
    Routes(Routes),
    /// Print completions for a shell, for example: edge-agent completions bash > /etc/bash_completion.d/edge-agent
    Completions {
        /// The shell to print completions for.
        shell: clap_complete::Shell,
    },
    /// Write a man page for each command.
    Man {
        /// The directory, for example /usr/local/share/man/man1; created if it does not exist.
        dir: PathBuf,
    },
}

#[derive(Subcommand)]
enum Routes {
    /// Show where a message would go by the routes of a manifest, and why; needs neither the daemon nor central.
    Test {
        /// A deployment manifest; `-` for the standard input.
        file: PathBuf,
        /// The message, as JSON: {"from": "device/module", "output": …, "topic": …, "properties": {…},
        /// "systemProperties": {…}, "body": …}.
        #[arg(long, value_name = "JSON")]
        message: String,
    },
}

impl Cli {
    /// Runs the command that the process was given.
    pub async fn start() -> ExitCode {
        match Self::try_parse() {
            Ok(cli) => cli.run().await,
            Err(outcome) => exit::of_arguments(&outcome),
        }
    }

    async fn run(self) -> ExitCode {
        let printed = || match logging::stdout_failure() {
            None => Ok(()),
            Some(error) => Err(Exit(1, anyhow::Error::new(error).context("writing to standard output"))),
        };
        match self.dispatch().await.and_then(|()| printed()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(Exit(code, error)) => {
                logging::print_error(&format!("edge-agent: {error:#}"));
                ExitCode::from(code)
            }
        }
    }

    async fn dispatch(&self) -> Result<(), Exit> {
        let options = &self.options;
        match &self.command {
            Command::Init(init) => init.run(options)?,
            Command::Run => crate::agent::run(options.load()?).await?,
            Command::Check => check(options).await?,
            Command::Plan { file } => plan(options, file).await?,
            Command::Apply { file, wait } => apply(options, file, *wait).await?,
            Command::History => {
                let (answer, list) = options.answer::<DeploymentHistory>("GET", "/history", None).await?;
                options
                    .print(&answer["deployments"], || history_text(&list.deployments, Output::of_stdout()))?;
            }
            Command::Rollback { number, wait } => {
                let pairs = [("number", *number), ("wait", *wait)];
                let pairs: Vec<String> =
                    pairs.iter().filter_map(|(key, value)| Some(format!("{key}={}", (*value)?))).collect();
                let wait = Duration::from_secs(wait.unwrap_or_default());
                applied(options, &format!("/rollback?{}", pairs.join("&")), None, wait).await?;
            }
            Command::Status => {
                let (answer, status) = options.answer::<GatewayStatus>("GET", "/status", None).await?;
                options.print(&answer, || status_text(&status, Output::of_stdout()))?;
            }
            Command::List => {
                let (answer, status) = options.answer::<GatewayStatus>("GET", "/status", None).await?;
                options.print(&answer["modules"], || modules_text(&status.modules, Output::of_stdout()))?;
            }
            Command::Refusals => {
                let (answer, list) = options.answer::<RefusalList>("GET", "/refusals", None).await?;
                options.print(&answer["refusals"], || refusals_text(&list.refusals))?;
            }
            Command::Logs(logs) => logs.run(options).await?,
            Command::SupportBundle(bundle) => bundle.run(options).await?,
            Command::Restart { module } => {
                let answer =
                    options.request("POST", &format!("/modules/{}/restart", encoded(module)), None).await?;
                options.print(&answer, || format!("module `{module}` was restarted"))?;
            }
            Command::RemoveModules => {
                let config = options.load()?;
                // The daemon would create them again.
                let _lock =
                    DataLock::acquire(&config.data_dir, "lock", "edge-agent").map_err(anyhow::Error::from)?;
                let keys = ModuleKeys::load(&config.data_dir).map_err(anyhow::Error::from)?;
                let removed = remove_all(&config, &keys).await.map_err(anyhow::Error::from)?;
                let line = |module: &ModuleId| format!("removed {module}");
                let lines = || {
                    if removed.is_empty() {
                        return "no module had a container".to_owned();
                    }
                    removed.iter().map(line).collect::<Vec<_>>().join("\n")
                };
                options.print(&json!({"removed": removed}), lines)?;
            }
            Command::Call { target, method, payload, timeout } => {
                let payload: Value = match payload {
                    None => Value::Null,
                    Some(text) => schemas::json::from_outside(text.as_bytes()).context("PAYLOAD")?,
                };
                let request = MethodRequest {
                    method_name: method.clone(),
                    payload,
                    response_timeout_in_seconds: *timeout,
                    connect_timeout_in_seconds: 0,
                };
                let body = json!(CallRequest { target: target.clone(), request });
                let wait = Duration::from_secs(*timeout);
                let (answer, response) =
                    options.answer_after::<MethodResponse>(wait, "POST", "/call", Some(&body)).await?;
                options.print(&answer, || format!("{} {}", response.status, response.payload))?;
            }
            Command::Device(device) => access::device(options, device).await?,
            Command::User(user) => access::user(options, user).await?,
            Command::Quarantine(command) => quarantine::quarantine(options, command).await?,
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(*shell, &mut Self::command(), "edge-agent", &mut script);
                logging::print(String::from_utf8_lossy(&script).trim_end());
            }
            Command::Man { dir } => man(dir)?,
            Command::Routes(Routes::Test { file, message }) => test_routes(options, file, message).await?,
        }
        Ok(())
    }
}

async fn check(options: &GlobalOptions) -> Result<(), Exit> {
    let findings = check::check(&options.config).await;
    let output = Output::of_stdout();
    let line = |finding: &Finding| {
        let tone = match finding.level {
            Level::Error => Tone::Bad,
            Level::Warn => Tone::Warning,
            Level::Info => Tone::Plain,
            Level::Ok => Tone::Good,
        };
        first_word(output, tone, &finding.to_string())
    };
    let lines = || findings.iter().map(line).collect::<Vec<_>>().join("\n");
    options.print(&json!(findings), lines)?;
    let of = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (errors, warnings) = (of(Level::Error), of(Level::Warn));
    if errors > 0 {
        return Err(Exit(1, anyhow::anyhow!("{errors} errors, {warnings} warnings")));
    }
    Ok(())
}

async fn plan(options: &GlobalOptions, file: &Path) -> Result<(), Exit> {
    let ManifestFile { desired, warnings, .. } = manifest::read(options, file).await?;
    let config = options.load()?;
    HostPolicy::new(&config).check(&desired).map_err(|error| refused(file, error))?;
    let keys = ModuleKeys::load(&config.data_dir).map_err(anyhow::Error::from)?;
    let plan = plan_once(&config, &keys, &desired).await.map_err(anyhow::Error::from)?;
    warn(&warnings);
    options.print(&json!({"plan": plan.to_string(), "warnings": warnings}), || plan.to_string())?;
    Ok(())
}

async fn apply(options: &GlobalOptions, file: &Path, wait: Option<u64>) -> Result<(), Exit> {
    let ManifestFile { document, warnings, .. } = manifest::read(options, file).await?;
    warn(&warnings);
    let path = match wait {
        Some(secs) => format!("/apply?wait={secs}"),
        None => "/apply".to_owned(),
    };
    let wait = Duration::from_secs(wait.unwrap_or_default());
    applied(options, &path, Some(&document), wait).await
}

/// Puts a deployment in force and prints its state; one that failed ends the process with code 3.
async fn applied(
    options: &GlobalOptions,
    path: &str,
    document: Option<&Value>,
    wait: Duration,
) -> Result<(), Exit> {
    let (answer, applied) = options.answer_after::<Applied>(wait, "POST", path, document).await?;
    let number = applied.deployment;
    let reason = applied.reason.as_deref().unwrap_or_default();
    match applied.state.as_str() {
        "rolledBack" | "held" => {
            options.print(&answer, String::new)?;
            let became = if applied.state == "held" {
                "it stays in force"
            } else {
                "the last verified one is in force again"
            };
            Err(Exit(3, anyhow::anyhow!("deployment {number} failed; {became}: {reason}")))
        }
        state => {
            options.print(&answer, || match state {
                "verified" => format!("deployment {number} verified"),
                "superseded" => format!("deployment {number} was superseded by another one"),
                _ => format!("deployment {number} applied: `edge-agent status` shows how far it is"),
            })?;
            Ok(())
        }
    }
}

async fn test_routes(options: &GlobalOptions, file: &Path, message: &str) -> Result<(), Exit> {
    let ManifestFile { routes, warnings, .. } = manifest::read(options, file).await?;
    warn(&warnings);
    let wrong = |error: anyhow::Error| Exit(2, error.context("--message"));
    let sample: SampleMessage =
        schemas::json::from_outside(message.as_bytes()).map_err(|error| wrong(error.into()))?;
    // Which modules are its own, when this is a gateway.
    let gateway = options.load().ok().map(|config| config.device_id);
    let outcome = sample.explain(&routes, gateway).map_err(|error| wrong(error.into()))?;
    options.print(&routes_test::to_json(&outcome), || routes_test::to_text(&outcome))?;
    Ok(())
}

fn man(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    clap_mangen::generate_to(Cli::command(), dir)
        .with_context(|| format!("writing man pages to {}", dir.display()))
}
