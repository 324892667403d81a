//! `make demo`: a whole site on this machine, until Ctrl-C; with `--once`, every step of the main job proven and ended.

use std::path::PathBuf;

use anyhow::Result;
use site_tests::job::{self, Report};
use site_tests::site::Site;

#[tokio::main]
async fn main() -> Result<()> {
    let is_once = std::env::args().any(|argument| argument == "--once");
    let dir = tempfile::Builder::new().prefix("lineside-demo-").tempdir()?;
    let mut site = Site::new(dir.path(), "demo-gateway", true)?;
    let mut report = Report::default();
    let ended = demo(&mut site, &mut report, is_once).await;
    let cleaned = site.end(true).await;
    if !report.is_success() || ended.is_err() {
        // What a newcomer needs when it went wrong: the logs, kept.
        let kept = dir.keep();
        println!("The logs are kept in {}", kept.display());
    }
    ended?;
    cleaned?;
    match report.is_success() {
        true => Ok(()),
        false => std::process::exit(1),
    }
}

async fn demo(site: &mut Site, report: &mut Report, is_once: bool) -> Result<()> {
    let manifests = PathBuf::from("manifests");
    let leaves = job::start(site, &manifests, report).await?;
    if is_once {
        return job::prove(site, &manifests, leaves, report).await;
    }
    let agent = std::path::absolute(site_tests::process::binary("edge-agent")?)?;
    println!();
    println!("central            http://{}  (user: any, password: the token below)", site.http);
    println!("API token          {}", site.token());
    println!(
        "gateway, MQTT/TLS  {}:{}  trust {}",
        site_tests::site::hostname(),
        site.gateway_mqtts,
        site.gateway_ca().display()
    );
    println!("gateway, plain     127.0.0.1:{}", site.gateway_mqtt);
    println!("edge-agent         {} --config {}", agent.display(), site.edge_toml().display());
    println!("Leaf devices press-1 and press-2 publish; Ctrl-C ends it all and leaves nothing behind.");
    tokio::signal::ctrl_c().await?;
    for leaf in leaves {
        leaf.stop().await?;
    }
    Ok(())
}
