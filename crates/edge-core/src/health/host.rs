//! Checks of the host: configuration, data directory, clock, disk, memory, addresses, the daemon itself.

use schemas::timestamp::rfc3339;

use super::facts::{Facts, Probe};
use super::verdict::{Verdict, denied, duration, error, found, info, ok, size, warn};
use crate::clock::is_before_build;

/// A gateway whose clock is off by this much is near the 5 minutes that a token may be off.
const OFFSET_WARN_MS: u64 = 30_000;
/// Tokens that are off by more are refused: IoT Hub's and this gateway's limit.
const OFFSET_MAX_MS: u64 = 300_000;
/// Free space below this many times `keep_free_bytes` is warned of.
const FREE_WARN_TIMES: u64 = 2;

pub(super) fn config(facts: &Facts) -> Option<Verdict> {
    let path = &facts.config.path;
    match &facts.config.read {
        Probe::NotProbed => None,
        Probe::Found(()) => ok(path.clone()),
        Probe::Denied(why) => error(
            why.clone(),
            format!("{path} is for its owner alone: run `edge-agent check` as that user, or as root"),
        ),
        Probe::Missing(why) => error(
            why.clone(),
            "name the file with --config; on a new gateway, write it with `edge-agent init`",
        ),
        Probe::Failed(why) => {
            error(why.clone(), format!("correct {path}; the daemon does not start with it"))
        }
    }
}

pub(super) fn config_in_use(facts: &Facts) -> Option<Verdict> {
    let (now, daemon) = (facts.config.crc32c?, facts.daemon.as_ref()?.config_crc32c?);
    if now == daemon {
        return ok("unchanged since the daemon started");
    }
    warn(
        format!(
            "{} was changed after the daemon started; the daemon runs with what it was",
            facts.config.path
        ),
        "restart edge-agent; containers and what is on disk stay as they are",
    )
}

pub(super) fn data_dir(facts: &Facts) -> Option<Verdict> {
    let dir = &facts.host.data_dir;
    match &facts.host.data_dir_use {
        Probe::NotProbed => None,
        Probe::Found(()) => ok(dir.clone()),
        Probe::Denied(why) => {
            error(why.clone(), format!("run `edge-agent check` as the owner of {dir}, or as root"))
        }
        Probe::Missing(why) => error(
            why.clone(),
            format!("mount its disk or correct data_dir; if {dir} is lost, restore it from a backup"),
        ),
        Probe::Failed(why) => {
            error(why.clone(), format!("make {dir} a directory that the daemon can write to"))
        }
    }
}

pub(super) fn permissions(facts: &Facts) -> Option<Verdict> {
    let failed = |why: &str| warn(why, "check the file system of the data directory");
    match found(&facts.host.public_file, failed) {
        Err(verdict) => verdict,
        Ok(None) => ok(format!("{} is for its owner alone", facts.host.data_dir)),
        Ok(Some(path)) => warn(
            format!("{path} can be used by other users"),
            format!("run `chmod go= {path}`; the daemon does so itself when it starts"),
        ),
    }
}

pub(super) fn clock(facts: &Facts) -> Option<Verdict> {
    let shown = rfc3339(facts.now_secs * 1000);
    if is_before_build(facts.now_secs) {
        return error(
            format!(
                "the clock shows {shown}, before this program was built: certificates and tokens are refused"
            ),
            "set the clock, or start its time server (`timedatectl set-ntp true`)",
        );
    }
    ok(format!("the clock shows {shown}"))
}

pub(super) fn clock_offset(facts: &Facts) -> Option<Verdict> {
    let offset_ms = facts.daemon.as_ref()?.clock_offset_ms?;
    let secs = offset_ms.unsigned_abs().div_ceil(1000);
    let direction = if offset_ms > 0 { "ahead of" } else { "behind" };
    let evidence = match offset_ms.unsigned_abs() {
        0..1000 => "this clock is less than a second from central's".to_owned(),
        _ => format!("this clock is {} {direction} central's", duration(secs)),
    };
    let mend =
        "set both clocks by a time server (`timedatectl set-ntp true`), and find out which of them is wrong";
    match offset_ms.unsigned_abs() {
        0..OFFSET_WARN_MS => ok(evidence),
        OFFSET_WARN_MS..OFFSET_MAX_MS => warn(evidence, mend),
        _ => error(format!("{evidence}: tokens are refused, and times of messages are wrong"), mend),
    }
}

pub(super) fn disk(facts: &Facts) -> Option<Verdict> {
    let dir = &facts.host.data_dir;
    let failed = |why: &str| error(why, "check the disk of the data directory (`dmesg`, `mount`)");
    let disk = match found(&facts.host.disk, failed) {
        Err(verdict) => return verdict,
        Ok(disk) => disk,
    };
    if disk.is_read_only {
        return error(
            format!("the disk of {dir} is mounted for reading only: nothing new is stored"),
            "check for a disk fault (`dmesg`), then mount it for writing and restart edge-agent",
        );
    }
    let (free, keep) = (disk.free_bytes, disk.keep_free_bytes);
    let evidence =
        format!("{} of {} free, {} must stay free", size(free), size(disk.total_bytes), size(keep));
    let mend = format!(
        "free space on the disk of {dir} (`docker system df`, `du -xh`), or lower [buffer] max_bytes"
    );
    if free <= keep {
        let evidence = format!("{evidence}: old messages are dropped or new ones refused");
        return error(evidence, mend);
    }
    if free < keep.saturating_mul(FREE_WARN_TIMES) {
        return warn(evidence, mend);
    }
    ok(evidence)
}

pub(super) fn inodes(facts: &Facts) -> Option<Verdict> {
    let disk = found(&facts.host.disk, |_| None).ok()?;
    let (free, total) = (disk.free_inodes, disk.total_inodes);
    if total == 0 {
        return ok("the file system has no limit of files");
    }
    let evidence = format!("{free} of {total} files can still be made");
    let mend =
        format!("remove files on the disk of {} (`df -i`, `docker system prune`)", facts.host.data_dir);
    match free {
        // A new segment of a queue is a file.
        0..100 => error(evidence, mend),
        _ if free < total / 50 => warn(evidence, mend),
        _ => ok(evidence),
    }
}

pub(super) fn memory(facts: &Facts) -> Option<Verdict> {
    let memory = found(&facts.host.memory, |_| None).ok()?;
    let (available, total) = (memory.available_bytes, memory.total_bytes);
    let evidence = format!("{} of {} available", size(available), size(total));
    if available < total / 20 {
        return warn(
            format!("{evidence}: the kernel may end modules or the daemon"),
            "find what uses it (`docker stats`), and limit modules by HostConfig.Memory in their createOptions",
        );
    }
    ok(evidence)
}

pub(super) fn open_files(facts: &Facts) -> Option<Verdict> {
    let files = found(&facts.host.open_files, |_| None).ok()?;
    let allowed = files.allowed.map_or_else(|| "any number of".to_owned(), |allowed| allowed.to_string());
    let mend = "raise LimitNOFILE of the service, or lower [listen] connections_max";
    match files.connections {
        None => error(format!("{allowed} files may be open: the daemon does not start"), mend),
        Some(fitting) if fitting < files.connections_max => warn(
            format!("{allowed} files may be open: {fitting} clients at once, not {}", files.connections_max),
            mend,
        ),
        Some(fitting) => ok(format!("{allowed} files may be open: enough for {fitting} clients")),
    }
}

pub(super) fn hostname(facts: &Facts) -> Option<Verdict> {
    let name = &facts.host.hostname;
    let failed = |why: &str| {
        warn(
            format!("hostname {name} does not resolve here: {why}"),
            format!("make sure that leaf devices resolve {name} to this host (DNS, or their hosts file)"),
        )
    };
    match found(&facts.host.hostname_addresses, failed) {
        Err(verdict) => verdict,
        Ok(addresses) => ok(format!("{name} is {}", addresses.join(", "))),
    }
}

pub(super) fn listeners(facts: &Facts) -> Option<Verdict> {
    match &facts.host.listeners {
        Probe::Found(busy) if busy.is_empty() => ok("the addresses of [listen] are free"),
        Probe::Found(busy) => error(
            format!("the daemon cannot listen: {}", busy.join("; ")),
            "see who holds the port (`ss -ltnp`) and end it, or write another address in [listen]",
        ),
        // The daemon would have ended if it had none.
        Probe::NotProbed if facts.daemon.is_some() => ok("the daemon listens"),
        _ => None,
    }
}

pub(super) fn daemon(facts: &Facts) -> Option<Verdict> {
    let log = "`journalctl -u edge-agent -n 50` shows why it ended";
    match &facts.answer {
        Probe::NotProbed => facts.daemon.as_ref().and_then(|_| ok("it runs")),
        Probe::Found(()) => ok("it runs"),
        Probe::Denied(why) => denied(why),
        Probe::Missing(why) => error(
            format!("it does not run: {why}; devices cannot connect and modules are not supervised"),
            format!("start it (`systemctl start edge-agent`); {log}"),
        ),
        Probe::Failed(why) => error(
            format!("it does not answer: {why}"),
            "restart it (`systemctl restart edge-agent`); what it acknowledged is on disk",
        ),
    }
}

pub(super) fn daemon_version(facts: &Facts) -> Option<Verdict> {
    let daemon = &facts.daemon.as_ref()?.version;
    if *daemon == facts.version {
        return ok(daemon.clone());
    }
    info(
        format!("the daemon is {daemon}, this program is {}", facts.version),
        "restart edge-agent to run the installed version",
    )
}
