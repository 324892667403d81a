//! Free topics: one to one and fifty to one at QoS 1, one to fifty at QoS 0.

use std::time::Duration;

use anyhow::Result;

use super::load::Load;
use super::peer::{Mosquitto, anonymous};
use super::table::{ROUNDS, Spread, head, ratio};
use crate::process;
use crate::raw::Login;

/// Publishers of the fan-in, subscribers of the fan-out.
pub const MANY: usize = 50;
/// Bytes of a payload.
pub const PAYLOAD_BYTES: usize = 256;
/// How long one round sends.
const LENGTH: Duration = Duration::from_secs(3);

/// Who takes part: `ours` are `MANY + 1` accounts of the gateway on its plain port.
pub struct Parts<'a> {
    pub ours: &'a [Login],
    /// The gateway's plain port.
    pub port: u16,
    pub agent: u32,
    pub mosquitto: &'a Mosquitto,
}

/// One of the three: what it is called, and its load with these logins.
struct Case {
    name: &'static str,
    what: &'static str,
    target: &'static str,
    load: fn(&[Login]) -> Load,
}

fn base(qos: u8) -> Load {
    Load {
        publishers: Vec::new(),
        subscribers: Vec::new(),
        qos,
        window: 500,
        // A gateway holds 1,000 messages or 1 MiB for a client that lags, and then drops QoS 0.
        lag_max: 900,
        payload_bytes: PAYLOAD_BYTES,
        length: LENGTH,
    }
}

const CASES: [Case; 3] = [
    Case {
        name: "free-qos1-1-to-1",
        what: "QoS 1, 1 publisher to 1 subscriber, up to 500 in flight",
        target: "3 or more",
        load: |logins| Load {
            publishers: vec![(logins[0].clone(), "bench/one".to_owned())],
            subscribers: vec![(logins[1].clone(), "bench/one".to_owned())],
            ..base(1)
        },
    },
    Case {
        name: "free-qos1-50-to-1",
        what: "QoS 1, 50 publishers to 1 subscriber, up to 20 in flight each",
        target: "3 or more",
        load: |logins| Load {
            publishers: (0..MANY)
                .map(|index| (logins[index].clone(), format!("bench/many/{index:02}")))
                .collect(),
            subscribers: vec![(logins[MANY].clone(), "bench/many/+".to_owned())],
            window: 20,
            ..base(1)
        },
    },
    Case {
        name: "free-qos0-1-to-50",
        what: "QoS 0, 1 publisher to 50 subscribers",
        target: "8 or more",
        load: |logins| Load {
            publishers: vec![(logins[MANY].clone(), "bench/all".to_owned())],
            subscribers: (0..MANY).map(|index| (logins[index].clone(), "bench/all".to_owned())).collect(),
            ..base(0)
        },
    },
];

/// Runs the three, each side in turn.
///
/// # Errors
/// When a message was lost on the way.
pub async fn run(parts: &Parts<'_>) -> Result<()> {
    let theirs: Vec<Login> = (0..=MANY).map(|index| anonymous(&format!("peer-{index:02}"))).collect();
    for case in &CASES {
        let (mut ours, mut their) = (Rounds::default(), Rounds::default());
        for _ in 0..ROUNDS {
            ours.run((case.load)(parts.ours), parts.port, parts.agent).await?;
            their.run((case.load)(&theirs), parts.mosquitto.port, parts.mosquitto.id()?).await?;
        }
        let (our_cpu, their_cpu) = (Spread::of(ours.cpu_us), Spread::of(their.cpu_us));
        let (ours, theirs) = (Spread::of(ours.per_second), Spread::of(their.per_second));
        let what = format!("{}, {PAYLOAD_BYTES} B, {ROUNDS} rounds of {LENGTH:?}, nothing lost", case.what);
        head(&what, "delivered/s");
        ours.row("edge-agent", 0);
        theirs.row("mosquitto", 0);
        our_cpu.row("edge-agent, µs of CPU for each delivered", 2);
        their_cpu.row("mosquitto, µs of CPU for each delivered", 2);
        ratio(case.name, ours.median / theirs.median, case.target);
    }
    Ok(())
}

/// The rounds of one side.
#[derive(Default)]
struct Rounds {
    /// Delivered in a second.
    per_second: Vec<f64>,
    /// What the broker's process used of the CPU for each that was delivered: other work on the machine changes that less.
    cpu_us: Vec<f64>,
}

impl Rounds {
    async fn run(&mut self, load: Load, port: u16, broker: u32) -> Result<()> {
        let before = process::cpu(broker)?;
        let outcome = load.run(port).await?;
        let used = process::cpu(broker)?.saturating_sub(before);
        self.per_second.push(outcome.delivered as f64 / outcome.took.as_secs_f64());
        self.cpu_us.push(used.as_secs_f64() * 1e6 / outcome.delivered as f64);
        Ok(())
    }
}
