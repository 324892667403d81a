//! `edge-agent check`: what is wrong with this gateway and how to mend it. It changes nothing, and the daemon need not run.

use std::fmt;
use std::path::Path;

use edge_core::certificate::{AuthorityJudgement, Judgement, judge, judge_authority};
use edge_core::clock::is_before_build;
use edge_hub::private_files::first_public;
use edge_hub::tls::{self, Authority, ServedCertificate};
use schemas::timestamp::rfc3339;
use serde_json::{Value, json};

use crate::clock::now_ms;
use crate::config::{Config, Transport};
use crate::control::client::request;
use crate::init;
use crate::module_keys::ModuleKeys;
use crate::upstreams::reach;
use crate::workload;

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Good,
    /// Somebody should look; everything works.
    Warning,
    /// Something does not work.
    Wrong,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How it is.
    pub level: Level,
    /// What, as an operator calls it.
    pub what: &'static str,
    /// How it is, and the next step when there is one.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Good => "ok",
            Level::Warning => "WARNING",
            Level::Wrong => "ERROR",
        };
        write!(f, "{level:<8} {:<22} {}", self.what, self.text)
    }
}

impl Finding {
    /// For machines.
    pub fn to_json(&self) -> Value {
        let level = match self.level {
            Level::Good => "ok",
            Level::Warning => "warning",
            Level::Wrong => "error",
        };
        json!({"level": level, "what": self.what, "text": self.text})
    }
}

fn good(what: &'static str, text: impl Into<String>) -> Finding {
    Finding { level: Level::Good, what, text: text.into() }
}

fn warning(what: &'static str, text: impl Into<String>) -> Finding {
    Finding { level: Level::Warning, what, text: text.into() }
}

fn wrong(what: &'static str, text: impl Into<String>) -> Finding {
    Finding { level: Level::Wrong, what, text: text.into() }
}

/// Looks at everything.
pub async fn check(config: &Config) -> Vec<Finding> {
    let now_secs = now_ms() / 1000;
    let mut findings = vec![clock(now_secs), module_keys(config), permissions(config)];
    let (found, authority) = authority(config, now_secs);
    findings.push(found);
    findings.push(server_certificate(config, authority.as_ref(), now_secs));
    findings.extend(device_authorities(config, now_secs));
    findings.extend(upstream(config, now_secs));
    findings.extend(reached(config).await);
    findings.push(docker(config).await);
    findings.extend(daemon(config).await);
    findings
}

fn module_keys(config: &Config) -> Finding {
    let what = "keys of modules";
    match ModuleKeys::load(&config.data_dir) {
        Ok(_) => good(what, "readable"),
        Err(error) => wrong(what, format!("{error}; run `edge-agent init`, or restore it from a backup")),
    }
}

fn clock(now_secs: u64) -> Finding {
    let (what, shown) = ("clock", rfc3339(now_secs * 1000));
    if is_before_build(now_secs) {
        return wrong(
            what,
            format!("it says {shown}, before this program was built; set it, or wait for its time server"),
        );
    }
    good(what, format!("it says {shown}; nothing here proves it"))
}

fn permissions(config: &Config) -> Finding {
    let what = "permissions";
    match first_public(&config.data_dir, &[workload::DIR]) {
        Ok(None) => good(what, format!("{} is for its owner alone", config.data_dir.display())),
        Ok(Some(path)) => {
            let text =
                format!("{} can be used by other users; the daemon ends that when it starts", path.display());
            warning(what, text)
        }
        Err(error) => wrong(what, format!("{error}: {}; run as the daemon's user", error.source)),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// When an authority ends, as far as it is time to speak of it.
fn ends(what: &'static str, path: &Path, not_after_secs: u64, now_secs: u64, next: &str) -> Finding {
    let path = path.display();
    match judge_authority(not_after_secs, now_secs) {
        AuthorityJudgement::Good => {
            let years = not_after_secs.saturating_sub(now_secs) / (365 * 86_400);
            good(what, format!("{path} is valid for {years} more years"))
        }
        AuthorityJudgement::Ends { days_left } => {
            warning(what, format!("{path} ends in {days_left} days; {next}"))
        }
        AuthorityJudgement::Over => wrong(what, format!("{path} has ended; {next}")),
    }
}

fn authority(config: &Config, now_secs: u64) -> (Finding, Option<Authority>) {
    let what = "[tls] ca";
    let (cert, key) = (&config.tls.ca, &config.tls.ca_key);
    let cert_pem = match read(cert).map(String::from_utf8) {
        Ok(Ok(text)) => text,
        Ok(Err(_)) => return (wrong(what, format!("{}: it is not PEM", cert.display())), None),
        Err(error) => return (wrong(what, format!("{error}; run `edge-agent init`")), None),
    };
    let known = match tls::inspect(cert_pem.as_bytes(), None) {
        Ok(known) => known,
        Err(error) => return (wrong(what, format!("{}: {error}", cert.display())), None),
    };
    let Ok(key_pem) = std::fs::read_to_string(key) else {
        let text = format!(
            "{} is not here: the server's certificate is not made anew, and modules get none; write [tls] ca_key",
            key.display()
        );
        return (warning(what, text), None);
    };
    let authority = Authority { cert_pem, key_pem };
    if let Err(error) = authority.check() {
        let text = format!("{} does not belong to {}: {error}", key.display(), cert.display());
        return (wrong(what, text), None);
    }
    let next = "make a new one, and bring it to every leaf device before: they trust this file";
    (ends(what, cert, known.not_after_secs, now_secs, next), Some(authority))
}

fn server_certificate(config: &Config, authority: Option<&Authority>, now_secs: u64) -> Finding {
    let what = "[tls] cert";
    let (cert, key) = (&config.tls.cert, &config.tls.key);
    let path = cert.display();
    if authority.is_some() && !(cert.exists() && key.exists()) {
        return warning(what, format!("{path} is not there; the daemon makes it when it starts"));
    }
    let used = read(cert).and_then(|cert| {
        let key = read(key)?;
        ServedCertificate::new(&cert, &key).map_err(|error| format!("{path}: {error}"))?;
        tls::inspect(&cert, authority).map_err(|error| format!("{path}: {error}"))
    });
    let known = match used {
        Ok(known) => known,
        Err(error) => return wrong(what, format!("{error}; replace it with its key")),
    };
    if !known.is_own && known.not_after_secs < now_secs {
        return wrong(what, format!("{path} has expired; replace it: another authority made it"));
    }
    match judge(&known, &init::names(&config.hostname), now_secs, u64::MAX) {
        Judgement::Keep { .. } => {
            let days = known.not_after_secs.saturating_sub(now_secs) / 86_400;
            good(what, format!("{path} is valid for {days} more days"))
        }
        Judgement::Renew(reason) => warning(what, format!("{path}: {reason}; the daemon makes it anew")),
        Judgement::Tell { not_after_secs } => {
            let days = not_after_secs.saturating_sub(now_secs) / 86_400;
            warning(what, format!("{path} ends in {days} days; replace it: another authority made it"))
        }
    }
}

/// The first of the certificates in a file to end.
fn first_end(path: &Path) -> Result<u64, String> {
    let pem = read(path)?;
    let certificates = tls::certificates(&pem).map_err(|error| format!("{}: {error}", path.display()))?;
    let ends = certificates.iter().map(|der| tls::not_after_secs(der));
    let ends: Result<Vec<u64>, _> = ends.collect();
    let ends = ends.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(ends.into_iter().min().unwrap_or_default())
}

fn authority_file(what: &'static str, path: &Path, now_secs: u64, next: &str) -> Finding {
    match first_end(path) {
        Ok(not_after_secs) => ends(what, path, not_after_secs, now_secs, next),
        Err(error) => wrong(what, error),
    }
}

fn device_authorities(config: &Config, now_secs: u64) -> Vec<Finding> {
    let next = "bring the new one here, and let devices have certificates of it";
    config.tls.device_ca.iter().map(|path| authority_file("[tls] device_ca", path, now_secs, next)).collect()
}

fn upstream(config: &Config, now_secs: u64) -> Option<Finding> {
    let what = "[upstream] ca";
    let upstream = config.upstream.as_ref()?;
    Some(match &upstream.ca {
        None if upstream.transport == Transport::Plain => {
            warning(what, "none: whoever is on the way can read and change it")
        }
        None => wrong(what, "missing; write the path of central's ca.pem"),
        Some(path) => authority_file(what, path, now_secs, "copy central's new ca.pem here"),
    })
}

/// Tries upstream without logging in: a second connection of this gateway would end the daemon's.
async fn reached(config: &Config) -> Option<Finding> {
    let (what, upstream) = ("[upstream]", config.upstream.as_ref()?);
    let (host, port) = upstream.address();
    let via = upstream.proxy().map(|proxy| format!(" through {proxy}")).unwrap_or_default();
    let place = format!("{} at {host}:{port}", upstream.kind_name());
    Some(match reach::transport(upstream) {
        Err(error) => wrong(what, format!("{place}: {error:#}")),
        Ok(transport) => match reach::attempt(upstream, transport).await {
            Ok(()) => good(what, format!("{place} reached{via}")),
            Err(error) => {
                warning(what, format!("{place} not reached{via}: {error}; telemetry waits on disk"))
            }
        },
    })
}

async fn docker(config: &Config) -> Finding {
    let (what, path) = ("[docker] socket", config.docker.socket.display());
    match tokio::net::UnixStream::connect(&config.docker.socket).await {
        Ok(_) => good(what, format!("{path} is open")),
        Err(error) => {
            let text = format!("{path}: {error}; start Docker, or name its socket: no module runs without");
            wrong(what, text)
        }
    }
}

/// The running daemon, and the deployment that it was given.
async fn daemon(config: &Config) -> Vec<Finding> {
    let status = match request(&config.data_dir, "GET", "/status", None).await {
        Ok(status) => status,
        Err(error) => {
            return vec![warning("daemon", format!("it does not answer: {error}; start `edge-agent run`"))];
        }
    };
    let own = if status["upstream"]["connected"] == false {
        let why = status["upstream"]["why"].as_str().unwrap_or_default();
        warning("daemon", format!("it runs, and central is away: {why}"))
    } else {
        good("daemon", "it runs")
    };
    let problem = status["deployment"]["problem"].as_str();
    std::iter::once(own)
        .chain(problem.map(|problem| wrong("deployment", format!("the manifest was refused: {problem}"))))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn initialised(dir: &Path) -> Config {
        let (data_dir, config) = (dir.join("data"), dir.join("edge.toml"));
        init::init(init::InitOptions {
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

    fn of(findings: &[Finding], what: &str) -> Finding {
        findings.iter().find(|finding| finding.what == what).unwrap().clone()
    }

    #[tokio::test]
    async fn what_is_wrong_is_named_with_the_next_step_and_what_is_right_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = initialised(dir.path());
        config.docker.socket = dir.path().join("docker.sock");
        let findings = check(&config).await;
        for what in ["keys of modules", "[tls] ca", "[tls] cert"] {
            assert_eq!(of(&findings, what).level, Level::Good, "{}", of(&findings, what));
        }
        let docker = of(&findings, "[docker] socket");
        assert!(docker.level == Level::Wrong && docker.text.contains("docker.sock"), "{docker}");
        assert_eq!(of(&findings, "daemon").level, Level::Warning);

        config.tls.device_ca = vec![dir.path().join("none.pem")];
        std::fs::remove_file(&config.tls.ca_key).unwrap();
        std::fs::write(&config.tls.key, "nothing").unwrap();
        let findings = check(&config).await;
        for (what, level, part) in [
            ("[tls] device_ca", Level::Wrong, "none.pem"),
            ("[tls] ca", Level::Warning, "ca_key"),
            ("[tls] cert", Level::Wrong, "replace"),
        ] {
            let found = of(&findings, what);
            assert!(found.level == level && found.text.contains(part), "{found}");
        }
    }

    #[test]
    fn an_authority_is_warned_of_months_before_it_ends_and_the_servers_certificate_is_the_daemons() {
        let dir = tempfile::tempdir().unwrap();
        let config = initialised(dir.path());
        let (day, now_secs) = (86_400, now_ms() / 1000);
        let at = |days: u64| {
            let (ca, authority) = authority(&config, now_secs + days * day);
            (ca, server_certificate(&config, authority.as_ref(), now_secs + days * day))
        };
        let (ca, cert) = at(0);
        assert_eq!((ca.level, cert.level), (Level::Good, Level::Good), "{ca} {cert}");
        let (ca, cert) = at(300);
        assert_eq!((ca.level, cert.level), (Level::Good, Level::Warning), "{cert}");
        assert!(cert.text.contains("the daemon makes it anew"), "{cert}");
        let (ca, _) = at(9 * 365 + 100);
        assert!(ca.level == Level::Warning && ca.text.contains("ends in 26"), "{ca}");
        assert_eq!(at(10 * 365 + 1).0.level, Level::Wrong);

        // Of another authority, which the daemon never overwrites.
        let works = tls::issue_ca("works").unwrap();
        let (names, lifetime) = (init::names("edge"), Duration::from_secs(90 * day));
        let wanted = tls::Wanted {
            common_name: "edge",
            names: &names,
            uris: &[],
            purpose: tls::Purpose::Server,
            lifetime,
        };
        let issued = tls::issue(&works, &wanted).unwrap();
        std::fs::write(&config.tls.cert, issued.chain_pem).unwrap();
        std::fs::write(&config.tls.key, issued.key_pem).unwrap();
        assert_eq!(at(0).1.level, Level::Good);
        assert!(at(80).1.text.contains("replace it"), "{}", at(80).1);
        assert_eq!((at(80).1.level, at(91).1.level), (Level::Warning, Level::Wrong));
    }
}
