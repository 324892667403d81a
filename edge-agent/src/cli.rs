//! The command line. Exit codes: 0 done, 1 failed, 2 the manifest or the command was refused, 70 a part of the daemon failed that
//! it cannot go on without.

mod access;
pub mod init;
mod manifest;
mod quarantine;
mod routes_test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser, Subcommand};
use edge_core::health::finding::{Finding, Level};
use edge_hub::logging;
use edge_hub::tasks::{self, TaskFailure};
use edge_hub::terminal::{Output, Table, Tone};
use serde_json::{Value, json};

use access::{Device, User};
use init::Init;
use manifest::{Read, refused, warn};
use quarantine::Quarantine;

use crate::check;
use crate::config::Config;
use crate::control::client::{CallError, request};
use crate::deployment::docker::host_policy::HostPolicy;

const DEFAULT_CONFIG: &str = "/etc/edge-agent/edge.toml";

const EXIT_CODES: &str = "Exit codes:
  0   done; check: nothing is wrong
  1   failed; the message on standard error tells why
  2   the manifest or the command was refused; the message names the field or the argument
  70  run: a part that the daemon cannot go on without failed; the log tells which
";

/// The gateway's daemon, and the commands that speak to it.
#[derive(Parser)]
#[command(name = "edge-agent", version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// The configuration.
    #[arg(long, global = true, default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// Print JSON, for machines.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Write edge.toml, keys and certificates; refuses to overwrite.
    Init(Box<Init>),
    /// Run the daemon.
    Run,
    /// What is wrong with this gateway and how to mend it, one line each; exit code 1 when something does not work.
    Check,
    /// What applying a manifest would do; changes nothing.
    Plan {
        /// A deployment manifest; `-` for the standard input.
        file: PathBuf,
    },
    /// Apply a manifest on this gateway, until central changes its own.
    Apply {
        /// A deployment manifest; `-` for the standard input.
        file: PathBuf,
        /// Wait until its modules run, this many seconds at the most.
        #[arg(long, value_name = "SECS", num_args = 0..=1, default_missing_value = "120")]
        wait: Option<u64>,
    },
    /// How this gateway is.
    Status,
    /// The modules.
    List,
    /// Call a direct method.
    Call {
        /// A module, or device/ID for a leaf device.
        target: String,
        /// The method.
        method: String,
        /// Its payload, as JSON.
        payload: Option<String>,
        /// How long to wait for the answer.
        #[arg(long, value_name = "SECS", default_value_t = 30)]
        timeout: u64,
    },
    /// Leaf devices.
    #[command(subcommand)]
    Device(Device),
    /// Users: plain MQTT clients that know a name and a password.
    #[command(subcommand)]
    User(User),
    /// The clients that were refused last: who, why, when, from where.
    Refusals,
    /// Messages that upstream refused for themselves.
    #[command(subcommand)]
    Quarantine(Quarantine),
    /// Routes.
    #[command(subcommand)]
    Routes(Routes),
    /// Print completions for a shell, for example: edge-agent completions bash > /etc/bash_completion.d/edge-agent
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write a man page for each command.
    Man {
        /// Where to, for example /usr/local/share/man/man1; made when it is not there.
        dir: PathBuf,
    },
}

#[derive(Subcommand)]
enum Routes {
    /// Where a message would go by the routes of a manifest, and why; asks neither the daemon nor central.
    Test {
        /// A deployment manifest; `-` for the standard input.
        file: PathBuf,
        /// The message, as JSON: {"from": "device/module", "output": …, "topic": …, "properties": {…},
        /// "systemProperties": {…}, "body": …}.
        #[arg(long, value_name = "JSON")]
        message: String,
    },
}

/// Why the process ends with another code than 0.
struct Exit(u8, anyhow::Error);

impl From<anyhow::Error> for Exit {
    fn from(error: anyhow::Error) -> Self {
        if error.is::<TaskFailure>() {
            return Self(tasks::EXIT_CODE, error);
        }
        let refused = error
            .downcast_ref::<CallError>()
            .is_some_and(|e| matches!(e, CallError::Refused { status: 422, .. }));
        Self(if refused { 2 } else { 1 }, error)
    }
}

impl Cli {
    /// Does what was asked.
    pub async fn run(self) -> ExitCode {
        match self.dispatch().await {
            Ok(()) => ExitCode::SUCCESS,
            Err(Exit(code, error)) => {
                logging::print_error(&format!("edge-agent: {error:#}"));
                ExitCode::from(code)
            }
        }
    }

    fn load(&self) -> Result<Config> {
        Ok(Config::load(&self.config)?)
    }

    async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let config = self.load()?;
        Ok(request(&config.data_dir, method, path, body).await?)
    }

    async fn dispatch(&self) -> Result<(), Exit> {
        match &self.command {
            Command::Init(options) => options.run(self)?,
            Command::Run => crate::agent::run(self.load()?).await?,
            Command::Check => {
                let findings = check::check(&self.config).await;
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
                self.print(&json!(findings), lines)?;
                let of = |level| findings.iter().filter(|finding| finding.level == level).count();
                let (errors, warnings) = (of(Level::Error), of(Level::Warn));
                if errors > 0 {
                    return Err(Exit(1, anyhow::anyhow!("{errors} errors, {warnings} warnings")));
                }
            }
            Command::Plan { file } => {
                let Read { desired, warnings, .. } = self.read_manifest(file).await?;
                let config = self.load()?;
                HostPolicy::new(&config).check(&desired).map_err(|error| refused(file, error))?;
                let keys = crate::access::module_keys::ModuleKeys::load(&config.data_dir)
                    .map_err(anyhow::Error::from)?;
                let plan = crate::deployment::reconciler::plan_once(&config, &keys, &desired)
                    .await
                    .map_err(anyhow::Error::from)?;
                warn(&warnings);
                self.print(&json!({"plan": plan.to_string(), "warnings": warnings}), || plan.to_string())?;
            }
            Command::Apply { file, wait } => {
                let Read { document, warnings, .. } = self.read_manifest(file).await?;
                warn(&warnings);
                let path = match wait {
                    Some(secs) => format!("/apply?wait={secs}"),
                    None => "/apply".to_owned(),
                };
                let answer = self.ask("POST", &path, Some(&document)).await?;
                self.print(&answer, || {
                    if answer["settled"] == true {
                        "applied: its modules run".to_owned()
                    } else {
                        "applied: `edge-agent status` shows how far it is".to_owned()
                    }
                })?;
            }
            Command::Status => {
                let answer = self.ask("GET", "/status", None).await?;
                self.print(&answer, || status_text(&answer))?;
            }
            Command::List => {
                let answer = self.ask("GET", "/status", None).await?;
                self.print(&answer["modules"], || modules_text(&answer["modules"]))?;
            }
            Command::Refusals => {
                let answer = self.ask("GET", "/refusals", None).await?;
                self.print(&answer["refusals"], || refusals_text(&answer["refusals"]))?;
            }
            Command::Call { target, method, payload, timeout } => {
                let payload: Value = match payload {
                    None => Value::Null,
                    Some(text) => schemas::json::from_outside(text.as_bytes()).context("PAYLOAD")?,
                };
                let body = json!({
                    "target": target, "methodName": method, "payload": payload, "responseTimeoutInSeconds": timeout,
                });
                let answer = self.ask("POST", "/call", Some(&body)).await?;
                self.print(&answer, || format!("{} {}", answer["status"], answer["payload"]))?;
            }
            Command::Device(device) => access::device(self, device).await?,
            Command::User(user) => access::user(self, user).await?,
            Command::Quarantine(command) => quarantine::quarantine(self, command).await?,
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(*shell, &mut Self::command(), "edge-agent", &mut script);
                logging::print(String::from_utf8_lossy(&script).trim_end());
            }
            Command::Man { dir } => man(dir)?,
            Command::Routes(Routes::Test { file, message }) => {
                let Read { routes: table, warnings, .. } = self.read_manifest(file).await?;
                warn(&warnings);
                let wrong = |why: String| Exit(2, anyhow::anyhow!("--message: {why}"));
                let asked = schemas::json::from_outside(message.as_bytes())
                    .map_err(|error| wrong(error.to_string()))?;
                // Which modules are its own, when this is a gateway.
                let gateway = self.load().ok().map(|config| config.device_id);
                let told = routes_test::ask(&table, &asked, gateway).map_err(wrong)?;
                self.print(&routes_test::to_json(&told), || routes_test::to_text(&told))?;
            }
        }
        Ok(())
    }

    fn print(&self, json: &Value, text: impl FnOnce() -> String) -> Result<()> {
        let out = if self.json { format!("{json:#}") } else { text() };
        logging::print(out.trim_end());
        Ok(())
    }
}

fn man(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    clap_mangen::generate_to(Cli::command(), dir)
        .with_context(|| format!("writing man pages to {}", dir.display()))
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn modules_text(modules: &Value) -> String {
    let Some(modules) = modules.as_object().filter(|modules| !modules.is_empty()) else {
        return "no modules".to_owned();
    };
    let mut table = Table::new(&["MODULE", "STATUS", "RESTARTS", "IMAGE", "REASON"]);
    for (name, module) in modules {
        let next = module["nextTry"].as_str().map(|at| format!("; next try {at}")).unwrap_or_default();
        let tone = match module["status"].as_str() {
            Some("running") => Tone::Good,
            Some("stopped") | None => Tone::Plain,
            Some(_) => Tone::Bad,
        };
        let reason = format!("{}{next}", text_of(&module["reason"]));
        let cells = [
            name.clone(),
            text_of(&module["status"]),
            text_of(&module["restarts"]),
            text_of(&module["image"]),
            reason,
        ];
        let tones = [Tone::Plain, tone, Tone::Plain, Tone::Plain, Tone::Plain];
        table.row(tones.into_iter().zip(cells));
    }
    table.aligned(Output::of_stdout())
}

fn refusals_text(refusals: &Value) -> String {
    let lines = refusals.as_array().into_iter().flatten().map(|refused| {
        let who = refused["identity"].as_str().filter(|who| !who.is_empty()).unwrap_or("(did not say who)");
        let proof = refused["proof"].as_str().map(|proof| format!("; showed {proof}")).unwrap_or_default();
        format!(
            "{} {who} from {} ({}), {} times since {}: {}{proof}",
            text_of(&refused["last"]),
            text_of(&refused["from"]),
            text_of(&refused["protocol"]),
            refused["count"],
            text_of(&refused["first"]),
            text_of(&refused["why"])
        )
    });
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() {
        "no client was refused since the daemon started".to_owned()
    } else {
        lines.join("\n")
    }
}

fn upstream_name(upstream: &Value) -> &str {
    match upstream["kind"].as_str() {
        Some("central") | None => "central",
        Some(kind) => kind,
    }
}

/// What has a limit.
fn budget_lines(budget: &Value) -> Vec<String> {
    let spent = budget["spent"].as_object().into_iter().flatten();
    spent
        .filter_map(|(cause, spent)| {
            let (bytes, limit) = (spent["bytes"].as_u64()?, spent["limit"].as_u64()?);
            let used_up = if bytes >= limit { "; USED UP: it waits" } else { "" };
            let hours = budget["resetsInSeconds"].as_u64().unwrap_or_default().div_ceil(3600);
            Some(format!(
                "budget      {cause}: {bytes} of {limit} bytes{used_up}; a new day within {hours} h"
            ))
        })
        .collect()
}

fn status_text(status: &Value) -> String {
    let upstream = &status["upstream"];
    let upstream = match (upstream.is_null(), upstream["connected"] == true) {
        (true, _) => "none configured".to_owned(),
        (_, true) => format!("connected since {}", text_of(&upstream["since"])),
        (_, false) => format!("AWAY since {}: {}", text_of(&upstream["since"]), text_of(&upstream["why"])),
    };
    let deployment = &status["deployment"];
    let in_force = match (&deployment["version"], &deployment["problem"]) {
        (Value::Null, _) => "none yet".to_owned(),
        (version, Value::String(problem)) => format!("version {version} REFUSED: {problem}"),
        (version, _) if deployment["settled"] == true => format!("version {version}: everything as wanted"),
        (version, _) => format!("version {version}: {}", text_of(&deployment["description"])),
    };
    let mut lines = vec![
        format!("gateway     {} ({})", text_of(&status["deviceId"]), text_of(&status["hostname"])),
        format!("{:<12}{upstream}", upstream_name(&status["upstream"])),
        format!("deployment  {in_force}"),
        format!("clients     {}", status["clients"].as_array().map_or(0, Vec::len)),
    ];
    let clock = &status["upstream"]["clock"];
    if let (Some(ahead_ms), Some(within_ms)) = (clock["aheadMs"].as_i64(), clock["withinMs"].as_u64()) {
        let secs = |ms: u64| format!("{}.{} s", ms / 1000, ms % 1000 / 100);
        let way = if ahead_ms < 0 { "behind" } else { "ahead of" };
        let (offset, within) = (secs(ahead_ms.unsigned_abs()), secs(within_ms.max(100)));
        lines.push(format!("clock       {offset} {way} central, measured to {within}"));
    }
    for refused in deployment["routesRefused"].as_array().into_iter().flatten() {
        lines.push(format!("route       REFUSED: {}", text_of(refused)));
    }
    for warning in deployment["warnings"].as_array().into_iter().flatten() {
        lines.push(format!("manifest    {}", text_of(warning)));
    }
    let commands = &status["commands"];
    if commands["waiting"] != 0 || commands["running"] != 0 || commands["answersNotTold"] != 0 {
        lines.push(format!(
            "commands    {} wait for their targets, {} run, {} answers that central does not have",
            commands["waiting"], commands["running"], commands["answersNotTold"]
        ));
    }
    lines.extend(budget_lines(&status["upstream"]["budget"]));
    let quarantine = &status["quarantine"];
    if ["messages", "evicted", "damaged", "dropped", "replayed"].iter().any(|key| quarantine[key] != 0) {
        lines.push(format!(
            "quarantine  {} messages that upstream refused, oldest {}; since it was made: put back {}, dropped {}, \
             evicted {}, damaged {}",
            quarantine["messages"],
            text_of(&quarantine["oldest"]),
            quarantine["replayed"],
            quarantine["dropped"],
            quarantine["evicted"],
            quarantine["damaged"]
        ));
    }
    for queue in status["queues"].as_array().into_iter().flatten() {
        let (name, lost) = (text_of(&queue["name"]), &queue["lost"]);
        lines.push(format!(
            "queue       {name}: {} messages wait, oldest {}; {} bytes on disk; lost since it was made: expired {}, \
             evicted {}, damaged {}, refused {}, dropped {}, lost by central's restore {}",
            queue["messages"],
            text_of(&queue["oldest"]),
            queue["bytes"],
            lost["expired"],
            lost["evicted"],
            lost["damaged"],
            lost["refused"],
            lost["dropped"],
            lost["central-restored"]
        ));
        match queue["room"].as_str() {
            Some("refusing") => lines.push(format!("queue       {name}: NO ROOM: it refuses what is new")),
            Some("evicting") => lines
                .push(format!("queue       {name}: little room: older messages give way to its new ones")),
            _ => {}
        }
        for gap in queue["gaps"].as_array().into_iter().flatten() {
            let sender = match text_of(&gap["sender"]) {
                sender if sender.is_empty() => "senders unknown or many".to_owned(),
                sender => sender,
            };
            lines.push(format!(
                "lost        {name}: {} {} of {sender}, within sequences {} to {}; central does not know yet",
                gap["count"],
                text_of(&gap["cause"]),
                gap["firstSequence"],
                gap["lastSequence"]
            ));
        }
    }
    let lost = status["lostByCause"].as_object().into_iter().flatten();
    let lost: Vec<String> =
        lost.filter(|(_, count)| **count != 0).map(|(cause, count)| format!("{cause} {count}")).collect();
    if !lost.is_empty() {
        let not_told = &status["lostNotTold"];
        lines
            .push(format!("lost        in all queues: {}; {not_told} not told central yet", lost.join(", ")));
    }
    let unrouted = &status["unrouted"];
    if unrouted["messages"] != 0 {
        let mut senders: Vec<(u64, &String)> = unrouted["bySender"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(who, n)| (n.as_u64().unwrap_or(0), who))
            .collect();
        senders.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        let most: Vec<String> = senders.iter().take(5).map(|(count, who)| format!("{who} {count}")).collect();
        lines.push(format!(
            "unrouted    {} messages that no route takes were acknowledged and dropped; most of {}",
            unrouted["messages"],
            most.join(", ")
        ));
    }
    if status["acknowledgedAndPartlyRefused"] != 0 {
        lines.push(format!(
            "refused     {} messages that only some of their routes had room for",
            status["acknowledgedAndPartlyRefused"]
        ));
    }
    let counts: Vec<String> = status["mqttServer"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, count)| **count != 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if !counts.is_empty() {
        lines.push(format!("MQTT server {}", counts.join(", ")));
    }
    let output = Output::of_stdout();
    let mut lines: Vec<String> = lines.iter().map(|line| alarming(output, line)).collect();
    lines.push(modules_text(&status["modules"]));
    lines.join("\n")
}

/// A line with its first word in the colour of a tone.
fn first_word(output: Output, tone: Tone, line: &str) -> String {
    let end = line.find(char::is_whitespace).unwrap_or(line.len());
    format!("{}{}", output.toned(tone, &line[..end]), &line[end..])
}

/// A line of `status` in colour, if it tells of something broken: these words are written for no other reason.
fn alarming(output: Output, line: &str) -> String {
    let is_bad = ["AWAY since", "REFUSED", "NO ROOM", "USED UP"].iter().any(|word| line.contains(word));
    output.toned(if is_bad { Tone::Bad } else { Tone::Plain }, line)
}
