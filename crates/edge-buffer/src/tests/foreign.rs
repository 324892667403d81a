//! Whatever has the name of a part of a queue: the log opens, waits for nothing, and counts what the part held.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::close_and_read;
use super::mirrored::{Site, fill_at_once};
use crate::format::segment_name;
use crate::{Cause, Log};

/// Records before the part is replaced: three full segments of seven, and three more.
const RECORDS: u64 = 24;

/// A name that a log uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Directory,
    Lock,
    Ledger,
    Segment(u64),
    /// The segment that is begun next.
    Next,
    /// The same, not finished.
    Unfinished,
    Mirror,
}

const PLACES: [Place; 9] = [
    Place::Directory,
    Place::Lock,
    Place::Ledger,
    Place::Segment(1),
    Place::Segment(8),
    Place::Segment(22),
    Place::Next,
    Place::Unfinished,
    Place::Mirror,
];

/// What has the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Fifo,
    Socket,
    EmptyDirectory,
    FullDirectory,
    LinkToNothing,
    LinkLoop,
    LinkToItsCopy,
    LinkToDevice,
    /// Made by root only.
    Device,
    /// What was there, with no permission for anyone; root reads it nevertheless.
    Unreadable,
    Empty,
    Noise,
    /// What was there, and a hole behind it that takes hours to read.
    Enlarged,
}

const KINDS: [Kind; 13] = [
    Kind::Fifo,
    Kind::Socket,
    Kind::EmptyDirectory,
    Kind::FullDirectory,
    Kind::LinkToNothing,
    Kind::LinkLoop,
    Kind::LinkToItsCopy,
    Kind::LinkToDevice,
    Kind::Device,
    Kind::Unreadable,
    Kind::Empty,
    Kind::Noise,
    Kind::Enlarged,
];

impl Kind {
    fn is_file(self) -> bool {
        matches!(self, Self::Unreadable | Self::Empty | Self::Noise | Self::Enlarged)
    }

    /// Replaces what has the path; false where that is not possible here.
    fn put(self, path: &Path, elsewhere: &Path) -> bool {
        let copy = elsewhere.join("copy");
        let is_file = path.is_file();
        if is_file {
            fs::copy(path, &copy).unwrap();
        } else {
            fs::write(&copy, "a file of somebody").unwrap();
        }
        match self {
            Self::Unreadable | Self::Enlarged if path.is_dir() => return false,
            Self::Unreadable | Self::Enlarged => {}
            _ if path.is_dir() => fs::remove_dir_all(path).unwrap(),
            _ if is_file => fs::remove_file(path).unwrap(),
            _ => {}
        }
        match self {
            Self::Fifo => mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap(),
            Self::Socket => drop(UnixListener::bind(path).unwrap()),
            Self::EmptyDirectory => fs::create_dir(path).unwrap(),
            Self::FullDirectory => {
                fs::create_dir(path).unwrap();
                fs::write(path.join("data"), "somebody's").unwrap();
            }
            Self::LinkToNothing => symlink(elsewhere.join("nothing"), path).unwrap(),
            Self::LinkLoop => symlink(path, path).unwrap(),
            Self::LinkToItsCopy => symlink(&copy, path).unwrap(),
            Self::LinkToDevice => symlink("/dev/zero", path).unwrap(),
            Self::Device => {
                return mknodat(CWD, path, FileType::CharacterDevice, Mode::RWXU, makedev(1, 5)).is_ok();
            }
            Self::Unreadable => {
                OpenOptions::new().create(true).append(true).open(path).unwrap();
                fs::set_permissions(path, Permissions::from_mode(0o000)).unwrap();
            }
            Self::Empty => fs::write(path, "").unwrap(),
            Self::Noise => fs::write(path, [0xa5; 5000]).unwrap(),
            Self::Enlarged => {
                let file = OpenOptions::new().create(true).append(true).open(path).unwrap();
                file.set_len(4 << 40).unwrap();
            }
        }
        true
    }
}

impl Site {
    fn path(&self, place: Place, next: u64) -> PathBuf {
        match place {
            Place::Directory => self.queue(),
            Place::Lock => self.queue().join("lock"),
            Place::Ledger => self.queue().join("ledger"),
            Place::Segment(first) => self.queue().join(segment_name(first)),
            Place::Next => self.queue().join(segment_name(next)),
            Place::Unfinished => self.queue().join(format!("{}.new", segment_name(next))),
            Place::Mirror => self.mirror(),
        }
    }
}

fn lost(log: &Log) -> u64 {
    let loss_records = log.loss_records();
    assert!(loss_records.iter().all(|loss| loss.cause == Cause::Damaged), "{loss_records:?}");
    loss_records.iter().map(|loss| loss.count).sum()
}

/// Records that are gone with the part.
fn held(place: Place, kind: Kind) -> std::ops::RangeInclusive<u64> {
    let held = match place {
        Place::Directory => RECORDS,
        Place::Segment(22) => 3,
        Place::Segment(_) => 7,
        Place::Lock | Place::Ledger | Place::Next | Place::Unfinished | Place::Mirror => 0,
    };
    match (place, kind) {
        (Place::Directory, Kind::EmptyDirectory | Kind::FullDirectory) => held..=held,
        (_, Kind::Enlarged) => 0..=0,
        (_, Kind::Unreadable) => 0..=held,
        _ => held..=held,
    }
}

#[tokio::test]
async fn whatever_has_the_name_of_a_part_the_log_opens_and_counts_what_the_part_held() {
    for place in PLACES {
        for kind in KINDS {
            let case = format!("{kind:?} as {place:?}");
            let (site, elsewhere) = (Site(tempfile::tempdir().unwrap()), tempfile::tempdir().unwrap());
            let log = site.open();
            fill_at_once(&log, RECORDS, 100).await;
            log.close().await;
            drop(log);
            let path = site.path(place, RECORDS + 1);
            if !kind.put(&path, elsewhere.path()) {
                continue;
            }
            let copy = fs::read(elsewhere.path().join("copy")).unwrap();
            let log = site.open();
            let held = held(place, kind);
            let is_right_kind = kind.is_file()
                || (place == Place::Directory && matches!(kind, Kind::EmptyDirectory | Kind::FullDirectory));
            if !is_right_kind && !matches!(place, Place::Directory | Place::Mirror | Place::Unfinished) {
                assert_eq!(log.stats().set_aside, 1, "{case}");
            }
            if !is_right_kind && place != Place::Unfinished {
                let mut aside = path.clone().into_os_string();
                aside.push(".damaged");
                assert!(fs::symlink_metadata(&aside).is_ok(), "{case}: it is kept");
            }
            fill_at_once(&log, 3, 100).await;
            log.close().await;
            let log = site.open();
            let read = close_and_read(&log).await.len() as u64;
            let lost = lost(&log);
            assert!(held.contains(&lost), "{case}: {held:?}, once: {:?}", log.loss_records());
            assert_eq!(read + lost, RECORDS + 3, "{case}");
            assert_eq!(fs::read(elsewhere.path().join("copy")).unwrap(), copy, "{case}: a link's target");
        }
    }
}

#[tokio::test]
async fn whatever_takes_the_name_of_a_part_of_an_open_log_it_goes_on_and_counts_what_the_part_held() {
    // A directory that is none is what `removed` tests.
    for place in PLACES.into_iter().filter(|place| *place != Place::Directory) {
        for kind in KINDS {
            let case = format!("{kind:?} as {place:?}");
            let (site, elsewhere) = (Site(tempfile::tempdir().unwrap()), tempfile::tempdir().unwrap());
            let log = site.open();
            fill_at_once(&log, RECORDS, 100).await;
            // The segment of record 22 is full with record 28.
            if !kind.put(&site.path(place, 29), elsewhere.path()) {
                continue;
            }
            fill_at_once(&log, 2, 100).await;
            log.check_files();
            fill_at_once(&log, 3, 100).await;
            log.check_files();
            let read = close_and_read(&log).await.len() as u64;
            assert_eq!(read + lost(&log), RECORDS + 5, "{case}: {:?}", log.loss_records());
            let log = site.open();
            let read = close_and_read(&log).await.len() as u64;
            let lost = lost(&log);
            assert_eq!(read + lost, RECORDS + 5, "{case}: {:?}", log.loss_records());
            assert!(lost <= 7, "{case}: {:?}", log.loss_records());
        }
    }
}

#[tokio::test]
async fn a_segment_is_set_aside_also_where_directories_have_its_names_aside() {
    let site = Site(tempfile::tempdir().unwrap());
    let log = site.open();
    fill_at_once(&log, RECORDS, 100).await;
    log.close().await;
    drop(log);
    let segment = site.path(Place::Segment(8), 0);
    for aside in ["damaged", "2.damaged"] {
        let aside = segment.with_extension(format!("segment.{aside}"));
        fs::create_dir(&aside).unwrap();
        fs::write(aside.join("data"), "somebody's").unwrap();
    }
    fs::write(&segment, "").unwrap();
    let log = site.open();
    assert_eq!((close_and_read(&log).await.len(), lost(&log), log.stats().set_aside), (17, 7, 3));
    assert!(segment.with_extension("segment.3.damaged").is_file());
}
