//! What is running, asked of the `docker` command as an operator would ask it.

use std::collections::BTreeMap;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use crate::process::run;

/// A container as `docker ps` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id: another one means that it was made anew.
    pub id: String,
    /// When it was started last: another time means that it was restarted.
    pub started_at: String,
}

/// The running containers of a gateway by name: those on its network.
pub async fn running(network: &str) -> Result<BTreeMap<String, Container>> {
    let listed =
        docker(&["ps", "--no-trunc", "--filter", &format!("network={network}"), "--format", "{{.Names}}"])
            .await?;
    let mut containers = BTreeMap::new();
    for name in listed.lines().filter(|name| !name.is_empty()) {
        let line = docker(&["inspect", "--format", "{{.Id}} {{.State.StartedAt}}", name]).await?;
        let (id, started_at) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        containers
            .insert(name.to_owned(), Container { id: id.to_owned(), started_at: started_at.to_owned() });
    }
    Ok(containers)
}

/// Removes the network and every container on it.
pub async fn remove_network(network: &str) -> Result<()> {
    let listed = docker(&["ps", "-aq", "--filter", &format!("network={network}")]).await?;
    for id in listed.lines().filter(|id| !id.is_empty()) {
        docker(&["rm", "-f", id]).await?;
    }
    // A network that was never made is as gone as one that was removed.
    let networks = docker(&["network", "ls", "--format", "{{.Name}}"]).await?;
    if networks.lines().any(|name| name == network) {
        docker(&["network", "rm", network]).await?;
    }
    Ok(())
}

/// Makes an image of busybox alone.
pub async fn busybox_image(name: &str) -> Result<()> {
    let mut tar =
        Command::new("tar").args(["-C", "/", "-c", "bin/busybox"]).stdout(Stdio::piped()).spawn()?;
    let archive: Stdio = tar.stdout.take().context("stdout is piped")?.try_into()?;
    // Not by `run`, which gives no input.
    let imported = Command::new("docker").args(["import", "-", name]).stdin(archive).output().await?;
    let error = String::from_utf8_lossy(&imported.stderr);
    ensure!(imported.status.success() && tar.wait().await?.success(), "docker import: {error}");
    Ok(())
}

/// Runs `docker` with these arguments and gives what it printed.
pub async fn docker(arguments: &[&str]) -> Result<String> {
    let (code, out, error) = run(Command::new("docker").args(arguments)).await?;
    ensure!(code == 0, "docker {} failed: {error}", arguments.join(" "));
    Ok(out)
}
