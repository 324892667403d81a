//! What the ledger of a gateway's queue says on disk: the daemon tells what it has in memory, and is killed by what it has here.

use std::path::Path;

use anyhow::{Context as _, Result};

/// As the module `format` of edge-buffer says: two slots in turn, of which the whole one with the higher generation counts.
const SLOT: usize = 48 << 10;
const HEADER: usize = 120;

/// How many messages of the queue in `dir` its ledger on disk says were refused.
///
/// # Errors
/// When the file cannot be read, or no slot of it is whole.
pub fn refused(dir: &Path) -> Result<u64> {
    let bytes =
        std::fs::read(dir.join("ledger")).with_context(|| format!("reading {}/ledger", dir.display()))?;
    let newest = bytes.chunks(SLOT).filter_map(whole).max_by_key(|slot| number(slot, 28));
    newest.map(|slot| number(slot, 92)).context("no slot of the ledger is whole")
}

fn whole(slot: &[u8]) -> Option<&[u8]> {
    let length = u32::from_le_bytes(slot.get(112..116)?.try_into().ok()?) as usize;
    let checksum = u32::from_le_bytes(slot.get(116..HEADER)?.try_into().ok()?);
    let body = slot.get(HEADER..HEADER.checked_add(length)?)?;
    let is_whole = crc32c::crc32c_append(crc32c::crc32c(&slot[..116]), body) == checksum;
    (is_whole && slot.starts_with(b"LSLEDGER")).then_some(slot)
}

/// `slot` has a whole header.
fn number(slot: &[u8], at: usize) -> u64 {
    slot[at..at + 8].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
