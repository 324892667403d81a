//! Limits repeated events, by kind (the line of code that logs) and by identity, and counts what it suppresses.
//!
//! The first events of each kind are always written, and each suppressed one is part of a summary, so no kind of event is ever
//! silent. Events below INFO are not limited: an operator asked for them.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tracing::Level;
use tracing::callsite::Identifier;

/// Identities of all kinds whose pace is remembered; one takes about 100 bytes.
const PACES_MAX: usize = 4_096;
/// Suppressed identities that a summary counts exactly; beyond, it says "at least".
const IDENTITIES_MAX: usize = 64;

/// Events that may come at once, and those per second after that.
#[derive(Clone, Copy)]
struct Allowance {
    burst: f64,
    per_second: f64,
}

/// Of one identity: enough to see what it does wrong.
const OF_IDENTITY: Allowance = Allowance { burst: 20.0, per_second: 0.5 };
/// Of one kind, whoever caused it: identities can be made up, and addresses are many. 2 KB/s of lines.
const OF_KIND: Allowance = Allowance { burst: 200.0, per_second: 10.0 };
/// Of one kind of error: promises that were not kept.
const OF_ERRORS: Allowance = Allowance { burst: 1_000.0, per_second: 50.0 };

struct Pace {
    tokens: f64,
    at: Instant,
}

impl Pace {
    fn full(allowance: Allowance, now: Instant) -> Self {
        Self { tokens: allowance.burst, at: now }
    }

    fn refill(&mut self, allowance: Allowance, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + seconds * allowance.per_second).min(allowance.burst);
        self.at = now;
    }

    fn take(&mut self, allowance: Allowance, now: Instant) -> bool {
        self.refill(allowance, now);
        let is_free = self.tokens >= 1.0;
        if is_free {
            self.tokens -= 1.0;
        }
        is_free
    }
}

/// What an event is, without who caused it.
pub(super) struct Kind<'a> {
    pub(super) callsite: Identifier,
    pub(super) target: &'a str,
    pub(super) level: Level,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Write,
    Suppress,
}

/// What was suppressed of one kind since the last summary.
pub(super) struct Summary {
    pub(super) level: Level,
    pub(super) target: &'static str,
    pub(super) count: u64,
    pub(super) identities: String,
    /// The first that was suppressed.
    pub(super) sample: String,
}

struct Suppressed {
    count: u64,
    identities: Vec<u64>,
    sample: String,
}

struct KindState {
    pace: Pace,
    level: Level,
    target: &'static str,
    suppressed: Option<Suppressed>,
}

#[derive(Default)]
struct State {
    /// As many as there are log statements in the program.
    kinds: HashMap<Identifier, KindState>,
    identities: HashMap<(Identifier, u64), Pace>,
}

pub(super) struct Limiter {
    state: Mutex<State>,
    hasher: RandomState,
    suppressed: AtomicU64,
}

impl Limiter {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), hasher: RandomState::new(), suppressed: AtomicU64::new(0) }
    }

    /// Events suppressed since the start.
    pub(super) fn suppressed(&self) -> u64 {
        self.suppressed.load(Ordering::Relaxed)
    }

    pub(super) fn admit(&self, kind: &Kind<'_>, identity: &str, text: &str, now: Instant) -> Verdict {
        if kind.level > Level::INFO {
            return Verdict::Write;
        }
        let who = self.hasher.hash_one(identity);
        let of_kind = if kind.level == Level::ERROR { OF_ERRORS } else { OF_KIND };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { kinds, identities } = &mut *state;
        let known = kinds.entry(kind.callsite.clone()).or_insert_with(|| KindState {
            pace: Pace::full(of_kind, now),
            level: kind.level,
            target: target_of(kind),
            suppressed: None,
        });
        let key = (kind.callsite.clone(), who);
        if !identities.contains_key(&key) && identities.len() >= PACES_MAX {
            identities.retain(|_, pace| {
                pace.refill(OF_IDENTITY, now);
                pace.tokens < OF_IDENTITY.burst
            });
        }
        // Where all places are taken, the kind's own pace decides alone.
        let is_identity_free = if identities.contains_key(&key) || identities.len() < PACES_MAX {
            let pace = identities.entry(key).or_insert_with(|| Pace::full(OF_IDENTITY, now));
            // Events without an identity are not one client's: the kind's own pace decides.
            identity.is_empty() || pace.take(OF_IDENTITY, now)
        } else {
            true
        };
        if is_identity_free && known.pace.take(of_kind, now) {
            return Verdict::Write;
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        let suppressed = known.suppressed.get_or_insert_with(|| Suppressed {
            count: 0,
            identities: Vec::new(),
            sample: text.to_owned(),
        });
        suppressed.count += 1;
        if suppressed.identities.len() < IDENTITIES_MAX && !suppressed.identities.contains(&who) {
            suppressed.identities.push(who);
        }
        Verdict::Suppress
    }

    /// What was suppressed since the last call: at most one per kind.
    pub(super) fn summaries(&self) -> Vec<Summary> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = state.kinds.values_mut().filter_map(|kind| {
            let suppressed = kind.suppressed.take()?;
            let at_least = if suppressed.identities.len() == IDENTITIES_MAX { "at least " } else { "" };
            Some(Summary {
                level: kind.level,
                target: kind.target,
                count: suppressed.count,
                identities: format!("{at_least}{}", suppressed.identities.len()),
                sample: suppressed.sample,
            })
        });
        taken.collect()
    }
}

/// Callsites live as long as the program, and so do their targets; the trait only does not say so.
fn target_of(kind: &Kind<'_>) -> &'static str {
    debug_assert_eq!(kind.callsite.0.metadata().target(), kind.target);
    kind.callsite.0.metadata().target()
}
