//! Bad lines between the gateway and central, in a network that the tests make: long ones that lose packets, ones that go off
//! and on, that swallow everything, names that do not resolve, an address that moves, a gateway whose clock jumps.
//!
//! Each prints what the devices saw acknowledged, what arrived, what was lost and what arrived twice, and what is asked of it:
//! lost 0, twice 0, the order of each device kept, the backlog gone, the link back in time, and a gateway that does next to
//! nothing while it is offline. `make test` runs them with short times, `make faults` (`LINESIDE_FAULTS`) with long ones. As root.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use site_tests::STEP;
use site_tests::fake_clock::FakeClock;
use site_tests::leaf::{Leaf, LeafOptions, Seen};
use site_tests::line::{Line, Shape};
use site_tests::name_server::{Answer, NameServer};
use site_tests::raw::Login;
use site_tests::rest::eventually;
use site_tests::site::Site;

/// The name of central in these tests, where it has one.
const NAME: &str = "central.test";
const DEVICES: usize = 15;
/// The least that the gateway allows; with it a dead line is found in four seconds.
const KEEP_ALIVE_SECS: u64 = 4;
/// When a dead line must be known: in a keep-alive, and the rest is for a loaded machine. TCP alone would take a quarter of an hour.
const FOUND_DEAD: Duration = Duration::from_secs(KEEP_ALIVE_SECS + 86);
/// When everything that waited must have been sent.
const DRAINED: Duration = Duration::from_secs(300);
/// When a link must be there again: the longest wait between two attempts, 30 s, an attempt, and the rest for a loaded machine.
const BACK: Duration = STEP;
/// What a gateway without a link may use of one core, of a debug build too, when nobody talks to it.
const IDLE_SHARE_MAX: f64 = 0.02;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn is_long() -> bool {
    std::env::var_os("LINESIDE_FAULTS").is_some()
}

/// A gateway with its link to central over a line, and devices that talk to it.
struct Plant {
    site: Site,
    line: Line,
    /// Devices that the gateway knows already, also while it has no link.
    known: Vec<LeafOptions>,
    talking: Vec<(String, Leaf)>,
    silent: Vec<(String, Seen)>,
}

impl Plant {
    /// With the link up, and nobody talking.
    async fn new(dir: &std::path::Path) -> Self {
        let mut plant = Self::laid_out(dir, None);
        plant.start().await;
        plant
    }

    /// Nothing runs yet. The gateway knows central by its address, or by a name.
    fn laid_out(dir: &std::path::Path, name: Option<&str>) -> Self {
        let line = Line::new().unwrap();
        let mut site = Site::new(dir, "line-gateway", false).unwrap();
        site.behind(&line, name.unwrap_or(&line.far.to_string()));
        site.agent_env.push(("EDGE_AGENT__UPSTREAM__KEEP_ALIVE_SECS", KEEP_ALIVE_SECS.to_string()));
        Self { site, line, known: Vec::new(), talking: Vec::new(), silent: Vec::new() }
    }

    async fn start(&mut self) {
        self.site.start_central().await.unwrap();
        self.site.init_gateway().await.unwrap();
        self.site.start_agent().await.unwrap();
        self.site.link_is(true, STEP).await.unwrap();
        for number in 0..DEVICES {
            let options = self.site.add_leaf(&format!("line-{number}"), Duration::ZERO).await.unwrap();
            self.known.push(options);
        }
        let logins: Vec<Login> = self.known.iter().map(LeafOptions::login).collect();
        self.site.leaves_known(&logins).await.unwrap();
    }

    /// Some more devices talk, each once in `interval`.
    async fn talk(&mut self, count: usize, interval: Duration) {
        for _ in 0..count {
            let options = self.known.pop().expect("a device that did not talk yet");
            let id = options.identity.to_string();
            self.talking.push((id, Leaf::start(LeafOptions { interval, ..options })));
        }
        self.acknowledged_more(1).await;
    }

    /// Waits until each device that talks has had this many further messages acknowledged.
    async fn acknowledged_more(&mut self, count: usize) {
        for (_, leaf) in &mut self.talking {
            leaf.acknowledged_more(count, STEP).await.unwrap();
        }
    }

    /// All devices stop.
    async fn hush(&mut self) {
        for (id, leaf) in self.talking.drain(..) {
            self.silent.push((id, leaf.stop().await.unwrap()));
        }
    }

    /// Waits until the daemon, to which nobody talks, uses next to nothing of a core over a while. It may have had something to do
    /// before; one that does not rest never has such a while.
    async fn rests(&self, what: &str, length: Duration) {
        let rests = format!("the gateway rests: {what}");
        let share = eventually(&rests, STEP + 3 * length, || async {
            let (before, since) = (self.site.agent_cpu()?, Instant::now());
            tokio::time::sleep(length).await;
            let used = self.site.agent_cpu()? - before;
            let share = used.as_secs_f64() / since.elapsed().as_secs_f64();
            Ok((share < IDLE_SHARE_MAX).then_some(share))
        });
        println!("{what}: {:.2} % of one core", share.await.unwrap() * 100.0);
    }

    /// Waits until the backlog is gone, and holds what arrived against what was acknowledged.
    async fn prove(mut self, what: &str) {
        self.hush().await;
        let since = Instant::now();
        eventually("the backlog is gone", DRAINED, || async {
            Ok((self.site.waiting().await? == 0).then_some(()))
        })
        .await
        .unwrap();
        let drained = since.elapsed();
        let rest = self.site.rest().unwrap().clone();
        let (mut acknowledged, mut arrived, mut lost, mut twice) = (0, 0, Vec::new(), Vec::new());
        let mut disordered = Vec::new();
        for (id, seen) in &self.silent {
            let messages = rest.messages(id).await.unwrap();
            let numbers: Vec<u64> = messages.iter().filter_map(|m| m["body"]["n"].as_u64()).collect();
            let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
            for number in &numbers {
                *counts.entry(*number).or_default() += 1;
            }
            acknowledged += seen.acknowledged.len();
            arrived += numbers.len();
            let here: BTreeSet<u64> = counts.keys().copied().collect();
            lost.extend(seen.acknowledged.difference(&here).map(|number| format!("{id}:{number}")));
            twice.extend(counts.iter().filter(|(_, count)| **count > 1).map(|(n, _)| format!("{id}:{n}")));
            if !numbers.is_sorted() {
                disordered.push(id.clone());
            }
        }
        let (carried, discarded) = self.line.counts();
        println!(
            "{what}: acknowledged {acknowledged}, arrived {arrived}, lost {}, twice {}, out of order {}; backlog gone after \
             {drained:.1?}; packets carried {carried}, lost on the line {discarded}",
            lost.len(),
            twice.len(),
            disordered.len()
        );
        assert!(acknowledged > 0, "nothing was acknowledged");
        assert!(lost.is_empty(), "lost: {lost:?}");
        assert!(twice.is_empty(), "twice: {twice:?}");
        assert!(disordered.is_empty(), "out of order: {disordered:?}");
        self.site.end(false).await.unwrap();
    }
}

#[tokio::test]
async fn a_line_of_600_ms_that_loses_2_percent_of_its_packets_brings_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut plant = Plant::laid_out(dir.path(), None);
    // TCP repairs what is lost twice only after seconds: that is no dead line yet.
    plant.site.agent_env = vec![("EDGE_AGENT__UPSTREAM__KEEP_ALIVE_SECS", "30".into())];
    plant.start().await;
    plant.line.shape(Shape::of(Duration::from_millis(600), 0.02));
    plant.talk(5, Duration::from_millis(40)).await;
    if is_long() {
        tokio::time::sleep(secs(120)).await;
    }
    // TCP has had to repair some of each kind: what goes up, and what acknowledges it.
    let losses = if is_long() { 100 } else { 5 };
    eventually("the line loses packets", STEP, || async {
        Ok((plant.line.counts().1 >= losses).then_some(()))
    })
    .await
    .unwrap();
    assert!(!plant.site.agent_log().contains("central is away"), "a long line is no dead one");
    plant.prove("600 ms, 2 % lost").await;
}

#[tokio::test]
async fn a_line_that_goes_off_and_on_brings_everything_and_the_gateway_rests_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let mut plant = Plant::new(dir.path()).await;
    let (rounds, off, on) = if is_long() { (2, secs(300), secs(300)) } else { (1, secs(4), secs(1)) };
    plant.talk(5, Duration::from_millis(50)).await;
    for _ in 0..rounds {
        plant.line.unplug().unwrap();
        plant.site.link_is(false, FOUND_DEAD).await.unwrap();
        // The devices go on: it is stored here.
        plant.acknowledged_more(20).await;
        plant.hush().await;
        plant.rests("line off", off / 2).await;
        plant.talk(5, Duration::from_millis(50)).await;
        tokio::time::sleep(off / 2).await;
        assert!(plant.site.waiting().await.unwrap() >= 100, "the backlog is not here");
        plant.line.plug().unwrap();
        let since = Instant::now();
        plant.site.link_is(true, BACK).await.unwrap();
        println!("line on: connected after {:.1?}", since.elapsed());
        tokio::time::sleep(on).await;
    }
    plant.prove("line off and on").await;
}

#[tokio::test]
async fn a_connection_that_discards_everything_is_given_up_within_a_keep_alive_and_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut plant = Plant::new(dir.path()).await;
    plant.talk(5, Duration::from_millis(50)).await;
    for round in 0..if is_long() { 10 } else { 1 } {
        plant.line.shape(Shape::SILENT);
        let since = Instant::now();
        plant.site.link_is(false, FOUND_DEAD).await.unwrap();
        let found = since.elapsed();
        plant.acknowledged_more(5).await;
        plant.line.shape(Shape::NONE);
        let since = Instant::now();
        plant.site.link_is(true, BACK).await.unwrap();
        println!(
            "half-open {round}: found dead after {found:.1?}, connected {:.1?} after it was gone",
            since.elapsed()
        );
    }
    // Nothing waits and nobody talks: found all the same.
    plant.hush().await;
    eventually("the backlog is gone", STEP, || async {
        Ok((plant.site.waiting().await? == 0).then_some(()))
    })
    .await
    .unwrap();
    plant.line.shape(Shape::SILENT);
    plant.site.link_is(false, FOUND_DEAD).await.unwrap();
    plant.line.shape(Shape::NONE);
    plant.site.link_is(true, BACK).await.unwrap();
    plant.prove("half-open").await;
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_resolved_again_and_central_may_move() {
    let dir = tempfile::tempdir().unwrap();
    let mut plant = Plant::laid_out(dir.path(), Some(NAME));
    let names = NameServer::start(Answer::Address(plant.line.far)).await.unwrap();
    let resolv_conf = dir.path().join("resolv.conf");
    std::fs::write(&resolv_conf, names.resolv_conf()).unwrap();
    // The daemon alone asks this name server: it gets a mount namespace with another /etc/resolv.conf.
    let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
    let inside = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script];
    plant.site.agent_in = inside.map(str::to_owned).to_vec();
    plant.site.agent_in.push(resolv_conf.to_str().unwrap().to_owned());
    plant.start().await;
    plant.talk(5, Duration::from_millis(50)).await;

    // The name breaks in each way it can, while central moves: what was its address answers nothing any more.
    names.say(Answer::Silent);
    let moved = plant.line.move_far().unwrap();
    plant.site.link_is(false, FOUND_DEAD).await.unwrap();
    plant.acknowledged_more(10).await;
    plant.hush().await;
    for answer in [Answer::Silent, Answer::Broken, Answer::Unknown] {
        names.say(answer);
        plant.rests(&format!("name server {answer:?}"), secs(if is_long() { 60 } else { 2 })).await;
    }
    plant.talk(5, Duration::from_millis(50)).await;
    names.say(Answer::Address(moved));
    let since = Instant::now();
    plant.site.link_is(true, BACK).await.unwrap();
    println!("name resolves again, to another address: connected after {:.1?}", since.elapsed());
    plant.prove("name lost, address moved").await;
}

#[tokio::test]
async fn a_clock_that_jumps_a_day_ahead_and_a_day_back_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut plant = Plant::laid_out(dir.path(), None);
    let clock = FakeClock::of_gateway(&mut plant.site, dir.path()).unwrap();
    plant.start().await;
    // What waits is good for two hours: a jump of a day must not make it too old.
    plant.site.keep_for(7200).await.unwrap();
    plant.talk(5, Duration::from_millis(50)).await;
    plant.line.unplug().unwrap();
    plant.site.link_is(false, FOUND_DEAD).await.unwrap();
    plant.acknowledged_more(20).await;
    let waiting = plant.site.waiting().await.unwrap();
    assert!(waiting >= 100, "{waiting} wait");
    let hold = secs(if is_long() { 30 } else { 1 });
    clock.set("+1d").unwrap();
    plant.line.plug().unwrap();
    plant.site.link_is(true, BACK).await.unwrap();
    eventually("the backlog is gone", STEP, || async {
        Ok((plant.site.waiting().await? == 0).then_some(()))
    })
    .await
    .unwrap();
    // A connection that stands goes on over a jump; with a clock that is a day behind none can begin, and none is lost.
    clock.set("-1d").unwrap();
    tokio::time::sleep(hold).await;
    clock.set("+0").unwrap();
    plant.site.link_is(true, BACK).await.unwrap();
    plant.talk(1, Duration::from_millis(50)).await;
    plant.prove("clock +1 day, -1 day").await;
    site_tests::docker::remove_network("lineside-line-gateway").await.unwrap();
}
