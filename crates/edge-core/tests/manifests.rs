//! The manifests that Lineside ships: those that run are accepted whole, those in `refused/` get the message beside them.
//!
//! `LINESIDE_WRITE_GOLDEN=1 cargo test -p edge-core --test manifests` writes the messages anew; read them before a commit.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use edge_core::deploy::check;
use edge_core::deploy::desired::Desired;
use edge_core::route::{Kind, Message, RouteTable, Sink};
use schemas::bag::PropertyBag;
use schemas::manifest::{Manifest, ManifestError, RestartPolicy};
use schemas::names::Identity;
use schemas::twin::Twin;
use serde_json::json;

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests")
}

fn documents(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    files
}

fn read(file: &Path) -> Result<(Manifest, Desired, RouteTable), ManifestError> {
    let manifest = Manifest::parse(&fs::read(file).unwrap())?;
    let (desired, routes) = check(&manifest)?;
    Ok((manifest, desired, routes))
}

#[test]
fn every_refused_manifest_gets_the_message_beside_it() {
    let files = documents(&manifests().join("refused"));
    assert!(files.len() >= 10);
    for file in files {
        let message = format!("{}\n", read(&file).expect_err(&file.display().to_string()));
        let beside = file.with_extension("txt");
        if std::env::var_os("LINESIDE_WRITE_GOLDEN").is_some() {
            fs::write(&beside, &message).unwrap();
        }
        assert_eq!(fs::read_to_string(&beside).unwrap_or_default(), message, "{}", beside.display());
    }
}

#[test]
fn every_manifest_that_runs_is_accepted_whole() {
    let files = documents(&manifests());
    assert!(files.len() >= 3);
    for file in files {
        let (_, desired, routes) = read(&file).unwrap_or_else(|why| panic!("{}: {why}", file.display()));
        assert!(!desired.modules.is_empty());
        assert_ne!(routes, RouteTable::default());
    }
}

#[test]
fn the_demo_leads_the_sensor_to_the_filter_and_everything_upstream() {
    let (manifest, desired, routes) = read(&manifests().join("demo.json")).unwrap();
    let gateway = "gw".parse().unwrap();
    let readings = Sink::Input { module: "filter".parse().unwrap(), input: "readings".into() };
    let sinks = |from: &str, bag: &str| {
        let (from, bag) = (from.parse().unwrap(), PropertyBag::parse(bag));
        let twin_of = |_: &Identity| Twin::default();
        let message = Message::new(Kind::Telemetry, &from, &gateway, &bag, b"", &twin_of);
        let mut sinks: Vec<Sink> =
            routes.targets(&message).iter().map(|target| target.sink.clone()).collect();
        sinks.sort();
        sinks
    };
    assert_eq!(sinks("gw/sensor", "%24.on=temperatureOutput"), [Sink::Upstream, readings]);
    assert_eq!(sinks("gw/filter", "%24.on=alarms"), [Sink::Upstream]);
    assert_eq!(sinks("press-1", ""), [Sink::Upstream]);
    assert_eq!(manifest.module_twins[&"filter".parse().unwrap()]["temperatureLimit"], json!(25));

    let (_, without, _) = read(&manifests().join("demo-without-filter.json")).unwrap();
    let sensor = "sensor".parse().unwrap();
    assert_eq!(without.modules.keys().collect::<Vec<_>>(), [&sensor]);
    assert_eq!(without.modules[&sensor], desired.modules[&sensor]);
}

#[test]
fn limits_joins_its_chunks_and_makes_its_environment_text() {
    let (_, desired, _) = read(&manifests().join("limits.json")).unwrap();
    let sensor = &desired.modules[&"sensor".parse().unwrap()].spec;
    assert_eq!(sensor.create_options["HostConfig"]["LogConfig"]["Config"]["max-size"], json!("1m"));
    assert_eq!(sensor.create_options["HostConfig"]["CapAdd"], json!(["NET_BIND_SERVICE"]));
    assert_eq!(
        sensor.env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
        ["RETRIES=3", "RUST_LOG=debug", "VERBOSE=true"]
    );
    assert_eq!(sensor.restart_policy, RestartPolicy::OnFailure);
}
