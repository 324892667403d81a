//! The site under attack, and what an attack did to it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use site_tests::STEP;
use site_tests::bench::peer::pss_kb;
use site_tests::probe::Probe;
use site_tests::raw::Login;
use site_tests::rest::eventually;
use site_tests::site::Site;
use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Longest wait of the well-behaved device for a PUBACK or CONNACK in nine of ten cases. On two cores shared with the attacker.
const SERVED: Duration = Duration::from_secs(5);
/// How often memory is sampled.
const SAMPLE: Duration = Duration::from_millis(100);

/// Whether the long form was asked for.
pub(crate) fn is_long() -> bool {
    std::env::var_os("LINESIDE_ATTACK").is_some()
}

/// How long an attack that is bounded by time goes on.
pub(crate) fn length() -> Duration {
    Duration::from_secs(if is_long() { 60 } else { 5 })
}

/// What an attack may cost at most.
pub(crate) struct Limits {
    /// Growth of either program at its peak, in kB of PSS.
    pub(crate) growth_kb: u64,
    /// Bytes written to either log.
    pub(crate) log_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { growth_kb: 64 * 1024, log_bytes: 1024 * 1024 }
    }
}

/// Process ids of edge-agent and central.
type Programs = [u32; 2];

/// A site with central, one gateway, one attacker's device and a probe.
pub(crate) struct Target {
    pub(crate) site: Site,
    /// A registered device whose owner is hostile.
    pub(crate) attacker: Login,
    name: &'static str,
    programs: Programs,
    before_kb: [u64; 2],
    log_before: [u64; 2],
    probe: Option<Probe>,
    probes: [Login; 2],
    sampling: watch::Sender<bool>,
    peak: JoinHandle<[u64; 2]>,
    _dir: TempDir,
}

fn log_bytes(dir: &Path) -> [u64; 2] {
    ["edge-agent.log", "central.log"]
        .map(|name| std::fs::metadata(dir.join(name)).map_or(0, |file| file.len()))
}

fn memory_kb(programs: Programs) -> [u64; 2] {
    programs.map(|id| pss_kb(id).unwrap_or(0))
}

impl Target {
    /// Starts the site; `name` names the attack in the table.
    pub(crate) async fn start(name: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut site = Site::new(dir.path(), "attack-gateway", false).unwrap();
        site.start_central().await.unwrap();
        site.init_gateway().await.unwrap();
        site.start_agent().await.unwrap();
        let mut logins = Vec::new();
        for id in ["attacker", "probe-stays", "probe-comes"] {
            logins.push(site.add_leaf(id, Duration::ZERO).await.unwrap().login());
        }
        site.leaves_known(&logins).await.unwrap();
        let [attacker, stays, comes] = <[Login; 3]>::try_from(logins).unwrap();
        site.open_free_topics("load/#").await.unwrap();
        let programs = [site.agent_id().unwrap(), site.central_id().unwrap()];
        let probe = Probe::start(site.gateway_mqtt, stays.clone(), comes.clone());
        let probes = [stays, comes];
        let (sampling, mut stopped) = watch::channel(false);
        let peak = tokio::spawn(async move {
            let mut peak = [0; 2];
            while !*stopped.borrow() {
                let now = memory_kb(programs);
                peak = [peak[0].max(now[0]), peak[1].max(now[1])];
                let _ = tokio::time::timeout(SAMPLE, stopped.changed()).await;
            }
            peak
        });
        let before_kb = memory_kb(programs);
        let log_before = log_bytes(&site.dir);
        Self {
            site,
            attacker,
            name,
            programs,
            before_kb,
            log_before,
            probe: Some(probe),
            probes,
            sampling,
            peak,
            _dir: dir,
        }
    }

    /// Kills both programs and starts them again on what they have stored.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        if let Some(probe) = self.probe.take() {
            probe.end().await?;
        }
        self.site.kill_agent().await?;
        self.site.kill_central().await?;
        self.site.start_central().await?;
        self.site.start_agent().await?;
        self.programs = [self.site.agent_id()?, self.site.central_id()?];
        self.probe =
            Some(Probe::start(self.site.gateway_mqtt, self.probes[0].clone(), self.probes[1].clone()));
        Ok(())
    }

    /// Ends the attack: both programs still run as the same processes, kept to `limits`, and served the probe; a message of
    /// the probe reached central.
    pub(crate) async fn held(mut self, limits: Limits) -> Result<()> {
        let waited = self.probe.take().context("the probe runs once")?.end().await?;
        self.sampling.send_replace(true);
        let peak = self.peak.await?;
        let after = memory_kb(self.programs);
        let log = log_bytes(&self.site.dir);
        let [acknowledged, connected] = waited.mostly();
        for (index, program) in ["edge-agent", "central"].into_iter().enumerate() {
            let written = log[index] - self.log_before[index];
            println!(
                "ATTACK {} | {program} | PSS {} kB before, {} peak, {} after | log {written} bytes | probe p90 PUBACK \
                 {acknowledged:?} CONNACK {connected:?}",
                self.name, self.before_kb[index], peak[index], after[index]
            );
            assert!(
                peak[index] < self.before_kb[index] + limits.growth_kb,
                "{program} grew from {} to {} kB",
                self.before_kb[index],
                peak[index]
            );
            assert!(written < limits.log_bytes, "{program} logged {written} bytes");
        }
        assert!(
            acknowledged < SERVED && connected < SERVED,
            "the probe waited {acknowledged:?} and {connected:?}"
        );
        assert_eq!(self.site.agent_id()?, self.programs[0], "edge-agent was restarted");
        assert_eq!(self.site.central_id()?, self.programs[1], "central was restarted");
        self.site.link_is(true, STEP).await?;
        let rest = self.site.rest()?.clone();
        // What the probe was acknowledged may still be on its way from the gateway's disk.
        eventually("a message of the probe in central", STEP, || async {
            Ok((!rest.messages("probe-stays").await?.is_empty()).then_some(()))
        })
        .await?;
        self.site.end(false).await
    }
}

/// Connects from another loopback address, as another host would.
pub(crate) async fn connect_from(host: [u8; 4], port: u16) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((host, 0)))?;
    Ok(socket.connect(SocketAddr::from(([127, 0, 0, 1], port))).await?)
}
