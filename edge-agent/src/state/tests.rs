//! The state through its own door, and what becomes of it when its files are hurt.

use std::path::{Path, PathBuf};

use super::*;

fn all(state: &State) -> Vec<(String, String)> {
    state.load(Room::Twins)
}

async fn put(state: &State, key: &str, value: &str) {
    state.put(Room::Twins, key, &value).durable().await.unwrap();
}

/// What `numbered` wrote.
fn expected(count: usize) -> Vec<(String, String)> {
    (0..count).map(|n| (format!("press-{n:03}"), format!("twin {n}"))).collect()
}

async fn numbered(state: &State, from: usize, to: usize) {
    for (key, value) in &expected(to)[from..] {
        put(state, key, value).await;
    }
}

/// Every file below, with its bytes.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(&file, target).unwrap();
    }
}

#[tokio::test]
async fn what_was_saved_is_there_after_a_restart_and_what_was_removed_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path()).unwrap();
    put(&state, "press-1", "first").await;
    put(&state, "press-1", "second").await;
    put(&state, "press-2", "gone").await;
    state.remove(Room::Twins, "press-2").durable().await.unwrap();
    // Larger than a record of the journal and than what sled puts into one page.
    let large = "x".repeat(9_000_000);
    state.put(Room::Deployment, "large", &large).durable().await.unwrap();
    state.close().await;
    only_the_journal(dir.path());
    // From the journal, then from what was made of it.
    for _ in 0..2 {
        let state = State::open(dir.path()).unwrap();
        assert_eq!(all(&state), [("press-1".to_owned(), "second".to_owned())]);
        assert_eq!(state.load::<String>(Room::Deployment), [("large".to_owned(), large.clone())]);
        assert!(
            state.load::<u8>(Room::Twins).is_empty(),
            "a value of another shape is left out, and stops nothing"
        );
        state.close().await;
    }
}

/// As a kill in the first minute leaves it: nothing else has the values yet.
fn only_the_journal(dir: &Path) {
    std::fs::remove_dir_all(dir.join("sled")).unwrap();
    std::fs::remove_file(dir.join("export")).unwrap();
    std::fs::remove_file(dir.join("export.old")).unwrap();
}

#[tokio::test]
async fn more_at_once_than_the_journal_takes_at_one_time_is_saved_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path()).unwrap();
    let large = "x".repeat(3_000_000);
    let saved: Vec<_> = (0..8).map(|n| state.put(Room::Twins, &format!("press-{n}"), &large)).collect();
    for saved in saved {
        saved.durable().await.unwrap();
    }
    state.close().await;
    let state = State::open(dir.path()).unwrap();
    assert!(all(&state).iter().all(|(_, value)| *value == large) && all(&state).len() == 8);
    state.close().await;
}

/// A state that was closed twice and then killed: sled and both exports hold something, the journal the rest.
async fn well_used() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (from, to) in [(0, 40), (40, 60)] {
        let state = State::open(dir.path()).unwrap();
        numbered(&state, from, to).await;
        state.close().await;
    }
    let state = State::open(dir.path()).unwrap();
    numbered(&state, 60, 100).await;
    let killed = tempfile::tempdir().unwrap();
    copy(dir.path(), killed.path());
    state.close().await;
    killed
}

#[tokio::test]
async fn any_one_file_torn_or_empty_or_gone_or_with_a_flipped_bit_loses_nothing_that_was_saved() {
    let whole = well_used().await;
    let rounds = if std::env::var_os("LINESIDE_FAULTS").is_some() { 40 } else { 4 };
    let (mut trials, mut arrived, mut seed) = (0, 0, 7_u64);
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below.max(1)
    };
    for file in files(whole.path()) {
        let name = file.strip_prefix(whole.path()).unwrap().to_owned();
        let bytes = std::fs::read(&file).unwrap();
        let is_journal = name.starts_with("journal") && name.extension().is_some_and(|e| e == "segment");
        for round in 0..rounds + 2 {
            let hurt = tempfile::tempdir().unwrap();
            copy(whole.path(), hurt.path());
            let path = hurt.path().join(&name);
            match round {
                0 => std::fs::remove_file(&path).unwrap(),
                1 => std::fs::write(&path, b"").unwrap(),
                n if n % 2 == 0 => {
                    let mut bytes = bytes.clone();
                    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
                    if used > 0 {
                        bytes[random(used as u64) as usize] ^= 1 << random(8);
                    }
                    std::fs::write(&path, bytes).unwrap();
                }
                _ => std::fs::write(&path, &bytes[..random(bytes.len() as u64) as usize]).unwrap(),
            }
            let state = State::open(hurt.path()).unwrap();
            let found = all(&state);
            (trials, arrived) = (trials + 1, arrived + found.len());
            if is_journal {
                // The only copy of what is newer than sled: what is outside of the damage is there.
                assert!(
                    found.len() >= 60 && found[..60] == expected(60),
                    "{name:?} round {round}: {}",
                    found.len()
                );
                if round % 2 == 0 && round > 0 {
                    assert!(found.len() >= 99, "{name:?} round {round}: {} of 100", found.len());
                }
            } else {
                assert_eq!(found, expected(100), "{name:?} round {round}");
            }
            put(&state, "after", "damage").await;
            state.close().await;
            let state = State::open(hurt.path()).unwrap();
            assert_eq!(all(&state).len(), found.len() + 1, "{name:?} round {round}");
            state.close().await;
        }
    }
    println!(
        "{trials} damaged files: acknowledged {}, arrived {arrived}, in the damage itself {}, lost 0 beside it, twice 0",
        trials * 100,
        trials * 100 - arrived
    );
}

#[tokio::test]
async fn a_damaged_database_is_set_aside_and_made_again() {
    let dir = well_used().await;
    for path in files(&dir.path().join("sled")) {
        let length = std::fs::metadata(&path).unwrap().len() as usize;
        std::fs::write(&path, vec![0xA5; length.min(4096)]).unwrap();
    }
    let state = State::open(dir.path()).unwrap();
    assert_eq!(all(&state), expected(100));
    let aside = std::fs::read_dir(dir.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("sled.damaged-"));
    assert_eq!(aside.count(), 1);
    state.close().await;
    let state = State::open(dir.path()).unwrap();
    assert_eq!(all(&state), expected(100));
    state.close().await;
}

#[tokio::test]
async fn with_database_and_exports_gone_a_start_says_so_instead_of_forgetting() {
    let dir = well_used().await;
    // Until now the journal reaches back to the beginning.
    for _ in 0..2 {
        State::open(dir.path()).unwrap().close().await;
    }
    std::fs::remove_dir_all(dir.path().join("sled")).unwrap();
    for export in ["export", "export.old"] {
        std::fs::write(dir.path().join(export), "noise").unwrap();
    }
    let refused = State::open(dir.path());
    assert!(matches!(refused, Err(StateError::Damaged { .. })));
}
