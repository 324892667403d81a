//! The link through what plants have at their edge: Debian's tinyproxy (HTTP CONNECT, with a password) and microsocks
//! (SOCKS 5), over MQTT and over WebSocket, by the configuration and by the environment.

use std::path::Path;

use site_tests::port::free_port;
use site_tests::process::{Process, run};
use site_tests::rest::eventually;
use site_tests::site::Site;
use tokio::process::Command;

use crate::broker::{STEP, start};
use crate::publisher::publish;

async fn listens(port: u16) {
    eventually("the proxy listens", STEP, || async {
        Ok(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok().map(drop))
    })
    .await
    .unwrap();
}

async fn tinyproxy(dir: &Path, to: &[u16]) -> (Process, u16) {
    let port = free_port().unwrap();
    let ports: String = to.iter().map(|port| format!("ConnectPort {port}\n")).collect();
    let config = format!(
        "Port {port}\nListen 127.0.0.1\nAllow 127.0.0.1\nTimeout 600\nMaxClients 50\nBasicAuth gate pass-word\n{ports}"
    );
    let file = dir.join("tinyproxy.conf");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new("tinyproxy");
    command.arg("-d").arg("-c").arg(&file);
    let process = Process::start("tinyproxy", command, &dir.join("tinyproxy.log")).unwrap();
    listens(port).await;
    (process, port)
}

async fn microsocks(dir: &Path) -> (Process, u16) {
    let port = free_port().unwrap();
    let mut command = Command::new("microsocks");
    command.args(["-i", "127.0.0.1", "-u", "gate", "-P", "word", "-p"]).arg(port.to_string());
    let process = Process::start("microsocks", command, &dir.join("microsocks.log")).unwrap();
    listens(port).await;
    (process, port)
}

/// Puts lines into `[upstream]`, and the port of central's WebSockets into the connection string for them.
fn set(site: &Site, original: &str, port: u16, lines: &str) {
    let text = original.replace(
        &format!("HostName=localhost:{}", site.central_mqtts),
        &format!("HostName=localhost:{port}"),
    );
    std::fs::write(site.edge_toml(), format!("{}\n{lines}\n", text.trim_end())).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn central_is_reached_through_proxies_by_mqtt_and_by_websocket() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(&dir.path().join("site"), "up-proxy", false).unwrap();
    let wss = site.central_wss;
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    let original = std::fs::read_to_string(site.edge_toml()).unwrap();
    let (tiny, tiny_port) = tinyproxy(dir.path(), &[site.central_mqtts, wss]).await;
    let (socks, socks_port) = microsocks(dir.path()).await;
    let mut arrived = 0;
    for (name, port, lines, shown) in [
        (
            "HTTP CONNECT",
            site.central_mqtts,
            format!("proxy = \"http://gate:pass%2Dword@127.0.0.1:{tiny_port}\""),
            format!("http://127.0.0.1:{tiny_port}"),
        ),
        (
            "WebSocket through HTTP CONNECT",
            wss,
            format!("transport = \"websocket\"\nproxy = \"http://gate:pass%2Dword@127.0.0.1:{tiny_port}\""),
            format!("http://127.0.0.1:{tiny_port}"),
        ),
        (
            "WebSocket through SOCKS 5",
            wss,
            format!("transport = \"websocket\"\nproxy = \"socks5://gate:word@127.0.0.1:{socks_port}\""),
            format!("socks5://127.0.0.1:{socks_port}"),
        ),
    ] {
        set(&site, &original, port, &lines);
        let (code, out, error) = run(&mut site.agent_command(&["check"]).unwrap()).await.unwrap();
        assert!(code < 2 && error.len() < 1000, "{name}: {error}");
        assert!(out.contains(&format!("reached through {shown}")) && !out.contains("word"), "{name}: {out}");
        start(&mut site).await;
        let login = site.add_leaf("up-far", std::time::Duration::ZERO).await.unwrap().login();
        site.leaves_known(std::slice::from_ref(&login)).await.unwrap();
        publish(site.gateway_mqtt, &login, (0..50).map(|n| n.to_string())).await;
        arrived += 50;
        let rest = site.rest().unwrap().clone();
        eventually(&format!("{name}: {arrived} messages in central"), STEP, || async {
            Ok((rest.messages("up-far").await?.len() == arrived).then_some(()))
        })
        .await
        .unwrap();
        site.stop_agent().await.unwrap();
    }
    let seen = std::fs::read_to_string(dir.path().join("tinyproxy.log")).unwrap();
    for port in [site.central_mqtts, wss] {
        assert!(seen.contains(&format!("CONNECT localhost:{port}")), "{seen}");
    }

    // A wrong password is told, and the environment is heard where the configuration says nothing.
    set(
        &site,
        &original,
        site.central_mqtts,
        &format!("proxy = \"http://gate:wrong@127.0.0.1:{tiny_port}\""),
    );
    let (code, out, error) = run(&mut site.agent_command(&["check"]).unwrap()).await.unwrap();
    assert!(code < 2 && out.contains("not reached through") && !out.contains("wrong@"), "{out} {error}");
    set(&site, &original, site.central_mqtts, "");
    let proxy = format!("http://gate:pass%2Dword@127.0.0.1:{tiny_port}");
    for (no_proxy, is_used) in [("", true), ("example.com, localhost", false)] {
        let mut check = site.agent_command(&["check"]).unwrap();
        check.env("https_proxy", &proxy).env("no_proxy", no_proxy);
        let (code, out, error) = run(&mut check).await.unwrap();
        assert!(code < 2 && out.contains(" reached"), "{out} {error}");
        assert_eq!(out.contains("reached through"), is_used, "{out} {error}");
    }
    tiny.kill().await.unwrap();
    socks.kill().await.unwrap();
    site.end(false).await.unwrap();
}
