//! How a check came out, and the texts that several checks share.

use super::facts::Probe;
use super::finding::Level;

/// How a check came out: a [`Finding`](super::finding::Finding) without its id.
pub(super) struct Verdict {
    pub(super) level: Level,
    pub(super) evidence: String,
    pub(super) mend: String,
}

pub(super) fn ok(evidence: impl Into<String>) -> Option<Verdict> {
    Some(Verdict { level: Level::Ok, evidence: evidence.into(), mend: String::new() })
}

pub(super) fn info(evidence: impl Into<String>, mend: impl Into<String>) -> Option<Verdict> {
    Some(Verdict { level: Level::Info, evidence: evidence.into(), mend: mend.into() })
}

pub(super) fn warn(evidence: impl Into<String>, mend: impl Into<String>) -> Option<Verdict> {
    Some(Verdict { level: Level::Warn, evidence: evidence.into(), mend: mend.into() })
}

pub(super) fn error(evidence: impl Into<String>, mend: impl Into<String>) -> Option<Verdict> {
    Some(Verdict { level: Level::Error, evidence: evidence.into(), mend: mend.into() })
}

/// What could not be looked at for want of rights says nothing about the thing itself: `data-dir` and `config` have the error.
pub(super) fn denied(why: &str) -> Option<Verdict> {
    info(format!("not checked: {why}"), "run `edge-agent check` as the user of the daemon, or as root")
}

/// What was found, or the verdict when there is nothing to check. `failed` writes the verdict on what is missing or broken.
pub(super) fn found<T>(
    probe: &Probe<T>,
    failed: impl FnOnce(&str) -> Option<Verdict>,
) -> Result<&T, Option<Verdict>> {
    match probe {
        Probe::Found(found) => Ok(found),
        Probe::NotProbed => Err(None),
        Probe::Denied(why) => Err(denied(why)),
        Probe::Missing(why) | Probe::Failed(why) => Err(failed(why)),
    }
}

/// The first few of a list, and how many more there are.
pub(super) fn first_of(items: &[String], separator: &str) -> String {
    const SHOWN_MAX: usize = 8;
    let mut text = items.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(separator);
    if items.len() > SHOWN_MAX {
        text.push_str(&format!("{separator}and {} more", items.len() - SHOWN_MAX));
    }
    text
}

/// Bytes as an operator reads them: `63.2 MB`.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// A duration as an operator reads it: `14 min`.
pub(super) fn duration(secs: u64) -> String {
    match secs {
        0..120 => format!("{secs} s"),
        120..7_200 => format!("{} min", secs / 60),
        7_200..172_800 => format!("{} h", secs / 3_600),
        _ => format!("{} days", secs / 86_400),
    }
}
