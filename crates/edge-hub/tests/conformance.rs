//! docs/conformance.md names tests that exist.

#![allow(clippy::unwrap_used, reason = "a test; the leave for them does not reach helper functions")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The tests of a file, by the table's name of it: of the server, or of the codec.
fn tests_of(file: &str) -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = ["tests/mqtt_server", "../mqtt/src"]
        .iter()
        .find_map(|folder| std::fs::read_to_string(root.join(folder).join(file).with_extension("rs")).ok())
        .unwrap_or_else(|| panic!("no file {file}"));
    let mut tests = BTreeSet::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        let name = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "));
        match name {
            Some(name) if is_test => drop(tests.insert(name.split('(').next().unwrap().to_owned())),
            _ => {}
        }
        // In `proptest!` the attribute stands before the function too; arguments may be on lines of their own.
        is_test = line.starts_with("#[test]")
            || line.starts_with("#[tokio::test")
            || (is_test && line.starts_with("#["));
    }
    tests
}

#[test]
fn every_statement_occurs_once_with_a_test_that_exists_or_says_that_there_is_none() {
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/conformance.md");
    let table = std::fs::read_to_string(table).unwrap();
    let (mut files, mut statements) = (BTreeMap::new(), BTreeSet::new());
    let mut version = "";
    for line in table.lines() {
        version = line.strip_prefix("## MQTT ").unwrap_or(version);
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [id, _, held_by] = cells[..] else { continue };
        if !id.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        assert!(
            statements.insert((version.to_owned(), id.to_owned())),
            "MQTT-{id} of {version} stands twice"
        );
        let tests: Vec<&str> = held_by.split('`').filter(|part| part.contains("::")).collect();
        assert!(
            !tests.is_empty() || held_by.contains("no test of its own yet"),
            "MQTT-{id} of {version}: {held_by}"
        );
        for test in tests {
            let (file, name) = test.split_once("::").unwrap();
            let known = files.entry(file.to_owned()).or_insert_with(|| tests_of(file));
            assert!(known.contains(name), "MQTT-{id} of {version}: {file} has no test {name}");
        }
    }
    for version in ["3.1.1", "5.0"] {
        let count = statements.iter().filter(|(of, _)| of == version).count();
        assert!(count > 100, "only {count} statements of {version} were found: has the table another form?");
    }
}
