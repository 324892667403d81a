//! The console's files: what is served to everybody, and nothing else is.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use std::path::Path;

use common::{Central, STEP, start};
use reqwest::{Method, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

async fn get(central: &Central, path: &str) -> Response {
    central.http.get(central.url(path)).timeout(STEP).send().await.unwrap()
}

fn index() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("web/dist/index.html")).unwrap()
}

#[tokio::test]
async fn every_path_without_a_file_is_the_console_and_the_apis_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    for path in
        ["/", "/index.html", "/devices/line-1?tab=health", "/apiary", "/devices/a.b", "/%61pi/devices"]
    {
        let page = get(&central, path).await;
        assert_eq!(page.status(), 200, "{path}");
        let header = |name: &str| page.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "text/html; charset=utf-8");
        assert_eq!(header("cache-control"), "no-cache");
        let policy = header("content-security-policy");
        for rule in ["default-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "object-src 'none'"] {
            assert!(policy.contains(rule), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("referrer-policy"), "no-referrer");
        assert_eq!(header("cross-origin-resource-policy"), "same-origin");
        assert_eq!(page.text().await.unwrap(), index(), "{path}");
    }
    let head = central.http.head(central.url("/")).timeout(STEP).send().await.unwrap();
    assert_eq!(head.status(), 200);
    for path in ["/api", "/api/", "/api/nothing", "/api/ext/nothing", "/status", "/api/devices"] {
        assert_eq!(get(&central, path).await.status(), 401, "{path}");
        let answer = central.http.get(central.url(path)).header("Authorization", &central.token);
        let answer = answer.query(&[("api-version", "2022-07-31")]).timeout(STEP).send().await.unwrap();
        let is_there = path == "/status" || path == "/api/devices";
        assert_eq!(answer.status(), if is_there { 200 } else { 404 }, "{path}");
        if path != "/status" {
            assert_eq!(answer.headers()["content-type"], "application/json", "{path}");
            let policy = answer.headers()["content-security-policy"].to_str().unwrap();
            assert!(policy.contains("default-src 'none'"), "{path}: {policy}");
        }
    }
    // A script that is gone is no page.
    let gone = get(&central, "/assets/index-0000.js").await;
    assert_eq!(
        (gone.status().as_u16(), &gone.headers()["content-type"]),
        (404, &"application/json".parse().unwrap())
    );
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let answer =
            central.http.request(method.clone(), central.url("/")).timeout(STEP).send().await.unwrap();
        assert_eq!(answer.status(), 401, "{method}");
    }
    central.end().await;
}

#[tokio::test]
async fn every_file_of_the_console_is_served_as_it_is_and_compressed_to_who_accepts_that() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("web/dist");
    let mut dirs = vec![dist.clone()];
    let mut files = 0;
    while let Some(dir) = dirs.pop() {
        for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            if path.extension().is_some_and(|extension| extension == "br") {
                continue;
            }
            let url = format!("/{}", path.strip_prefix(&dist).unwrap().display());
            let plain = get(&central, &url).await;
            assert_eq!(plain.status(), 200, "{url}");
            assert!(!plain.headers().contains_key("content-encoding"));
            assert_eq!(plain.headers()["vary"], "Accept-Encoding");
            let caching = plain.headers()["cache-control"].to_str().unwrap();
            assert_eq!(caching.contains("immutable"), url.starts_with("/assets/"), "{url}: {caching}");
            assert_eq!(plain.bytes().await.unwrap(), std::fs::read(&path).unwrap(), "{url}");
            let compressed = std::path::PathBuf::from(format!("{}.br", path.display()));
            let request = central.http.get(central.url(&url)).header("Accept-Encoding", "gzip, br");
            let answer = request.timeout(STEP).send().await.unwrap();
            let encoding = answer.headers().get("content-encoding").cloned();
            assert_eq!(encoding.is_some_and(|encoding| encoding == "br"), compressed.exists(), "{url}");
            if compressed.exists() {
                assert_eq!(answer.bytes().await.unwrap(), std::fs::read(&compressed).unwrap(), "{url}");
            }
            files += 1;
        }
    }
    assert!(files > 0);
    central.end().await;
}

/// An answer to a path as it stands: clients tidy paths up before they send them.
async fn raw(central: &Central, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(central.started.http).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", central.started.http);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(STEP, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn no_path_leads_to_a_file_that_is_not_the_consoles() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let index = index();
    for path in [
        "/../central.db",
        "/assets/../../central.db",
        "/assets/%2e%2e/%2e%2e/central.db",
        "/..%2fcentral.db",
        "/%2e%2e%5ccentral.db",
        "//etc/passwd",
        "/index.html%00.js",
        "/./index.html",
        "/index.html.br",
        "/setup-code",
        "/assets/..",
        "/assets//etc/passwd",
        "/api/../setup-code",
        "/status/../setup-code",
    ] {
        let answer = raw(&central, path).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap();
        assert!(
            (status == "200" && body == index) || status == "404" || status == "401" || status == "400",
            "{path}: {head}"
        );
    }
    central.end().await;
}
