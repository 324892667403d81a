//! `central template …`: device templates, beside a central that serves or not.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use central::store::templates;
use central_core::model::options::Options;
use central_core::model::parse::{parse, parse_documents};
use central_core::model::types::Model;
use clap::Subcommand;
use edge_hub::logging;
use edge_hub::terminal::{Table, Tone};
use edge_tls::input_file;
use serde_json::{Value, json};

use super::data::{DataArgs, in_store};
use super::output::print_table;

/// Of a file with a model.
const FILE_BYTES_MAX: u64 = 16 << 20;

#[derive(Subcommand)]
pub(crate) enum TemplateCommand {
    /// Lists every device template with its id, its name and the number of its devices. The output is separated by tabs if it is not
    /// a terminal.
    List,
    /// Prints a device template as JSON, as `PUT /api/deviceTemplates/{id}` takes it. Works while central runs.
    Export {
        /// The template's id, for example 'dtmi:contoso:press;1'.
        id: String,
    },
    /// Checks a file: a device template, or interfaces in DTDL version 2. Prints every problem with its place and rule. Needs no store.
    Check {
        /// The file; `-` for standard input.
        file: PathBuf,
    },
}

pub(crate) fn run(data: &DataArgs, command: TemplateCommand) -> anyhow::Result<()> {
    match command {
        TemplateCommand::List => list(data),
        TemplateCommand::Export { id } => export(data, id),
        TemplateCommand::Check { file } => check(&file),
    }
}

fn list(data: &DataArgs) -> anyhow::Result<()> {
    let config = data.config_for_existing()?;
    let mut table = Table::new(&["ID", "NAME", "DEVICES"]);
    for template in in_store(&config, |c| templates::summaries(c, ""))? {
        table.row([
            (Tone::Plain, template.id),
            (Tone::Plain, template.display_name),
            (Tone::Plain, template.devices.to_string()),
        ]);
    }
    print_table(&table);
    Ok(())
}

fn export(data: &DataArgs, id: String) -> anyhow::Result<()> {
    let config = data.config_for_existing()?;
    let reported = id.clone();
    let template = in_store(&config, move |c| templates::get(c, &id))?;
    let template = template.with_context(|| {
        format!("device template `{reported}` is not stored; `central template list` names those that are")
    })?;
    let mut document = json!(template.document);
    document["@id"] = template.id.into();
    logging::print_json(&document);
    Ok(())
}

fn check(file: &Path) -> anyhow::Result<()> {
    let bytes = input_file::read_or_stdin(file, FILE_BYTES_MAX)
        .with_context(|| format!("reading {}", file.display()))?;
    let document: Option<Value> = serde_json::from_slice(&bytes).ok();
    let parsed = match document.as_ref().and_then(|document| document.get("capabilityModel")) {
        // As central reads it in a template.
        Some(model) => parse_documents(std::slice::from_ref(model), &Options::IOT_CENTRAL),
        None => parse(&bytes, &Options::DTDL),
    };
    match parsed {
        Ok(model) => {
            logging::print(&format!("{}: {}", file.display(), said(&model)));
            Ok(())
        }
        Err(problems) => {
            for problem in &problems.reported {
                logging::print(&problem.to_string());
            }
            anyhow::bail!("{}: {} problems", file.display(), problems.count());
        }
    }
}

fn said(model: &Model) -> String {
    let contents = model.root().map_or(0, |root| model.contents(root).count());
    format!("no problems; {} interfaces, {contents} capabilities of the first", model.interfaces.len())
}
