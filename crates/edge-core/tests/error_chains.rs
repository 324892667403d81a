//! What is logged of an error has its causes: `docker.sock: permission denied`, not "listing the containers failed".

#![allow(clippy::unwrap_used)]

mod sources;

use std::path::Path;

use sources::{CRATES, product_files};

/// Where both programs' sources are, from this crate.
const SOURCES: [&str; 6] = [
    "../../edge-agent/src",
    "../edge-buffer/src",
    "../edge-hub/src",
    "../mqtt/src",
    "../../central/src",
    "src",
];

#[test]
fn no_log_line_shows_an_error_without_its_causes() {
    let mut files = Vec::new();
    for dir in SOURCES {
        sources::sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), &mut files);
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

/// A caller can act differently on a variant, not on a text.
#[test]
fn no_function_of_the_product_fails_with_a_text() {
    let mut wrong = Vec::new();
    for name in CRATES {
        for (file, text) in product_files(name) {
            for (number, line) in text.lines().enumerate() {
                let compact: String = line.chars().filter(|c| !c.is_whitespace()).collect();
                if !compact.contains("Result<") || !compact.contains(",String>") || compact.starts_with("//")
                {
                    continue;
                }
                if !fails_with_text(&compact) {
                    continue;
                }
                wrong.push(format!("{file}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "make an enum of the error:\n{}", wrong.join("\n"));
}

/// Whether a line without blanks has a `Result` whose error is `String`.
fn fails_with_text(line: &str) -> bool {
    line.match_indices("Result<").any(|(at, start)| {
        let (mut depth, mut error) = (0, None);
        for (offset, c) in line[at + start.len()..].char_indices() {
            match c {
                '<' | '(' | '[' => depth += 1,
                '>' if depth == 0 => {
                    let end = at + start.len() + offset;
                    return error.is_some_and(|begin: usize| &line[begin..end] == "String");
                }
                '>' | ')' | ']' => depth -= 1,
                ',' if depth == 0 => error = Some(at + start.len() + offset + 1),
                _ => {}
            }
        }
        false
    })
}

/// The chain of an error shows each cause once: by the variant's text, or by its source.
#[test]
fn no_error_shows_its_source_in_its_own_text() {
    let mut wrong = Vec::new();
    for name in CRATES {
        for (file, text) in product_files(name) {
            wrong.extend(shown_sources(&text).into_iter().map(|variant| format!("{file}: {variant}")));
        }
    }
    assert!(wrong.is_empty(), "leave the source out of the text:\n{}", wrong.join("\n"));
}

/// The messages of `#[error("…")]` that show a field which is the error's source.
fn shown_sources(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in text.split("#[error(").skip(1) {
        let Some((message, rest)) = part.split_once(")]\n") else { continue };
        // Up to the next variant, or the end of the type.
        let mut depth = 0;
        let end = rest.find(|c| {
            depth += match c {
                '{' | '(' => 1,
                '}' | ')' => -1,
                _ => 0,
            };
            depth < 0 || (depth == 0 && (c == ',' || c == ';'))
        });
        let fields = &rest[..end.unwrap_or(rest.len())];
        let is_first = fields.contains("(#[from]") || fields.contains("(#[source]");
        let has_source = fields.contains("source:");
        if (is_first && message.contains("{0")) || (has_source && message.contains("{source")) {
            found.push(message.to_owned());
        }
    }
    found
}

#[test]
fn texts_and_shown_sources_are_found_in_a_source() {
    assert!(fails_with_text("fnf()->Result<Vec<(u8,u16)>,String>{"));
    assert!(fails_with_text("json:OnceCell<Result<Json,String>>,"));
    assert!(!fails_with_text("fnf()->Result<Map<u8,String>,Failure>{"));
    assert!(!fails_with_text("fnf()->Result<BTreeMap<u8,String>>{"));
    let variants = "#[error(\"a: {0}\")]\n    A(#[from] B),\n    #[error(\"c: {source}\")]\n    C { source: D },\n\
        #[error(\"e: {0}\")]\n    E(String),\n    #[error(\"f\")]\n    F(#[source] G),\n";
    assert_eq!(shown_sources(variants), ["\"a: {0}\"", "\"c: {source}\""]);
}
