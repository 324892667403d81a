use std::fs;
use std::os::unix::fs::symlink;

use super::super::newest;
use super::*;

/// What is done to the place of the folder, below `base`. Afterwards there is an empty folder at `base/parent/watch`.
type Replacement = (&'static str, fn(&Path));

const REPLACEMENTS: &[Replacement] = &[
    ("untouched", |_| {}),
    ("removed and made again", |base| {
        fs::remove_dir_all(at(base)).unwrap();
        fs::create_dir(at(base)).unwrap();
    }),
    ("exchanged by two renames", |base| {
        fs::create_dir(base.join("new")).unwrap();
        fs::rename(at(base), base.join("old")).unwrap();
        fs::rename(base.join("new"), at(base)).unwrap();
    }),
    ("moved away and back", |base| {
        fs::rename(at(base), base.join("away")).unwrap();
        fs::rename(base.join("away"), at(base)).unwrap();
    }),
    ("parent exchanged", |base| {
        fs::create_dir_all(base.join("new/watch")).unwrap();
        fs::rename(base.join("parent"), base.join("old")).unwrap();
        fs::rename(base.join("new"), base.join("parent")).unwrap();
    }),
    ("exchanged for a link", |base| {
        fs::create_dir(base.join("first")).unwrap();
        fs::rename(at(base), base.join("old")).unwrap();
        symlink(base.join("first"), at(base)).unwrap();
    }),
    ("link led elsewhere", |base| {
        fs::rename(at(base), base.join("first")).unwrap();
        symlink(base.join("first"), at(base)).unwrap();
        fs::create_dir(base.join("second")).unwrap();
        symlink(base.join("second"), base.join("link")).unwrap();
        fs::rename(base.join("link"), at(base)).unwrap();
    }),
    ("a file for a moment", |base| {
        fs::remove_dir_all(at(base)).unwrap();
        fs::write(at(base), "").unwrap();
        fs::remove_file(at(base)).unwrap();
        fs::create_dir(at(base)).unwrap();
    }),
];

fn at(base: &Path) -> PathBuf {
    base.join("parent/watch")
}

/// The text of the newest manifest as soon as it is `expected`.
async fn until(folder: &mut FollowedFolder, expected: &str, how: &str) {
    let is_there = async {
        loop {
            folder.changed().await;
            if newest(folder.path()).await.is_some_and(|(_, text)| text == expected.as_bytes()) {
                return;
            }
        }
    };
    let within = Duration::from_secs(60);
    tokio::time::timeout(within, is_there).await.unwrap_or_else(|_| panic!("{how}: {expected} is not seen"));
}

#[tokio::test]
async fn a_manifest_is_seen_after_whatever_happened_to_the_place_of_its_folder() {
    for (how, happens) in REPLACEMENTS {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir_all(at(base.path())).unwrap();
        fs::write(at(base.path()).join("a.json"), "first").unwrap();
        let mut folder = FollowedFolder::new(at(base.path()), Duration::from_millis(50));
        until(&mut folder, "first", how).await;
        happens(base.path());
        fs::write(at(base.path()).join("b.json"), "second").unwrap();
        until(&mut folder, "second", how).await;
        // By an event of the folder that is there now: nothing else tells of a file.
        fs::write(at(base.path()).join("c.json"), "third").unwrap();
        until(&mut folder, "third", how).await;
        assert!(folder.failure.is_none(), "{how}");
    }
}

#[tokio::test]
async fn a_folder_that_is_missing_is_named_and_awaited() {
    let base = tempfile::tempdir().unwrap();
    let mut folder = FollowedFolder::new(at(base.path()), Duration::from_millis(10));
    assert!(!folder.follow().await && folder.failure.is_some());
    fs::create_dir_all(at(base.path())).unwrap();
    fs::write(at(base.path()).join("a.json"), "first").unwrap();
    until(&mut folder, "first", "made later").await;
    fs::remove_dir_all(base.path().join("parent")).unwrap();
    assert!(!folder.follow().await && folder.watched.is_none(), "it is missed");
    fs::create_dir_all(base.path().join("parent")).unwrap();
    fs::write(at(base.path()), "no folder").unwrap();
    assert!(!folder.follow().await);
    assert_eq!(folder.failure.as_deref(), Some("it is not a folder"));
    fs::remove_file(at(base.path())).unwrap();
    fs::create_dir(at(base.path())).unwrap();
    fs::write(at(base.path()).join("b.json"), "second").unwrap();
    until(&mut folder, "second", "made again").await;
}

#[tokio::test]
async fn the_newest_manifest_is_the_newest_that_links_lead_to() {
    let base = tempfile::tempdir().unwrap();
    // As Kubernetes mounts a ConfigMap: files are links through `..data`, which is exchanged.
    let put = |version: &str, files: &[&str]| {
        fs::create_dir_all(base.path().join(version)).unwrap();
        files.iter().for_each(|file| fs::write(base.path().join(version).join(file), version).unwrap());
        symlink(version, base.path().join("..new")).unwrap();
        fs::rename(base.path().join("..new"), base.path().join("..data")).unwrap();
    };
    put("v1", &["a.json"]);
    symlink("..data/a.json", base.path().join("a.json")).unwrap();
    let mut folder = FollowedFolder::new(base.path().to_owned(), Duration::from_millis(50));
    until(&mut folder, "v1", "a link").await;
    fs::write(base.path().join("z.json"), "beside").unwrap();
    until(&mut folder, "beside", "a file beside").await;
    put("v2", &["a.json"]);
    until(&mut folder, "v2", "a link that leads elsewhere").await;
}
