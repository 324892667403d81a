//! The state through its own interface, and what becomes of it when its files are hurt.

use std::path::{Path, PathBuf};

use super::*;

impl State {
    /// A handle that takes no write.
    pub(crate) fn refusing(&self) -> Self {
        Self { writes: sync_channel(0).0, ..self.clone() }
    }
}

fn all(state: &State) -> Vec<(String, String)> {
    state.load(Namespace::Twins)
}

async fn put(state: &State, key: &str, value: &str) {
    state.put(Namespace::Twins, key, &value).durable().await.unwrap();
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

fn files(dir: &Path) -> Vec<PathBuf> {
    try_files(dir).unwrap()
}

/// Every file below; `None` when a directory went away meanwhile.
fn try_files(dir: &Path) -> Option<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).ok()? {
        let path = entry.ok()?.path();
        if path.is_dir() { files.extend(try_files(&path)?) } else { files.push(path) }
    }
    files.sort();
    Some(files)
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(&file, target).unwrap();
    }
}

/// As [`copy`], of a directory that a state is open on, at one moment: again while files change under the copy.
fn copy_of_one_moment(from: &Path, to: &Path) {
    let seen = || -> Option<Vec<_>> {
        let seen = |file: PathBuf| {
            let metadata = std::fs::metadata(&file).ok()?;
            Some((file, metadata.len(), metadata.modified().ok()?))
        };
        try_files(from)?.into_iter().map(seen).collect()
    };
    loop {
        let Some(before) = seen() else { continue };
        for entry in std::fs::read_dir(to).unwrap() {
            remove(&entry.unwrap().path());
        }
        let is_whole = before.iter().all(|(file, ..)| {
            let target = to.join(file.strip_prefix(from).unwrap());
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            std::fs::copy(file, target).is_ok()
        });
        if is_whole && seen().as_ref() == Some(&before) {
            return;
        }
    }
}

#[tokio::test]
async fn what_was_saved_is_there_after_a_restart_and_what_was_removed_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path()).unwrap();
    put(&state, "press-1", "first").await;
    put(&state, "press-1", "second").await;
    put(&state, "press-2", "gone").await;
    state.remove(Namespace::Twins, "press-2").durable().await.unwrap();
    // Larger than a record of the journal and than what sled puts into one page.
    let large = "x".repeat(9_000_000);
    state.put(Namespace::Deployment, "large", &large).durable().await.unwrap();
    state.close().await;
    only_the_journal(dir.path());
    // From the journal, then from what was made of it.
    for _ in 0..2 {
        let state = State::open(dir.path()).unwrap();
        assert_eq!(all(&state), [("press-1".to_owned(), "second".to_owned())]);
        assert_eq!(state.load::<String>(Namespace::Deployment), [("large".to_owned(), large.clone())]);
        assert!(
            state.load::<u8>(Namespace::Twins).is_empty(),
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
    let saved: Vec<_> = (0..8).map(|n| state.put(Namespace::Twins, &format!("press-{n}"), &large)).collect();
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
    copy_of_one_moment(dir.path(), killed.path());
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

/// How a directory goes back, beside being restored whole.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Setback {
    /// Everything is of an earlier moment.
    Whole,
    /// As [`Setback::Whole`], and the original goes on beside it.
    Cloned,
    JournalOlder,
    JournalNewer,
    DatabaseOlder,
    ExportsOlder,
    /// The last segment of the journal loses its end.
    TailCut,
}

/// Whether database and export can be written at the next start, which otherwise brings all copies in step.
#[derive(Debug, Clone, Copy)]
enum Disk {
    Works,
    FailsCopies,
}

fn remove(path: &Path) {
    if path.is_dir() {
        std::fs::remove_dir_all(path).unwrap();
    } else if path.exists() {
        std::fs::remove_file(path).unwrap();
    }
}

/// Puts some parts of one directory in the place of those of another.
fn replace(from: &Path, to: &Path, parts: &[&str]) {
    for part in parts {
        remove(&to.join(part));
        if from.join(part).is_dir() {
            copy(&from.join(part), &to.join(part));
        } else if from.join(part).exists() {
            std::fs::copy(from.join(part), to.join(part)).unwrap();
        }
    }
}

/// What makes sled and the export fail, as a full or broken disk does.
fn obstruct(dir: &Path) {
    remove(&dir.join("sled"));
    std::fs::write(dir.join("sled"), "in the way").unwrap();
    std::fs::create_dir_all(dir.join("export.new/in the way")).unwrap();
}

fn clear(dir: &Path) {
    remove(&dir.join("sled"));
    remove(&dir.join("export.new"));
}

async fn put_all(state: &State, pairs: &[(String, String)]) {
    let saved: Vec<_> = pairs.iter().map(|(key, value)| state.put(Namespace::Twins, key, value)).collect();
    for saved in saved {
        saved.durable().await.unwrap();
    }
}

async fn go_back(setback: Setback, disk: Disk, closings: usize) {
    const PARTS: [&str; 4] = ["journal", "sled", "export", "export.old"];
    let dir = tempfile::tempdir().unwrap();
    for closing in 0..closings {
        let state = State::open(dir.path()).unwrap();
        put_all(&state, &expected(20 * (closing + 1))[20 * closing..]).await;
        state.close().await;
    }
    let (kept, all_of) = (20 * closings, 20 * closings + 20);
    let before = tempfile::tempdir().unwrap();
    copy(dir.path(), before.path());
    let state = State::open(dir.path()).unwrap();
    put_all(&state, &expected(all_of)[kept..]).await;
    state.close().await;
    // An export is written at a start.
    State::open(dir.path()).unwrap().close().await;

    let beside = (setback == Setback::Cloned).then(|| {
        let beside = tempfile::tempdir().unwrap();
        copy(dir.path(), beside.path());
        beside
    });
    let older: &[&str] = match setback {
        Setback::Whole | Setback::Cloned => &PARTS,
        Setback::JournalOlder => &["journal"],
        Setback::JournalNewer => &["sled", "export", "export.old"],
        Setback::DatabaseOlder => &["sled"],
        Setback::ExportsOlder => &["export", "export.old"],
        Setback::TailCut => &[],
    };
    replace(before.path(), dir.path(), older);
    if setback == Setback::TailCut {
        let segments = files(&dir.path().join("journal"));
        let last = segments.iter().rfind(|file| file.extension().is_some_and(|e| e == "segment")).unwrap();
        let bytes = std::fs::read(last).unwrap();
        std::fs::write(last, &bytes[..64 + (bytes.len() - 64) / 3]).unwrap();
    }
    if matches!(disk, Disk::FailsCopies) {
        obstruct(dir.path());
    }
    let state = State::open(dir.path()).unwrap();
    let found = all(&state);
    // With the database gone too, exports that are older than the journal's beginning are all that is left: that is an error
    // in the log.
    let has_old_exports = matches!(setback, Setback::JournalNewer | Setback::ExportsOlder);
    if !(has_old_exports && matches!(disk, Disk::FailsCopies)) {
        assert!(
            found.starts_with(&expected(kept)),
            "{setback:?} {disk:?} {closings}: {} of {kept}",
            found.len()
        );
    }
    // Parts that are of one moment with the newest copy lose nothing.
    let has_all = matches!(
        setback,
        Setback::JournalOlder | Setback::DatabaseOlder | Setback::ExportsOlder | Setback::TailCut
    );
    if has_all && matches!(disk, Disk::Works) {
        assert_eq!(found, expected(all_of), "{setback:?} {closings}");
    }
    // As many as the journal has forgotten that there ever were, and more: each is on disk when it is saved.
    let fresh: Vec<(String, String)> = (0..40).map(|n| (format!("fresh-{n:02}"), format!("{n}"))).collect();
    let check = |now: &[(String, String)], count: usize| {
        for (key, value) in &fresh[..count] {
            let is_there = now.iter().any(|found| found.0 == *key && found.1 == *value);
            assert!(is_there, "{setback:?} {disk:?} {closings}: {key} was saved and swallowed");
        }
        for pair in &found {
            assert!(now.contains(pair), "{setback:?} {disk:?} {closings}: {} went back once more", pair.0);
        }
    };
    let mut state = state;
    let mut held = dir;
    for (from, upto) in [(0, 7), (7, 40)] {
        put_all(&state, &fresh[from..upto]).await;
        // A kill: what is on disk now is all that is left.
        let killed = tempfile::tempdir().unwrap();
        copy_of_one_moment(held.path(), killed.path());
        state.close().await;
        if matches!(disk, Disk::FailsCopies) {
            clear(killed.path());
        }
        state = State::open(killed.path()).unwrap();
        held = killed;
        check(&all(&state), upto);
    }
    state.close().await;
    if let Some(beside) = beside {
        let state = State::open(beside.path()).unwrap();
        assert_eq!(all(&state), expected(all_of));
        put(&state, "fresh-00", "of the original").await;
        state.close().await;
        let state = State::open(beside.path()).unwrap();
        assert!(all(&state).contains(&("fresh-00".to_owned(), "of the original".to_owned())));
        state.close().await;
    }
}

#[tokio::test]
async fn after_any_setback_nothing_that_is_saved_is_dropped() {
    for setback in [
        Setback::Whole,
        Setback::Cloned,
        Setback::JournalOlder,
        Setback::JournalNewer,
        Setback::DatabaseOlder,
        Setback::ExportsOlder,
        Setback::TailCut,
    ] {
        for disk in [Disk::Works, Disk::FailsCopies] {
            for closings in [1, 3] {
                go_back(setback, disk, closings).await;
            }
        }
    }
}

#[tokio::test]
async fn a_directory_that_another_daemon_has_keeps_its_reserve_though_lock_files_were_removed() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path()).unwrap();
    numbered(&state, 0, 3).await;
    // A disk with little space makes none.
    std::fs::write(dir.path().join("reserve"), [0; 64]).unwrap();
    for removed in [None, Some("journal/lock")] {
        if let Some(removed) = removed {
            std::fs::remove_file(dir.path().join(removed)).unwrap();
        }
        let before = files(dir.path());
        let refused = State::open(dir.path()).err().unwrap();
        assert!(chain(&refused).to_string().contains("is open elsewhere"), "{refused}");
        let after: Vec<_> = files(dir.path());
        let gone: Vec<_> = before.iter().filter(|path| !after.contains(path)).collect();
        assert!(gone.is_empty(), "{gone:?}");
    }
    numbered(&state, 3, 6).await;
    state.close().await;
    let state = State::open(dir.path()).unwrap();
    assert_eq!(all(&state), expected(6));
    state.close().await;
}
