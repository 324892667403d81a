//! The sources of the product, as the tests of the tree read them.

#![allow(dead_code, reason = "each test uses some of it")]

use std::path::{Path, PathBuf};

/// The folders of every crate that is part of a program or of a module.
pub(crate) const CRATES: [&str; 14] = [
    "schemas",
    "crates/amqp",
    "crates/mqtt",
    "crates/tls",
    "crates/unix-http",
    "crates/edge-core",
    "crates/edge-buffer",
    "crates/edge-hub",
    "edge-agent",
    "central",
    "central/core",
    "modules/sdk",
    "modules/simulated-sensor",
    "modules/threshold-filter",
];

/// The folder `src` of a crate.
pub(crate) fn root(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(of).join("src")
}

/// The pieces of a source: a comment, a character, a text, a name or number, or one character of anything else. Together they are the
/// whole source.
pub(crate) fn tokens(source: &str) -> impl Iterator<Item = &str> {
    let mut rest = source;
    std::iter::from_fn(move || {
        let length = token_length(rest, rest.chars().next()?);
        let (token, after) = rest.split_at(length);
        rest = after;
        Some(token)
    })
}

fn token_length(rest: &str, first: char) -> usize {
    match first {
        '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
        // A character, which may be a quote; a lifetime has no closing quote that near.
        '\'' => match rest[1..].char_indices().nth(if rest[1..].starts_with('\\') { 2 } else { 1 }) {
            Some((at, '\'')) => at + 2,
            _ => 1,
        },
        'r' if rest.starts_with("r#\"") => rest.find("\"#").map_or(rest.len(), |end| end + 2),
        '"' => {
            let mut is_escaped = false;
            let end = rest[1..].find(|c| {
                let ends = c == '"' && !is_escaped;
                is_escaped = c == '\\' && !is_escaped;
                ends
            });
            end.map_or(rest.len(), |end| end + 2)
        }
        c if is_of_name(c) => rest.find(|c| !is_of_name(c)).unwrap_or(rest.len()),
        c => c.len_utf8(),
    }
}

/// Whether a character is one of names and numbers.
pub(crate) fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Adds every Rust file of a folder and of those below it.
pub(crate) fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Whether a file holds tests only.
pub(crate) fn is_test(file: &Path) -> bool {
    let path = file.to_string_lossy();
    path.ends_with("tests.rs") || path.ends_with("_test.rs") || path.contains("/tests/")
}

/// The source without what is compiled for tests only. Lines keep their numbers.
pub(crate) fn product(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or("");
    let mut parts = text.split("#[cfg(test)]\n");
    let first = parts.next().unwrap_or("").to_owned();
    parts.fold(first, |text, part| {
        // What follows is one item: `mod tests;`, or a function with a body.
        let end = match (part.find(";\n"), part.find("\n}\n"), part.find("\n    }\n")) {
            (Some(end), body, method)
                if body.is_none_or(|at| end < at) && method.is_none_or(|at| end < at) =>
            {
                end + 1
            }
            (_, Some(body), method) if method.is_none_or(|at| body < at) => body + 2,
            (_, _, Some(method)) => method + 6,
            _ => part.len(),
        };
        let (item, rest) = part.split_at(end);
        text + "\n" + &"\n".repeat(item.matches('\n').count()) + rest
    })
}

/// The product's files of a crate, each with its path from the root and its text without tests.
pub(crate) fn product_files(of: &str) -> Vec<(String, String)> {
    let root = root(of);
    let mut files = Vec::new();
    sources(&root, &mut files);
    files.sort();
    let files = files.into_iter().filter(|file| !is_test(file));
    files
        .map(|file| {
            let name = format!("{of}/src/{}", file.strip_prefix(&root).unwrap().display());
            (name, product(&std::fs::read_to_string(file).unwrap()))
        })
        .collect()
}
