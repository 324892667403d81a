//! A small disk of its own, for root: a file system in a file, which can be filled, and frozen as a disk that hangs.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use test_needs::Need;

/// A mounted file system; unmounted when this is dropped.
pub(crate) struct Disk {
    dir: TempDir,
    mounted: PathBuf,
}

/// Nothing is written to the disk until this is dropped.
pub(crate) struct Frozen<'a>(&'a Disk);

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    match Command::new(program).args(arguments).output() {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(format!("{program}: {}", String::from_utf8_lossy(&done.stderr))),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

impl Disk {
    /// One of so many MiB; `None` where the test is to be skipped: for an ordinary user, and on a machine without loop devices.
    #[track_caller]
    pub(crate) fn new(mib: u64) -> Option<Self> {
        if !test_needs::has(&[Need::Root, Need::Program("mkfs.ext4"), Need::Program("fsfreeze")]) {
            return None;
        }
        let dir = TempDir::new().unwrap();
        let (image, mounted) = (dir.path().join("image"), dir.path().join("disk"));
        std::fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        std::fs::create_dir(&mounted).unwrap();
        run("mkfs.ext4", &["-q", "-F", "-m", "0", text(&image)]).unwrap();
        match run("mount", &["-o", "loop", text(&image), text(&mounted)]) {
            Ok(()) => Some(Self { dir, mounted }),
            Err(error) => {
                test_needs::skip_on_this_machine(&format!("it needs loop devices: {error}"));
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mounted
    }

    /// Every write to it hangs.
    pub(crate) fn freeze(&self) -> Frozen<'_> {
        run("fsfreeze", &["--freeze", text(&self.mounted)]).unwrap();
        Frozen(self)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        run("fsfreeze", &["--unfreeze", text(&self.0.mounted)]).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = run("umount", &["--lazy", text(&self.mounted)]) {
            println!(
                "{} is still mounted below {}: {error}",
                self.mounted.display(),
                self.dir.path().display()
            );
        }
    }
}
