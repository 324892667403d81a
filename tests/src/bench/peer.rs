//! mosquitto as the peer of a run: Debian's, with every limit off that would make it drop.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::process::Command;

use crate::process::Process;
use crate::raw::Login;
use crate::rest::eventually;

pub struct Mosquitto {
    /// Its port on loopback, without TLS.
    pub port: u16,
    process: Process,
}

impl Mosquitto {
    /// Starts it on a free port; it persists nothing.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub async fn start(dir: &Path) -> Result<Self> {
        Self::start_with(dir, "mosquitto", "").await
    }

    /// Starts one that writes its whole database to `dir` once a second, which is the most often that it can.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub async fn start_persistent(dir: &Path) -> Result<Self> {
        let place = dir.join("mosquitto-data");
        std::fs::create_dir_all(&place)?;
        // As root it would become a user who may not write here.
        let persistence = format!(
            "user root\npersistence true\npersistence_location {}/\nautosave_interval 1\n",
            place.display()
        );
        Self::start_with(dir, "mosquitto-persistent", &persistence).await
    }

    async fn start_with(dir: &Path, name: &str, persistence: &str) -> Result<Self> {
        let config = dir.join(format!("{name}.conf"));
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        std::fs::write(
            &config,
            format!(
                "listener {port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\n\
                 max_queued_messages 0\nset_tcp_nodelay true\nlog_dest stderr\nlog_type information\n\
                 log_type notice\nlog_type error\nconnection_messages false\n{persistence}"
            ),
        )?;
        let mut command = Command::new("mosquitto");
        command.arg("-c").arg(&config);
        let process = Process::start(name, command, &dir.join(format!("{name}.log")))?;
        process.line("running", Duration::from_secs(10)).await?;
        Ok(Self { port, process })
    }

    pub fn id(&self) -> Result<u32> {
        self.process.id()
    }

    pub async fn stop(self) -> Result<()> {
        self.process.stop(Duration::from_secs(10)).await
    }
}

/// A client that needs no account.
pub fn anonymous(client_id: &str) -> Login {
    Login { client_id: client_id.to_owned(), account: None }
}

/// The proportional set size of a process: its own pages and its share of the shared ones.
pub fn pss_kb(process: u32) -> Result<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let line =
        rollup.lines().find(|line| line.starts_with("Pss:")).context("smaps_rollup has no Pss line")?;
    Ok(line.split_whitespace().nth(1).context("Pss has no value")?.parse()?)
}

/// The PSS in kB when it has stopped to change, by less than half a percent in a second.
///
/// # Errors
/// When it does not within a minute, or the process is gone.
pub async fn settled(process: u32) -> Result<u64> {
    let last = std::sync::Mutex::new(0);
    eventually("the memory settles", Duration::from_secs(60), || async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = pss_kb(process)?;
        let before = std::mem::replace(&mut *last.lock().expect("nothing panics while it holds it"), now);
        Ok((now.abs_diff(before) * 200 < now).then_some(now))
    })
    .await
}
