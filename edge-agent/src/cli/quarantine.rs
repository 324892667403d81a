//! `edge-agent quarantine`: messages that upstream rejected because of their content.

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::global_options::GlobalOptions;
use super::text::text_of;

/// Messages that upstream rejected because of their content.
#[derive(Subcommand)]
pub(super) enum Quarantine {
    /// List them, oldest first.
    List {
        /// List only those with higher numbers.
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        after: u64,
        /// The largest number of entries to list.
        #[arg(long, value_name = "COUNT", default_value_t = 100)]
        limit: usize,
    },
    /// Show one with topic and body.
    Show {
        /// Its number, as `edge-agent quarantine list` shows it.
        number: u64,
    },
    /// Put messages back at the end of their queue.
    Replay(Which),
    /// Delete messages; they count as dropped.
    Drop(Which),
}

/// Which messages.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct Which {
    /// Their numbers.
    numbers: Vec<u64>,
    /// All that are in the quarantine now.
    #[arg(long)]
    all: bool,
}

pub(super) async fn quarantine(options: &GlobalOptions, command: &Quarantine) -> Result<()> {
    match command {
        Quarantine::List { after, limit } => {
            let answer =
                options.ask("GET", &format!("/quarantine?after={after}&limit={limit}"), None).await?;
            options.print(&answer, || list_text(&answer))
        }
        Quarantine::Show { number } => {
            let answer = options.ask("GET", &format!("/quarantine/{number}"), None).await?;
            options.print(&answer, || show_text(&answer))
        }
        Quarantine::Replay(which) => each(options, which, "POST", "/replay", "replayed").await,
        Quarantine::Drop(which) => each(options, which, "DELETE", "", "dropped").await,
    }
}

/// Oldest first. One that is gone in the meantime is an error only when it was named.
async fn each(options: &GlobalOptions, which: &Which, method: &str, verb: &str, done: &str) -> Result<()> {
    let mut numbers = which.numbers.clone();
    if which.all {
        let mut after = Some(0);
        while let Some(from) = after {
            let page = options.ask("GET", &format!("/quarantine?after={from}&limit=1000"), None).await?;
            let messages = page["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
            numbers.extend(messages.iter().filter_map(|message| message["number"].as_u64()));
            after = page["nextAfter"].as_u64();
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    let mut all = Vec::new();
    for number in numbers {
        match options.ask(method, &format!("/quarantine/{number}{verb}"), None).await {
            Ok(_) => all.push(number),
            Err(error) if !all.is_empty() => bail!("{error:#} ({} messages were {done} before)", all.len()),
            Err(error) => return Err(error),
        }
    }
    let count = all.len();
    options.print(&json!({done: all}), || format!("{done}: {count} messages"))
}

fn list_text(answer: &Value) -> String {
    let messages = answer["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    if messages.is_empty() {
        return "no messages in quarantine".to_owned();
    }
    let mut lines =
        vec![format!("{:>8}  {:<24}  {:<24}  {:>7}  WHY", "NUMBER", "SENDER", "REFUSED", "BYTES")];
    for message in messages {
        lines.push(format!(
            "{:>8}  {:<24}  {:<24}  {:>7}  {}",
            text_of(&message["number"]),
            text_of(&message["sender"]),
            text_of(&message["refusedAt"]),
            text_of(&message["bytes"]),
            text_of(&message["why"])
        ));
    }
    if let Some(after) = answer["nextAfter"].as_u64() {
        lines.push(format!("of {}; more with --after {after}", answer["count"]));
    }
    lines.join("\n")
}

fn show_text(message: &Value) -> String {
    let code = message["code"].as_u64().map(|code| format!(" (reason code {code:#04x})")).unwrap_or_default();
    let body = match &message["bodyBase64"] {
        Value::String(base64) => format!("base64 {base64}"),
        _ => text_of(&message["body"]),
    };
    format!(
        "number    {}\nsender    {}\naccepted  {}\nrefused   {}\nwhy       {}{code}\nqueue     {}, sequence {}\ntopic     {}\nbody      {body}",
        text_of(&message["number"]),
        text_of(&message["sender"]),
        text_of(&message["enqueuedAt"]),
        text_of(&message["refusedAt"]),
        text_of(&message["why"]),
        text_of(&message["queue"]),
        text_of(&message["sequence"]),
        text_of(&message["topic"]),
    )
}
