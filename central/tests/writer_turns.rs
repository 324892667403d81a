//! What one sender or operator asks for does not hold up the writes of the others.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use std::time::Duration;

use central::deployments::assignment::Assignment;
use central::deployments::service::ManifestChange;
use central::error::ServiceError;
use central::registry::registration::Registration;
use central::store::{Store, StoreError, templates as stored};
use central::templates::{self, TemplateChange, TemplateWrite};
use central::types::precondition::Precondition;
use central::types::update::Update;
use common::{STEP, start};
use rusqlite::Connection;
use schemas::method::MethodRequest;
use serde_json::{Value, json};

/// Holds the writer of the store until it is dropped.
struct HeldWriter {
    _release: std::sync::mpsc::Sender<()>,
}

async fn hold_writer(store: &Store) -> HeldWriter {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let held = store.submit(move |_| {
        begun.send(()).unwrap();
        // It ends when the sender is dropped.
        let _ = released.recv();
        Ok::<_, StoreError>(())
    });
    tokio::spawn(held);
    has_begun.await.unwrap();
    HeldWriter { _release: release }
}

/// Components whose interfaces extend many others, over ten levels.
fn lattice(width: usize) -> Value {
    let id = |level: usize, side: usize| format!("dtmi:e:a{level}x{side};1");
    let interface = |level: usize, side: usize| {
        let mut interface = json!({"@id": id(level, side), "@type": "Interface", "contents": [
            {"@type": "Telemetry", "name": format!("t{level}_{side}"), "schema": "double"}]});
        if level < 9 {
            interface["extends"] = (0..width).map(|side| id(level + 1, side)).collect();
        }
        interface
    };
    let all = (0..10).flat_map(|level| (0..width).map(move |side| (level, side)));
    let contents: Vec<Value> = all
        .enumerate()
        .map(|(n, (level, side))| {
            json!({"@type": "Component", "name": format!("c{n}"), "schema": interface(level, side)})
        })
        .collect();
    json!({"@id": "dtmi:e:root;1", "@type": "Interface", "contents": contents})
}

fn large_manifest(routes: usize) -> Value {
    let env: serde_json::Map<String, Value> =
        (0..routes).map(|n| (format!("NAME_{n}"), json!({"value": "x"}))).collect();
    json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1",
            "runtime": {"type": "docker", "settings": {}}, "systemModules": {},
            "modules": {"m": {"type": "docker", "env": env, "settings": {"image": "no tag, and spaces"}}}}}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_large_document_is_reported_while_the_writer_is_busy() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let services = central.started.services().clone();
    let held = hold_writer(&services.store).await;
    let model = |model: Value| TemplateChange {
        types: Some(vec!["ModelDefinition".into(), "DeviceModel".into()]),
        capability_model: Some(model.as_object().unwrap().clone()),
        ..TemplateChange::default()
    };
    let mut tasks: Vec<(&str, tokio::task::JoinHandle<Result<(), ServiceError>>)> = Vec::new();
    for (what, change) in [
        ("lattice of interfaces", model(lattice(60))),
        ("unknown type", model(json!({"@id": "dtmi:a:b;1", "@type": "Nothing"}))),
    ] {
        let store = services.store.clone();
        tasks.push((
            what,
            tokio::spawn(async move {
                let id = "dtmi:a:template;1".to_owned();
                let (write, any) = (TemplateWrite::Replace, Precondition::default());
                templates::store(&store, id, change, write, any).await.map(drop)
            }),
        ));
    }
    let of = services.clone();
    tasks.push((
        "stored manifest",
        tokio::spawn(async move {
            let change = ManifestChange { data: Some(large_manifest(20_000)), ..ManifestChange::default() };
            of.deployments.store_manifest("m".into(), change, false, Precondition::default()).await.map(drop)
        }),
    ));
    let of = services.clone();
    tasks.push((
        "manifest of a gateway",
        tokio::spawn(async move {
            let manifest = Update::Set(Assignment::Given(large_manifest(20_000)));
            let request = Registration { manifest, is_gateway: Some(true), ..Registration::default() };
            of.registry
                .register("gw".parse().unwrap(), request, false, Precondition::default())
                .await
                .map(drop)
        }),
    ));
    for (what, task) in tasks {
        let answered = tokio::time::timeout(STEP, task).await.unwrap_or_else(|_| panic!("{what}: no answer"));
        assert!(matches!(answered.unwrap(), Err(ServiceError::Wrong(_))), "{what}");
    }
    drop(held);
    // And what is right is stored when the writer has time.
    let right = model(json!({"@id": "dtmi:a:b;1", "@type": "Interface", "contents": []}));
    let (write, any) = (TemplateWrite::Replace, Precondition::default());
    templates::store(&services.store, "dtmi:a:template;1".into(), right, write, any).await.unwrap();
    central.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_changes_of_one_template_at_the_same_time_both_count() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let services = central.started.services().clone();
    let id = "dtmi:a:template;1";
    let change = TemplateChange {
        types: Some(vec!["ModelDefinition".into(), "DeviceModel".into()]),
        capability_model: json!({"@id": "dtmi:a:b;1", "@type": "Interface"}).as_object().cloned(),
        ..TemplateChange::default()
    };
    let any = Precondition::default();
    templates::store(&services.store, id.into(), change, TemplateWrite::Replace, any.clone()).await.unwrap();
    let held = hold_writer(&services.store).await;
    let changes = [
        TemplateChange { display_name: Some("press".into()), ..TemplateChange::default() },
        TemplateChange { description: Some("presses".into()), ..TemplateChange::default() },
    ];
    let both = changes.map(|change| {
        let (store, any) = (services.store.clone(), any.clone());
        tokio::spawn(async move {
            templates::store(&store, id.into(), change, TemplateWrite::Merge, any).await.unwrap();
        })
    });
    // Both are made of what stands now, so the second to be written is made anew.
    while services.store.waiting().0 < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(held);
    for one in both {
        tokio::time::timeout(STEP, one).await.unwrap().unwrap();
    }
    let read = |c: &Connection| Ok::<_, StoreError>(stored::get(c, id)?);
    let document = services.store.read(read).await.unwrap().unwrap().document;
    assert_eq!((document.display_name.as_str(), document.description.as_deref()), ("press", Some("presses")));
    central.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_wait_for_a_device_are_bounded_by_their_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let services = central.started.services().clone();
    let request = || Registration { is_gateway: Some(true), ..Registration::default() };
    for id in ["gw", "other"] {
        services
            .registry
            .register(id.parse().unwrap(), request(), false, Precondition::default())
            .await
            .unwrap();
    }
    let method = || MethodRequest {
        method_name: "reset".into(),
        payload: "x".repeat(120_000).into(),
        response_timeout_in_seconds: 30,
        connect_timeout_in_seconds: 0,
    };
    let mut taken = 0;
    let refused = loop {
        match services.waiting_commands.keep("gw".parse().unwrap(), method(), 600).await {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(&refused, ServiceError::QueueFull(why) if why.contains("bytes")), "{refused}");
    assert!((30..50).contains(&taken), "{taken}");
    services.waiting_commands.keep("other".parse().unwrap(), method(), 600).await.unwrap();
    central.end().await;
}
