//! A daemon with every number of its configuration at an end of what may be written.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "other tests use the rest")]
mod gateway;

use edge_agent::config::Config;
use gateway::Gateway;
use toml::{Table, Value};

/// Sections and keys of whole numbers, from the table of docs/configuration.md, which a test holds against the types.
fn numbers() -> Vec<(Vec<String>, String)> {
    let page = include_str!("../../docs/configuration.md");
    let (_, rest) = page.split_once("<!-- edge.toml: begin -->").unwrap();
    let (table, _) = rest.split_once("<!-- edge.toml: end -->").unwrap();
    let (mut section, mut numbers) = (Vec::new(), Vec::new());
    for line in table.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            let name = heading.trim_matches('`').trim_matches(['[', ']']).replace("NAME", "upstream");
            section = name.split('.').map(str::to_owned).collect();
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if cells.get(2) == Some(&"whole number") {
            numbers.push((section.clone(), cells[1].trim_matches('`').to_owned()));
        }
    }
    numbers
}

fn set(table: &mut Table, section: &[String], key: &str, value: i64) {
    match section.split_first() {
        None => {
            table.insert(key.to_owned(), Value::Integer(value));
        }
        Some((first, rest)) => {
            let inner = table.entry(first.clone()).or_insert_with(|| Value::Table(Table::new()));
            set(inner.as_table_mut().unwrap(), rest, key, value);
        }
    }
}

#[test]
fn with_every_number_at_an_end_of_its_range_the_daemon_starts_answers_and_stops() {
    let numbers = numbers();
    assert!(numbers.len() > 25, "{numbers:?}");
    for value in [0, 1, 1 << 32, 1 << 53] {
        let mut gateway = Gateway::start();
        gateway.stop();
        let path = gateway.dir.path().join("edge.toml");
        let written: Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        let mut all = written.clone();
        let mut taken = Vec::new();
        for (section, key) in &numbers {
            let mut one = written.clone();
            set(&mut one, section, key, value);
            std::fs::write(&path, one.to_string()).unwrap();
            match Config::load(&path) {
                Ok(_) => {
                    set(&mut all, section, key, value);
                    taken.push(key.clone());
                }
                Err(error) => {
                    let error = edge_core::error_chain::chain(&error).to_string();
                    assert!(error.contains(key), "{key} = {value}: {error}");
                }
            }
        }
        assert!(taken.len() > 10, "{value}: {taken:?}");
        std::fs::write(&path, all.to_string()).unwrap();
        gateway.start_again();
        gateway.json(&["check"]);
        gateway.json(&["status"]);
        let added = gateway.command(&["device", "add", "press"]).output().unwrap();
        assert!(added.status.success(), "{value}: {added:?}");
        gateway.stop();
        assert!(!gateway.log().contains("panicked"), "{value}: {}", gateway.log());
    }
}
