//! A store that is damaged, cut, emptied or gone: central says what was lost, or does not start. Nothing is missing in silence.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod started;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use central::store::telemetry::{NewMessage, Place, Writing};
use central::store::telemetry_reading;
use central::store::{self, Keep, Store, StoreError, backup, devices, record};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use started::starting::output;
use started::{end, start};

const KEEP: Keep = Keep { messages: 100_000, commands: 100 };

fn message(device: &str, sequence: u64) -> NewMessage {
    let mut bag = schemas::bag::PropertyBag::new();
    bag.set("line", "4");
    NewMessage {
        from: device.parse().unwrap(),
        enqueued_ms: sequence,
        received_ms: 0,
        bag,
        body: format!(r#"{{"n":{sequence},"text":"{}"}}"#, "x".repeat(200)).into_bytes(),
        place: Some(Place { gateway: "gw".parse().unwrap(), queue: "q".into(), sequence }),
        generation: None,
    }
}

/// Commits `messages`, ten in each commit.
async fn fill(store: &Store, messages: std::ops::Range<u64>) {
    let register = store.submit(|c| {
        for id in ["gw", "press-1", "press-2"] {
            devices::put(c, &device(id))?;
        }
        Ok::<_, StoreError>(())
    });
    register.await.unwrap();
    let all: Vec<u64> = messages.collect();
    for some in all.chunks(10) {
        let some = some.to_vec();
        let stored = store.submit(move |c| {
            let mut writing = Writing::new(c)?;
            for n in some {
                writing.insert(&message(if n % 2 == 0 { "press-1" } else { "press-2" }, n))?;
            }
            writing.finish()?;
            Ok::<_, StoreError>(())
        });
        stored.await.unwrap();
    }
}

fn device(id: &str) -> devices::Device {
    devices::Device { is_gateway: id == "gw", revision: 1, ..devices::Device::new(id.parse().unwrap()) }
}

/// What an API shows of both devices, in all.
async fn shown(store: &Store) -> Result<Vec<(i64, u64)>, StoreError> {
    let read = store.read(|c| {
        let mut all = Vec::new();
        for of in ["press-1", "press-2"] {
            let page = telemetry_reading::page(c, &of.parse().unwrap(), 0, 100_000)?;
            all.extend(page.into_iter().map(|message| (message.id, message.enqueued_ms)));
        }
        all.sort_unstable();
        Ok::<_, StoreError>(all)
    });
    read.await
}

/// A store as a killed central leaves it: its files are copied while it is open. All messages are in its log, however long they took:
/// somebody has read from the store since before they came.
async fn killed(into: &Path, count: u64) -> Vec<(i64, u64)> {
    let dir = tempfile::tempdir().unwrap();
    let store = store::open(dir.path(), KEEP).unwrap();
    let reader = rusqlite::Connection::open(dir.path().join("central.db")).unwrap();
    let moment = reader.unchecked_transaction().unwrap();
    moment.query_row("SELECT count(*) FROM devices", [], |row| row.get::<_, i64>(0)).unwrap();
    fill(&store, 1..count + 1).await;
    let all = shown(&store).await.unwrap();
    assert_eq!(all.len() as u64, count);
    // Nothing is committed or moved during a work of the writer.
    let (from, into) = (dir.path().to_owned(), into.to_owned());
    let copied = store.submit(move |_| {
        for name in ["central.db", "central.db-wal", "central.db-commits"] {
            fs::copy(from.join(name), into.join(name)).unwrap();
        }
        Ok::<_, StoreError>(())
    });
    copied.await.unwrap();
    drop(moment);
    store.close().await;
    all
}

fn flip(path: &Path, bit: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[usize::try_from(bit / 8).unwrap()] ^= 1 << (bit % 8);
    fs::write(path, bytes).unwrap();
}

/// Starts on a damaged store. Everything is there, or what is missing was told with its number, or central refused.
async fn reported_or_refused(dir: &Path, had: &[(i64, u64)], what: &str) -> &'static str {
    let running = match start(dir).await {
        Err(error) => {
            let text = format!("{error:#}");
            assert!(text.contains("central restore"), "{what}: {text}");
            return "refused";
        }
        Ok(running) => running,
    };
    let store = running.0.store().clone();
    let have = shown(&store).await.unwrap();
    let lost: u64 = store.losses().iter().map(|(_, lost)| lost.messages).sum();
    assert!(have.iter().all(|message| had.contains(message)), "{what}: a message became another one");
    assert_eq!(have.len() as u64 + lost, had.len() as u64, "{what}: {lost} were told as lost");
    end(running).await;
    if lost == 0 { "whole" } else { "told" }
}

#[tokio::test]
async fn a_bit_flipped_anywhere_in_the_log_is_reported_as_a_loss_or_refused_and_never_silent() {
    let master = tempfile::tempdir().unwrap();
    let had = killed(master.path(), 400).await;
    let length = fs::metadata(master.path().join("central.db-wal")).unwrap().len();
    let mut random = StdRng::seed_from_u64(10);
    let mut reported = 0;
    // The header, the first frame's header, and anywhere.
    let mut bits: Vec<u64> = vec![0, 8 * 9, 8 * 17, 8 * 25, 8 * 33, 8 * 41, 8 * 49, 8 * 60];
    bits.extend((0..24).map(|_| random.random_range(0..length * 8)));
    for bit in bits {
        let dir = copy(master.path());
        flip(&dir.path().join("central.db-wal"), bit);
        let ended = reported_or_refused(dir.path(), &had, &format!("bit {bit} of the log")).await;
        reported += u32::from(ended != "whole");
    }
    assert!(reported > 10, "{reported} of the flips mattered");
}

#[tokio::test]
async fn a_bit_flipped_in_a_log_whose_frames_are_in_the_file_already_is_never_silent() {
    let master = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = store::open(dir.path(), KEEP).unwrap();
    fill(&store, 1..201).await;
    // Without the commit that begins the log anew: the moment between a checkpoint and the next commit.
    let other = rusqlite::Connection::open(dir.path().join("central.db")).unwrap();
    other.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
    for name in ["central.db", "central.db-wal", "central.db-commits"] {
        fs::copy(dir.path().join(name), master.path().join(name)).unwrap();
    }
    let had = shown(&store).await.unwrap();
    store.close().await;
    let length = fs::metadata(master.path().join("central.db-wal")).unwrap().len();
    let mut random = StdRng::seed_from_u64(12);
    for _ in 0..40 {
        let bit = random.random_range(0..length * 8);
        let dir = copy(master.path());
        flip(&dir.path().join("central.db-wal"), bit);
        let Ok(running) = start(dir.path()).await else { continue };
        let store = running.0.store().clone();
        let have = shown(&store).await.unwrap();
        assert!(have == had || !store.losses().is_empty(), "bit {bit}: {} of {}", have.len(), had.len());
        end(running).await;
    }
}

#[tokio::test]
async fn a_log_that_is_cut_emptied_or_removed_is_reported_as_a_loss() {
    let master = tempfile::tempdir().unwrap();
    let had = killed(master.path(), 400).await;
    let length = fs::metadata(master.path().join("central.db-wal")).unwrap().len();
    for left in [0, 31, 32, length / 3, length / 2, length - 5000] {
        let dir = copy(master.path());
        let log = dir.path().join("central.db-wal");
        fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(left).unwrap();
        assert_ne!(reported_or_refused(dir.path(), &had, &format!("{left} bytes")).await, "whole");
    }
    let dir = copy(master.path());
    fs::remove_file(dir.path().join("central.db-wal")).unwrap();
    assert_ne!(reported_or_refused(dir.path(), &had, "removed").await, "whole");
}

#[tokio::test]
async fn a_page_of_the_store_that_is_zeroed_foreign_or_flipped_is_refused_or_harmless() {
    let master = tempfile::tempdir().unwrap();
    let had = killed(master.path(), 400).await;
    {
        // Everything into the file.
        let store = store::open(master.path(), KEEP).unwrap();
        store.close().await;
    }
    let path = |dir: &Path| dir.join("central.db");
    let pages = fs::metadata(path(master.path())).unwrap().len() / 4096;
    let mut refused = 0;
    for page in 0..pages {
        for damage in ["zeroed", "foreign", "flipped"] {
            let dir = copy(master.path());
            let mut bytes = fs::read(path(dir.path())).unwrap();
            let at = usize::try_from(page * 4096).unwrap();
            match damage {
                "zeroed" => bytes[at..at + 4096].fill(0),
                "foreign" => bytes[at..at + 4096].fill(0xa5),
                // The page's own header: its kind, its cells, where they begin.
                _ => bytes[at + usize::try_from(page % 8).unwrap()] ^= 0x10,
            }
            fs::write(path(dir.path()), bytes).unwrap();
            let what = format!("page {page} {damage}");
            let ended = reported_or_refused(dir.path(), &had, &what).await;
            refused += u32::from(ended == "refused");
        }
    }
    assert!(u64::from(refused) > pages, "{refused} of {pages} pages");
}

fn copy(from: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
    dir
}

#[tokio::test]
async fn a_missing_or_empty_store_beside_an_authority_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    end(start(dir.path()).await.unwrap()).await;
    let store = dir.path().join("central.db");
    let kept = fs::read(&store).unwrap();
    let authority = fs::read(dir.path().join("ca.pem")).unwrap();
    for is_record_gone in [false, true] {
        for is_emptied in [false, true] {
            if is_emptied {
                fs::write(&store, "").unwrap()
            } else {
                fs::remove_file(&store).unwrap()
            }
            if is_record_gone {
                let _ = fs::remove_file(record::path(dir.path()));
            }
            let refused = format!("{:#}", start(dir.path()).await.map(|_| ()).unwrap_err());
            for part in ["central.db", "missing or empty", "central restore", "central new-store"] {
                assert!(refused.contains(part), "{refused}");
            }
            assert!(fs::metadata(&store).map_or(0, |file| file.len()) == 0, "nothing was made");
            fs::write(&store, &kept).unwrap();
        }
    }
    assert_eq!(fs::read(dir.path().join("ca.pem")).unwrap(), authority);
    end(start(dir.path()).await.unwrap()).await;
}

#[tokio::test]
async fn a_clean_stop_and_a_kill_are_no_loss() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let running = start(dir.path()).await.unwrap();
        let store = running.0.store().clone();
        assert_eq!(store.losses(), [], "round {round}");
        fill(&store, round * 50 + 1..round * 50 + 51).await;
        end(running).await;
    }
    let killed_dir = tempfile::tempdir().unwrap();
    let had = killed(killed_dir.path(), 50).await;
    assert_eq!(reported_or_refused(killed_dir.path(), &had, "a kill").await, "whole");
}

#[tokio::test]
async fn a_second_central_on_one_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await.unwrap();
    let refused = start(dir.path()).await.map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("in use"), "{refused}");
    end(running).await;
    end(start(dir.path()).await.unwrap()).await;
}

#[tokio::test]
async fn a_stop_while_another_program_holds_the_store_takes_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await.unwrap();
    let store = running.0.store().clone();
    let other = rusqlite::Connection::open(dir.path().join("central.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let waiting: Vec<_> = (0..3).map(|_| store.submit(|_| Ok::<_, StoreError>(()))).collect();
    let since = std::time::Instant::now();
    end(running).await;
    // Works wait for 60 s when no stop ends that; what is more than 5 s is for a loaded machine.
    assert!(since.elapsed() < std::time::Duration::from_secs(40), "{:?}", since.elapsed());
    for work in waiting {
        assert!(matches!(work.await, Err(StoreError::NotCommitted)));
    }
    other.execute_batch("COMMIT").unwrap();
}

/// Runs the program with a command on a data directory.
fn central(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_central"));
    command
        .args(arguments)
        .arg("--data-dir")
        .arg(dir)
        .env("CENTRAL__HTTP__LISTEN", "127.0.0.1:0")
        .env("CENTRAL__MQTT__MQTTS", "127.0.0.1:0")
        .stdin(Stdio::null());
    output(&mut command)
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    text(output)
}

#[tokio::test]
async fn a_backup_made_while_central_runs_restores_the_site_and_the_authority_from_one_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let running = start(dir.path()).await.unwrap();
    let store = running.0.store().clone();
    fill(&store, 1..101).await;
    let had = shown(&store).await.unwrap();
    let file = other.path().join("site.backup");
    let name = file.to_str().unwrap();
    ok(&central(dir.path(), &["backup", name]));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let again = central(dir.path(), &["backup", name]);
    assert!(!again.status.success() && text(&again).contains("is there already"), "{}", text(&again));
    // What comes after the backup is not in it.
    fill(&store, 101..111).await;
    let refused = central(dir.path(), &["restore", "--replace", name]);
    assert!(!refused.status.success() && text(&refused).contains("in use"), "{}", text(&refused));
    end(running).await;
    let authority = fs::read(dir.path().join("ca-key.pem")).unwrap();

    // A new machine.
    let machine = tempfile::tempdir().unwrap();
    ok(&central(machine.path(), &["restore", name]));
    for name in ["ca-key.pem", "central.db"] {
        assert_eq!(fs::metadata(machine.path().join(name)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(fs::read(machine.path().join("ca-key.pem")).unwrap(), authority);
    let bytes = fs::read(machine.path().join("central.db")).unwrap();
    assert!(!bytes.windows(11).any(|part| part == b"PRIVATE KEY"), "the authority's key stays in its file");
    let restored = start(machine.path()).await.unwrap();
    assert_eq!(shown(restored.0.store()).await.unwrap(), had);
    assert_eq!(restored.0.store().losses(), []);
    end(restored).await;

    // Where a store is, only when told; and what was there is kept.
    let refused = central(dir.path(), &["restore", name]);
    assert!(!refused.status.success() && text(&refused).contains("--replace"), "{}", text(&refused));
    let running = start(dir.path()).await.unwrap();
    assert_eq!(shown(running.0.store()).await.unwrap().len(), 110, "a refused restore changes nothing");
    end(running).await;
    ok(&central(dir.path(), &["restore", "--replace", name]));
    let running = start(dir.path()).await.unwrap();
    assert_eq!(shown(running.0.store()).await.unwrap(), had);
    end(running).await;
    let replaced = fs::read_dir(dir.path()).unwrap().map(Result::unwrap);
    let replaced = replaced.filter(|file| file.file_name().to_string_lossy().starts_with("replaced-"));
    let folders: Vec<_> = replaced.map(|folder| folder.path()).collect();
    assert!(folders.len() == 1 && folders[0].join("central.db").exists(), "{folders:?}");
}

#[tokio::test]
async fn a_lost_store_comes_back_from_its_backup_or_is_begun_anew_on_purpose() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let running = start(dir.path()).await.unwrap();
    fill(running.0.store(), 1..21).await;
    let file = other.path().join("site.backup");
    ok(&central(dir.path(), &["backup", file.to_str().unwrap()]));
    end(running).await;
    fs::remove_file(dir.path().join("central.db")).unwrap();
    let refused = central(dir.path(), &["serve"]);
    assert!(
        !refused.status.success() && text(&refused).contains("central restore FILE"),
        "{}",
        text(&refused)
    );
    ok(&central(dir.path(), &["restore", file.to_str().unwrap()]));
    let running = start(dir.path()).await.unwrap();
    assert_eq!(shown(running.0.store()).await.unwrap().len(), 20);
    end(running).await;

    let refused = central(dir.path(), &["new-store"]);
    assert!(!refused.status.success(), "{}", text(&refused));
    let authority = fs::read(dir.path().join("ca.pem")).unwrap();
    fs::write(dir.path().join("central.db"), "").unwrap();
    ok(&central(dir.path(), &["new-store"]));
    let running = start(dir.path()).await.unwrap();
    assert_eq!(shown(running.0.store()).await.unwrap(), []);
    assert_eq!(running.0.store().losses(), []);
    end(running).await;
    assert_eq!(fs::read(dir.path().join("ca.pem")).unwrap(), authority);
}

#[tokio::test]
async fn a_backup_with_any_byte_changed_is_refused_and_changes_nothing() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let running = start(dir.path()).await.unwrap();
    fill(running.0.store(), 1..101).await;
    let had = shown(running.0.store()).await.unwrap();
    let file = other.path().join("site.backup");
    backup::make(dir.path(), &file, 1).unwrap();
    end(running).await;
    let good = fs::read(&file).unwrap();
    let mut random = StdRng::seed_from_u64(11);
    for round in 0..30 {
        let mut bytes = good.clone();
        // Structure is dense at the beginning of pages.
        let page = random.random_range(0..bytes.len() / 4096) * 4096;
        bytes[page + random.random_range(0..if round % 2 == 0 { 64 } else { 4096 })] ^=
            random.random_range(1..=255);
        fs::write(&file, &bytes).unwrap();
        let into = tempfile::tempdir().unwrap();
        let refused = backup::restore(into.path(), &file, false, 2).unwrap_err().to_string();
        assert!(refused.contains("checksum"), "round {round}: {refused}");
        assert!(!into.path().join("central.db").exists());
    }
    fs::write(&file, &good).unwrap();
    let into = tempfile::tempdir().unwrap();
    backup::restore(into.path(), &file, false, 2).unwrap();
    assert_eq!(reported_or_refused(into.path(), &had, "unchanged").await, "whole");
    fs::write(&file, "no backup").unwrap();
    backup::restore(dir.path(), &file, true, 2).unwrap_err();
    end(start(dir.path()).await.unwrap()).await;
}

/// No gateway would trust an authority that is made anew, and nobody would see why.
#[tokio::test]
async fn a_store_with_devices_without_its_authority_is_refused_until_an_operator_makes_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let remove = || {
        for name in ["ca.pem", "ca-key.pem"] {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
    };
    end(start(dir.path()).await.unwrap()).await;
    // As a first start leaves it that was killed: nobody trusts anything yet.
    remove();
    let running = start(dir.path()).await.unwrap();
    let register = running.0.store().submit(|c| {
        let device = devices::Device::new("press-1".parse().unwrap());
        devices::put(c, &devices::Device { revision: 1, ..device })?;
        Ok::<_, StoreError>(())
    });
    register.await.unwrap();
    end(running).await;
    remove();
    let refused = format!("{:#}", start(dir.path()).await.err().unwrap());
    for part in ["ca.pem and ca-key.pem are missing", "restore", "central new-authority"] {
        assert!(refused.contains(part), "{refused}");
    }
    assert!(!dir.path().join("ca.pem").exists(), "nothing was made");
    ok(&central(dir.path(), &["new-authority"]));
    end(start(dir.path()).await.unwrap()).await;
}
