//! A newcomer's questions are answered in two steps from the README: a page that it links, then the files that this page names in the
//! section that the question leads to. The questions stand in a table of CONTRIBUTING.md.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

/// The heading of the table.
const HEADING: &str = "ten-questions-of-a-newcomer";
const QUESTIONS_MIN: usize = 10;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(page: &str) -> String {
    std::fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// The targets of the links in a text.
fn links(text: &str) -> Vec<&str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).collect()
}

/// The texts between backticks.
fn code(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let title = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// A heading with what follows it, up to the next heading of its level or above; the whole page without an anchor.
fn section(page: &str, of: &str) -> Option<String> {
    if of.is_empty() {
        return Some(page.to_owned());
    }
    let level = |line: &str| line.len() - line.trim_start_matches('#').len();
    let mut lines = page.lines().skip_while(|line| level(line) == 0 || anchor(line) != of);
    let heading = lines.next()?;
    let within = lines.take_while(|line| !(1..=level(heading)).contains(&level(line)));
    Some(within.collect::<Vec<_>>().join("\n"))
}

/// The cells of a table's rows, without its head.
fn rows(table: &str) -> Vec<Vec<&str>> {
    let rows = table.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// What is wrong with the answer of a question: its page, which files may follow, and where the README leads.
fn wrong(row: &[&str], readme: &[&str]) -> Option<String> {
    let [question, page, files] = row else { return Some(format!("{row:?} has not three cells")) };
    let Some(link) = links(page).first().copied() else { return Some(format!("{question}: no page")) };
    let (path, of) = link.split_once('#').unwrap_or((link, ""));
    if !readme.iter().any(|target| target.split('#').next() == Some(path)) {
        return Some(format!("{question}: README.md has no link to {path}"));
    }
    let Some(section) = section(&read(path), of) else {
        return Some(format!("{question}: {link} has no such heading"));
    };
    let files: Vec<&str> = code(files).into_iter().filter(|name| name.contains('/')).collect();
    if files.is_empty() {
        return Some(format!("{question}: no file"));
    }
    let named = code(&section);
    files.into_iter().find_map(|file| {
        if !root().join(file).is_file() {
            return Some(format!("{question}: {file} does not exist"));
        }
        (!named.contains(&file)).then(|| format!("{question}: {link} does not name {file}"))
    })
}

#[test]
fn each_question_of_a_newcomer_is_answered_in_two_steps_from_the_readme() {
    let readme = read("README.md");
    let readme = links(&readme);
    assert!(readme.contains(&"CONTRIBUTING.md"), "README.md leads to the questions");
    let table = section(&read("CONTRIBUTING.md"), HEADING).unwrap();
    let rows = rows(&table);
    assert!(rows.len() >= QUESTIONS_MIN, "{} questions", rows.len());
    let wrong: Vec<String> = rows.iter().filter_map(|row| wrong(row, &readme)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_question_without_a_path_from_the_readme_is_found() {
    let readme = ["docs/architecture.md", "CONTRIBUTING.md"];
    let page = "[a](docs/architecture.md#tasks-and-failures)";
    assert_eq!(wrong(&["?", page, "`crates/edge-hub/src/tasks.rs`"], &readme), None);
    let found = [
        wrong(&["?", page, "`crates/edge-hub/src/tasks.rs`"], &readme[1..]),
        wrong(&["?", page, "`crates/edge-hub/src/nothing.rs`"], &readme),
        wrong(&["?", page, "`crates/edge-hub/src/listener.rs`"], &readme),
        wrong(&["?", page, "the files that it names"], &readme),
        wrong(&["?", "[a](docs/architecture.md#nothing)", "`crates/edge-hub/src/tasks.rs`"], &readme),
        wrong(&["?", "this page", "`crates/edge-hub/src/tasks.rs`"], &readme),
        wrong(&["?", page], &readme),
    ];
    assert!(found.iter().all(Option::is_some), "{found:#?}");
}
