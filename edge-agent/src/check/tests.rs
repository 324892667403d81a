use std::path::Path;
use std::time::Duration;

use edge_core::health::facts::Facts;
use edge_core::health::finding::{CheckId, Finding, Level};
use edge_core::health::findings;
use edge_tls::issue::{CertificateSpec, Purpose, issue, issue_ca};

use super::*;
use crate::access::certificate::server_names;
use crate::cli::init::gateway::{InitOptions, init};

fn initialised(dir: &Path) -> Config {
    let (data_dir, config) = (dir.join("data"), dir.join("edge.toml"));
    init(InitOptions {
        device_id: "gw".parse().unwrap(),
        hostname: "edge".into(),
        data_dir,
        config: config.clone(),
        upstream: None,
        upstream_ca: None,
    })
    .unwrap();
    Config::load(&config).unwrap()
}

fn of(findings: &[Finding], id: CheckId) -> Finding {
    findings.iter().find(|finding| finding.id == id).unwrap().clone()
}

#[tokio::test]
async fn a_ca_is_warned_of_months_before_it_ends_and_only_the_gateways_own_certificate_is_renewed() {
    let dir = tempfile::tempdir().unwrap();
    let config = initialised(dir.path());
    let (day, now_secs) = (86_400, now_ms() / 1000);
    let at = async |days: u64| {
        let now_secs = now_secs + days * day;
        let mut certificates = files::certificates(&config).await;
        certificates.server = files::server(&config.tls, &config.hostname, now_secs);
        let found = findings(&Facts { now_secs, certificates, ..Facts::default() });
        (of(&found, CheckId::Ca), of(&found, CheckId::ServerCertificate))
    };
    let (ca, cert) = at(0).await;
    assert_eq!((ca.level, cert.level), (Level::Ok, Level::Ok), "{ca} {cert}");
    let (ca, cert) = at(300).await;
    assert_eq!((ca.level, cert.level), (Level::Ok, Level::Warn), "{cert}");
    assert!(cert.mend.contains("the daemon makes a new one"), "{cert}");
    let (ca, _) = at(9 * 365 + 100).await;
    assert!(ca.level == Level::Warn && ca.evidence.contains("ends in 26"), "{ca}");
    assert_eq!(at(10 * 365 + 1).await.0.level, Level::Error);

    // Of another CA, which the daemon never overwrites.
    let works = issue_ca("works").unwrap();
    let (names, lifetime) = (server_names("edge"), Duration::from_secs(90 * day));
    let spec = CertificateSpec {
        common_name: "edge",
        names: &names,
        uris: &[],
        purpose: Purpose::Server,
        lifetime,
        validity_max_secs: Some(lifetime.as_secs()),
    };
    let issued = issue(&works, &spec).unwrap();
    std::fs::write(&config.tls.cert, issued.chain_pem).unwrap();
    std::fs::write(&config.tls.key, issued.key_pem).unwrap();
    assert_eq!(at(0).await.1.level, Level::Ok);
    let (_, cert) = at(80).await;
    assert!(cert.mend.contains("the CA that made it"), "{cert}");
    assert_eq!((cert.level, at(91).await.1.level), (Level::Warn, Level::Error));
}

#[test]
fn memory_is_read_as_the_kernel_writes_it() {
    let text = "MemTotal:       16326548 kB\nMemFree:          412 kB\nMemAvailable:    1024 kB\n";
    let Probe::Found(memory) = host::memory(text) else { panic!("not read") };
    assert_eq!((memory.available_bytes, memory.total_bytes), (1024 * 1024, 16_326_548 * 1024));
    assert_eq!(host::memory("no such lines"), Probe::NotProbed);
}
