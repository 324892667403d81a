//! The journal of deployments: what was put in force, by whom, what it changed, and how it ended.
//!
//! Each record is one value of the state and is written whole, so that a kill at any moment leaves the one before or the one
//! after. Which deployment is in force follows from the record with the highest number alone: that one's, or, when it was rolled back,
//! the one that it names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use edge_core::deploy::rollout::{Baseline, Phase};
use schemas::control::PastDeployment;
use schemas::manifest::FailurePolicy;
use schemas::manifest::start_order::{self, StartPlace};
use schemas::names::ModuleId;
use schemas::status::RolloutReport;
use schemas::timestamp::rfc3339;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

use super::sections::Sections;
use crate::clock::now_ms;
use crate::state::{Namespace, State, shaped};

/// Records that are kept, beside those that can be gone back to.
const KEPT: usize = 20;
/// Verified deployments that can be gone back to, the one in force among them.
pub const VERIFIED_KEPT: usize = 2;
const PREFIX: &str = "record/";
/// The sections of one deployment come one after the other: a second one within this time belongs to the first.
const SAME_WITHIN_MS: u64 = 10_000;

/// A deployment that was put in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// From 1 on this gateway.
    pub number: u64,
    /// When it was put in force, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Who gave it.
    pub source: String,
    /// What it changes of the one before, one line each, without values.
    pub changes: Vec<String>,
    /// The modules that it adds or changes.
    pub changed: BTreeSet<ModuleId>,
    /// Whether it adds, changes or removes modules.
    pub touches_containers: bool,
    pub policy: FailurePolicy,
    /// How the gateway was before; `None` until that was looked at.
    pub baseline: Option<Baseline>,
    pub phase: Phase,
    /// When it was verified, rolled back or superseded, in milliseconds since the Unix epoch.
    pub ended_at_ms: Option<u64>,
    pub sections: Sections,
}

/// What a new record is made of.
pub struct Begun {
    pub source: String,
    pub sections: Sections,
    pub policy: FailurePolicy,
    pub changes: Vec<String>,
    pub changed: BTreeSet<ModuleId>,
    pub touches_containers: bool,
    pub phase: Phase,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct History {
    state: State,
    records: Arc<Mutex<BTreeMap<u64, Record>>>,
    changed: watch::Sender<()>,
}

impl Record {
    /// As the control socket gives it.
    pub fn shown(&self, in_force: u64) -> PastDeployment {
        PastDeployment {
            number: self.number,
            version: self.sections.edge_agent.version,
            at: rfc3339(self.at_ms),
            source: self.source.clone(),
            state: self.phase.name().to_owned(),
            reason: self.phase.reason().map(str::to_owned),
            rolled_back_to: match self.phase {
                Phase::RolledBack { to, .. } => Some(to),
                _ => None,
            },
            ended_at: self.ended_at_ms.map(rfc3339),
            changes: self.changes.clone(),
            in_force: self.number == in_force,
        }
    }
}

impl History {
    /// What was kept.
    pub fn load(state: State) -> Self {
        let records = state
            .load::<Value>(Namespace::Rollouts)
            .into_iter()
            .filter(|(key, _)| key.starts_with(PREFIX))
            .filter_map(|(key, value)| shaped::<Record>(Namespace::Rollouts, &key, value))
            .map(|record| (record.number, record))
            .collect();
        Self { state, records: Arc::new(Mutex::new(records)), changed: watch::channel(()).0 }
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<u64, Record>> {
        self.records.lock().expect("nothing panics while it holds it")
    }

    /// The records, the latest first.
    pub fn all(&self) -> Vec<Record> {
        self.records().values().rev().cloned().collect()
    }

    /// Notifies of every change of a record.
    pub fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The latest.
    pub fn current(&self) -> Option<Record> {
        self.records().last_key_value().map(|(_, record)| record.clone())
    }

    /// The one with this number.
    pub fn get(&self, number: u64) -> Option<Record> {
        self.records().get(&number).cloned()
    }

    /// The one that is in force.
    pub fn in_force(&self) -> Option<Record> {
        let records = self.records();
        let (_, current) = records.last_key_value()?;
        match &current.phase {
            Phase::RolledBack { to, .. } => records.get(to).cloned(),
            _ => Some(current.clone()),
        }
    }

    /// The places in the start order of all modules of the deployments that are kept; a later deployment's count.
    pub fn start_places(&self) -> BTreeMap<ModuleId, StartPlace> {
        let mut places = BTreeMap::new();
        for record in self.records().values() {
            let Ok(manifest) = record.sections.manifest() else { continue };
            let modules = &manifest.edge_agent.modules;
            let of_record = start_order::places(modules.iter());
            places.extend(of_record.into_iter().map(|(module, place)| (module.clone(), place)));
        }
        places
    }

    /// As it is reported upstream.
    pub fn report(&self) -> Option<RolloutReport> {
        let (latest, in_force) = (self.current()?, self.in_force()?);
        Some(RolloutReport {
            number: latest.number,
            version: latest.sections.edge_agent.version,
            state: latest.phase.name().to_owned(),
            reason: latest.phase.reason().map(str::to_owned),
            version_in_force: in_force.sections.edge_agent.version,
        })
    }

    /// The latest verified one before a number.
    pub fn verified_before(&self, number: u64) -> Option<Record> {
        let records = self.records();
        let verified = records.range(..number).rev().find(|(_, record)| record.phase == Phase::Verified);
        verified.map(|(_, record)| record.clone())
    }

    /// Whether there is a verified deployment: one that can be gone back to.
    pub fn has_verified(&self) -> bool {
        self.records().values().any(|record| record.phase == Phase::Verified)
    }

    /// Begins a record and ends the one before. A second section of the same deployment changes the record that the first one
    /// began.
    pub fn begin(&self, begun: Begun) -> u64 {
        let now = now_ms();
        let mut records = self.records();
        let last = records.last_key_value().map(|(_, record)| record.clone());
        let is_same = last.as_ref().is_some_and(|last| {
            last.source == begun.source
                && matches!(last.phase, Phase::Applying { .. })
                && last.sections.edge_agent == begun.sections.edge_agent
                && now.saturating_sub(last.at_ms) < SAME_WITHIN_MS
        });
        let Begun { source, sections, policy, mut changes, mut changed, mut touches_containers, phase } =
            begun;
        let number = match &last {
            Some(last) if is_same => {
                changes = last.changes.iter().cloned().chain(changes).collect();
                changed.extend(last.changed.iter().cloned());
                touches_containers |= last.touches_containers;
                last.number
            }
            Some(last) => last.number + 1,
            None => 1,
        };
        if let Some(mut last) = last.filter(|last| !is_same && !last.phase.is_end()) {
            last.phase = Phase::Superseded { by: number };
            last.ended_at_ms = Some(now);
            self.put(&mut records, last);
        }
        let ended_at_ms = phase.is_end().then_some(now);
        let record = Record {
            number,
            at_ms: now,
            source,
            changes,
            changed,
            touches_containers,
            policy,
            baseline: None,
            phase,
            ended_at_ms,
            sections,
        };
        self.put(&mut records, record);
        self.forget_old(&mut records);
        drop(records);
        self.changed.send_replace(());
        number
    }

    /// Changes the latest record if it still has this number and has not ended. Whether it did.
    pub fn change(&self, number: u64, change: impl FnOnce(&mut Record)) -> bool {
        let mut records = self.records();
        let Some((_, latest)) = records.last_key_value() else { return false };
        if latest.number != number || latest.phase.is_end() {
            return false;
        }
        let mut record = latest.clone();
        change(&mut record);
        if record.phase.is_end() {
            record.ended_at_ms = Some(now_ms());
        }
        self.put(&mut records, record);
        drop(records);
        self.changed.send_replace(());
        true
    }

    /// The order of writes is that of these calls; a write that a kill loses is made again by the next evaluation.
    fn put(&self, records: &mut BTreeMap<u64, Record>, record: Record) {
        self.state.put(Namespace::Rollouts, &key(record.number), &record).later();
        records.insert(record.number, record);
    }

    fn forget_old(&self, records: &mut BTreeMap<u64, Record>) {
        let verified = records.values().rev().filter(|record| record.phase == Phase::Verified);
        let mut kept: BTreeSet<u64> = verified.take(VERIFIED_KEPT).map(|record| record.number).collect();
        kept.extend(records.keys().rev().take(KEPT));
        for (number, record) in records.iter() {
            if let Phase::RolledBack { to, .. } = record.phase
                && kept.contains(number)
            {
                kept.insert(to);
            }
        }
        let old: Vec<u64> = records.keys().copied().filter(|number| !kept.contains(number)).collect();
        for number in old {
            records.remove(&number);
            self.state.remove(Namespace::Rollouts, &key(number)).later();
        }
    }

    /// The numbers of the deployments whose images and volumes are kept: the latest, the one in force, and the last verified ones.
    pub fn needed(&self) -> BTreeSet<u64> {
        let records = self.records();
        let verified = records.values().rev().filter(|record| record.phase == Phase::Verified);
        let mut needed: BTreeSet<u64> = verified.take(VERIFIED_KEPT).map(|record| record.number).collect();
        if let Some((number, latest)) = records.last_key_value() {
            needed.insert(*number);
            if let Phase::RolledBack { to, .. } = latest.phase {
                needed.insert(to);
            }
        }
        needed
    }
}

fn key(number: u64) -> String {
    format!("{PREFIX}{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(version: u64, phase: Phase) -> Begun {
        let mut sections = Sections::default();
        sections.edge_agent.version = version;
        Begun {
            source: "central".into(),
            sections,
            policy: FailurePolicy::Rollback,
            changes: vec![format!("change {version}")],
            changed: BTreeSet::new(),
            touches_containers: false,
            phase,
        }
    }

    fn history(dir: &tempfile::TempDir) -> History {
        History::load(State::open(&dir.path().join("state")).unwrap())
    }

    const APPLYING: Phase = Phase::Applying { since_ms: 0 };

    #[tokio::test]
    async fn what_is_in_force_follows_from_the_latest_record_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let history = super::tests::history(&dir);
        assert_eq!(history.begin(begun(1, APPLYING)), 1);
        assert!(history.change(1, |record| record.phase = Phase::Verified));
        assert!(!history.change(1, |record| record.phase = APPLYING), "it has ended");
        assert_eq!(history.begin(begun(2, APPLYING)), 2);
        assert_eq!(history.in_force().unwrap().number, 2);
        assert_eq!(history.verified_before(2).unwrap().number, 1);
        let rolled_back = Phase::RolledBack { reason: "why".into(), to: 1 };
        assert!(history.change(2, |record| record.phase = rolled_back.clone()));
        let History { state, .. } = history;
        state.close().await;
        let history = super::tests::history(&dir);
        assert_eq!(history.current().unwrap().phase, rolled_back);
        assert_eq!(history.in_force().unwrap().sections.edge_agent.version, 1);
    }

    #[tokio::test]
    async fn the_last_twenty_are_kept_and_those_that_can_be_gone_back_to() {
        let dir = tempfile::tempdir().unwrap();
        let history = history(&dir);
        history.begin(begun(1, Phase::Verified));
        for version in 2..=40 {
            history.begin(begun(version, APPLYING));
        }
        let numbers: Vec<u64> = history.all().iter().map(|record| record.number).collect();
        let expected: Vec<u64> = (21..=40).rev().chain([1]).collect();
        assert_eq!(numbers, expected);
        assert_eq!(history.get(39).unwrap().phase, Phase::Superseded { by: 40 });
        assert_eq!(history.needed(), [1, 40].into());
    }

    #[tokio::test]
    async fn the_second_section_of_a_deployment_belongs_to_the_record_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let history = history(&dir);
        history.begin(begun(1, APPLYING));
        let mut second = begun(1, APPLYING);
        second.sections.edge_hub.version = 5;
        assert_eq!(history.begin(second), 1);
        let record = history.current().unwrap();
        assert_eq!(record.sections.edge_hub.version, 5);
        assert_eq!(record.changes.len(), 2);
    }
}
