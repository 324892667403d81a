//! What stands in a gateway's data directory and is wrong, or is used by two, stops no more than it must.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use site_tests::process::run;
use site_tests::site::Site;

async fn gateway(dir: &std::path::Path, upstream: Option<&str>) -> Site {
    let site = Site::new(dir, "data-dir", false).unwrap();
    match upstream {
        None => site.init_alone().await.unwrap(),
        Some(upstream) => {
            // Any certificate will do as central's authority: nobody is there.
            let ca = dir.join("central-ca.pem");
            let made = rcgen::generate_simple_self_signed(vec!["central".into()]).unwrap();
            std::fs::write(&ca, made.cert.pem()).unwrap();
            site.init_with(upstream, &ca).await.unwrap();
        }
    }
    site
}

#[tokio::test]
async fn a_second_daemon_is_refused_and_takes_nothing_from_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = gateway(dir.path(), None).await;
    site.start_agent().await.unwrap();
    let reserve = site.agent_dir().join("state/reserve");
    assert!(reserve.exists());
    let (code, _, error) = run(&mut site.agent_command(&["run"]).unwrap()).await.unwrap();
    assert_ne!(code, 0);
    let holder = format!("in use by another edge-agent (process {})", site.agent_id().unwrap());
    assert!(error.contains(&holder), "{error}");
    assert!(reserve.exists());
    let login = site.add_here(&["press-1".into()]).await.unwrap().remove(0);
    login.open(site.gateway_mqtt).await.unwrap();
    site.end(false).await.unwrap();
}

#[tokio::test]
async fn devices_are_served_while_the_file_of_centrals_authority_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = "HostName=localhost:1;DeviceId=data-dir;SharedAccessKey=YWJj";
    let mut site = gateway(dir.path(), Some(upstream)).await;
    std::fs::write(site.agent_dir().join("upstream-ca.pem"), "damaged").unwrap();
    std::fs::write(site.agent_dir().join("server.pem"), "damaged").unwrap();
    site.start_agent().await.unwrap();
    let login = site.add_here(&["press-1".into()]).await.unwrap().remove(0);
    login.open(site.gateway_mqtt).await.unwrap();
    let status = site.agent_json(&["status"]).await.unwrap();
    let why = status["upstream"]["why"].as_str().unwrap_or_default().to_owned();
    assert!(why.contains("[upstream] ca"), "{status}");
    assert!(site.agent_dir().join("server.pem.damaged").exists());
    site.end(false).await.unwrap();
}
