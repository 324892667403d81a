//! One name is one public type of a crate, a documentation comment says what the name does not, and no name has a word that the
//! glossary replaced.

#![allow(clippy::unwrap_used)]

mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sources::{CRATES, is_of_name, product_files, tokens};

/// Words that the glossary replaced. Not among them: those that are terms elsewhere, such as the words of a grammar or the rounds of
/// a measurement.
const REPLACED: [&str; 57] = [
    "asked",
    "asking",
    "asks",
    "blame",
    "blamed",
    "blames",
    "boxes",
    "carrier",
    "carriers",
    "deployer",
    "door",
    "doors",
    "gap",
    "gaps",
    "hand",
    "handed",
    "hands",
    "house",
    "houses",
    "judge",
    "judged",
    "judgement",
    "judges",
    "judging",
    "lane",
    "lanes",
    "look",
    "looked",
    "looks",
    "mail",
    "mailbox",
    "mailboxes",
    "mails",
    "manner",
    "mark",
    "marked",
    "marks",
    "news",
    "postman",
    "room",
    "rooms",
    "standing",
    "stands",
    "stood",
    "swallow",
    "swallowed",
    "swallows",
    "tell",
    "telling",
    "tells",
    "told",
    "untold",
    "wanted",
    "way",
    "ways",
    "wish",
    "wishes",
];
/// Names that have one and keep it: Unicode's, tokio's, and events that are missing in a sequence.
const KEPT: [&str; 3] = ["byte_order_mark", "mark_unchanged", "has_gap"];

/// The name of the item that a line declares.
fn item(line: &str) -> Option<&str> {
    let keywords = ["pub", "const", "static", "async", "fn", "struct", "enum", "trait", "type", "mod"];
    let mut names = line.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '#');
    names
        .find(|name| !name.is_empty() && !keywords.contains(name) && !["crate", "super", "in"].contains(name))
}

/// The type that a line makes public.
fn public_type(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub ")?;
    ["struct ", "enum ", "trait ", "type "].iter().find_map(|kind| item(rest.strip_prefix(kind)?))
}

#[test]
fn no_two_public_types_of_a_crate_share_a_name() {
    let mut wrong = Vec::new();
    for name in CRATES {
        let mut types: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (file, text) in product_files(name) {
            for found in text.lines().filter_map(public_type) {
                types.entry(found.to_owned()).or_default().push(file.clone());
            }
        }
        types.retain(|_, files| files.len() > 1);
        if !types.is_empty() {
            wrong.push(format!("{name}: {types:#?}"));
        }
    }
    assert!(wrong.is_empty(), "rename all but one:\n{}", wrong.join("\n"));
}

/// The words of a name or a text, in lower case, without endings.
fn words(text: &str) -> Vec<String> {
    let mut spaced = String::new();
    for c in text.chars() {
        if c.is_uppercase() {
            spaced.push(' ');
        }
        spaced.push(if c.is_alphanumeric() { c.to_ascii_lowercase() } else { ' ' });
    }
    let stem = |word: &str| {
        let endings = ["ies", "es", "s", "ed", "ing"];
        endings.iter().find_map(|ending| word.strip_suffix(ending)).unwrap_or(word).to_owned()
    };
    spaced.split_whitespace().map(stem).collect()
}

/// Whether a comment of three words or fewer says nothing but the name. Code in it, such as a key of a file, says something.
fn repeats(comment: &str, name: &str) -> bool {
    const FILLERS: [&str; 21] = [
        "a", "an", "the", "of", "its", "it", "in", "on", "for", "to", "is", "thi", "that", "and", "by",
        "with", "at", "as", "be", "it'", "i",
    ];
    if comment.contains('`') || comment.split_whitespace().count() > 3 {
        return false;
    }
    let name = words(name);
    let mut said = words(comment).into_iter().filter(|word| !FILLERS.contains(&word.as_str())).peekable();
    said.peek().is_some() && said.all(|word| name.contains(&word))
}

#[test]
fn no_comment_of_three_words_repeats_the_name() {
    let mut wrong = Vec::new();
    for name in CRATES {
        let mut found = Vec::new();
        for (file, text) in product_files(name) {
            let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
            for (number, line) in lines.iter().enumerate() {
                let is_alone = !number.checked_sub(1).is_some_and(|before| lines[before].starts_with("///"));
                let Some(comment) = line.strip_prefix("///").filter(|_| is_alone) else { continue };
                let next = lines[number + 1..].iter().find(|line| !line.starts_with("#["));
                if next.and_then(|next| item(next)).is_some_and(|name| repeats(comment, name)) {
                    found.push(format!("{file}:{}:{comment}", number + 1));
                }
            }
        }
        wrong.extend(found);
    }
    assert!(wrong.is_empty(), "say what the name does not, or nothing:\n{}", wrong.join("\n"));
}

/// The names in a source, without comments and texts.
fn names(source: &str) -> BTreeSet<&str> {
    tokens(source).filter(|token| !token.starts_with("r#\"") && token.starts_with(is_of_name)).collect()
}

/// The words of a name that the glossary replaced.
fn replaced(name: &str) -> Vec<String> {
    let is_constant = name.chars().all(|c| !c.is_lowercase());
    let mut spaced = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !is_constant {
            spaced.push('_');
        }
        spaced.push(c.to_ascii_lowercase());
    }
    for kept in KEPT {
        spaced = spaced.replace(kept, "");
    }
    spaced.split('_').filter(|word| REPLACED.contains(word)).map(str::to_owned).collect()
}

#[test]
fn no_name_has_a_word_that_the_glossary_replaced() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for name in CRATES.iter().chain(&["tests", "fuzz"]) {
        for folder in ["src", "tests", "examples", "benches", "fuzz_targets"] {
            let folder = root.join(name).join(folder);
            if folder.exists() {
                sources::sources(&folder, &mut files);
            }
        }
    }
    let mut wrong = BTreeSet::new();
    for file in &files {
        let path = file.strip_prefix(&root).unwrap().display();
        let stem = file.file_stem().unwrap().to_string_lossy();
        let source = std::fs::read_to_string(file).unwrap();
        for name in names(&source).into_iter().chain([&*stem]) {
            wrong.extend(replaced(name).iter().map(|word| format!("{path}: `{name}`: {word}")));
        }
    }
    assert!(files.len() > 500, "only {} files were found", files.len());
    let all: Vec<_> = wrong.iter().map(String::as_str).collect();
    assert!(all.is_empty(), "{} names. Write the term of the field:\n{}", all.len(), all.join("\n"));
}

#[test]
fn names_and_comments_are_read() {
    assert_eq!(public_type("    pub struct Next<'a> {"), Some("Next"));
    assert_eq!(public_type("pub(crate) struct Next {"), None);
    assert_eq!(item("pub fn method_call(name: &str)"), Some("method_call"));
    assert_eq!(item("device_id: DeviceId,"), Some("device_id"));
    assert!(repeats(" Its id.", "device_id") && repeats(" Calls a method.", "method_call"));
    assert!(!repeats(" Milliseconds.", "timeout") && !repeats(" `[limits]`", "Limits"));
    let source = "fn a<'told>(b: &'told str) { c('\\'', \"door \\\" door\", r#\"lane\"#) } // wish";
    assert_eq!(names(source), BTreeSet::from(["a", "b", "c", "fn", "str", "told"]));
    assert_eq!(replaced("ToldDevices"), ["told"]);
    assert_eq!(replaced("GAP_BYTES"), ["gap"]);
    assert!(replaced("has_gap").is_empty() && replaced("BYTE_ORDER_MARK").is_empty());
    assert!(replaced("toldness").is_empty() && replaced("roommate").is_empty());
}
