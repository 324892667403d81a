//! A wall clock that a test sets, for one daemon.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::site::Site;

/// Where Debian has libfaketime.
const LIBRARY_DIRS: [&str; 2] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];

/// The wall clock of one of a site's daemons. A steady clock stays steady, as on a real machine.
pub struct FakeClock(PathBuf);

impl FakeClock {
    /// Lets the site's gateway, which does not run yet, see a clock that is right until it is set. The daemon is the debug build:
    /// libfaketime is a shared library, which a static program has no place for.
    ///
    /// # Errors
    /// When the package libfaketime is not installed, or there is no debug build beside the test.
    pub fn of_gateway(site: &mut Site, dir: &Path) -> Result<Self> {
        let clock = Self(dir.join("clock"));
        site.agent_env.extend(clock.environment()?);
        site.agent_program = Some(crate::process::beside_this("edge-agent")?);
        Ok(clock)
    }

    /// The same of the site's central.
    ///
    /// # Errors
    /// As of [`FakeClock::of_gateway`].
    pub fn of_central(site: &mut Site, dir: &Path) -> Result<Self> {
        let clock = Self(dir.join("clock-of-central"));
        site.central_env.extend(clock.environment()?);
        site.central_program = Some(crate::process::beside_this("central")?);
        Ok(clock)
    }

    fn environment(&self) -> Result<[(&'static str, String); 4]> {
        let libraries = LIBRARY_DIRS.map(|dir| format!("{dir}/faketime/libfaketime.so.1"));
        let library = libraries.into_iter().find(|path| Path::new(path).exists());
        self.set("+0")?;
        Ok([
            ("LD_PRELOAD", library.context("install the package libfaketime")?),
            ("FAKETIME_TIMESTAMP_FILE", self.0.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ])
    }

    /// Sets the clock by an offset to the right time, for example `+1d` or `-9800d`. At once: the daemon reads the file at any moment.
    pub fn set(&self, offset: &str) -> Result<()> {
        let unfinished = self.0.with_extension("new");
        std::fs::write(&unfinished, offset)?;
        Ok(std::fs::rename(unfinished, &self.0)?)
    }
}
