//! The operators' console in a real browser, at a site with a gateway: an operator's day, the keyboard alone, and no serious fault
//! of accessibility on any page in either theme. `LINESIDE_SHOTS=DIR` keeps pictures of the pages.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use site_tests::STEP;
use site_tests::client::{Client, Kind};
use site_tests::docker;
use site_tests::process::run;
use site_tests::rest::eventually;
use site_tests::site::Site;
use test_needs::Need;

const USER: &str = "night-shift";
const PASSWORD: &str = "correct horse battery";
const GATEWAY: &str = "console-gateway";
/// Of one script: each of its steps has a limit of its own, and says which one it was.
const SCRIPT_MAX: Duration = Duration::from_secs(900);

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
    site.gateway_connected(STEP).await.unwrap();
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
        "brokenManifest": manifest(&json!({"vision": {"version": "1.0", "type": "docker", "status": "running",
            "restartPolicy": "always", "imagePullPolicy": "never",
            "settings": {"image": "lineside-no-such-image:1", "createOptions": "{}"}}})),
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

/// Without a gateway: what is tested is between the browser and central.
async fn central_alone(dir: &Path) -> Site {
    let mut site = Site::new(dir, GATEWAY, false).unwrap();
    site.start_central().await.unwrap();
    set_up(&site).await;
    site
}

#[tokio::test]
async fn templates_are_imported_edited_with_their_impact_versioned_assigned_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let site = central_alone(dir.path()).await;
    play(&site, "console_templates.js", json!({})).await;
}

#[tokio::test]
async fn a_thousand_devices_are_imported_with_three_bad_lines_reported_and_exported_with_keys() {
    let dir = tempfile::tempdir().unwrap();
    let site = central_alone(dir.path()).await;
    play(&site, "console_import.js", json!({})).await;
}

#[tokio::test]
async fn the_forms_of_a_device_are_those_of_its_model_and_cloud_properties_stay_at_central() {
    let dir = tempfile::tempdir().unwrap();
    let site = central_alone(dir.path()).await;
    play(&site, "console_model.js", json!({})).await;
}

#[tokio::test]
async fn a_role_of_ones_own_is_made_given_tried_changed_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let site = central_alone(dir.path()).await;
    let shots = std::env::var("LINESIDE_SHOTS").ok();
    play(&site, "console_roles.js", json!({"shots": shots})).await;
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

/// Image of the module that writes to its log.
const CHATTY: &str = "lineside-test/chatty:1";

/// A module that writes a fault and a secret, and one whose image is nowhere.
fn chatty_manifest() -> Value {
    let script = "echo '<3>pump off'; echo password=hunter2hunter2; exec /bin/busybox tail -f /dev/null";
    let module = |image: &str, options: &Value| {
        json!({"version": "1.0", "type": "docker", "status": "running", "restartPolicy": "always", "imagePullPolicy": "never",
            "settings": {"image": image, "createOptions": options.to_string()}})
    };
    let options = json!({"Entrypoint": ["/bin/busybox", "sh", "-c", script], "StopSignal": "SIGKILL"});
    manifest(
        &json!({"chatty": module(CHATTY, &options), "vision": module("lineside-no-such-image:1", &json!({}))}),
    )
}

/// Reads the log on central's machine, once the module has written.
async fn log_by_command_line(site: &Site) -> String {
    let read = eventually("the log of the module", STEP, || async {
        let arguments = ["module", "logs", GATEWAY, "chatty", "--grep", "pump"];
        let (code, out, _) = run(&mut site.central_command(&arguments)?).await?;
        Ok((code == 0 && !out.is_empty()).then_some(out))
    });
    read.await.unwrap()
}

#[tokio::test]
async fn the_log_of_a_module_is_read_followed_and_searched_on_the_command_line_and_in_the_browser() {
    if !test_needs::has(&[Need::Docker, Need::File("/bin/busybox")]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path()).await;
    set_up(&site).await;
    docker::busybox_image(CHATTY).await.unwrap();
    let rest = site.rest().unwrap();
    let body = json!({"displayName": "Chatty line", "data": chatty_manifest()});
    rest.put("/api/deploymentManifests/chatty", &body).await.unwrap();
    let assign = format!("/api/devices/{GATEWAY}/applyDeploymentManifest");
    rest.post(&assign, &json!({"id": "chatty"})).await.unwrap();

    let log = log_by_command_line(&site).await;
    assert!(log.ends_with("Z pump off\n") && log.lines().count() == 1, "{log}");
    let refused = ["module", "logs", GATEWAY, "vision"];
    let (code, _, error) = run(&mut site.central_command(&refused).unwrap()).await.unwrap();
    assert!(code == 1 && error.contains("module `vision` has no container"), "{error}");

    let container = docker::running(&site.network).await.unwrap().into_keys().next().unwrap();
    let shots = std::env::var("LINESIDE_SHOTS").ok();
    play(&site, "console_logs.js", json!({"container": container, "shots": shots})).await;
    site.end(true).await.unwrap();
}

/// Devices that enrol; the last one is rejected.
const ENROLLED: [&str; 4] = ["press-10", "press-11", "press-12", "press-13"];

/// Enrols devices by the unmodified Azure SDK once the browser has made their group, and sees the approved ones go on.
async fn enrol(site: &Site) {
    let rest = site.rest().unwrap();
    // In its own time: a browser is started first.
    let group = eventually("the group that the browser makes", SCRIPT_MAX, || async {
        let (status, approval) =
            rest.send(Method::GET, "/api/ext/enrollmentGroups/line-4/approval", None).await?;
        if status != 200 || approval["autoApprove"] != false {
            return Ok(None);
        }
        Ok(Some(rest.get("/api/enrollmentGroups/line-4").await?).filter(|group| group["enabled"] == true))
    });
    let group = group.await.unwrap();
    let mut clients = Vec::new();
    for id in ENROLLED {
        let mut client = Client::start(
            id,
            Kind::AzurePython.command("azure_enrol.py").unwrap(),
            &site.dir.join("enrol.log"),
        )
        .unwrap();
        let how = json!({"host": "localhost", "scope": group["idScope"], "id": id, "ca": site.central_ca(),
            "group_key": group["attestation"]["symmetricKey"]["primaryKey"]});
        client.command(&how).await.unwrap();
        client.event("enrolling", STEP).await.unwrap();
        clients.push(client);
    }
    let rejected = clients.pop().unwrap();
    for client in &mut clients {
        let enrolled = client.event("enrolled", SCRIPT_MAX).await.unwrap();
        assert_eq!(enrolled["status"], "assigned", "{enrolled}");
        client.event("sent", STEP).await.unwrap();
    }
    let ended = rejected.end(SCRIPT_MAX).await.unwrap_err().to_string();
    assert!(ended.contains("ServiceError") && ended.contains("401"), "{ended}");
    for client in clients {
        client.end(STEP).await.unwrap();
    }
}

/// Signs the proof that the browser's verification code asks for.
async fn prove(dir: &Path, params: &rcgen::CertificateParams, key: &rcgen::KeyPair) {
    let code = eventually("the verification code", SCRIPT_MAX, || async {
        Ok(std::fs::read_to_string(dir.join("verification-code")).ok())
    });
    let (code, own) = (code.await.unwrap(), rcgen::KeyPair::generate().unwrap());
    let proof = certificate(&code).signed_by(&own, &rcgen::Issuer::from_params(params, key)).unwrap();
    std::fs::write(dir.join("proof.new"), proof.pem()).unwrap();
    std::fs::rename(dir.join("proof.new"), dir.join("proof.pem")).unwrap();
}

fn certificate(name: &str) -> rcgen::CertificateParams {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params
}

#[tokio::test]
async fn devices_of_the_azure_sdk_wait_until_they_are_approved_in_the_browser_and_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), GATEWAY, false).unwrap();
    // The SDK knows no other port.
    site.central_mqtts = 8883;
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    set_up(&site).await;
    let mut params = certificate("devices of line 5");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = site.dir.join("authority.pem");
    std::fs::write(&authority, params.self_signed(&key).unwrap().pem()).unwrap();
    let script = play(&site, "console_enrolment.js", json!({"devices": ENROLLED, "authority": authority}));
    tokio::join!(script, enrol(&site), prove(&site.dir, &params, &key));
}
