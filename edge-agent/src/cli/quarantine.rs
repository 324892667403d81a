//! `edge-agent quarantine`: messages that upstream rejected because of their content.

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use schemas::control::{QuarantinePage, QuarantinedDetails, QuarantinedMessage};
use serde_json::json;

use super::global_options::GlobalOptions;
use super::text::or_dash;

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
            let path = format!("/quarantine?after={after}&limit={limit}");
            let (answer, page) = options.answer("GET", &path, None).await?;
            options.print(&answer, || list_text(&page))
        }
        Quarantine::Show { number } => {
            let (answer, details) = options.answer("GET", &format!("/quarantine/{number}"), None).await?;
            options.print(&answer, || show_text(&details))
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
            let path = format!("/quarantine?after={from}&limit=1000");
            let (_, page) = options.answer::<QuarantinePage>("GET", &path, None).await?;
            numbers.extend(page.messages.iter().map(|message| message.number));
            after = page.next_after;
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    let mut all = Vec::new();
    for number in numbers {
        match options.request(method, &format!("/quarantine/{number}{verb}"), None).await {
            Ok(_) => all.push(number),
            Err(error) if !all.is_empty() => bail!("{error:#} ({} messages were {done} before)", all.len()),
            Err(error) => return Err(error),
        }
    }
    let count = all.len();
    options.print(&json!({done: all}), || format!("{done}: {count} messages"))
}

fn list_text(page: &QuarantinePage) -> String {
    if page.messages.is_empty() {
        return "no messages in quarantine".to_owned();
    }
    let mut lines =
        vec![format!("{:>8}  {:<24}  {:<24}  {:>7}  WHY", "NUMBER", "SENDER", "REFUSED", "BYTES")];
    for message in &page.messages {
        let bytes = message.bytes.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
        let QuarantinedMessage { number, refused_at, why, .. } = message;
        let sender = or_dash(&message.sender);
        lines.push(format!("{number:>8}  {sender:<24}  {refused_at:<24}  {bytes:>7}  {why}"));
    }
    if let Some(after) = page.next_after {
        lines.push(format!("of {}; more with --after {after}", page.count));
    }
    lines.join("\n")
}

fn show_text(details: &QuarantinedDetails) -> String {
    let QuarantinedDetails { message, topic, body, body_base64 } = details;
    let code = message.code.map(|code| format!(" (reason code {code:#04x})")).unwrap_or_default();
    let body = match body_base64 {
        Some(base64) => format!("base64 {base64}"),
        None => or_dash(body).to_owned(),
    };
    let sender = or_dash(&message.sender);
    let QuarantinedMessage { number, enqueued_at, refused_at, why, queue, sequence, .. } = message;
    format!(
        "number    {number}\nsender    {sender}\naccepted  {enqueued_at}\nrefused   {refused_at}\nwhy       {why}{code}\n\
         queue     {queue}, sequence {sequence}\ntopic     {}\nbody      {body}",
        or_dash(topic),
    )
}
