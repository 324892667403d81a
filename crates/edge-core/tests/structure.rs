//! The structure of the sources: no circles of files that import each other, no long files, no long functions.
//!
//! An import is a `use` of a path in the same crate, or a path that begins with `crate::` or `super::`; tests inside files do not
//! count. A file in a circle cannot be read, tested or moved without the others.

#![allow(clippy::unwrap_used)]

mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use sources::{CRATES, is_test, root, sources};

/// Lines beyond which a file is more than one thought.
const LINES_MAX: usize = 520;

/// Lines below which a function is short, from its `fn` to its closing brace.
const SHORT_FUNCTION_LINES: usize = 40;
/// Of a hundred functions of all crates together, so many are short.
const SHORT_FUNCTIONS_PERCENT: usize = 95;
/// No function is longer.
const FUNCTION_LINES_MAX: usize = 100;

/// A file's path as a module of its crate: `["a", "b"]` for `src/a/b.rs` and for `src/a/b/mod.rs`.
type Module = Vec<String>;

fn module(src: &Path, file: &Path) -> Module {
    let relative = file.strip_prefix(src).unwrap().with_extension("");
    let mut module: Module =
        relative.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| last == "mod") || module == ["lib"] || module == ["main"] {
        module.pop();
    }
    module
}

/// The source without comments and without what is compiled for tests only.
fn product(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or(""));
    let text = lines.collect::<Vec<_>>().join("\n");
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
    let mut parts = text.split("#[cfg(test)]\n");
    let first = parts.next().unwrap_or("").to_owned();
    parts.fold(first, |text, part| text + part.split_once(';').map_or("", |(_, rest)| rest))
}

/// The paths of a use declaration: `a::{b, c::{d, e}}` is `a::b`, `a::c::d` and `a::c::e`.
fn expand(declaration: &str, paths: &mut Vec<String>) {
    let declaration = declaration.trim();
    let Some((before, rest)) = declaration.split_once('{') else {
        paths.push(declaration.split(" as ").next().unwrap_or("").trim().to_owned());
        return;
    };
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let (mut depth, mut start) = (0, 0);
    for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inner[start..at].trim().is_empty() {
                    expand(&format!("{before}{}", inner[start..at].trim()), paths);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// The paths into its own crate that a file names.
fn paths(text: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let mut rest = String::new();
    let mut left = text;
    while let Some(at) = left.find("use ") {
        let is_word = left[..at].chars().next_back().is_none_or(|c| c.is_whitespace() || c == ')');
        rest.push_str(&left[..at]);
        left = &left[at + 4..];
        if let (true, Some((declaration, after))) = (is_word, left.split_once(';')) {
            expand(declaration, &mut paths);
            left = after;
        }
    }
    rest.push_str(left);
    for start in ["crate::", "super::"] {
        for (at, _) in rest.match_indices(start) {
            let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            let end = rest[at..].find(|c| !is_path(c)).map_or(rest.len(), |length| at + length);
            paths.push(rest[at..end].to_owned());
        }
    }
    paths
}

/// The first names of paths outside of use declarations, such as `child` of `child::name()`.
fn first_names(text: &str) -> Vec<String> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let first_name = |(at, _): (usize, &str)| {
        let name = text[..at].rsplit(|c| !is_name(c)).next()?;
        (!name.is_empty() && !text[..at - name.len()].ends_with(':')).then(|| name.to_owned())
    };
    text.match_indices("::").filter_map(first_name).collect()
}

/// The file that a path leads to, seen from a module.
fn target<'f>(files: &'f BTreeMap<Module, PathBuf>, from: &Module, path: &str) -> Option<&'f PathBuf> {
    let mut names: Vec<&str> = path.split("::").map(str::trim).collect();
    let mut base = from.clone();
    match *names.first()? {
        "crate" => {
            base.clear();
            names.remove(0);
        }
        "self" => {
            names.remove(0);
        }
        "super" => {
            while names.first() == Some(&"super") {
                base.pop();
                names.remove(0);
            }
        }
        // A child of this module, or another crate.
        first => {
            base.push(first.to_owned());
            files.get(&base)?;
            base.pop();
        }
    }
    base.extend(names.into_iter().map(str::to_owned));
    (0..=base.len()).rev().find_map(|length| files.get(&base[..length]))
}

/// The files of a crate, each with those that it imports.
fn imports(of: &str, with_hidden: bool) -> BTreeMap<PathBuf, BTreeSet<PathBuf>> {
    let src = root(of);
    let mut found = Vec::new();
    sources(&src, &mut found);
    let files: BTreeMap<Module, PathBuf> =
        found.into_iter().filter(|file| !is_test(file)).map(|file| (module(&src, &file), file)).collect();
    let of_file = |(module, file): (&Module, &PathBuf)| {
        let text = product(&std::fs::read_to_string(file).unwrap());
        let hidden = if with_hidden { first_names(&text) } else { Vec::new() };
        let hidden = hidden.into_iter().filter(|name| {
            let child: Module = module.iter().chain([name]).cloned().collect();
            files.contains_key(&child)
        });
        let named = paths(&text).into_iter().chain(hidden);
        let targets = named.filter_map(|path| target(&files, module, &path));
        (file.clone(), targets.filter(|target| *target != file).cloned().collect())
    };
    files.iter().map(of_file).collect()
}

/// Everything that can be reached from a file.
fn reached<'g>(graph: &'g BTreeMap<PathBuf, BTreeSet<PathBuf>>, from: &'g PathBuf) -> BTreeSet<&'g PathBuf> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(file) = next.pop() {
        next.extend(graph[file].iter().filter(|target| reached.insert(*target)));
    }
    reached
}

/// The files of a crate that can be reached from themselves.
fn in_circles(name: &str, with_hidden: bool) -> Vec<PathBuf> {
    let graph = imports(name, with_hidden);
    assert!(!graph.is_empty(), "{name} has no sources");
    graph.keys().filter(|file| reached(&graph, file).contains(*file)).cloned().collect()
}

#[test]
fn no_files_import_each_other_in_circles() {
    for name in CRATES {
        let in_circles = in_circles(name, false);
        assert!(in_circles.is_empty(), "{name}: {in_circles:#?}");
    }
}

/// Also where no `use` says so: a path such as `child::name` counts here too.
#[test]
fn no_file_and_a_module_that_it_declares_need_each_other() {
    for name in CRATES {
        let in_circles = in_circles(name, true);
        assert!(in_circles.is_empty(), "{name}: {in_circles:#?}");
    }
}

#[test]
fn no_file_is_too_long() {
    let mut long = Vec::new();
    for name in CRATES {
        let mut files = Vec::new();
        sources(&root(name), &mut files);
        for file in files.into_iter().filter(|file| !is_test(file)) {
            let lines = std::fs::read_to_string(&file).unwrap().lines().count();
            if lines > LINES_MAX {
                long.push((lines, file));
            }
        }
    }
    assert!(long.is_empty(), "files of more than {LINES_MAX} lines: {long:#?}");
}

/// The functions of a source that rustfmt has formatted, each with its name and its lines.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line.trim_start()) else { continue };
        let is_head_end = |line: &&str| line.ends_with(['{', '}', ';']);
        let Some(head) = lines[at..].iter().position(is_head_end) else { continue };
        if lines[at + head].ends_with(';') {
            continue;
        }
        let indentation = &line[..line.len() - line.trim_start().len()];
        let is_end = |line: &&str| line.strip_prefix(indentation) == Some("}");
        let length = if lines[at + head].ends_with('{') {
            lines[at..].iter().position(is_end).unwrap_or(lines.len() - at - 1) + 1
        } else {
            head + 1
        };
        found.push((name.to_owned(), length));
    }
    found
}

/// The name of the function whose first line this is.
fn function_name(line: &str) -> Option<&str> {
    let mut words = line;
    for word in ["pub", "const", "async", "unsafe"] {
        if let Some(rest) = words.strip_prefix(word) {
            let rest =
                rest.strip_prefix('(').map_or(rest, |rest| rest.split_once(')').map_or("", |(_, rest)| rest));
            words = rest.trim_start();
        }
    }
    let name = words.strip_prefix("fn ")?;
    Some(&name[..name.find(|c: char| !c.is_alphanumeric() && c != '_')?])
}

#[test]
fn nearly_all_functions_are_short_and_none_is_too_long() {
    let mut all = Vec::new();
    for name in CRATES {
        let mut files = Vec::new();
        sources(&root(name), &mut files);
        for file in files.into_iter().filter(|file| !is_test(file)) {
            let text = product(&std::fs::read_to_string(&file).unwrap());
            all.extend(functions(&text).into_iter().map(|(function, lines)| (lines, function, file.clone())));
        }
    }
    let short = all.iter().filter(|(lines, ..)| *lines < SHORT_FUNCTION_LINES).count();
    let long: Vec<_> = all.iter().filter(|(lines, ..)| *lines > FUNCTION_LINES_MAX).collect();
    println!("{short} of {} functions have fewer than {SHORT_FUNCTION_LINES} lines", all.len());
    assert!(all.len() > 1000, "only {} functions were found", all.len());
    assert!(short * 100 >= all.len() * SHORT_FUNCTIONS_PERCENT, "{short} of {} are short", all.len());
    assert!(long.is_empty(), "functions of more than {FUNCTION_LINES_MAX} lines: {long:#?}");
}

#[test]
fn functions_are_read_from_sources() {
    let text = "pub(crate) async fn a(\n    x: u8,\n) -> u8 {\n    fn b() {}\n    let c = 1;\n}\ntrait T {\n    fn d();\n}\n";
    assert_eq!(functions(text), [("a".to_owned(), 6), ("b".to_owned(), 1)]);
}

#[test]
fn paths_are_read_from_sources() {
    let text = product(
        "use crate::a::{self, b::C as D};\n// use crate::x;\nfn f() { super::g::h() }\n#[cfg(test)]\nmod t;\nuse z::y;",
    );
    let mut read = paths(&text);
    read.sort();
    assert_eq!(read, ["crate::a::b::C", "crate::a::self", "super::g::h", "z::y"]);
    assert_eq!(first_names("child::f(a::b::c, x, Self::D)"), ["child", "a", "Self"]);
}
