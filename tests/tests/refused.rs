//! A wrong manifest is refused before anything is asked or changed: exit code 2, and the message names the field.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use site_tests::process::{binary, run};
use tokio::process::Command;

fn cases() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/refused");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    cases.sort();
    cases
}

#[tokio::test]
async fn every_refused_manifest_ends_apply_with_code_2_and_the_message_in_its_file() {
    let cases = cases();
    assert!(cases.len() >= 10, "only {} cases", cases.len());
    for case in cases {
        let message = std::fs::read_to_string(case.with_extension("txt")).unwrap();
        for verb in ["apply", "plan"] {
            let mut command = Command::new(binary("edge-agent").unwrap());
            command.arg(verb).arg(&case).args(["--config", "/nonexistent/edge.toml"]);
            let (code, out, error) = run(&mut command).await.unwrap();
            assert_eq!(code, 2, "{verb} {}: {error}", case.display());
            assert!(error.contains(message.trim()), "{verb} {}: {error}\nexpected {message}", case.display());
            assert!(out.is_empty(), "{out}");
        }
    }
}
