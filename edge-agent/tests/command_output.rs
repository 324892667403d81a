//! Every command of `edge-agent` with a standard output that takes nothing: a full disk, a reader that is gone, none at all.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "other tests use the rest")]
mod gateway;

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::process::{Command, Output, Stdio};

use clap::CommandFactory as _;
use edge_agent::cli::Cli;
use gateway::{Gateway, init, program};

/// Every command, by its words, with arguments that it takes. `{n}` is another number at each run, so that what is added is new.
const COMMANDS: &[(&str, &[&str])] = &[
    ("check", &[]),
    ("plan", &["MANIFEST"]),
    ("apply", &["MANIFEST"]),
    ("history", &[]),
    // No such deployment.
    ("rollback", &["999"]),
    ("status", &[]),
    ("status", &["--json"]),
    ("list", &[]),
    ("logs", &["filter"]),
    // Another file at each run.
    ("support-bundle", &["--output", "BUNDLE-{n}"]),
    // Without its argument: a module would be waited for, since there is no engine.
    ("restart", &[]),
    ("call", &["filter", "ping", "--timeout", "5"]),
    ("device add", &["press-{n}"]),
    ("device token", &["press"]),
    ("device list", &[]),
    ("device show", &["press"]),
    ("device block", &["press"]),
    ("device unblock", &["press"]),
    ("device remove", &["press-{n}"]),
    ("user add", &["plc-{n}"]),
    ("user list", &[]),
    ("user remove", &["plc-{n}"]),
    ("refusals", &[]),
    ("quarantine list", &[]),
    ("quarantine show", &["1"]),
    ("quarantine replay", &["--all"]),
    ("quarantine drop", &["--all"]),
    ("routes test", &["MANIFEST", "--message", r#"{"from":"press","body":{}}"#]),
    ("completions", &["bash"]),
    ("man", &["MAN"]),
    // What these do is written before they print.
    ("init", &[]),
    // They print nothing, and are refused because a daemon runs.
    ("run", &[]),
    ("remove-modules", &[]),
];

/// What takes the output.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reader {
    /// One that reads all.
    Whole,
    /// A full disk.
    Full,
    /// It is gone.
    Gone,
    /// There is no standard output at all.
    None,
}

/// The commands without subcommands, as they are called.
fn leaves(command: &clap::Command, before: &str, found: &mut BTreeSet<String>) {
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let words = format!("{before}{}", sub.get_name());
        if sub.get_subcommands().next().is_none() {
            found.insert(words);
        } else {
            leaves(sub, &format!("{words} "), found);
        }
    }
}

fn run(gateway: &Gateway, words: &str, arguments: &[&str], reader: Reader, n: usize) -> Output {
    let dir = gateway.dir.path();
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/demo.json");
    let mut command = if words == "init" {
        init(&tempfile::tempdir_in(dir).unwrap().keep())
    } else {
        let arguments: Vec<String> = arguments
            .iter()
            .map(|argument| match *argument {
                "MANIFEST" => manifest.to_owned(),
                "MAN" => dir.join("man").display().to_string(),
                argument => argument
                    .replace("BUNDLE", &dir.join("bundle").display().to_string())
                    .replace("{n}", &n.to_string()),
            })
            .collect();
        let all: Vec<&str> = words.split(' ').chain(arguments.iter().map(String::as_str)).collect();
        gateway.command(&all)
    };
    command.stderr(Stdio::piped());
    match reader {
        Reader::Whole => command.output().unwrap(),
        Reader::Full => {
            command.stdout(OpenOptions::new().write(true).open("/dev/full").unwrap());
            command.spawn().unwrap().wait_with_output().unwrap()
        }
        Reader::Gone => {
            let (gone, writer) = std::io::pipe().unwrap();
            drop(gone);
            command.stdout(writer);
            command.spawn().unwrap().wait_with_output().unwrap()
        }
        Reader::None => {
            let mut shell = Command::new("sh");
            shell.args(["-c", "exec \"$@\" >&-", "sh"]).arg(command.get_program()).args(command.get_args());
            shell.stdin(Stdio::null()).stderr(Stdio::piped());
            shell.spawn().unwrap().wait_with_output().unwrap()
        }
    }
}

#[test]
fn every_command_says_when_its_output_cannot_be_written_and_ends_well_when_its_reader_is_gone() {
    let mut all = BTreeSet::new();
    leaves(&Cli::command(), "", &mut all);
    let tried: BTreeSet<String> = COMMANDS.iter().map(|(words, _)| (*words).to_owned()).collect();
    assert_eq!(tried, all, "each command is tried");

    let gateway = Gateway::start();
    let added = gateway.command(&["device", "add", "press"]).output().unwrap();
    assert!(added.status.success(), "{added:?}");
    let (mut printed, mut n) = (0, 0);
    for (words, arguments) in COMMANDS {
        let case = |reader: Reader| format!("{words} {arguments:?} {reader:?}");
        let mut run = |reader: Reader| {
            n += 1;
            // What is removed must be there.
            for (remove, add) in [("device remove", ["device", "add"]), ("user remove", ["user", "add"])] {
                if *words == remove {
                    let name = arguments[0].replace("{n}", &n.to_string());
                    assert!(gateway.command(&[add[0], add[1], &name]).output().unwrap().status.success());
                }
            }
            run(&gateway, words, arguments, reader, n)
        };
        let whole = run(Reader::Whole);
        printed += usize::from(!whole.stdout.is_empty());
        for reader in [Reader::Full, Reader::Gone, Reader::None] {
            let output = run(reader);
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(!error.contains("panicked"), "{}: {error}", case(reader));
            if reader == Reader::Full && !whole.stdout.is_empty() {
                assert_eq!(output.status.code(), Some(1), "{}: {error}", case(reader));
                if whole.status.success() {
                    assert!(error.contains("standard output"), "{}: {error}", case(reader));
                    assert!(error.contains("No space left on device"), "{}: {error}", case(reader));
                }
            } else {
                assert_eq!(output.status.code(), whole.status.code(), "{}: {error}", case(reader));
            }
        }
    }
    assert!(printed > 15, "{printed}");
}

#[test]
fn help_and_version_that_cannot_be_written_are_a_failure_too() {
    for arguments in [&["--help"][..], &["--version"], &["help", "device"], &["device", "add", "--help"]] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = program().args(arguments).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
        let output = output.wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        assert!(error.contains("standard output"), "{arguments:?}: {error}");
    }
}
