//! The public test cases of DTDL version 2, each a model that must be taken or refused, and values against schemas.
//!
//! The cases are not part of this repository (digitaltwinconsortium/DTDLParser, MIT; the specification's own in
//! Azure/opendigitaltwins-dtdl, DTDL/v2/spec). They are read from the folder that `LINESIDE_DTDL_CASES` names, or from
//! `shared/data/dtdl-v2` beside this repository; without them the tests say that they are skipped. A file holds an array of cases,
//! or an object of cases by name.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use central_core::model::build::standard;
use central_core::model::dtmi;
use central_core::model::options::{Dialect, Options};
use central_core::model::parse::{parse, parse_documents};
use central_core::model::problem::Problems;
use central_core::model::types::Model;
use central_core::model::values::{self, Strictness};
use serde_json::Value;

fn folder() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let named = std::env::var_os("LINESIDE_DTDL_CASES").map(PathBuf::from);
    let beside = ["..", "../.."].map(|up| root.join(up).join("shared/data/dtdl-v2"));
    let found = named.into_iter().chain(beside).find(|folder| folder.is_dir());
    if found.is_none() {
        println!("skipped: the cases of DTDL are not here; LINESIDE_DTDL_CASES names their folder");
    }
    found
}

/// Every case of the folder, by file and name.
fn cases() -> Vec<(String, Value)> {
    let Some(folder) = folder() else { return Vec::new() };
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|file| file.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        match serde_json::from_str(text.trim_start_matches('\u{feff}')).unwrap() {
            Value::Object(named) => cases.extend(named),
            Value::Array(items) => {
                let numbered = items.into_iter().enumerate();
                cases.extend(numbered.map(|(index, case)| (format!("{name} {index}"), case)));
            }
            other => panic!("{name}: {other}"),
        }
    }
    assert!(!cases.is_empty(), "{} holds no cases", folder.display());
    cases
}

fn has(case: &Value, list: &str, item: &str) -> bool {
    case[list].as_array().is_some_and(|items| items.iter().any(|known| known == item))
}

/// What a program finds that asks for documents that are missing.
fn resolution(case: &Value) -> Vec<Value> {
    let answers = case["resolution"].as_array().into_iter().flatten();
    answers.flat_map(|answer| answer["response"].as_array().cloned().unwrap_or_default()).collect()
}

fn read(case: &Value) -> Result<Model, Problems> {
    let options = Options {
        dialect: Dialect::Dtdl,
        allow_undefined_extensions: !has(case, "options", "DisallowUndefinedExtensions"),
    };
    let mut documents = case["input"].as_array().cloned().unwrap_or_default();
    documents.extend(resolution(case));
    if let [document] = documents.as_slice() {
        return parse(document.to_string().as_bytes(), &options);
    }
    parse_documents(&documents, &options)
}

/// Cases of Microsoft's parser that ask for its leniency, which this reader has not: a second content of the same name is
/// wrong, and `{"@id": ...}` is no reference.
fn is_lenient(case: &Value) -> bool {
    case["quirks"].as_array().is_some_and(|quirks| !quirks.is_empty())
}

/// Cases that are models of a later version of the language, which is not spoken here.
fn is_of_later_version(case: &Value) -> bool {
    let text = case["input"].to_string();
    !text.contains("dtmi:dtdl:context;2")
        && (text.contains("dtmi:dtdl:context;3") || text.contains("dtmi:dtdl:context;4"))
}

#[test]
fn every_public_model_is_taken_or_refused_as_the_language_says() {
    let (mut wrong, mut read_cases, mut lenient, mut later) = (Vec::new(), 0, 0, 0);
    for (name, case) in cases().into_iter().filter(|(_, case)| case["input"].is_array()) {
        if is_lenient(&case) {
            lenient += 1;
            continue;
        }
        if is_of_later_version(&case) {
            later += 1;
            assert!(read(&case).is_err(), "{name}: taken");
            continue;
        }
        read_cases += 1;
        let (valid, found) = (case["valid"] == true, read(&case));
        match found {
            Ok(_) if !valid => wrong.push(format!("{name}: taken: {} {}", case["expect"], case["input"])),
            Err(problems) if valid => wrong.push(format!("{name}: refused: {problems} {}", case["input"])),
            _ => {}
        }
    }
    println!("{read_cases} models were read; {lenient} ask for leniency, {later} are of later versions");
    assert!(wrong.is_empty(), "{} of {read_cases} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_refusal_names_one_of_the_rules_that_the_public_cases_name() {
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for (name, case) in cases().into_iter().filter(|(_, case)| case["input"].is_array() && !is_lenient(case))
    {
        let errors = case["expect"]["parsingErrors"].as_array().into_iter().flatten();
        let rules: Vec<&str> =
            errors.filter_map(|error| error["ValidationID"].as_str()?.rsplit(':').next()).collect();
        let Err(problems) = read(&case) else { continue };
        if rules.is_empty() || is_of_later_version(&case) {
            continue;
        }
        compared += 1;
        let found: Vec<&str> = problems.reported.iter().map(|problem| problem.rule.as_str()).collect();
        if !found.iter().any(|rule| rules.contains(rule)) {
            wrong.push(format!("{name}: {rules:?}, found {problems} in {}", case["input"]));
        }
    }
    println!("{compared} refusals were compared");
    assert!(wrong.is_empty(), "{} of {compared} name other rules:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_public_identifier_is_taken_or_refused() {
    let mut wrong = BTreeMap::new();
    for (name, case) in cases().into_iter().filter(|(_, case)| case["idText"].is_string()) {
        let id = case["idText"].as_str().unwrap();
        if dtmi::is_any(id) != (case["valid"] == true) {
            wrong.insert(name, id.to_owned());
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_public_value_conforms_or_not_as_the_language_says() {
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for (name, case) in cases() {
        let instances = case["instances"].as_array().cloned().unwrap_or_default();
        if instances.is_empty() {
            continue;
        }
        let model = read(&case).unwrap();
        for instance in instances {
            let Some(conforms) = instance["conforms"].as_bool() else { continue };
            let subject = instance["subject"].as_str().unwrap();
            let term =
                subject.strip_prefix("dtmi:dtdl:instance:Schema:").and_then(|rest| rest.strip_suffix(";2"));
            let standard = term.map(standard);
            let schema = match &standard {
                Some(schema) => schema,
                None => match model.schemas.get(subject) {
                    Some(schema) => schema,
                    None => continue,
                },
            };
            let text = instance["submit"].as_str().unwrap();
            // serde_json reads it as the fraction -0.0.
            if text == "-0" {
                continue;
            }
            let value: Result<Value, _> = serde_json::from_str(text);
            let is_right =
                value.is_ok_and(|value| values::check(&value, schema, Strictness::Dtdl).is_empty());
            checked += 1;
            if is_right != conforms {
                wrong.push(format!("{name}: {subject} {text}: {conforms}"));
            }
        }
    }
    println!("{checked} values were checked");
    assert!(wrong.is_empty(), "{} of {checked} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}
