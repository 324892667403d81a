//! When a module that ended is started again, and when a step that failed is tried again.
//!
//! ```text
//!             ends, and the policy wants it back
//!   running ─────────────────────────────────────> waiting 10, 20, 40, 80, 160, 300, 300 … s
//!      ^  ^                                            │            │
//!      │  └────────────── Restarted ───────────────────┘            │ 20 restarts
//!      │                                                            v
//!      └── ran for 10 minutes: counted from 0 again             given up (on-failure, on-unhealthy; not after code 0),
//!                                                              until the next deployment or by hand
//! ```
//!
//! The figures are IoT Edge's (MaxRestartCount, IntensiveCareTimeInMinutes, CoolOffTimeUnitInSeconds). As there, every policy
//! above `never` starts a module that ended with code 0: a module whose desired status is running has no reason to end,
//! and the engine's own stop ends it with code 0 too. Such an end and the policy `always` are never given up; they wait
//! for as long as the longest wait. `on-unhealthy` and `always` look at the container's health check, which IoT Edge never
//! did. An end before the host's last boot says nothing about the module: unless its policy is `never`, it is started
//! without being counted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use schemas::manifest::{DesiredStatus, RestartPolicy};
use schemas::names::ModuleId;

use super::desired::{Desired, DesiredModule};
use super::observed::{ContainerState, Observed, ObservedModule};
use super::start_condition::{Held, first_unmet};

/// After this many restarts a module is given up.
pub const RESTARTS_MAX: u32 = 20;
/// A module that ran for this long is well again.
pub const WELL_AFTER_MS: u64 = 10 * 60 * 1000;
/// The first wait; each further one is twice as long.
pub const WAIT_FIRST_MS: u64 = 10 * 1000;
pub const WAIT_MAX_MS: u64 = 300 * 1000;

/// Docker's times may be this much ahead of the caller's: the time that one look at every container may take.
const CLOCK_AHEAD_MS: u64 = 60 * 1000;

/// What is remembered of each module that exists; nothing of any other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restarts {
    modules: BTreeMap<ModuleId, Record>,
    booted_at_ms: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Record {
    restarts: u32,
    restarted_at_ms: Option<u64>,
    failures: u32,
    failed_at_ms: u64,
    /// Since when another module keeps it from being started.
    held_since_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// The state of Docker's containers; pass it before every plan. Modules that neither exist nor shall exist are forgotten, those
    /// that ran long enough are well, and failures of those that are as wanted are over.
    Observed(&'a Desired, &'a Observed),
    /// An [`super::plan::Action::Start`] of this module was done.
    Started(&'a ModuleId),
    /// An [`super::plan::Action::Restart`] of this module was done.
    Restarted(&'a ModuleId),
    /// An action of this module failed.
    Failed(&'a ModuleId),
    /// Another manifest is in force: every module gets all its chances again.
    Deployed,
}

/// What to do with a module that shall run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartStep {
    Leave,
    /// Start it; this is no restart.
    Start,
    Restart {
        attempt: Attempt,
    },
    /// Start it again, but not yet.
    WaitUntil {
        /// Milliseconds since the Unix epoch.
        at_ms: u64,
        attempt: Attempt,
    },
    /// Its policy leaves it as it ended.
    Ended,
    /// It was started again too often.
    GivenUp,
}

/// Which restart of a module it is; as text `restart 2 of 20`, or `restart 2` where there is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// How many there are before the module is given up; `None` when it never is.
    pub limit: Option<u32>,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "restart {}", self.number)?;
        self.limit.map_or(Ok(()), |limit| write!(f, " of {limit}"))
    }
}

impl Restarts {
    /// Nothing remembered, on a host that booted at this time (milliseconds since the Unix epoch; 0 when unknown).
    pub fn since_boot(booted_at_ms: u64) -> Self {
        Self { modules: BTreeMap::new(), booted_at_ms }
    }

    /// The same, with restarts of each module and the time of the last one, as [`Restarts::counts`] gave them before.
    #[must_use]
    pub fn with_counts(mut self, counts: BTreeMap<ModuleId, (u32, Option<u64>)>) -> Self {
        for (module, (restarts, restarted_at_ms)) in counts {
            self.modules.insert(module, Record { restarts, restarted_at_ms, ..Record::default() });
        }
        self
    }

    /// The restarts of each module that was restarted, and the time of the last one in milliseconds since the Unix epoch.
    pub fn counts(&self) -> BTreeMap<ModuleId, (u32, Option<u64>)> {
        let restarted = self.modules.iter().filter(|(_, record)| record.restarts > 0);
        restarted
            .map(|(module, record)| (module.clone(), (record.restarts, record.restarted_at_ms)))
            .collect()
    }

    /// Takes note of what happened.
    pub fn handle(&mut self, now_ms: u64, event: Event<'_>) {
        match event {
            Event::Observed(desired, observed) => {
                self.note_held(desired, observed, now_ms);
                self.modules.retain(|module, record| {
                    let seen = observed.modules.get(module);
                    if seen.is_some_and(|seen| ran_ms(seen, now_ms) >= WELL_AFTER_MS) {
                        record.restarts = 0;
                    }
                    let target = desired.modules.get(module);
                    if seen.zip(target).is_some_and(|(seen, target)| is_as_desired(seen, target)) {
                        record.failures = 0;
                    }
                    seen.is_some() || target.is_some()
                });
            }
            Event::Started(module) => self.modules.entry(module.clone()).or_default().failures = 0,
            Event::Restarted(module) => {
                let record = self.modules.entry(module.clone()).or_default();
                record.restarts = record.restarts.saturating_add(1);
                record.restarted_at_ms = Some(now_ms);
                record.failures = 0;
            }
            Event::Failed(module) => {
                let record = self.modules.entry(module.clone()).or_default();
                record.failures = record.failures.saturating_add(1);
                record.failed_at_ms = now_ms;
            }
            Event::Deployed => self.modules.clear(),
        }
    }

    fn note_held(&mut self, desired: &Desired, observed: &Observed, now_ms: u64) {
        let is_held = |module: &&ModuleId| self.held(module, desired, observed, now_ms).is_some();
        let held: BTreeSet<&ModuleId> = desired.modules.keys().filter(is_held).collect();
        for (module, record) in &mut self.modules {
            if !held.contains(module) {
                record.held_since_ms = None;
            }
        }
        for module in held {
            self.modules.entry(module.clone()).or_default().held_since_ms.get_or_insert(now_ms);
        }
    }

    /// What keeps a module from being started for the first time since its container was created or the host booted.
    pub fn held(
        &self,
        module: &ModuleId,
        desired: &Desired,
        observed: &Observed,
        now_ms: u64,
    ) -> Option<Held> {
        let target = desired.modules.get(module)?;
        let is_to_start = target.spec.status == DesiredStatus::Running
            && observed.modules.get(module).is_none_or(|seen| {
                seen.fingerprint != target.fingerprint
                    || seen.state == ContainerState::Dead
                    || self.is_first_start(target.spec.restart_policy, seen)
            });
        let unmet = first_unmet(target, desired, observed).filter(|_| is_to_start)?;
        let since_ms = self.modules.get(module).and_then(|record| record.held_since_ms);
        Some(Held { unmet, since_ms: since_ms.unwrap_or(now_ms) })
    }

    /// Whether a container has not run since it was created, or since the host booted, and shall.
    fn is_first_start(&self, policy: RestartPolicy, seen: &ObservedModule) -> bool {
        match seen.state {
            ContainerState::Created => true,
            ContainerState::Exited { .. } => {
                let is_from_before_boot = seen.finished_at_ms.is_some_and(|at| at < self.booted_at_ms);
                is_from_before_boot && policy != RestartPolicy::Never
            }
            _ => false,
        }
    }

    /// Gives a module all its chances again: an operator restarted it by hand.
    pub fn forget(&mut self, module: &ModuleId) {
        self.modules.remove(module);
    }

    /// What to do with a module that shall run and has this container.
    pub fn next(
        &self,
        module: &ModuleId,
        policy: RestartPolicy,
        seen: &ObservedModule,
        now_ms: u64,
    ) -> RestartStep {
        if self.is_first_start(policy, seen) {
            return RestartStep::Start;
        }
        let (is_due, is_clean, since_ms) = match seen.state {
            ContainerState::Running => {
                let is_due =
                    seen.is_unhealthy && matches!(policy, RestartPolicy::OnUnhealthy | RestartPolicy::Always);
                if !is_due {
                    return RestartStep::Leave;
                }
                (true, false, seen.started_at_ms)
            }
            // Docker's own restart policy is at work on the one, an operator on the other.
            ContainerState::Restarting | ContainerState::Paused => return RestartStep::Leave,
            ContainerState::Exited { code } => {
                (policy != RestartPolicy::Never, code == 0, seen.finished_at_ms)
            }
            // The plan starts the one, and removes the other and creates it anew.
            ContainerState::Created | ContainerState::Dead => return RestartStep::Leave,
        };
        if !is_due {
            return RestartStep::Ended;
        }
        let restarts = self.count(module);
        let is_endless = is_clean || policy == RestartPolicy::Always;
        let limit = (!is_endless).then_some(RESTARTS_MAX);
        if limit.is_some_and(|limit| restarts >= limit) {
            return RestartStep::GivenUp;
        }
        let attempt = Attempt { number: restarts.saturating_add(1), limit };
        // An end at an unknown time counts as long ago, so the module is restarted at once.
        match wait_over_at(since_ms.unwrap_or(0), wait_ms(restarts), now_ms) {
            None => RestartStep::Restart { attempt },
            Some(at_ms) => RestartStep::WaitUntil { at_ms, attempt },
        }
    }

    /// Until when the module's next step waits because the last ones failed, and how many did.
    pub fn failed(&self, module: &ModuleId, now_ms: u64) -> Option<(u32, u64)> {
        let record = self.modules.get(module).filter(|record| record.failures > 0)?;
        let at_ms = wait_over_at(record.failed_at_ms, wait_ms(record.failures - 1), now_ms)?;
        Some((record.failures, at_ms))
    }

    /// How often the module was started again since it was well, or since the last deployment.
    pub fn count(&self, module: &ModuleId) -> u32 {
        self.modules.get(module).map_or(0, |record| record.restarts)
    }

    /// When it was last started again, in milliseconds since the Unix epoch.
    pub fn restarted_at_ms(&self, module: &ModuleId) -> Option<u64> {
        self.modules.get(module).and_then(|record| record.restarted_at_ms)
    }
}

/// Whether a plan would have nothing to do for it.
fn is_as_desired(seen: &ObservedModule, target: &DesiredModule) -> bool {
    let is_running = seen.state == ContainerState::Running && !seen.is_unhealthy;
    // Otherwise a name that cannot be had, or a limit, would be tried without a wait.
    let is_to_be_repaired =
        seen.is_renamed || seen.edit.as_ref().is_some_and(|edit| !edit.restored.is_empty());
    !is_to_be_repaired
        && seen.fingerprint == target.fingerprint
        && match target.spec.status {
            DesiredStatus::Running => is_running,
            DesiredStatus::Stopped => !seen.is_live() && seen.state != ContainerState::Dead,
            DesiredStatus::Unknown => seen.state != ContainerState::Dead,
        }
}

/// How long the container runs, or ran.
fn ran_ms(seen: &ObservedModule, now_ms: u64) -> u64 {
    let until_ms = match seen.state {
        // Running alone makes no module well whose health check fails.
        ContainerState::Running if seen.is_unhealthy => return 0,
        ContainerState::Running => Some(now_ms),
        ContainerState::Exited { .. } => seen.finished_at_ms,
        _ => None,
    };
    until_ms.zip(seen.started_at_ms).map_or(0, |(until, since)| until.saturating_sub(since))
}

/// When a wait that began at `since_ms` is over; `None` when it is. A clock that was set back must keep nothing down, so
/// a beginning far in the future is none; one just ahead is an end that Docker wrote after the caller read the clock.
fn wait_over_at(since_ms: u64, wait_ms: u64, now_ms: u64) -> Option<u64> {
    let at_ms = since_ms.saturating_add(wait_ms);
    (since_ms <= now_ms.saturating_add(CLOCK_AHEAD_MS) && now_ms < at_ms).then_some(at_ms)
}

/// 10 s × 2ⁿ, 300 s at the most.
fn wait_ms(attempts: u32) -> u64 {
    WAIT_FIRST_MS.saturating_mul(2u64.saturating_pow(attempts.min(30))).min(WAIT_MAX_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: u64 = 1_000_000;

    fn ended(code: i64, started: u64, finished: u64) -> ObservedModule {
        ObservedModule {
            container_id: "c".into(),
            image: "a:1".into(),
            fingerprint: "f".into(),
            state: ContainerState::Exited { code },
            started_at_ms: Some(started),
            finished_at_ms: Some(finished),
            ..ObservedModule::default()
        }
    }

    fn first(limit: Option<u32>) -> Attempt {
        Attempt { number: 1, limit }
    }

    fn module() -> ModuleId {
        "m".parse().unwrap()
    }

    #[test]
    fn a_module_that_keeps_failing_waits_longer_each_time_and_is_given_up_after_twenty() {
        let (mut restarts, mut now, m) = (Restarts::since_boot(BOOT), BOOT + 1, module());
        let mut waits = Vec::new();
        loop {
            let seen = ended(1, now, now);
            match restarts.next(&m, RestartPolicy::OnFailure, &seen, now) {
                RestartStep::WaitUntil { at_ms, attempt } => {
                    assert_eq!(attempt.number as usize, waits.len() + 1);
                    assert_eq!(attempt.limit, Some(RESTARTS_MAX));
                    waits.push((at_ms - now) / 1000);
                    assert!(matches!(
                        restarts.next(&m, RestartPolicy::OnFailure, &seen, at_ms),
                        RestartStep::Restart { .. }
                    ));
                    now = at_ms;
                    restarts.handle(now, Event::Restarted(&m));
                }
                RestartStep::GivenUp => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(waits[..7], [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(waits.len(), 20);
        restarts.forget(&m);
        assert!(matches!(
            restarts.next(&m, RestartPolicy::OnFailure, &ended(1, now, now), now),
            RestartStep::WaitUntil { attempt: Attempt { number: 1, .. }, .. }
        ));
    }

    #[test]
    fn always_and_a_clean_end_are_never_given_up() {
        use RestartPolicy::*;
        let (mut restarts, now, m) = (Restarts::since_boot(BOOT), BOOT + 1_000_000, module());
        for _ in 0..1000 {
            restarts.handle(BOOT, Event::Restarted(&m));
        }
        let attempt = Attempt { number: 1001, limit: None };
        for (policy, code) in [(Always, 1), (Always, 0), (OnFailure, 0), (OnUnhealthy, 0)] {
            let seen = ended(code, now - 1, now);
            let waits = RestartStep::WaitUntil { at_ms: now + WAIT_MAX_MS, attempt };
            assert_eq!(restarts.next(&m, policy, &seen, now), waits, "{policy}, code {code}");
            let due = RestartStep::Restart { attempt };
            assert_eq!(restarts.next(&m, policy, &seen, now + WAIT_MAX_MS), due, "{policy}, code {code}");
        }
        assert_eq!(restarts.next(&m, OnFailure, &ended(1, now - 1, now), now), RestartStep::GivenUp);
        assert_eq!(attempt.to_string(), "restart 1001");
    }

    #[test]
    fn each_policy_wants_back_what_its_documentation_says() {
        use RestartPolicy::*;
        let (restarts, now, m) = (Restarts::since_boot(BOOT), BOOT + 1_000_000, module());
        let next = |policy, seen: &ObservedModule| restarts.next(&m, policy, seen, now);
        let again = RestartStep::Restart { attempt: first(Some(RESTARTS_MAX)) };
        let endless = RestartStep::Restart { attempt: first(None) };
        let unhealthy = ObservedModule {
            state: ContainerState::Running,
            is_unhealthy: true,
            ..ended(0, BOOT + 1, BOOT + 1)
        };
        for (policy, clean, crash, sick, before_boot) in [
            (Never, RestartStep::Ended, RestartStep::Ended, RestartStep::Leave, RestartStep::Ended),
            (OnFailure, endless, again, RestartStep::Leave, RestartStep::Start),
            (OnUnhealthy, endless, again, again, RestartStep::Start),
            (Always, endless, endless, endless, RestartStep::Start),
        ] {
            assert_eq!(next(policy, &ended(0, BOOT + 1, BOOT + 2)), clean, "{policy}");
            assert_eq!(next(policy, &ended(139, BOOT + 1, BOOT + 2)), crash, "{policy}");
            assert_eq!(next(policy, &unhealthy), sick, "{policy}");
            assert_eq!(next(policy, &ended(0, 1, BOOT - 1)), before_boot, "{policy}");
        }
    }

    #[test]
    fn ten_good_minutes_count_from_nothing_again_even_if_nobody_checked_meanwhile() {
        let (m, desired) = (module(), Desired::default());
        let mut restarts = Restarts::since_boot(BOOT);
        restarts.handle(BOOT, Event::Restarted(&m));
        let mut observed = Observed::default();
        observed.modules.insert(m.clone(), ended(1, BOOT, BOOT + WELL_AFTER_MS - 1));
        restarts.handle(BOOT + WELL_AFTER_MS, Event::Observed(&desired, &observed));
        assert_eq!(restarts.count(&m), 1);
        observed.modules.insert(m.clone(), ended(1, BOOT, BOOT + WELL_AFTER_MS));
        restarts.handle(BOOT + WELL_AFTER_MS, Event::Observed(&desired, &observed));
        assert_eq!(restarts.count(&m), 0);
    }

    #[test]
    fn a_module_that_is_gone_is_forgotten() {
        let m = module();
        let mut restarts = Restarts::since_boot(BOOT);
        restarts.handle(BOOT, Event::Failed(&m));
        restarts.handle(BOOT, Event::Observed(&Desired::default(), &Observed::default()));
        assert_eq!(restarts, Restarts::since_boot(BOOT));
    }

    #[test]
    fn a_failed_step_waits_until_the_module_is_as_desired_after_all() {
        let m = module();
        let document = br#"{"modulesContent": {"$edgeAgent": {"properties.desired":
            {"schemaVersion": "1.0", "modules": {"m": {"settings": {"image": "a:1"}}}}}}}"#;
        let desired = Desired::of(&schemas::manifest::Manifest::parse(document).unwrap());
        let mut observed = Observed::default();
        let mut restarts = Restarts::since_boot(BOOT);
        for failures in 1..4 {
            restarts.handle(BOOT, Event::Failed(&m));
            restarts.handle(BOOT, Event::Observed(&desired, &observed));
            assert_eq!(
                restarts.failed(&m, BOOT),
                Some((failures, BOOT + WAIT_FIRST_MS * 2u64.pow(failures - 1)))
            );
        }
        let fingerprint = desired.modules[&m].fingerprint.clone();
        let running = ObservedModule { fingerprint, state: ContainerState::Running, ..ended(0, BOOT, BOOT) };
        observed.modules.insert(m.clone(), running);
        restarts.handle(BOOT, Event::Observed(&desired, &observed));
        assert_eq!(restarts.failed(&m, BOOT), None);
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_no_module_down_and_an_end_during_the_pass_still_waits() {
        let (m, now) = (module(), 10_000_000);
        let mut restarts = Restarts::since_boot(0);
        let next = |restarts: &Restarts, ended_at| {
            restarts.next(&m, RestartPolicy::Always, &ended(1, ended_at - 1, ended_at), now)
        };
        assert_eq!(next(&restarts, now + CLOCK_AHEAD_MS + 1), RestartStep::Restart { attempt: first(None) });
        assert_eq!(
            next(&restarts, now + 5),
            RestartStep::WaitUntil { at_ms: now + 5 + WAIT_FIRST_MS, attempt: first(None) }
        );
        restarts.handle(now, Event::Failed(&m));
        assert_eq!(restarts.failed(&m, now + 1), Some((1, now + WAIT_FIRST_MS)));
        assert_eq!(restarts.failed(&m, now - CLOCK_AHEAD_MS - 1), None);
    }
}
