//! How a gateway or device is, in the terms of the console: one function from facts to a state.
//!
//! Pure: no clock, no I/O. The list, the device's page and the event stream give what [`DeviceState::of`] makes.

use schemas::timestamp::rfc3339;
use serde::Serialize;
use utoipa::ToSchema;

/// What a state is made of.
#[derive(Debug, Clone, Copy, Default)]
pub struct StateFacts<'a> {
    /// False when an operator blocked it.
    pub is_enabled: bool,
    /// It enrolled and waits for an operator's approval.
    pub is_waiting: bool,
    /// Since when it is connected, in milliseconds since the Unix epoch; `None` when it is not, or when that is not known.
    pub connected_since_ms: Option<u64>,
    /// When it last came or went; `None` when it never did.
    pub last_seen_ms: Option<u64>,
    /// The gateway that it is behind.
    pub gateway: Option<GatewayFacts<'a>>,
    /// What a gateway reports; `None` of a device, and of a gateway that has no manifest.
    pub modules: Option<ModuleCounts>,
    /// Two clients take its connection from each other.
    pub has_identity_conflict: bool,
    /// The first error that a gateway finds with itself.
    pub error_finding: Option<&'a str>,
}

/// The gateway that carries a device's messages.
#[derive(Debug, Clone, Copy)]
pub struct GatewayFacts<'a> {
    pub id: &'a str,
    /// Whether central hears it, and with it of the devices behind it.
    pub is_connected: bool,
    /// False when an operator blocked it.
    pub is_enabled: bool,
}

/// Modules of a gateway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModuleCounts {
    /// Modules that its manifest wants running.
    pub desired: u32,
    /// Those of them that run, as it reported last.
    pub running: u32,
}

/// Whether a device is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Connectivity {
    /// Now.
    Connected,
    /// Not any more.
    Disconnected,
    /// It never was.
    Never,
    /// Nobody tells: its gateway is away.
    Unknown,
}

/// State of a registration, in IoT Central's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub enum Lifecycle {
    /// It has never connected.
    Registered,
    /// It has connected.
    Provisioned,
    /// An operator blocked it.
    Blocked,
    /// It enrolled where an operator approves each device.
    WaitingForApproval,
}

/// The one word for how a device is. Ordered by how much it needs a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It was connected and is not.
    Offline,
    /// It is connected, and not all of it is well.
    Degraded,
    /// It waits for approval.
    Waiting,
    /// Nothing is known of it.
    Unknown,
    /// An operator blocked it.
    Blocked,
    /// It is connected, and nothing is wrong.
    Ok,
}

impl Verdict {
    /// All of them, in their order.
    pub const ALL: [Self; 6] =
        [Self::Offline, Self::Degraded, Self::Waiting, Self::Unknown, Self::Blocked, Self::Ok];

    /// As written in JSON and in queries.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Degraded => "degraded",
            Self::Waiting => "waiting",
            Self::Unknown => "unknown",
            Self::Blocked => "blocked",
            Self::Ok => "ok",
        }
    }

    /// The verdict of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.as_str() == name)
    }
}

/// How a gateway or device is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceState {
    /// Whether it is connected.
    pub connectivity: Connectivity,
    /// When that began; null when it never connected.
    #[schema(format = DateTime)]
    pub since: Option<String>,
    /// State of its registration.
    pub lifecycle: Lifecycle,
    /// All of it in one word.
    pub verdict: Verdict,
    /// Why the verdict is not `ok`, in one sentence; null when it is.
    pub reason: Option<String>,
    /// Modules that a gateway's manifest wants running; null of others.
    #[serde(rename = "modulesWanted")]
    pub modules_desired: Option<u32>,
    /// Those of them that run.
    pub modules_running: Option<u32>,
}

impl DeviceState {
    /// The state that follows from facts.
    pub fn of(facts: &StateFacts<'_>) -> Self {
        let connectivity = connectivity(facts);
        let (verdict, reason) = verdict(facts, connectivity);
        Self {
            connectivity,
            since: facts.connected_since_ms.or(facts.last_seen_ms).map(rfc3339),
            lifecycle: lifecycle(facts),
            verdict,
            reason,
            modules_desired: facts.modules.map(|modules| modules.desired),
            modules_running: facts.modules.map(|modules| modules.running),
        }
    }
}

fn connectivity(facts: &StateFacts<'_>) -> Connectivity {
    let is_gateway_away = facts.gateway.is_some_and(|gateway| !gateway.is_connected);
    match (facts.connected_since_ms, facts.last_seen_ms) {
        (Some(_), _) => Connectivity::Connected,
        (None, None) => Connectivity::Never,
        (None, Some(_)) if is_gateway_away => Connectivity::Unknown,
        (None, Some(_)) => Connectivity::Disconnected,
    }
}

fn lifecycle(facts: &StateFacts<'_>) -> Lifecycle {
    if !facts.is_enabled {
        Lifecycle::Blocked
    } else if facts.is_waiting {
        Lifecycle::WaitingForApproval
    } else if facts.connected_since_ms.or(facts.last_seen_ms).is_some() {
        Lifecycle::Provisioned
    } else {
        Lifecycle::Registered
    }
}

fn verdict(facts: &StateFacts<'_>, connectivity: Connectivity) -> (Verdict, Option<String>) {
    let because = |verdict, reason: &str| (verdict, Some(reason.to_owned()));
    if !facts.is_enabled {
        return because(Verdict::Blocked, "an operator blocked it");
    }
    if facts.is_waiting {
        return because(Verdict::Waiting, "it waits for an operator's approval");
    }
    // Before its own silence: whatever it does, central does not hear of it.
    if let Some(gateway) = facts.gateway.filter(|gateway| !gateway.is_connected)
        && connectivity != Connectivity::Connected
    {
        let why = if gateway.is_enabled { "is not connected" } else { "is blocked by an operator" };
        return (Verdict::Unknown, Some(format!("gateway `{}` {why}", gateway.id)));
    }
    match connectivity {
        Connectivity::Never => because(Verdict::Unknown, "it has never connected"),
        Connectivity::Disconnected | Connectivity::Unknown => {
            because(Verdict::Offline, "it is not connected")
        }
        Connectivity::Connected => connected_verdict(facts),
    }
}

fn connected_verdict(facts: &StateFacts<'_>) -> (Verdict, Option<String>) {
    if facts.has_identity_conflict {
        return (Verdict::Degraded, Some("two clients use this identity".to_owned()));
    }
    if let Some(ModuleCounts { desired, running }) = facts.modules
        && running < desired
    {
        return (Verdict::Degraded, Some(format!("{running} of {desired} modules run")));
    }
    match facts.error_finding {
        Some(finding) => (Verdict::Degraded, Some(finding.to_owned())),
        None => (Verdict::Ok, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENABLED: StateFacts<'_> = StateFacts {
        is_enabled: true,
        is_waiting: false,
        connected_since_ms: None,
        last_seen_ms: None,
        gateway: None,
        modules: None,
        has_identity_conflict: false,
        error_finding: None,
    };

    fn behind(is_connected: bool, is_enabled: bool) -> Option<GatewayFacts<'static>> {
        Some(GatewayFacts { id: "gw", is_connected, is_enabled })
    }

    #[test]
    fn a_state_follows_from_its_facts_by_the_table() {
        use Connectivity::{Connected, Disconnected, Never, Unknown};
        use Lifecycle::{Blocked, Provisioned, Registered, WaitingForApproval};
        let up = StateFacts { connected_since_ms: Some(5), last_seen_ms: Some(4), ..ENABLED };
        let seen = StateFacts { last_seen_ms: Some(4), ..ENABLED };
        let some = |desired, running| Some(ModuleCounts { desired, running });
        #[rustfmt::skip]
        let table = [
            ("never connected", ENABLED, Never, Registered, Verdict::Unknown, Some("it has never connected")),
            ("connected", up, Connected, Provisioned, Verdict::Ok, None),
            ("went", seen, Disconnected, Provisioned, Verdict::Offline, Some("it is not connected")),
            ("blocked", StateFacts { is_enabled: false, ..seen }, Disconnected, Blocked, Verdict::Blocked, Some("an operator blocked it")),
            ("blocked before it came", StateFacts { is_enabled: false, ..ENABLED }, Never, Blocked, Verdict::Blocked, Some("an operator blocked it")),
            ("blocked and waiting", StateFacts { is_enabled: false, is_waiting: true, ..ENABLED }, Never, Blocked, Verdict::Blocked, Some("an operator blocked it")),
            ("waiting", StateFacts { is_waiting: true, ..ENABLED }, Never, WaitingForApproval, Verdict::Waiting, Some("it waits for an operator's approval")),
            ("behind a gateway that is there", StateFacts { gateway: behind(true, true), ..up }, Connected, Provisioned, Verdict::Ok, None),
            ("went, its gateway is there", StateFacts { gateway: behind(true, true), ..seen }, Disconnected, Provisioned, Verdict::Offline, Some("it is not connected")),
            ("its gateway is away", StateFacts { gateway: behind(false, true), ..seen }, Unknown, Provisioned, Verdict::Unknown, Some("gateway `gw` is not connected")),
            ("its gateway is blocked", StateFacts { gateway: behind(false, false), ..seen }, Unknown, Provisioned, Verdict::Unknown, Some("gateway `gw` is blocked by an operator")),
            ("never came, and its gateway is away", StateFacts { gateway: behind(false, true), ..ENABLED }, Never, Registered, Verdict::Unknown, Some("gateway `gw` is not connected")),
            ("at central itself while its gateway is away", StateFacts { gateway: behind(false, true), ..up }, Connected, Provisioned, Verdict::Ok, None),
            ("all modules run", StateFacts { modules: some(3, 3), ..up }, Connected, Provisioned, Verdict::Ok, None),
            ("a module does not run", StateFacts { modules: some(5, 2), ..up }, Connected, Provisioned, Verdict::Degraded, Some("2 of 5 modules run")),
            ("away with a module that did not run", StateFacts { modules: some(5, 2), ..seen }, Disconnected, Provisioned, Verdict::Offline, Some("it is not connected")),
            ("two clients", StateFacts { has_identity_conflict: true, ..up }, Connected, Provisioned, Verdict::Degraded, Some("two clients use this identity")),
            ("a finding", StateFacts { error_finding: Some("the disk is full"), ..up }, Connected, Provisioned, Verdict::Degraded, Some("the disk is full")),
        ];
        for (name, facts, connectivity, lifecycle, verdict, reason) in table {
            let state = DeviceState::of(&facts);
            assert_eq!(
                (state.connectivity, state.lifecycle, state.verdict, state.reason.as_deref()),
                (connectivity, lifecycle, verdict, reason),
                "{name}"
            );
        }
    }

    #[test]
    fn every_state_but_ok_says_why_and_none_is_ok_unless_it_is_connected() {
        let bools = [false, true];
        for bits in 0..1_u32 << 8 {
            let bit = |n: u32| bools[(bits >> n & 1) as usize];
            let facts = StateFacts {
                is_enabled: bit(0),
                is_waiting: bit(1),
                connected_since_ms: bit(2).then_some(9),
                last_seen_ms: bit(3).then_some(8),
                gateway: if bit(4) { behind(bit(5), true) } else { None },
                modules: bit(6).then_some(ModuleCounts { desired: 2, running: 1 }),
                has_identity_conflict: bit(7),
                error_finding: None,
            };
            let state = DeviceState::of(&facts);
            assert_eq!(state.reason.is_none(), state.verdict == Verdict::Ok, "{facts:?}");
            if state.verdict == Verdict::Ok {
                assert!(state.connectivity == Connectivity::Connected && facts.is_enabled, "{facts:?}");
            }
            assert_eq!(state.since.is_none(), state.connectivity == Connectivity::Never, "{facts:?}");
        }
    }

    #[test]
    fn a_verdict_has_one_name_in_queries_and_in_json() {
        for verdict in Verdict::ALL {
            assert_eq!(serde_json::json!(verdict), verdict.as_str());
            assert_eq!(Verdict::named(verdict.as_str()), Some(verdict));
        }
        assert!(Verdict::ALL.is_sorted());
        assert_eq!(Verdict::named("green"), None);
    }
}
