//! A real file system of its own in a file: ext4 on a loop device, which can be cut from power and filled.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use test_needs::Need;

/// A mounted image. Needs root.
pub(crate) struct Disk {
    dir: tempfile::TempDir,
    image: PathBuf,
    is_mounted: bool,
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

impl Disk {
    /// A new file system of `mib` MiB. `None` where the test is to be skipped: for an ordinary user, and on a machine without loop devices,
    /// where the long form of the tests fails instead.
    #[track_caller]
    pub(crate) fn new(mib: u64) -> Option<Self> {
        if !test_needs::has(&[Need::Root, Need::Program("mkfs.ext4")]) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        let mut disk = Self { dir, image, is_mounted: false };
        run("mkfs.ext4", &["-q", "-F", "-m", "0", text(&disk.image)]).unwrap();
        if let Err(error) = disk.mount() {
            assert!(std::env::var_os("LINESIDE_FAULTS").is_none(), "a real disk is needed: {error}");
            test_needs::skip_on_this_machine(&format!("it needs loop devices: {error}"));
            return None;
        }
        Some(disk)
    }

    fn mount(&mut self) -> Result<(), String> {
        let at = self.path();
        std::fs::create_dir_all(&at).unwrap();
        // The journal's own commits, which would sync what nobody asked for, are ten minutes apart.
        run("mount", &["-t", "ext4", "-o", "loop,commit=600", text(&self.image), text(&at)])?;
        self.is_mounted = true;
        Ok(())
    }

    fn unmount(&mut self) {
        if std::mem::take(&mut self.is_mounted) {
            run("umount", &["-l", text(&self.path())]).unwrap();
        }
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("mounted")
    }

    /// The power is cut: what the disk has at this moment is all that comes back.
    pub(crate) fn cut(&mut self) {
        let copy = self.dir.path().join("copy");
        run("cp", &["--sparse=always", text(&self.image), text(&copy)]).unwrap();
        self.unmount();
        std::fs::remove_file(&self.image).unwrap();
        // Another name: the kernel may still write to the old one.
        self.image = self.dir.path().join(format!("image-{}", uuid::Uuid::new_v4().simple()));
        std::fs::rename(copy, &self.image).unwrap();
        self.mount().unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if std::mem::take(&mut self.is_mounted) {
            let _best_effort = run("umount", &["-l", text(&self.path())]);
        }
    }
}

/// How often: in `make test`, and in `make faults`.
pub(crate) fn rounds(bounded: usize, long: usize) -> usize {
    if std::env::var_os("LINESIDE_FAULTS").is_some() { long } else { bounded }
}
