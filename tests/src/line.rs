//! A line between this machine and another network, made here: a network namespace that is reached over two TUN devices. This
//! process carries their packets, late, loses some, or lets none through. What TCP makes of it is the kernels' own work.
//!
//! ```text
//! this machine              this process                    namespace
//! 198.18.n.1 ── TUN ── late, lost, or nothing ── TUN ── 198.18.n.2
//! 198.19.n.1 ─────────── a veth pair, as it is ──────── 198.19.n.2
//! ```
//!
//! Not the kernel's netem: many kernels that tests run on come without it. The addresses are those of RFC 2544, for tests of
//! networks. As root, with iproute2.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_tun::Tun;

/// As Ethernet's: what TCP packs into one packet.
const MTU: i32 = 1500;
const PACKET_BYTES_MAX: usize = 2048;

/// What the line does to packets, both ways alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// From one end to the other; the round trip is twice that.
    pub delay: Duration,
    /// Of all packets, 0 to 1.
    pub loss: f64,
    /// False: every packet is swallowed, and nobody is told.
    pub is_open: bool,
}

impl Shape {
    /// A line that does nothing to packets.
    pub const NONE: Self = Self { delay: Duration::ZERO, loss: 0.0, is_open: true };
    /// A line that swallows everything.
    pub const SILENT: Self = Self { delay: Duration::ZERO, loss: 0.0, is_open: false };

    /// A line with this round trip, on which this part of all packets is lost.
    pub fn of(round_trip: Duration, loss: f64) -> Self {
        Self { delay: round_trip / 2, loss, is_open: true }
    }
}

/// A line, and the namespace behind it. It ends when it is dropped.
pub struct Line {
    pub name: String,
    /// The far end of the shaped line.
    pub far: Ipv4Addr,
    /// The far end beside it, which is not shaped: what a test itself uses.
    pub beside: Ipv4Addr,
    near_device: String,
    far_device: String,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    relay: Option<JoinHandle<()>>,
}

struct Shared {
    shape: Mutex<Shape>,
    carried: AtomicU64,
    lost: AtomicU64,
}

impl Shared {
    fn shape(&self) -> MutexGuard<'_, Shape> {
        self.shape.lock().expect("nothing panics while it holds the shape")
    }
}

static MADE: AtomicU32 = AtomicU32::new(0);

impl Line {
    /// Makes a line that does nothing to packets yet.
    ///
    /// # Errors
    /// When it cannot be made: not root, or iproute2 is missing.
    pub fn new() -> Result<Self> {
        sweep();
        let (process, made) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let third = u8::try_from(process.wrapping_mul(31).wrapping_add(made) % 256)?;
        let name = format!("lineside-{process}-{made}");
        let device = |kind: &str| format!("ls{kind}{process}-{made}");
        let (near_device, far_device) = (device("n"), device("f"));
        let shared = Arc::new(Shared {
            shape: Mutex::new(Shape::NONE),
            carried: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        let (stop, stopped) = watch::channel(false);
        let (opened, is_open) = std::sync::mpsc::channel();
        let relay = {
            let (shared, near, far) = (shared.clone(), near_device.clone(), far_device.clone());
            // A thread of its own: what a test does must not make the line longer.
            std::thread::Builder::new()
                .name("line".into())
                .spawn(move || carry(&near, &far, &shared, stopped, &opened))?
        };
        let line = Self {
            name: name.clone(),
            far: Ipv4Addr::new(198, 18, third, 2),
            beside: Ipv4Addr::new(198, 19, third, 2),
            near_device: near_device.clone(),
            far_device: far_device.clone(),
            shared,
            stop,
            relay: Some(relay),
        };
        is_open.recv().context("the line's thread ended")?.context("opening TUN devices, as root")?;
        let beside = (device("v"), device("w"));
        ip(&["netns", "add", &name])?;
        ip(&["link", "set", &far_device, "netns", &name])?;
        ip(&["link", "add", &beside.0, "type", "veth", "peer", "name", &beside.1, "netns", &name])?;
        for (device, net) in [(&near_device, 18), (&beside.0, 19)] {
            ip(&["addr", "add", &format!("198.{net}.{third}.1/29"), "dev", device])?;
            ip(&["link", "set", device, "up"])?;
        }
        for (device, net) in [(&far_device, 18), (&beside.1, 19)] {
            ip(&["-n", &name, "addr", "add", &format!("198.{net}.{third}.2/29"), "dev", device])?;
            ip(&["-n", &name, "link", "set", device, "up"])?;
        }
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        Ok(line)
    }

    /// From now on the line does this to packets.
    pub fn shape(&self, shape: Shape) {
        *self.shared.shape() = shape;
    }

    /// The cable is pulled at this machine's end: sending fails with an error.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn unplug(&self) -> Result<()> {
        ip(&["link", "set", &self.near_device, "down"])
    }

    /// The cable is back.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn plug(&self) -> Result<()> {
        ip(&["link", "set", &self.near_device, "up"])
    }

    /// The far end gets another address and loses the one it had; gives the new one.
    ///
    /// # Errors
    /// When `ip` fails, or there is no address left.
    pub fn move_far(&mut self) -> Result<Ipv4Addr> {
        let [a, b, c, last] = self.far.octets();
        let Some(next) = last.checked_add(1).filter(|next| *next < 7) else {
            bail!("a line has five addresses")
        };
        let moved = Ipv4Addr::new(a, b, c, next);
        ip(&["-n", &self.name, "addr", "flush", "dev", &self.far_device])?;
        ip(&["-n", &self.name, "addr", "add", &format!("{moved}/29"), "dev", &self.far_device])?;
        self.far = moved;
        Ok(moved)
    }

    /// Packets that were carried, and packets that were lost.
    pub fn counts(&self) -> (u64, u64) {
        (self.shared.carried.load(Ordering::Relaxed), self.shared.lost.load(Ordering::Relaxed))
    }

    /// What runs a program in the namespace, before its own command line.
    pub fn inside(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.name].map(str::to_owned).to_vec()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(relay) = self.relay.take() {
            let _ = relay.join();
        }
        let _ = ip(&["netns", "del", &self.name]);
    }
}

/// Removes the namespaces of tests that were killed.
fn sweep() {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix("lineside-").and_then(|rest| rest.split('-').next());
        if let Some(process) = process
            && !std::path::Path::new("/proc").join(process).exists()
        {
            let _ = ip(&["netns", "del", &name]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context("running ip; install iproute2")?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

type Opened = std::sync::mpsc::Sender<Result<()>>;

fn carry(near: &str, far: &str, shared: &Arc<Shared>, mut stopped: watch::Receiver<bool>, opened: &Opened) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(opened.send(Err(error.into()))),
    };
    runtime.block_on(async {
        let open = |name: &str| -> Result<Arc<Tun>> {
            let mut devices = Tun::builder().name(name).mtu(MTU).build()?;
            Ok(Arc::new(devices.pop().context("no device was made")?))
        };
        let (near, far) = match open(near).and_then(|near| Ok((near, open(far)?))) {
            Ok(devices) => devices,
            Err(error) => return drop(opened.send(Err(error))),
        };
        let _ = opened.send(Ok(()));
        for (from, to) in [(near.clone(), far.clone()), (far, near)] {
            // Bounded by what TCP sends before it is acknowledged.
            let (late, due) = mpsc::unbounded_channel();
            tokio::spawn(take_in(from, shared.clone(), late));
            tokio::spawn(give_out(to, due));
        }
        let _ = stopped.wait_for(|stopped| *stopped).await;
    });
}

/// Takes packets in and decides what becomes of each.
async fn take_in(from: Arc<Tun>, shared: Arc<Shared>, late: mpsc::UnboundedSender<(Instant, Vec<u8>)>) {
    let mut buffer = [0; PACKET_BYTES_MAX];
    let mut last = Instant::now();
    loop {
        // An interface that is down, or is moved to its namespace.
        let Ok(length) = from.recv(&mut buffer).await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let shape = *shared.shape();
        if !shape.is_open || (shape.loss > 0.0 && rand::random::<f64>() < shape.loss) {
            shared.lost.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        shared.carried.fetch_add(1, Ordering::Relaxed);
        // A line that becomes shorter lets nothing overtake.
        last = last.max(Instant::now() + shape.delay);
        if late.send((last, buffer[..length].to_vec())).is_err() {
            return;
        }
    }
}

/// Gives packets out when they are due.
async fn give_out(to: Arc<Tun>, mut due: mpsc::UnboundedReceiver<(Instant, Vec<u8>)>) {
    while let Some((at, packet)) = due.recv().await {
        if at > Instant::now() {
            tokio::time::sleep_until(at).await;
        }
        // An interface that is down takes nothing, as a cable that is pulled.
        let _ = to.send(&packet).await;
    }
}
