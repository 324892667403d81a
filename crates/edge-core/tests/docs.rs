//! The documents are true of the tree and written in the terms of the field: paths and links lead somewhere, and neither a page nor a
//! text of the programs uses a word in a sense that only this project knows.

#![allow(clippy::unwrap_used)]

mod sources;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sources::{CRATES, product_files, tokens};

/// Files outside docs/ that a newcomer reads. CHANGELOG.md is history: it names files and terms of its time.
const PAGES: [&str; 4] = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "manifests/README.md"];
/// Folders at the top of the repository. A path in a page begins with one of them.
const FOLDERS: [&str; 11] = [
    "schemas",
    "crates",
    "edge-agent",
    "central",
    "modules",
    "manifests",
    "tests",
    "docs",
    "scripts",
    "packaging",
    "fuzz",
];
/// Paths that exist after a build only, and paths of other projects that begin with a folder of this one.
const NOT_IN_THE_TREE: [&str; 1] = ["edge-agent/edge-agent.toml"];

/// Words that the glossary replaced, and the phrases in which each is plain English.
const BANNED: [(&str, &[&str]); 41] = [
    ("asked", &["asked for", "asked questions"]),
    ("blame", &[]),
    ("boxes", &[]),
    ("carrier", &[]),
    ("carriers", &[]),
    ("deployer", &[]),
    ("door", &[]),
    ("doors", &[]),
    ("entrance", &[]),
    ("entrances", &[]),
    ("gives way", &[]),
    ("give way", &[]),
    ("hands", &[]),
    ("house", &[]),
    ("houses", &[]),
    ("judge", &[]),
    ("judged", &[]),
    ("judgement", &[]),
    ("judges", &[]),
    ("lane", &[]),
    ("lanes", &[]),
    ("let in", &[]),
    ("letters", &["letters and digits", "capital letters", "letters, digits", "letters do not"]),
    ("looks", &["looks like", "looks up"]),
    ("mailbox", &[]),
    ("mailboxes", &[]),
    ("manner", &[]),
    ("news", &[]),
    ("postman", &[]),
    ("room", &["machine room", "control room"]),
    ("rooms", &[]),
    ("standing", &[]),
    ("stands", &["stands for"]),
    ("swallow", &[]),
    ("swallowed", &[]),
    ("swallows", &[]),
    ("told", &[]),
    ("way in", &[]),
    ("wish", &[]),
    ("wishes", &[]),
    ("words", &["user-visible words", "reserved words"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn markdown(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            markdown(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// Every page, by its path from the root, with its text.
fn pages() -> Vec<(String, String)> {
    let mut found: Vec<PathBuf> = PAGES.iter().map(|page| root().join(page)).collect();
    markdown(&root().join("docs"), &mut found);
    found.sort();
    let page = |path: PathBuf| {
        let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        (name, std::fs::read_to_string(path).unwrap())
    };
    found.into_iter().map(page).collect()
}

fn is_of_path(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-./$".contains(c)
}

/// The paths from the root that a line names, in backticks or not, up to the first placeholder: `fuzz/corpus/{target}` names
/// `fuzz/corpus/`.
fn paths(line: &str) -> Vec<&str> {
    let mut paths = Vec::new();
    let mut before = ' ';
    for part in line.split_inclusive(|c| !is_of_path(c)) {
        let path = part.trim_end_matches(|c| !is_of_path(c)).trim_end_matches('.');
        let follows = before;
        before = part.chars().next_back().unwrap_or(' ');
        let folder = path.split_once('/').map_or("", |(folder, _)| folder);
        // What follows `}`, `…` or `:` is the end of a topic, a URL or an image's name.
        if FOLDERS.contains(&folder) && !['}', '…', ':', '%', '{'].contains(&follows) {
            paths.push(path);
        }
    }
    paths
}

#[test]
fn every_path_that_a_page_names_exists() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for (page, text) in pages() {
        for (number, line) in text.lines().enumerate() {
            for path in paths(line) {
                checked += 1;
                if !NOT_IN_THE_TREE.contains(&path) && !root().join(path).exists() {
                    wrong.push(format!("{page}:{}: {path}", number + 1));
                }
            }
        }
    }
    assert!(checked > 100, "only {checked} paths were found");
    assert!(wrong.is_empty(), "these do not exist:\n{}", wrong.join("\n"));
}

/// The targets of a page's links.
fn links(text: &str) -> Vec<&str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).collect()
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| -> String {
        let title = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_relative_link_leads_to_a_file_and_to_a_heading_that_exist() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for (page, text) in pages() {
        let folder = root().join(&page).parent().unwrap().to_owned();
        for link in links(&text).into_iter().filter(|link| !link.contains("://")) {
            checked += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { root().join(&page) } else { folder.join(file) };
            if !target.exists() {
                wrong.push(format!("{page}: {link}: no such file"));
            } else if !anchor.is_empty()
                && !anchors(&std::fs::read_to_string(target).unwrap()).contains(anchor)
            {
                wrong.push(format!("{page}: {link}: no such heading"));
            }
        }
    }
    assert!(checked > 50, "only {checked} links were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The prose of a page, line by line: without code, and without what a test writes from docstrings and messages of the programs.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let (mut is_fenced, mut is_generated) = (false, false);
    for (number, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            is_fenced = !is_fenced;
        }
        if line.starts_with("<!--") {
            is_generated = line.contains("begin");
        }
        let is_code = is_fenced || line.starts_with("    ");
        if is_code || is_generated {
            continue;
        }
        let spans = line.split('`').step_by(2).collect::<Vec<_>>().join(" ` ");
        // A link's target is a file's name.
        let mut parts = spans.split("](");
        let first = parts.next().unwrap_or("").to_owned();
        let text =
            parts.fold(first, |text, part| text + "] " + part.split_once(')').map_or("", |(_, rest)| rest));
        lines.push((number + 1, text.to_lowercase()));
    }
    lines
}

/// The banned words of a line of prose in lower case.
fn banned(line: &str) -> Vec<&'static str> {
    let is_of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-');
    let mut found = Vec::new();
    for (word, exceptions) in BANNED {
        let mut rest = line.to_owned();
        for exception in exceptions {
            rest = rest.replace(exception, "");
        }
        let is_alone = |at: usize| {
            !is_of_word(rest[..at].chars().next_back()) && !is_of_word(rest[at + word.len()..].chars().next())
        };
        if rest.match_indices(word).any(|(at, _)| is_alone(at)) {
            found.push(word);
        }
    }
    found
}

#[test]
fn no_page_uses_a_word_that_the_glossary_replaced() {
    let mut wrong = Vec::new();
    for (page, text) in pages() {
        for (number, line) in prose(&text) {
            wrong.extend(banned(&line).iter().map(|word| format!("{page}:{number}: `{word}`")));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} words. Write the term of the field (MQTT, Docker, IoT Hub) instead:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// The string literals of a source that are prose, each with its line: two words at least.
fn texts(source: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut line = 1;
    for token in tokens(source) {
        if token.len() > 2
            && (token.starts_with('"') || token.starts_with("r#"))
            && token.trim().contains(' ')
        {
            let text = token.split('`').step_by(2).collect::<Vec<_>>().join(" ` ");
            found.push((line, text.replace("\\\n", " ").to_lowercase()));
        }
        line += token.matches('\n').count();
    }
    found
}

#[test]
fn no_text_of_the_programs_uses_a_word_that_the_glossary_replaced() {
    let mut wrong = Vec::new();
    for name in CRATES {
        for (file, source) in product_files(name) {
            for (line, text) in texts(&source) {
                wrong.extend(banned(&text).iter().map(|word| format!("{file}:{line}: `{word}`: {text}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{} texts:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn no_comment_uses_a_word_that_the_glossary_replaced() {
    let mut wrong = Vec::new();
    for name in CRATES {
        for (file, source) in product_files(name) {
            for (number, line) in source.lines().enumerate() {
                let Some(comment) = line.trim_start().strip_prefix("//") else { continue };
                let comment = comment.split('`').step_by(2).collect::<Vec<_>>().join(" ` ").to_lowercase();
                let words = banned(&comment);
                wrong.extend(words.iter().map(|word| format!("{file}:{}: `{word}`: {comment}", number + 1)));
            }
        }
    }
    assert!(wrong.is_empty(), "{} comments:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn texts_are_found_in_a_source() {
    let source = "// \"a door\"\nf('\"', \"the \\\"door\\\" is open\", 'a, \"door\", \"one \\\n two\", r#\"a \"raw\" door\"#);";
    let found = texts(source);
    let lines: Vec<usize> = found.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [2, 2, 3], "{found:?}");
    assert_eq!(banned(&found[0].1), ["door"]);
    assert_eq!(banned(&found[2].1), ["door"]);
}

#[test]
fn paths_links_and_words_are_found_in_a_page() {
    let line = "See `crates/edge-core/src/lib.rs`, docs/protocol.md. and `devices/{d}/modules/{m}`; `target/x`, tests/{a}/b.";
    assert_eq!(paths(line), ["crates/edge-core/src/lib.rs", "docs/protocol.md", "tests/"]);
    assert_eq!(links("[a](b.md) ![c](d/e.png)"), ["b.md", "d/e.png"]);
    assert!(anchors("## The command, `x`: a-b").contains("the-command-x-a-b"));
    let page = "The front door. `door` [x](door.md)\n    door\n<!-- begin -->\ndoor\n<!-- end -->\nindoor";
    let found: Vec<_> = prose(page).iter().map(|(number, line)| (*number, banned(line))).collect();
    assert_eq!(found, [(1, vec!["door"]), (5, vec![]), (6, vec![])]);
    assert!(banned("it stands for a name, and letters and digits").is_empty());
}
