//! A file system on storage that can run out below it, as a thinly provisioned volume does: writes of data fail and are lost, and work again
//! once there is space. ext4 on a loop device in a small tmpfs.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use crate::process::run;

/// A mounted file system. Needs root and loop devices. Dropping it unmounts it.
#[derive(Debug)]
pub struct ThinDisk {
    dir: tempfile::TempDir,
}

async fn call(program: &str, arguments: &[&str]) -> Result<()> {
    let (code, _, error) = run(Command::new(program).args(arguments).stdin(Stdio::null())).await?;
    ensure!(code == 0, "{program} {}: {error}", arguments.join(" "));
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("temporary paths are text")
}

impl ThinDisk {
    /// A file system of `mib` MiB on storage that has as much, as long as it does not fail.
    ///
    /// # Errors
    /// When it cannot be made or mounted.
    pub async fn new(mib: u64) -> Result<Self> {
        let disk = Self { dir: tempfile::tempdir()? };
        fs::create_dir_all(disk.storage())?;
        fs::create_dir_all(disk.path())?;
        let size = format!("size={}m", mib + 16);
        call("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", text(&disk.storage())?]).await?;
        let image = disk.storage().join("image");
        let image = text(&image)?;
        fs::File::create(image)?.set_len(mib << 20)?;
        let eager = "lazy_itable_init=0,lazy_journal_init=0";
        call("mkfs.ext4", &["-q", "-F", "-m", "0", "-E", eager, image]).await?;
        // The journal and the tables of the file system have their storage for good: were they lost, the file system would be. So all of it
        // gets storage, and what is free gives it back.
        let whole = disk.storage().join("whole");
        call("cp", &["--sparse=never", image, text(&whole)?]).await?;
        fs::rename(&whole, image)?;
        // By default ext4 gives new blocks to a file as "unwritten" and says after the write that they are: at failing writes that cuts a
        // file into pieces until its list of pieces needs a block of its own, which cannot be written either, and ext4 turns read-only.
        let options = "loop,dioread_lock";
        call("mount", &["-t", "ext4", "-o", options, image, text(&disk.path())?]).await?;
        call("fstrim", &[text(&disk.path())?]).await?;
        disk.write_in_pages().await?;
        Ok(disk)
    }

    /// Has the loop device write one page at a time. It takes a longer write of which a part failed for one that succeeded, and then loses
    /// what a sync has confirmed, which a disk does not.
    async fn write_in_pages(&self) -> Result<()> {
        let mut find = Command::new("findmnt");
        let (code, source, error) = run(find.args(["-no", "SOURCE"]).arg(self.path())).await?;
        ensure!(code == 0, "findmnt: {error}");
        let device = source.trim().strip_prefix("/dev/").context("a loop device is in /dev")?;
        let setting = format!("/sys/block/{device}/queue/max_sectors_kb");
        fs::write(&setting, "4").with_context(|| format!("writing {setting}"))
    }

    fn storage(&self) -> PathBuf {
        self.dir.path().join("storage")
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mounted")
    }

    /// From now on blocks that were never written cannot be written.
    ///
    /// # Errors
    /// When the storage cannot be filled.
    pub fn fail(&self) -> Result<()> {
        let mut hog = fs::File::create(self.storage().join("hog"))?;
        let block = vec![7; 1 << 16];
        while hog.write_all(&block).is_ok() {}
        while hog.write_all(&block[..4096]).is_ok() {}
        Ok(())
    }

    /// Returns true if ext4 has turned read-only, as it does when one of its own new tables could not be written: until it is mounted anew
    /// nothing works on it. It is asked to make a file, since kernels differ in what the mount says (`ro`, `emergency_ro`).
    pub fn is_read_only(&self) -> bool {
        let made = self.path().join("made-to-see");
        let done = fs::File::create(&made).and_then(|_| fs::remove_file(&made));
        done.is_err_and(|error| error.kind() == io::ErrorKind::ReadOnlyFilesystem)
    }

    /// Gives the storage back.
    ///
    /// # Errors
    /// When it was not taken.
    pub fn work_again(&self) -> Result<()> {
        Ok(fs::remove_file(self.storage().join("hog"))?)
    }
}

/// Has the kernel forget every page that it takes for written, as a machine short of memory does: what is read then is what the disk has.
///
/// # Errors
/// When it cannot be requested.
pub fn forget_cached_pages() -> Result<()> {
    fs::write("/proc/sys/vm/drop_caches", "3").context("dropping the page cache")
}

impl Drop for ThinDisk {
    fn drop(&mut self) {
        for path in [self.path(), self.storage()] {
            let _best_effort = std::process::Command::new("umount").arg("-l").arg(path).status();
        }
    }
}
