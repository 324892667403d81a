//! Files of central's data directory that are removed, replaced, cut or overwritten while it runs: nothing that it confirmed is missing
//! in silence after the next start. What the log of the store holds is not missing at all as long as central has it open.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod process;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use process::{Place, Served};

const FILES: [&str; 7] = [
    "central.db",
    "central.db-wal",
    "central.db-shm",
    "central.db-commits",
    "central.lock",
    "ca.pem",
    "ca-key.pem",
];
/// How many cases run side by side.
const AT_ONCE: usize = 4;
/// Devices that are registered before an older copy of the files is made, from then until a file is harmed, and from then on.
const DEVICES: [std::ops::Range<u32>; 3] = [0..3, 3..8, 8..14];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    Removed,
    MovedAway,
    /// By an older copy, under the same name.
    Replaced,
    Cut,
    /// In place, by an older copy.
    Overwritten,
}

const HARMS: [Harm; 5] = [Harm::Removed, Harm::MovedAway, Harm::Replaced, Harm::Cut, Harm::Overwritten];

impl Harm {
    fn apply(self, file: &Path, older: &Path) {
        match self {
            Self::Removed => fs::remove_file(file).unwrap(),
            Self::MovedAway => fs::rename(file, file.with_extension("elsewhere")).unwrap(),
            Self::Replaced => fs::rename(older, file).unwrap(),
            Self::Cut => fs::OpenOptions::new().write(true).truncate(true).open(file).map(drop).unwrap(),
            Self::Overwritten => fs::copy(older, file).map(drop).unwrap(),
        }
    }
}

/// A case, and a central that has confirmed devices.
struct Case {
    file: &'static str,
    harm: Harm,
    place: Place,
    client: reqwest::Client,
    token: String,
    confirmed: Vec<u32>,
}

impl Case {
    async fn start(file: &'static str, harm: Harm) -> (Self, Served) {
        let place = Place::new();
        let central = place.serve(|_| {}).unwrap();
        let (client, token) = (reqwest::Client::new(), place.token());
        (Self { file, harm, place, client, token, confirmed: Vec::new() }, central)
    }

    fn path(&self) -> PathBuf {
        self.place.data().join(self.file)
    }

    async fn put(&mut self, central: &Served, numbers: std::ops::Range<u32>) {
        for number in numbers {
            if central.put(&self.client, &self.token, number).await {
                self.confirmed.push(number);
            }
        }
    }

    /// Harms the file; returns the central that went on without it.
    async fn harmed(&mut self, central: Served) -> Served {
        self.put(&central, DEVICES[0].clone()).await;
        let older = self.place.path().join("older");
        fs::copy(self.path(), &older).unwrap();
        self.put(&central, DEVICES[1].clone()).await;
        assert_eq!(self.confirmed.len(), 8, "{self}: everything is confirmed before");
        self.harm.apply(&self.path(), &older);
        self.put(&central, DEVICES[2].clone()).await;
        central
    }

    /// Which of the confirmed devices a new start has; `None` when it refuses to start.
    async fn missing(&self) -> Option<Vec<u32>> {
        let central = self.place.serve(|_| {})?;
        let mut missing = Vec::new();
        for number in &self.confirmed {
            if !central.has(&self.client, &self.token, *number).await {
                missing.push(*number);
            }
        }
        let lost_commits = central.health(&self.client).await["lostCommits"].as_array().unwrap().len();
        assert!(missing.is_empty() || lost_commits > 0, "{self}: missing in silence: {missing:?}");
        central.kill();
        Some(missing)
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}, confirmed {:?}, log:\n{}", self.file, self.harm, self.confirmed, self.place.log())
    }
}

async fn killed_and_started(file: &'static str, harm: Harm) {
    let (mut case, central) = Case::start(file, harm).await;
    let central = case.harmed(central).await;
    central.kill();
    // A start that is refused says why.
    if case.missing().await.is_none() {
        let log = case.place.log();
        assert!(log.contains(file) || log.contains("central.db"), "{case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_confirmed_is_missing_in_silence_after_a_file_was_harmed_and_central_killed() {
    // An older copy of central.db beside a newer log is found where a page does not fit, which is not sure.
    let is_decided =
        |file, harm| file != "central.db" || ![Harm::Replaced, Harm::Overwritten].contains(&harm);
    let cases = FILES.iter().flat_map(|file| HARMS.map(|harm| (*file, harm)));
    let cases: Vec<_> = cases.filter(|(file, harm)| is_decided(*file, *harm)).collect();
    for some in cases.chunks(AT_ONCE) {
        let mut running = tokio::task::JoinSet::new();
        for (file, harm) in some {
            running.spawn(killed_and_started(file, *harm));
        }
        running.join_all().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_not_in_its_place_is_moved_into_the_store_and_central_ends_for_a_new_one() {
    let files = ["central.db-wal", "central.db-shm"];
    let harms = [Harm::Removed, Harm::MovedAway, Harm::Replaced];
    for (file, harm) in files.iter().flat_map(|file| harms.map(|harm| (*file, harm))) {
        let (mut case, central) = Case::start(file, harm).await;
        let central = case.harmed(central).await;
        assert_eq!(case.confirmed.len(), 8, "{case}: nothing is confirmed afterwards");
        assert_eq!(central.ended(), Some(70), "{case}");
        assert_eq!(case.missing().await, Some(Vec::new()), "{case}");
        let log = case.place.log();
        assert!(
            log.contains(&format!("{file} was deleted")) || log.contains("another file was put"),
            "{log}"
        );
        let names = fs::read_dir(case.place.data()).unwrap().map(|entry| entry.unwrap().file_name());
        let aside = names.into_iter().filter(|name| name.to_string_lossy().contains(".replaced-")).count();
        assert_eq!(aside, usize::from(harm == Harm::Replaced), "{log}");
    }
}

/// Nobody writes: the files are checked nevertheless.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_log_is_found_and_a_removed_record_made_again_while_nothing_is_written() {
    let (mut case, central) = Case::start("central.db-wal", Harm::Removed).await;
    case.put(&central, DEVICES[0].clone()).await;
    let record = case.place.data().join("central.db-commits");
    fs::remove_file(&record).unwrap();
    tokio::time::timeout(Duration::from_secs(60), async {
        while !record.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    case.harm.apply(&case.path(), Path::new(""));
    assert_eq!(central.ended(), Some(70), "{case}");
    assert_eq!(case.missing().await, Some(Vec::new()), "{case}");
}
