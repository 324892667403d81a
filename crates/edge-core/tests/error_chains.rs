//! What is logged of an error has its causes: `docker.sock: permission denied`, not "listing the containers failed".

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

/// Where both programs' sources are, from this crate.
const SOURCES: [&str; 6] = [
    "../../edge-agent/src",
    "../edge-buffer/src",
    "../edge-hub/src",
    "../mqtt/src",
    "../../central/src",
    "src",
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn no_log_line_shows_an_error_without_its_causes() {
    let mut files = Vec::new();
    for dir in SOURCES {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), &mut files);
    }
    assert!(files.len() > 100, "{}", files.len());
    let mut bare = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            // `%error` is tracing's short form of a field that shows an error by its own text alone.
            if line.contains("%error") && !line.trim_start().starts_with("//") {
                bare.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(bare.is_empty(), "write `error = %chain(&error)`:\n{}", bare.join("\n"));
}
