//! Checks of what is on its way through the queues.

use super::facts::{Facts, JournalFacts, QueueFacts};
use super::verdict::{Verdict, duration, error, first_of, info, ok, warn};

/// Messages that wait for so long while upstream takes them are warned of.
const BACKLOG_SECS: u64 = 3_600;
/// How long it is warned of messages that expired.
const EXPIRED_SECS: u64 = 3_600;

fn of_queues(facts: &Facts, is_meant: impl Fn(&QueueFacts) -> bool) -> Option<Vec<String>> {
    let queues = &facts.daemon.as_ref()?.queues;
    Some(queues.iter().filter(|queue| is_meant(queue)).map(|queue| queue.name.clone()).collect())
}

/// Logs that cannot be written at present.
fn failing(facts: &Facts) -> Option<Vec<String>> {
    let journals = &facts.daemon.as_ref()?.journals;
    let described =
        |log: &JournalFacts| Some(format!("{} ({}): {}", log.name, log.of, log.failing.as_ref()?));
    Some(journals.iter().filter_map(described).collect())
}

pub(super) fn space(facts: &Facts) -> Option<Verdict> {
    let failing = failing(facts)?;
    if !failing.is_empty() {
        return error(
            format!(
                "the disk cannot be written, and nothing new is acknowledged: {}",
                first_of(&failing, "; ")
            ),
            "check the disk, its mount and the permissions of the data directory (`dmesg`, `ls -ld`, `lsattr -d`); the daemon goes on by itself when it can write",
        );
    }
    let mend = "free disk space or raise [buffer] max_bytes; see `link`, `modules` and `backlog` for why messages do not leave";
    let refusing = of_queues(facts, |queue| queue.headroom == "refusing")?;
    if !refusing.is_empty() {
        return error(format!("full, new messages are refused: {}", first_of(&refusing, ", ")), mend);
    }
    let evicting = of_queues(facts, |queue| queue.headroom == "evicting")?;
    if !evicting.is_empty() {
        return error(
            format!("full, the oldest messages are dropped for new ones: {}", first_of(&evicting, ", ")),
            mend,
        );
    }
    ok("no queue is full")
}

pub(super) fn backlog(facts: &Facts) -> Option<Verdict> {
    let daemon = facts.daemon.as_ref()?;
    let waiting: Vec<String> = daemon
        .queues
        .iter()
        .filter_map(|queue| {
            let secs = queue.oldest_secs?;
            let name = &queue.name;
            (secs >= BACKLOG_SECS)
                .then(|| format!("{name}: {} messages, the oldest for {}", queue.messages, duration(secs)))
        })
        .collect();
    if waiting.is_empty() {
        let messages: u64 = daemon.queues.iter().map(|queue| queue.messages).sum();
        return ok(format!("{messages} messages wait"));
    }
    warn(
        first_of(&waiting, "; "),
        "see `link` for the queue upstream, and `modules` for inputs/MODULE: a module that is not connected takes nothing",
    )
}

pub(super) fn losses(facts: &Facts) -> Option<Verdict> {
    let daemon = facts.daemon.as_ref()?;
    let mut lost: Vec<String> = daemon.lost.iter().map(|(cause, count)| format!("{cause} {count}")).collect();
    if daemon.partly_refused > 0 {
        lost.push(format!(
            "partly refused because a queue of one of their routes was full {}",
            daemon.partly_refused
        ));
    }
    if lost.is_empty() {
        return ok("none");
    }
    let evidence = format!("since the queues were made: {}", lost.join(", "));
    let mend =
        "`edge-agent status` lists their senders; central keeps each loss (/api/ext/devices/ID/losses)";
    if daemon.lost_unreported > 0 {
        return warn(format!("{evidence}; central does not know of {} yet", daemon.lost_unreported), mend);
    }
    if let Some(secs) = daemon.expired_secs_ago.filter(|secs| *secs < EXPIRED_SECS) {
        return warn(
            format!("{evidence}; messages expired {} ago", duration(secs)),
            "see `link` and `modules` for why they waited; raise [buffer] max_age_secs or the manifest's timeToLiveSecs to keep them longer",
        );
    }
    info(evidence, mend)
}

pub(super) fn quarantine(facts: &Facts) -> Option<Verdict> {
    let daemon = facts.daemon.as_ref()?;
    let mend = "see why (`edge-agent quarantine list`), then replay or drop them";
    match (daemon.quarantined, daemon.quarantine_evicted) {
        (0, 0) => ok("empty"),
        (0, evicted) => {
            info(format!("empty; {evicted} messages were dropped from it because it was full"), "")
        }
        (kept, 0) => {
            warn(format!("upstream rejected {kept} messages because of their content; they are kept"), mend)
        }
        (kept, evicted) => warn(
            format!(
                "upstream rejected messages because of their content; {kept} are kept, {evicted} were dropped because the quarantine was full"
            ),
            mend,
        ),
    }
}

pub(super) fn unrouted(facts: &Facts) -> Option<Verdict> {
    let daemon = facts.daemon.as_ref()?;
    if daemon.unrouted == 0 {
        return ok("none");
    }
    let most: Vec<String> =
        daemon.unrouted_most.iter().map(|(who, count)| format!("{who} {count}")).collect();
    warn(
        format!(
            "{} messages were acknowledged and dropped, since no route takes them; most of {}",
            daemon.unrouted,
            first_of(&most, ", ")
        ),
        "add a route for them to the manifest (`edge-agent routes test MANIFEST` shows where a message goes), or stop sending them",
    )
}

pub(super) fn damage(facts: &Facts) -> Option<Verdict> {
    let daemon = facts.daemon.as_ref()?;
    let (files, journals) = (daemon.damaged_files, &daemon.journals);
    let mut found = Vec::new();
    if files > 0 {
        found.push(format!(
            "{files} damaged files of queues were set aside; what could be read of them was kept"
        ));
    }
    found.extend(journals.iter().filter(|journal| journal.damaged > 0).map(
        |JournalFacts { name, of, damaged, .. }| {
            format!(
                "{damaged} records of {of} are missing or damaged in {name}, found since the daemon started"
            )
        },
    ));
    // Files that somebody removed are no sign of a faulty disk, so the advice is another one.
    if found.is_empty() && !daemon.removed_files.is_empty() {
        return error(
            daemon.removed_files.join("; "),
            "find out what removes files in the data directory, and restore it from a backup if something is missing",
        );
    }
    found.extend(daemon.removed_files.iter().cloned());
    if !found.is_empty() {
        return error(
            found.join("; "),
            "check for a disk fault (`dmesg`, `smartctl -a`) and replace the disk; `losses` lists what queues lost",
        );
    }
    let earlier: Vec<String> = journals
        .iter()
        .filter(|journal| journal.damaged_ever > 0)
        .map(|JournalFacts { of, damaged_ever, .. }| format!("{damaged_ever} records of {of}"))
        .collect();
    if earlier.is_empty() {
        return ok("nothing was damaged");
    }
    info(format!("missing or damaged, found before the daemon started: {}", earlier.join(", ")), "")
}
