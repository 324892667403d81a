use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use edge_core::access::sas;
use edge_tls::inspect::inspect;
use edge_tls::issue::issue_ca;
use edge_tls::served::ServedCertificate;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use tokio::sync::watch;

use super::certificates::ModuleCertificates;
use super::*;
use crate::access::module_keys::ModuleKeys;
use crate::deployment::status::ReconcilerStatus;

async fn ask(socket: &FilePath, method: &str, path: &str, body: &str) -> (u16, Value) {
    let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    // As the Python SDK does it: without a Content-Type.
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("Host", "localhost")
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    // Node's SDK does without no answer's Content-Type.
    assert_eq!(response.headers()["content-type"], "application/json", "{path}");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

/// A gateway's workload API, and the keys of its modules.
fn workload(dir: &FilePath, trust_bundle: &str, has_authority: bool) -> (Workload, ModuleKeys) {
    std::fs::write(dir.join(crate::access::module_keys::FILE), [1; 32]).unwrap();
    let keys = ModuleKeys::load(dir).unwrap();
    let certificates = has_authority.then(|| ModuleCertificates {
        authority: issue_ca("gw edge CA").unwrap(),
        gateway: "gw".parse().unwrap(),
        hub_name: "hub.example".into(),
    });
    // The receiver reads the last value of a sender that has gone.
    let reconciler = watch::channel(ReconcilerStatus::default()).1;
    let about = About { keys: keys.clone(), trust_bundle: trust_bundle.to_owned(), certificates, reconciler };
    (Workload::new(dir, about), keys)
}

#[tokio::test]
async fn a_module_gets_the_trust_bundle_and_signs_for_itself_only_also_after_a_restart_of_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let sensor: ModuleId = "sensor".parse().unwrap();
    // The first one stands for a daemon that was killed: its socket file stays.
    workload(dir.path(), "OLD", true).0.open(&sensor).unwrap();
    let (workload, keys) = workload(dir.path(), "PEM", true);
    workload.open(&sensor).unwrap();
    workload.open(&sensor).unwrap();
    let socket = workload.dir_of(&sensor).join(SOCKET);
    let (status, body) = ask(&socket, "GET", "/trust-bundle?api-version=2018-06-28", "").await;
    assert_eq!((status, &body["certificate"]), (200, &json!("PEM")));
    let request =
        json!({"keyId": "primary", "algo": "HMACSHA256", "data": STANDARD.encode("sr\n1")}).to_string();
    let (status, body) =
        ask(&socket, "POST", "/modules/sensor/genid/7/sign?api-version=2019-01-30", &request).await;
    let expected = STANDARD.encode(sas::sign(&keys.key(&sensor), b"sr\n1"));
    assert_eq!((status, &body["digest"]), (200, &json!(expected)));
    for path in ["genid/7/sign", "genid/7/encrypt", "genid/7/certificate/server", "certificate/identity"] {
        let (status, body) = ask(&socket, "POST", &format!("/modules/filter/{path}"), &request).await;
        assert_eq!(status, 403, "{path}");
        assert!(body["message"].as_str().unwrap().contains("sensor"));
    }
    workload.close(&sensor);
    assert!(workload.modules().is_empty() && !socket.exists());
}

/// Writes a request as it is and reads one answer: its status line, its headers and its body.
async fn raw(socket: &FilePath, request: &str) -> (String, String, Value) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    if request.contains("Connection: close") {
        stream.read_to_end(&mut answer).await.unwrap();
    } else {
        // The connection stays: the answer ends where its length says.
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(answer.clone()).unwrap();
        let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        answer.extend(body);
    }
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let (status, headers) = head.split_once("\r\n").unwrap();
    (status.to_owned(), headers.to_owned(), serde_json::from_str(body).unwrap())
}

/// What each of Azure's SDKs writes to the socket that `IOTEDGE_WORKLOADURI` names, and what each needs of the answer. That
/// of Python was seen on the wire; the others were read in their sources (Node 1.18, C# and C of 2026, Java 2.5).
#[tokio::test]
async fn each_sdk_is_answered_on_the_socket_as_it_writes_and_reads_http() {
    let dir = tempfile::tempdir().unwrap();
    let sensor: ModuleId = "sensor_1-a".parse().unwrap();
    let (workload, keys) = workload(dir.path(), "PEM", true);
    workload.open(&sensor).unwrap();
    let socket = workload.dir_of(&sensor).join(SOCKET);
    let data = STANDARD.encode("hub.example%2Fdevices%2Fgw%2Fmodules%2Fsensor_1-a\n1800000000");
    let digest =
        sas::sign(&keys.key(&sensor), b"hub.example%2Fdevices%2Fgw%2Fmodules%2Fsensor_1-a\n1800000000");
    let own = "/modules/sensor_1-a";
    for (sdk, version, headers, body) in [
        (
            "Python",
            "2019-01-30",
            "Host: localhost\r\nUser-Agent: py-azure-iot-device%2F2.14.0\r\nAccept-Encoding: gzip, deflate\r\n\
             Accept: */*\r\nConnection: keep-alive\r\n",
            format!(r#"{{"keyId": "primary", "algo": "HMACSHA256", "data": "{data}"}}"#),
        ),
        (
            "Node",
            "2018-06-28",
            "Content-Type: application/json\r\nHost: localhost\r\nConnection: close\r\n",
            format!(r#"{{"keyId":"primary","algo":"HMACSHA256","data":"{data}"}}"#),
        ),
        (
            "C#",
            "2018-06-28",
            "Accept: application/json\r\nHost: workload.sock:80\r\nConnection: close\r\n\
             Content-Type: application/json\r\n",
            format!(r#"{{"keyId":"primary","algo":"HMACSHA256","data":"{data}"}}"#),
        ),
        (
            "Java",
            "2019-01-30",
            "Host: /var/run/iotedge/workload.sock\r\nAccept: application/json\r\nConnection: close\r\n\
             Content-Type: application/json\r\n",
            format!(r#"{{"keyId":"primary","algo":"HMACSHA256","data":"{data}"}}"#),
        ),
        (
            "C",
            "2018-06-28",
            "Content-Type: application/json; charset=utf-8\r\nHost: /var/run/iotedge/workload.sock:0\r\n",
            format!(r#"{{"keyId":"primary","algo":"HMACSHA256","data":"{data}"}}"#),
        ),
        (
            "edgeHub's own, of IoT Edge 1.5",
            "2022-08-03",
            "Host: workload.sock\r\nConnection: close\r\nContent-Type: application/json; charset=utf-8\r\n",
            format!(r#"{{"keyId":"primary","algo":"HmacSha256","data":"{data}"}}"#),
        ),
    ] {
        let length = body.len();
        let sign = format!(
            "POST {own}/genid/637/sign?api-version={version} HTTP/1.1\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        );
        let (status, answered, answer) = raw(&socket, &sign).await;
        // Java splits the status line into exactly three; C# and C want the length; Node wants the type.
        assert_eq!(status, "HTTP/1.1 200 OK", "{sdk}: {answer}");
        let answered = answered.to_ascii_lowercase();
        assert!(answered.contains("content-type: application/json"), "{sdk}: {answered}");
        assert!(answered.contains("content-length: ") && !answered.contains("chunked"), "{sdk}: {answered}");
        assert_eq!(answer, json!({"digest": STANDARD.encode(&digest)}), "{sdk}");

        let trust = format!("GET /trust-bundle?api-version={version} HTTP/1.1\r\n{headers}\r\n");
        let (status, _, answer) = raw(&socket, &trust).await;
        assert_eq!((status.as_str(), answer), ("HTTP/1.1 200 OK", json!({"certificate": "PEM"})), "{sdk}");

        let body = r#"{"commonName":"edge","expiration":"2030-01-01T00:00:00Z"}"#;
        let length = body.len();
        let server = format!(
            "POST {own}/genid/637/certificate/server?api-version={version} HTTP/1.1\r\n{headers}\
             Content-Length: {length}\r\n\r\n{body}"
        );
        let (status, _, answer) = raw(&socket, &server).await;
        assert_eq!(status, "HTTP/1.1 201 Created", "{sdk}: {answer}");
        assert!(answer["privateKey"]["bytes"].as_str().unwrap().contains("PRIVATE KEY"), "{sdk}: {answer}");
    }
}

#[tokio::test]
async fn a_module_gets_a_certificate_to_serve_with_and_one_that_says_who_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let sensor: ModuleId = "sensor".parse().unwrap();
    let (workload, _) = workload(dir.path(), "PEM", true);
    workload.open(&sensor).unwrap();
    let socket = workload.dir_of(&sensor).join(SOCKET);
    let authority = workload.about.certificates.as_ref().map(|c| c.authority.clone());
    let server = |name: &str| json!({"commonName": name, "expiration": "2020-01-01T00:00:00Z"}).to_string();
    for (path, body, names) in [
        ("genid/7/certificate/server", server("10.0.0.7").as_str(), &["10.0.0.7", "sensor"][..]),
        ("genid/7/certificate/server", server("*.plant.example").as_str(), &["*.plant.example", "sensor"]),
        ("genid/7/certificate/server", server("sensor").as_str(), &["sensor"]),
        ("genid/7/certificate/server", server("gw/sensor").as_str(), &["sensor"]),
        ("certificate/identity", "", &[]),
    ] {
        let path = format!("/modules/sensor/{path}?api-version=2018-06-28");
        let (status, body) = ask(&socket, "POST", &path, body).await;
        assert_eq!((status, &body["privateKey"]["type"]), (201, &json!("key")), "{path}");
        let certificate = body["certificate"].as_str().unwrap();
        let key = body["privateKey"]["bytes"].as_str().unwrap();
        ServedCertificate::new(certificate.as_bytes(), key.as_bytes()).unwrap();
        let seen = inspect(certificate.as_bytes(), authority.as_ref()).unwrap();
        assert!(seen.is_own);
        assert_eq!(seen.names, names);
        let expiration = body["expiration"].as_str().unwrap();
        assert_eq!(expiration, schemas::timestamp::rfc3339(seen.not_after_secs * 1000));
        let life = seen.not_after_secs - crate::clock::now_ms() / 1000;
        assert!((89 * 86_400..=90 * 86_400).contains(&life), "{life} s");
    }
}

#[tokio::test]
async fn what_a_module_encrypts_only_the_same_generation_and_vector_decrypt() {
    let dir = tempfile::tempdir().unwrap();
    let sensor: ModuleId = "sensor".parse().unwrap();
    let (workload, _) = workload(dir.path(), "PEM", false);
    workload.open(&sensor).unwrap();
    let socket = workload.dir_of(&sensor).join(SOCKET);
    let (plaintext, vector) = (STANDARD.encode("secret"), STANDARD.encode("iv"));
    let request = json!({"plaintext": plaintext, "initializationVector": vector}).to_string();
    let (status, body) = ask(&socket, "POST", "/modules/sensor/genid/7/encrypt", &request).await;
    assert_eq!(status, 200);
    let request = json!({"ciphertext": body["ciphertext"], "initializationVector": vector}).to_string();
    let (status, body) = ask(&socket, "POST", "/modules/sensor/genid/7/decrypt", &request).await;
    assert_eq!((status, &body["plaintext"]), (200, &json!(plaintext)));
    let (status, body) = ask(&socket, "POST", "/modules/sensor/genid/8/decrypt", &request).await;
    assert_eq!(status, 400);
    assert!(body["message"].as_str().unwrap().contains("ciphertext"));
}

#[tokio::test]
async fn what_is_wrong_or_not_served_is_reported_in_a_message() {
    let dir = tempfile::tempdir().unwrap();
    let sensor: ModuleId = "sensor".parse().unwrap();
    let (workload, _) = workload(dir.path(), "PEM", false);
    workload.open(&sensor).unwrap();
    let socket = workload.dir_of(&sensor).join(SOCKET);
    let (status, body) = ask(&socket, "GET", "/manifest-trust-bundle?api-version=2020-07-07", "").await;
    assert_eq!((status, body), (200, json!({"certificate": ""})));
    let (status, body) = ask(&socket, "GET", "/modules", "").await;
    assert_eq!((status, body), (200, json!({"modules": []})));
    let own = "/modules/sensor/genid/7";
    for (method, path, body, status, part) in [
        ("GET", "/trust-bundle?api-version=2018-01-01", "", 400, "api-version"),
        ("POST", &format!("{own}/sign"), "{", 400, "EOF"),
        ("POST", &format!("{own}/sign"), r#"{"algo": "MD5", "data": ""}"#, 400, "HMACSHA256"),
        ("POST", &format!("{own}/sign"), r#"{"algo": "HMACSHA256", "data": "-"}"#, 400, "base64"),
        ("POST", &format!("{own}/encrypt"), r#"{"plaintext": ""}"#, 400, "initializationVector"),
        ("POST", &format!("{own}/certificate/server"), r#"{"commonName": ""}"#, 400, "commonName"),
        (
            "POST",
            &format!("{own}/certificate/server"),
            r#"{"commonName": "edge\u0000.example"}"#,
            400,
            "commonName",
        ),
        ("POST", &format!("{own}/certificate/server"), r#"{"commonName": "a"}"#, 500, "ca_key"),
        ("POST", "/modules/sensor/certificate/identity", "", 500, "ca_key"),
        ("DELETE", "/trust-bundle", "", 405, "/trust-bundle"),
        ("GET", "/systeminfo", "", 404, "/systeminfo"),
    ] {
        let (found, answer) = ask(&socket, method, path, body).await;
        let message = answer["message"].as_str().unwrap();
        assert!(found == status && message.contains(part), "{path}: {found} {message}");
    }
}

/// 24,000 of them once took every descriptor of the daemon.
#[tokio::test]
async fn idle_connections_of_one_module_take_few_descriptors_and_no_other_modules_turn() {
    let dir = tempfile::tempdir().unwrap();
    let (workload, _) = workload(dir.path(), "PEM", false);
    let (hostile, sensor): (ModuleId, ModuleId) = ("hostile".parse().unwrap(), "sensor".parse().unwrap());
    workload.open(&hostile).unwrap();
    workload.open(&sensor).unwrap();
    let socket = workload.dir_of(&hostile).join(SOCKET);
    let mut idle = Vec::new();
    // More wait in the backlog, and beyond it nobody connects.
    while let Ok(Ok(stream)) =
        tokio::time::timeout(std::time::Duration::from_secs(2), tokio::net::UnixStream::connect(&socket))
            .await
        && idle.len() < 500
    {
        idle.push(stream);
    }
    assert!(idle.len() > 2 * MODULE_CONNECTIONS_MAX, "{}", idle.len());
    let (status, _) = ask(&workload.dir_of(&sensor).join(SOCKET), "GET", "/trust-bundle", "").await;
    assert_eq!(status, 200);
    let taken = CONNECTIONS_MAX - workload.connections.available_permits();
    assert!((1..=MODULE_CONNECTIONS_MAX + 1).contains(&taken), "{taken}");
}

#[tokio::test]
async fn the_container_of_an_earlier_module_of_the_name_signs_and_encrypts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (_, keys) = workload(dir.path(), "PEM", false);
    let state = crate::state::State::open(&dir.path().join("state")).unwrap();
    let generations = crate::access::module_generations::ModuleGenerations::load(state.clone());
    let keys = keys.with_numbers("gw".parse().unwrap(), generations.numbers().clone());
    let reconciler = watch::channel(ReconcilerStatus::default()).1;
    let about = About { keys: keys.clone(), trust_bundle: String::new(), certificates: None, reconciler };
    let workload = Workload::new(dir.path(), about);
    let sensor: ModuleId = "sensor".parse().unwrap();
    workload.open(&sensor).unwrap();
    let socket = workload.dir_of(&sensor).join(SOCKET);
    let sign = json!({"keyId": "primary", "algo": "HMACSHA256", "data": STANDARD.encode("x")}).to_string();
    let encrypt = json!({"plaintext": "eA==", "initializationVector": "aXY="}).to_string();
    let mut earlier: Vec<String> = Vec::new();
    for round in 0..3 {
        let now = workload.generation_id(&sensor);
        for (operation, body) in [("sign", &sign), ("encrypt", &encrypt)] {
            let path = |generation: &str| format!("/modules/sensor/genid/{generation}/{operation}");
            assert_eq!(ask(&socket, "POST", &path(&now), body).await.0, 200, "round {round}");
            for earlier in &earlier {
                assert_eq!(ask(&socket, "POST", &path(earlier), body).await.0, 403, "round {round}");
            }
        }
        let (_, body) = ask(&socket, "POST", &format!("/modules/sensor/genid/{now}/sign"), &sign).await;
        assert_eq!(body["digest"], STANDARD.encode(sas::sign(&keys.key(&sensor), b"x")));
        earlier.push(now);
        generations.removed(&"gw/sensor".parse().unwrap());
    }
    state.close().await;
}

/// What a module can put in the place of its socket: a directory that is not empty, and a link to a file of the host.
#[tokio::test]
async fn what_a_module_puts_in_its_sockets_place_keeps_it_from_nothing_and_harms_nothing_outside() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let sensor: ModuleId = "sensor".parse().unwrap();
    let socket = dir.path().join(DIR).join("sensor").join(SOCKET);
    let outside = dir.path().join("outside");
    std::fs::write(&outside, "secret").unwrap();
    std::fs::set_permissions(&outside, std::fs::Permissions::from_mode(0o600)).unwrap();
    let harms: [fn(&FilePath, &FilePath); 3] = [
        |socket, _| std::fs::create_dir_all(socket.join("x/y")).unwrap(),
        |socket, outside| std::os::unix::fs::symlink(outside, socket).unwrap(),
        |socket, _| std::fs::write(socket, "no socket").unwrap(),
    ];
    for harm in harms {
        workload(dir.path(), "PEM", true).0.open(&sensor).unwrap();
        std::fs::remove_file(&socket).unwrap();
        harm(&socket, &outside);
        // The daemon is started again.
        let (workload, _) = workload(dir.path(), "PEM", true);
        workload.open(&sensor).unwrap();
        let (status, answer) = ask(&socket, "GET", "/trust-bundle?api-version=2020-07-07", "").await;
        assert_eq!((status, &answer["certificate"]), (200, &json!("PEM")));
        let kept = std::fs::metadata(&outside).unwrap();
        assert_eq!((kept.permissions().mode() & 0o777, kept.len()), (0o600, 6));
        workload.close(&sensor);
        assert!(!socket.parent().unwrap().exists());
    }
}
