//! The operators' console in a real browser, at a site with a gateway: an operator's day, the keyboard alone, and no serious fault
//! of accessibility on any page in either theme. `LINESIDE_SHOTS=DIR` keeps pictures of the pages.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use site_tests::client::Kind;
use site_tests::process::run;
use site_tests::site::Site;

const USER: &str = "night-shift";
const PASSWORD: &str = "correct horse battery";
const GATEWAY: &str = "console-gateway";
/// Of one script: each of its steps has a limit of its own, and says which one it was.
const SCRIPT_MAX: Duration = Duration::from_secs(300);
const CONNECTED: Duration = Duration::from_secs(60);

/// A manifest without modules: what is tested is how it is written and how it arrives, which needs no Docker image.
fn manifest(modules: &Value) -> Value {
    let agent = json!({"schemaVersion": "1.1", "runtime": {"type": "docker", "settings": {}}, "systemModules": {}, "modules": modules});
    let hub = json!({"schemaVersion": "1.1", "routes": {"press": "FROM /messages/* INTO $upstream"},
        "storeAndForwardConfiguration": {"timeToLiveSecs": 7200}});
    json!({"modulesContent": {"$edgeAgent": {"properties.desired": agent}, "$edgeHub": {"properties.desired": hub}}})
}

async fn site(dir: &Path) -> Site {
    let mut site = Site::new(dir, GATEWAY, false).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(CONNECTED).await.unwrap();
    site
}

fn setup_code(site: &Site) -> String {
    std::fs::read_to_string(site.dir.join("central/setup-code")).unwrap().trim().to_owned()
}

/// Makes the first administrator, as the set-up page does.
async fn set_up(site: &Site) {
    let body = json!({"code": setup_code(site), "user": USER, "password": PASSWORD});
    site.rest().unwrap().post("/api/ext/setup", &body).await.unwrap();
}

/// Runs a script of `tests/clients/node` at this site.
async fn play(site: &Site, script: &str, more: Value) {
    let mut given = json!({
        "base": format!("http://{}", site.http), "dir": site.dir, "user": USER, "password": PASSWORD,
        "ca": site.central_ca(), "hostname": site.central_name, "gateway": GATEWAY, "gatewayName": "Gateway of this site",
        "device": {"host": "localhost", "port": site.central_mqtts},
        "manifest": manifest(&json!({})),
        "badManifest": manifest(&json!({"vision": {"version": "1.0", "type": "docker", "status": "running",
            "restartPolicy": "on-failed", "settings": {"image": "vision:1", "createOptions": "{}"}}})),
    });
    given.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut command = Kind::Node.command(script).unwrap();
    command.arg(given.to_string()).kill_on_drop(true);
    let (code, out, error) =
        tokio::time::timeout(SCRIPT_MAX, run(&mut command)).await.expect(script).unwrap();
    println!("{out}");
    assert_eq!(code, 0, "{script}: {error}\ncentral's log ends with:\n{}", tail(&site.central_log()));
    assert!(out.ends_with("done\n"), "{script} ended early: {out}");
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

#[tokio::test]
async fn an_operator_sets_up_central_connects_a_device_and_runs_it_for_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path()).await;
    play(&site, "console_day.js", json!({"setupCode": setup_code(&site)})).await;
}

#[tokio::test]
async fn the_keyboard_alone_signs_in_and_does_everything() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path()).await;
    set_up(&site).await;
    for number in 1..=3 {
        let body = json!({"displayName": format!("Press {number}")});
        site.rest().unwrap().put(&format!("/api/devices/press-{number}"), &body).await.unwrap();
    }
    play(&site, "console_keyboard.js", json!({})).await;
}

#[tokio::test]
async fn no_page_has_a_serious_fault_of_accessibility_in_either_theme() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path()).await;
    set_up(&site).await;
    let shots = std::env::var("LINESIDE_SHOTS").ok();
    play(&site, "console_pages.js", json!({"shots": shots})).await;
}
