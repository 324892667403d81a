//! The sources of the product, as the tests of the tree read them.

#![allow(dead_code, reason = "each test uses some of it")]

use std::path::{Path, PathBuf};

/// The folders of every crate that is part of a program or of a module.
pub(crate) const CRATES: [&str; 13] = [
    "schemas",
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
