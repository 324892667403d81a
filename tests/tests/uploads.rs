//! Module logs and support bundles that `$edgeAgent` uploads to a store of blobs, called through central's API: what a store gets, and
//! what `GetTaskStatus` answers of one that refuses and of one that hangs.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

#[path = "../../edge-agent/tests/idle_image/mod.rs"]
mod idle_image;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use edge_tls::config::server_config;
use edge_tls::issue::{issue_ca, issue_server};
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use site_tests::process::run;
use site_tests::rest::eventually;
use site_tests::site::Site;
use test_needs::Need;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const NEEDS: [Need; 2] = [Need::Docker, Need::File("/bin/busybox")];
const GATEWAY: &str = "uploads-gateway";
const MODULE: &str = "uploads-sensor";
/// What a store and nobody else may see.
const SIGNATURE: &str = "sv=2024-01-01&sig=c2lnbmF0dXJlT2ZUaGlzVGVzdA%3D%3D";
const SECRET: &str = "c2lnbmF0dXJlT2ZUaGlzVGVzdA";
/// The store behind the proxy: no name server knows it.
const STORE: &str = "store.plant.invalid";
/// A busy machine, and twice the silence that the gateway bears.
const PATIENCE: Duration = Duration::from_secs(240);

/// What a store got.
#[derive(Clone)]
struct Put {
    target: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

type Puts = Arc<Mutex<Vec<Put>>>;

/// Reads what a client sends before its body.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// A store of blobs with one request for each connection. Its container `logs` keeps them, `denied` refuses, and `silent` never
/// answers.
async fn store(mut stream: impl AsyncRead + AsyncWrite + Unpin, puts: Puts) {
    let head = head(&mut stream).await;
    let mut lines = head.lines();
    let target = lines.next().unwrap().strip_prefix("PUT ").unwrap().strip_suffix(" HTTP/1.1").unwrap();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    let answer = match target {
        target if target.starts_with("/logs/") => "201 Created",
        target if target.starts_with("/denied/") => {
            "403 Server failed\r\nx-ms-error-code: AuthenticationFailed"
        }
        _ => {
            // Until the gateway gives up.
            let _ = stream.read_u8().await;
            return;
        }
    };
    puts.lock().unwrap().push(Put { target: target.to_owned(), headers, body });
    let body = format!("<Error>{SIGNATURE}</Error>");
    let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).await.unwrap();
}

/// Accepts connections for as long as the test runs; gives the port.
async fn serve(tls: Option<TlsAcceptor>, puts: Puts) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (tls, puts) = (tls.clone(), puts.clone());
            tokio::spawn(async move {
                match tls {
                    Some(tls) => store(tls.accept(stream).await.unwrap(), puts).await,
                    None => store(stream, puts).await,
                }
            });
        }
    });
    port
}

/// A proxy with one way: from [`STORE`] to a port here.
async fn proxy(to: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let request = head(&mut stream).await;
                assert!(request.starts_with(&format!("CONNECT {STORE}:443 ")), "{request}");
                let mut store = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let _ended = tokio::io::copy_bidirectional(&mut stream, &mut store).await;
            });
        }
    });
    port
}

/// A site whose gateway runs a module with something in its log.
async fn site(dir: &std::path::Path, env: Vec<(&'static str, String)>) -> Site {
    let mut site = Site::new(dir, GATEWAY, false).unwrap();
    site.agent_env = env;
    // Whatever is logged has no secret.
    site.log_level = "debug";
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(PATIENCE).await.unwrap();
    let script =
        "echo '<6>started'; echo '<3>pump off' >&2; trap 'exit 0' TERM; /bin/busybox sleep 100000 & wait";
    let mut manifest: Value = serde_json::from_str(include_str!("../../manifests/demo.json")).unwrap();
    let content = manifest["modulesContent"].as_object_mut().unwrap();
    content.retain(|key, _| key.starts_with('$'));
    content["$edgeAgent"]["properties.desired"]["modules"] = json!({MODULE: {
        "version": "1.0", "type": "docker", "status": "running", "restartPolicy": "always", "imagePullPolicy": "never",
        "settings": {"image": idle_image::IMAGE, "createOptions": json!({"Cmd": [script]}).to_string()},
    }});
    let file = dir.join("manifest.json");
    std::fs::write(&file, manifest.to_string()).unwrap();
    let applied =
        run(&mut site.agent_command(&["apply", file.to_str().unwrap(), "--wait", "240"]).unwrap()).await;
    let (code, out, error) = applied.unwrap();
    assert_eq!(code, 0, "{out} {error}");
    site
}

/// Calls a method of `$edgeAgent` through central; gives status and payload.
async fn call(site: &Site, method: &str, request: Value) -> (u64, Value) {
    let path = format!("/api/devices/{GATEWAY}/modules/$edgeAgent/commands/{method}");
    let body = json!({"request": request, "responseTimeout": 60, "connectionTimeout": 60});
    let answer = site.rest().unwrap().post(&path, &body).await.unwrap();
    (answer["responseCode"].as_u64().unwrap(), answer["response"].clone())
}

/// Begins an upload; gives its correlation id.
async fn begin(site: &Site, method: &str, request: Value) -> Value {
    let (code, begun) = call(site, method, request).await;
    assert_eq!((code, &begun["status"]), (200, &json!("NotStarted")), "{begun}");
    begun["correlationId"].clone()
}

/// Waits for the end of an upload; gives its last status.
async fn ended(site: &Site, id: &Value) -> Value {
    eventually("the end of the upload", PATIENCE, || async {
        let (code, task) =
            call(site, "GetTaskStatus", json!({"schemaVersion": "1.0", "correlationId": id})).await;
        assert_eq!((code, &task["correlationId"]), (200, id), "{task}");
        Ok((!matches!(task["status"].as_str(), Some("NotStarted" | "Running"))).then_some(task))
    })
    .await
    .unwrap()
}

async fn upload(site: &Site, method: &str, request: Value) -> Value {
    let id = begin(site, method, request).await;
    ended(site, &id).await
}

fn logs(url: &str, encoding: &str, content_type: &str) -> Value {
    json!({"schemaVersion": "1.0", "items": [{"id": MODULE, "filter": {"tail": 10}}], "encoding": encoding,
        "contentType": content_type, "sasUrl": url})
}

/// The name of the only blob that was put, and what was put; the next upload begins anew.
fn taken(puts: &Puts) -> (String, Put) {
    let mut puts = std::mem::take(&mut *puts.lock().unwrap());
    assert_eq!(puts.len(), 1);
    let put = puts.remove(0);
    let (path, query) = put.target.split_once('?').unwrap();
    assert_eq!(query, SIGNATURE);
    assert_eq!(put.headers["x-ms-blob-type"], "BlockBlob");
    (path.rsplit_once('/').unwrap().1.to_owned(), put)
}

fn assert_lines(text: &str) {
    // The streams of a container have no common order.
    let lines: std::collections::BTreeSet<&str> = text.lines().collect();
    assert_eq!(lines, ["<3>pump off", "<6>started"].into());
}

fn unpacked(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    GzDecoder::new(body).read_to_end(&mut bytes).unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_a_support_bundle_reach_a_store_and_a_store_that_refuses_or_hangs_is_the_reason_of_a_failure()
 {
    if !test_needs::has(&NEEDS) {
        return;
    }
    idle_image::make();
    let dir = tempfile::tempdir().unwrap();
    let puts = Puts::default();
    let ca = issue_ca("authority of the store").unwrap();
    let issued = issue_server(&ca, &[STORE.to_owned()]).unwrap();
    let ca_file = dir.path().join("store-ca.pem");
    std::fs::write(&ca_file, &ca.cert_pem).unwrap();
    let tls = server_config(issued.chain_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
    let https = serve(Some(TlsAcceptor::from(tls)), puts.clone()).await;
    let http = serve(None, puts.clone()).await;
    let env = vec![
        ("SSL_CERT_FILE", ca_file.display().to_string()),
        ("HTTPS_PROXY", format!("http://127.0.0.1:{}", proxy(https).await)),
        // central is reached without it.
        ("NO_PROXY", "localhost".to_owned()),
    ];
    let mut site = site(dir.path(), env).await;
    let here = |container: &str| format!("http://127.0.0.1:{http}/{container}?{SIGNATURE}");
    eventually("the module's log", PATIENCE, || async {
        let (_, answer) = call(&site, "GetModuleLogs", logs("", "none", "text")).await;
        let text = answer[0]["payload"].as_str().unwrap_or_default();
        Ok((text.lines().count() == 2).then_some(()))
    })
    .await
    .unwrap();

    // Beside all others, which it does not hinder.
    let hangs = begin(&site, "UploadModuleLogs", logs(&here("silent"), "none", "text")).await;

    // As text, over TLS and the proxy.
    let url = format!("https://{STORE}/logs?{SIGNATURE}");
    let task = upload(&site, "UploadModuleLogs", logs(&url, "none", "text")).await;
    let (name, put) = taken(&puts);
    assert_eq!(task["status"], "Completed", "{task}");
    assert!(put.target.starts_with(&format!("/logs/localhost/{GATEWAY}/{MODULE}-20")), "{}", put.target);
    assert!(name.ends_with(".log") && task["message"].as_str().unwrap().contains(&name), "{name} {task}");
    assert_eq!((put.headers["content-type"].as_str(), put.headers["host"].as_str()), ("text/plain", STORE));
    assert_lines(std::str::from_utf8(&put.body).unwrap());

    // Compressed, to this machine.
    let task = upload(&site, "UploadModuleLogs", logs(&here("logs"), "gzip", "text")).await;
    let (name, put) = taken(&puts);
    assert!(task["status"] == "Completed" && name.ends_with(".log.gz"), "{name} {task}");
    assert_eq!(put.headers["x-ms-blob-content-encoding"], "gzip");
    assert_lines(std::str::from_utf8(&unpacked(&put.body)).unwrap());

    let task = upload(&site, "UploadModuleLogs", logs(&here("logs"), "none", "json")).await;
    let (name, put) = taken(&puts);
    assert!(task["status"] == "Completed" && name.ends_with(".json"), "{name} {task}");
    let records: Value = serde_json::from_slice(&put.body).unwrap();
    assert_eq!((records.as_array().unwrap().len(), &records[0]["id"]), (2, &json!(MODULE)), "{records}");

    let request = json!({"schemaVersion": "1.0", "sasUrl": here("logs"), "since": "2h"});
    let task = upload(&site, "UploadSupportBundle", request).await;
    let (name, put) = taken(&puts);
    assert!(task["status"] == "Completed" && name.starts_with("support-bundle-20"), "{name} {task}");
    let archive = String::from_utf8_lossy(&unpacked(&put.body)).into_owned();
    for file in ["about.txt", "status.json", "contents.txt", &format!("modules/{MODULE}.log")] {
        assert!(archive.contains(&format!("support-bundle/{file}")), "{file}");
    }
    assert!(archive.contains("pump off"));

    let denied = upload(&site, "UploadModuleLogs", logs(&here("denied"), "none", "text")).await;
    let reason = format!("http://127.0.0.1:{http} answered 403 AuthenticationFailed");
    assert_eq!(denied["status"], "Failed", "{denied}");
    assert!(denied["message"].as_str().unwrap().ends_with(&reason), "{denied}");
    let silent = ended(&site, &hangs).await;
    let reason = format!("http://127.0.0.1:{http} took nothing and did not answer for 60 s");
    assert_eq!(silent["status"], "Failed", "{silent}");
    assert!(silent["message"].as_str().unwrap().ends_with(&reason), "{silent}");

    let (code, refused) = call(&site, "UploadModuleLogs", json!({"schemaVersion": "1.0", "items": []})).await;
    assert!(code == 400 && refused["message"].as_str().unwrap().contains("sasUrl"), "{refused}");
    for text in [site.agent_log(), site.central_log(), denied.to_string(), silent.to_string()] {
        assert!(!text.contains(SECRET), "{text}");
    }
    let left = std::fs::read_dir(site.agent_dir()).unwrap();
    let left =
        left.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("upload"));
    assert_eq!(left.count(), 0);
    site.end(true).await.unwrap();
}
