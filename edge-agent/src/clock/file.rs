//! `clock.json` of the data directory: how far the clock of ages was, and how the wall clock was set.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;

use edge_core::clock::ages::SavedClock;
use edge_core::error_chain::chain;

const NAME: &str = "clock.json";
const UNFINISHED: &str = "clock.json.new";

/// `None` before the first start, and when it cannot be used, which is logged.
pub(super) fn read(data_dir: &Path) -> Option<SavedClock> {
    let path = data_dir.join(NAME);
    let report = |error: &dyn std::error::Error| {
        tracing::error!(file = %path.display(), error = %chain(error), "the clock of ages cannot be read and begins anew; the ages of queued messages may be wrong");
    };
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).inspect_err(|error| report(error)).ok(),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            report(&error);
            None
        }
    }
}

/// Returns true when there is one.
pub(super) fn is_there(data_dir: &Path) -> bool {
    data_dir.join(NAME).exists()
}

/// Replaces it; on disk when this returns.
pub(super) fn write(data_dir: &Path, saved: &SavedClock) -> io::Result<()> {
    let unfinished = data_dir.join(UNFINISHED);
    let mut file = File::create(&unfinished)?;
    file.write_all(&serde_json::to_vec(saved)?)?;
    file.sync_data()?;
    fs::rename(&unfinished, data_dir.join(NAME))?;
    File::open(data_dir)?.sync_all()
}
