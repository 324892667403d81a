//! All routes of a gateway: from a message to the places it must reach, each with a priority and a time to live.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use schemas::manifest::{PRIORITY_DEFAULT, Route as ManifestRoute, WhenFull};
use schemas::names::ModuleId;

use super::grammar::{self, Parsed, Sink};
use super::message::{Kind, Message};
use super::source::Source;
use crate::condition::{SyntaxError, Value};
use mqtt::filter::matches;

/// Why a route was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("route `{route}`: {error}")]
pub struct RouteError {
    pub route: String,
    /// What is wrong with its text, and where.
    pub error: SyntaxError,
}

/// A route as it is given: its text, its priority and how long its messages live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteText<'a> {
    /// `FROM … INTO …`
    pub query: &'a str,
    /// 0 (first) to 9, or [`PRIORITY_DEFAULT`].
    pub priority: u32,
    /// `None`: as long as the gateway keeps messages.
    pub time_to_live_secs: Option<u64>,
    /// `None`: as the gateway does.
    pub full: Option<WhenFull>,
}

/// A queue of a place. A route's messages stand in that of its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueueClass {
    /// 0 (first) to 9, or [`PRIORITY_DEFAULT`].
    pub priority: u32,
    /// What is dropped when it is full; `None`: as the gateway does.
    pub full: Option<WhenFull>,
}

impl QueueClass {
    /// That of routes that say nothing.
    pub const DEFAULT: Self = Self { priority: PRIORITY_DEFAULT, full: None };
}

impl<'a> From<&'a str> for RouteText<'a> {
    fn from(query: &'a str) -> Self {
        Self { query, priority: PRIORITY_DEFAULT, time_to_live_secs: None, full: None }
    }
}

impl<'a> From<&'a ManifestRoute> for RouteText<'a> {
    fn from(route: &'a ManifestRoute) -> Self {
        let ManifestRoute { query, priority, time_to_live_secs, full } = route;
        Self { query, priority: *priority, time_to_live_secs: *time_to_live_secs, full: *full }
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Route {
    name: String,
    parsed: Parsed,
    class: QueueClass,
    time_to_live_ms: Option<u64>,
}

/// The routes in force.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RouteTable {
    /// The highest priority first, then by name: of several routes to one sink the first that takes a message counts.
    routes: Vec<Route>,
    takes_twin_changes: bool,
    takes_free: bool,
}

/// A place that a message must reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<'a> {
    pub sink: &'a Sink,
    /// Which of its queues.
    pub class: QueueClass,
    /// `None`: as long as the gateway keeps messages.
    pub time_to_live_ms: Option<u64>,
}

/// The queues that the routes need, of each place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueuesNeeded {
    pub upstream: BTreeSet<QueueClass>,
    /// To the inputs of each module.
    pub modules: BTreeMap<ModuleId, BTreeSet<QueueClass>>,
}

impl RouteTable {
    /// Reads all routes, given by name. A blank text is no route, as in edgeHub. A wrong one is left out and reported; the
    /// others hold.
    pub fn parse<'a, R: Into<RouteText<'a>>>(
        routes: impl IntoIterator<Item = (&'a str, R)>,
    ) -> (Self, Vec<RouteError>) {
        let (mut table, mut refused) = (Self::default(), Vec::new());
        for (name, text) in routes {
            let text: RouteText<'a> = text.into();
            if text.query.trim().is_empty() {
                continue;
            }
            match grammar::parse(text.query) {
                Ok(parsed) => table.routes.push(Route {
                    name: name.to_owned(),
                    parsed,
                    class: QueueClass { priority: text.priority, full: text.full },
                    time_to_live_ms: text.time_to_live_secs.map(|secs| secs.saturating_mul(1000)),
                }),
                Err(error) => refused.push(RouteError { route: name.to_owned(), error }),
            }
        }
        table.routes.sort_by(|a, b| (a.class.priority, &a.name).cmp(&(b.class.priority, &b.name)));
        let has = |is: fn(&Source) -> bool| table.routes.iter().any(|route| is(&route.parsed.source));
        let takes_twin_changes = has(|source| matches!(source, Source::All | Source::TwinChanges));
        let takes_free = has(|source| matches!(source, Source::Free(_)));
        (Self { takes_twin_changes, takes_free, ..table }, refused)
    }

    /// The same with inputs of the modules that are meant: a sink names a module without regard to case, and messages wait under the
    /// name that the module connects with. One that names no module of these stays as it is.
    #[must_use]
    pub fn into_inputs_of<'a>(mut self, modules: impl Iterator<Item = &'a ModuleId> + Clone) -> Self {
        for route in &mut self.routes {
            let Sink::Input { module: named, .. } = &mut route.parsed.sink else { continue };
            let is_exact = modules.clone().any(|module| module == named);
            if !is_exact && let Some(meant) = modules.clone().find(|module| module.is_alike(named)) {
                *named = meant.clone();
            }
        }
        self
    }

    /// Where a message goes: each place once, with the priority and the time to live of the first route that takes it.
    /// Empty: no route wants it.
    pub fn targets(&self, message: &Message<'_>) -> Vec<Target<'_>> {
        let mut targets: Vec<Target<'_>> = Vec::new();
        for route in &self.routes {
            let sink = &route.parsed.sink;
            // A condition whose result changes nothing is not evaluated: it may have to parse the body.
            if targets.iter().any(|target| target.sink == sink) || !route.parsed.source.takes(message) {
                continue;
            }
            if route.parsed.condition.as_ref().is_none_or(|condition| condition.holds(message)) {
                targets.push(Target { sink, class: route.class, time_to_live_ms: route.time_to_live_ms });
            }
        }
        targets
    }

    /// Whether some route may take a twin change.
    pub fn takes_twin_changes(&self) -> bool {
        self.takes_twin_changes
    }

    /// Whether some route takes messages on free topics.
    pub fn takes_free(&self) -> bool {
        self.takes_free
    }

    /// Whether some route may take a message on this free topic.
    pub fn takes_topic(&self, topic: &str) -> bool {
        let takes =
            |route: &Route| matches!(&route.parsed.source, Source::Free(filter) if matches(filter, topic));
        self.takes_free && self.routes.iter().any(takes)
    }

    /// The queues that the routes need.
    pub fn queues(&self) -> QueuesNeeded {
        let mut needed = QueuesNeeded::default();
        for route in &self.routes {
            let classes = match &route.parsed.sink {
                Sink::Upstream => &mut needed.upstream,
                Sink::Input { module, .. } => needed.modules.entry(module.clone()).or_default(),
            };
            classes.insert(route.class);
        }
        needed
    }

    /// What each route makes of a message and why, in the order in which they are evaluated.
    pub fn explain(&self, message: &Message<'_>) -> Vec<RouteResult> {
        let mut reached: Vec<&Sink> = Vec::new();
        let explained = |route: &Route, verdict, reason| RouteResult {
            route: route.name.clone(),
            sink: route.parsed.sink.clone(),
            class: route.class,
            time_to_live_ms: route.time_to_live_ms,
            verdict,
            reason,
        };
        let mut all = Vec::with_capacity(self.routes.len());
        for route in &self.routes {
            if !route.parsed.source.takes(message) {
                let reason = format!("its source does not take {}", message.described());
                all.push(explained(route, Verdict::OtherSource, reason));
                continue;
            }
            let (mut verdict, mut reason) = match &route.parsed.condition {
                None => (Verdict::Matches, "it has no condition".to_owned()),
                Some(condition) => {
                    let explained = condition.explain(message);
                    let verdict = match explained.value {
                        Value::Bool(true) => Verdict::Matches,
                        Value::Undefined => Verdict::Undefined,
                        _ => Verdict::False,
                    };
                    (verdict, explained.reason)
                }
            };
            if verdict == Verdict::Matches {
                if reached.contains(&&route.parsed.sink) {
                    verdict = Verdict::Already;
                    reason = "a route before it leads there already".to_owned();
                } else {
                    reached.push(&route.parsed.sink);
                }
            }
            all.push(explained(route, verdict, reason));
        }
        all
    }
}

/// What a route makes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteResult {
    pub route: String,
    pub sink: Sink,
    /// In which queue of it.
    pub class: QueueClass,
    /// How long its messages live; `None`: as long as the gateway keeps messages.
    pub time_to_live_ms: Option<u64>,
    /// Whether it takes the message.
    pub verdict: Verdict,
    pub reason: String,
}

/// Whether a route takes a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Matches,
    /// It would, and another route leads to the same place.
    Already,
    /// Its source takes other messages.
    OtherSource,
    /// Its condition is false.
    False,
    /// Its condition is undefined, which counts as false.
    Undefined,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Matches => "matches",
            Self::Already => "matches as well",
            Self::OtherSource => "other source",
            Self::False => "condition false",
            Self::Undefined => "condition undefined",
        })
    }
}

impl Message<'_> {
    fn described(&self) -> String {
        match (self.kind, self.module(), self.output()) {
            (Kind::Free { topic }, ..) => format!("free topic `{topic}`"),
            (Kind::TwinChange { .. }, ..) => "twin changes".to_owned(),
            (Kind::Telemetry, None, _) => "telemetry of a leaf device".to_owned(),
            (Kind::Telemetry, Some(module), None) => {
                format!("telemetry of module `{module}` without an output")
            }
            (Kind::Telemetry, Some(module), Some(output)) => {
                format!("telemetry of module `{module}` from output `{output}`")
            }
        }
    }
}
