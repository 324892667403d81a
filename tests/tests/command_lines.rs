//! Both programs' command lines: what their help says, and how they read settings from the environment.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use site_tests::process::binary;

const PROGRAMS: [&str; 2] = ["edge-agent", "central"];

fn run(name: &str, arguments: &[&str]) -> Output {
    Command::new(binary(name).unwrap()).args(arguments).output().unwrap()
}

/// The entries of a section of a help text: what is typed, and its description.
fn section(help: &str, title: &str) -> Vec<(String, String)> {
    let mut entries: Vec<(String, String)> = Vec::new();
    let after = help.lines().skip_while(|line| *line != format!("{title}:")).skip(1);
    for line in after.take_while(|line| line.is_empty() || line.starts_with(' ')) {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim();
        match entries.last_mut() {
            _ if line.is_empty() => {}
            Some((_, text)) if indent > 6 => text.push_str(line),
            _ => {
                let (typed, text) = line.split_once("  ").unwrap_or((line, ""));
                entries.push((typed.to_owned(), text.trim().to_owned()));
            }
        }
    }
    entries
}

/// Walks through a command and those below it. Gives what has no description.
fn undescribed(name: &str, command: &[&str], wrong: &mut Vec<String>, seen: &mut BTreeSet<String>) {
    let arguments: Vec<&str> = command.iter().copied().chain(["--help"]).collect();
    let output = run(name, &arguments);
    let shown = format!("{name} {}", arguments.join(" "));
    assert!(output.status.success(), "{shown}: {output:?}");
    let help = String::from_utf8(output.stdout).unwrap();
    seen.insert(shown.clone());
    let about = help.lines().next().unwrap_or("");
    if about.split_whitespace().count() < 2 || about.starts_with("Usage") {
        wrong.push(format!("{shown}: begins with `{about}`"));
    }
    for title in ["Arguments", "Options", "Commands"] {
        for (typed, text) in section(&help, title) {
            if text.split_whitespace().count() < 2 {
                wrong.push(format!("{shown}: `{typed}` is described by `{text}`"));
            }
        }
    }
    for (below, _) in section(&help, "Commands") {
        if below != "help" {
            let command: Vec<&str> = command.iter().copied().chain([below.as_str()]).collect();
            undescribed(name, &command, wrong, seen);
        }
    }
}

#[test]
fn every_command_argument_and_option_of_both_programs_is_described() {
    for name in PROGRAMS {
        let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
        undescribed(name, &[], &mut wrong, &mut seen);
        println!("{name}: {} commands", seen.len());
        assert!(seen.len() > 15, "{seen:#?}");
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

#[test]
fn both_programs_write_completions_for_a_shell_and_a_man_page_for_each_command() {
    let dir = tempfile::tempdir().unwrap();
    for name in PROGRAMS {
        let completions = run(name, &["completions", "bash"]);
        let script = String::from_utf8(completions.stdout).unwrap();
        assert!(completions.status.success() && script.contains("complete -F _"), "{script}");
        let pages = dir.path().join(name);
        let written = run(name, &["man", pages.to_str().unwrap()]);
        assert!(written.status.success(), "{written:?}");
        let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
        undescribed(name, &[], &mut wrong, &mut seen);
        for command in seen {
            let page = command.trim_end_matches(" --help").replace(' ', "-") + ".1";
            let text = std::fs::read_to_string(pages.join(&page));
            assert!(text.is_ok_and(|text| text.contains(".SH DESCRIPTION")), "{page}");
        }
    }
}

/// What one program says with one variable set, on a configuration that is whole otherwise.
fn with_variable(name: &str, dir: &Path, variable: &str, value: &str) -> String {
    let data = dir.join(name);
    let (prefix, text, arguments) = match name {
        "central" => ("CENTRAL__", "hostname = \"edge\"\n".to_owned(), vec!["id-scope"]),
        _ => {
            let text = format!(
                "device_id = \"gw\"\nhostname = \"edge\"\ndata_dir = {:?}\n",
                data.display().to_string()
            );
            ("EDGE_AGENT__", text, vec!["status"])
        }
    };
    let file = dir.join(format!("{name}.toml"));
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(binary(name).unwrap());
    command.args(arguments).arg("--config").arg(&file).env(format!("{prefix}{variable}"), value);
    if name == "central" {
        command.arg("--data-dir").arg(&data);
    }
    let output = command.output().unwrap();
    assert!(!output.status.success(), "there is neither a daemon nor a store: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn both_programs_read_the_same_variable_alike() {
    let dir = tempfile::tempdir().unwrap();
    for name in PROGRAMS {
        let prefix = name.replace('-', "_").to_uppercase();
        for (variable, value, complaint) in [
            // The key is a text, so 123 is one.
            ("HOSTNAME", "123", None),
            ("hostname", "123", None),
            ("NO_SUCH_KEY", "1", Some("no such key")),
            ("LIMITS__NO_SUCH_KEY", "1", Some("no such key")),
            ("LIMITS", "1", Some("invalid type")),
            ("HOSTNAME__X", "1", Some("a key, not a section")),
            ("LIMITS__SUBSCRIPTIONS", "many", Some("write a whole number")),
        ] {
            let said = with_variable(name, dir.path(), variable, value);
            let named = format!("{prefix}__{variable}");
            match complaint {
                None => assert!(!said.contains(&named), "{named}={value}: {said}"),
                Some(complaint) => {
                    assert!(said.contains(&named) && said.contains(complaint), "{named}={value}: {said}");
                }
            }
        }
    }
}
