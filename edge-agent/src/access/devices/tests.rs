//! The list of devices over restarts, in parts, and as older versions kept it.

use edge_core::access::thumbprint::Thumbprint;
use schemas::link::SnapshotPart;

use super::*;

fn child(id: &str, key: &str, enabled: bool) -> Child {
    Child {
        device_id: id.parse().unwrap(),
        primary_key: STANDARD.encode(key),
        secondary_key: String::new(),
        thumbprints: Vec::new(),
        is_ca_signed: false,
        enabled,
        generation: None,
    }
}

fn whole(children: Vec<Child>) -> Children {
    Children { children, ..Children::default() }
}

fn part(generation: u64, part: u32, is_last: bool, children: Vec<Child>) -> Children {
    Children { snapshot: Some(SnapshotPart { generation, part, is_last }), ..whole(children) }
}

fn id(text: &str) -> DeviceId {
    text.parse().unwrap()
}

#[tokio::test]
async fn what_central_sent_and_what_was_added_here_is_known_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path()).unwrap();
    let devices = Devices::load(state.clone()).unwrap();
    assert!(!devices.has_list());
    let keys = |key: &[u8]| Attestation::Keys(vec![key.to_vec()]);
    devices.add(id("here"), &keys(b"local"), 0).await.unwrap();
    let thumbprints = Attestation::Thumbprints(vec![Thumbprint::Sha1([7; 20])]);
    devices.add(id("cert"), &thumbprints, 0).await.unwrap();
    devices.add(id("ca"), &Attestation::Authority, 0).await.unwrap();
    let mut by_certificate = child("c", "", true);
    by_certificate.thumbprints = vec!["ab".repeat(32)];
    let children = vec![child("a", "k", true), child("b", "k", false), by_certificate];
    devices.take_list(whole(children)).unwrap().durable().await.unwrap();
    assert!(matches!(devices.add(id("a"), &keys(b"x"), 0).await, Err(DeviceError::Exists(_))));
    assert!(matches!(devices.remove(&id("a")).await, Err(DeviceError::Unknown(_))));
    drop(devices);
    state.close().await;

    let devices = Devices::load(State::open(dir.path()).unwrap()).unwrap();
    assert!(devices.has_list());
    let shows = |who: &str| devices.get(&id(who)).unwrap().attestation;
    assert_eq!(shows("here"), keys(b"local"));
    assert_eq!(shows("cert"), thumbprints);
    assert_eq!(shows("ca"), Attestation::Authority);
    assert_eq!(shows("a"), keys(b"k"));
    assert_eq!(shows("c"), Attestation::Thumbprints(vec![Thumbprint::Sha256([0xab; 32])]));
    assert!(!devices.get(&id("b")).unwrap().is_enabled && devices.get(&id("d")).is_none());
}

#[tokio::test]
async fn a_list_in_parts_removes_with_its_last_part_and_changes_touch_only_what_they_name() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path()).unwrap();
    let devices = Devices::load(state.clone()).unwrap();
    let known = |devices: &Devices| -> Vec<String> {
        devices.list().into_iter().map(|(id, _)| id.to_string()).collect()
    };
    let take = async |devices: &Devices, list| devices.take_list(list).unwrap().durable().await.unwrap();
    take(&devices, part(1, 0, false, vec![child("a", "k", true)])).await;
    assert!(!devices.has_list(), "whoever is in a later part must not be told that it is unknown");
    assert!(devices.get(&id("a")).is_some());
    take(&devices, part(1, 1, true, vec![child("b", "k", true), child("c", "k", true)])).await;
    assert!(devices.has_list());
    // A new connection: nobody is unknown before the list is complete.
    take(&devices, part(2, 0, false, vec![child("b", "k", true)])).await;
    assert!(devices.take_list(part(2, 2, true, Vec::new())).is_err());
    assert_eq!(known(&devices), ["a", "b", "c"]);
    take(&devices, part(3, 0, false, vec![child("b", "k", true)])).await;
    take(&devices, part(3, 1, true, vec![child("c", "k", true)])).await;
    assert_eq!(known(&devices), ["b", "c"]);
    let change = Children {
        is_difference: true,
        removed: vec![id("b"), id("unknown")],
        ..whole(vec![child("c", "k", false), child("d", "k", true)])
    };
    take(&devices, change).await;
    drop(devices);
    state.close().await;
    let devices = Devices::load(State::open(dir.path()).unwrap()).unwrap();
    assert_eq!((known(&devices), devices.has_list()), (vec!["c".to_owned(), "d".to_owned()], true));
    assert!(!devices.get(&id("c")).unwrap().is_enabled);
}

#[tokio::test]
async fn the_list_of_an_older_version_is_known_and_kept_anew_with_centrals_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path()).unwrap();
    let former = serde_json::json!({"children": [child("a", "k", true), child("b", "k", true)]});
    state.put(Namespace::Devices, FORMER_LIST, &former).durable().await.unwrap();
    state.close().await;
    for is_known in [true, false] {
        let state = State::open(dir.path()).unwrap();
        let devices = Devices::load(state.clone()).unwrap();
        assert!(devices.has_list() && devices.get(&id("b")).is_some());
        assert_eq!(devices.get(&id("a")).is_some(), is_known);
        let list = part(1, 0, true, vec![child("b", "k", true)]);
        devices.take_list(list).unwrap().durable().await.unwrap();
        drop(devices);
        state.close().await;
    }
    let state = State::open(dir.path()).unwrap();
    let keys: Vec<String> =
        state.load::<serde_json::Value>(Namespace::Devices).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["central/b", "told"]);
}

#[tokio::test]
async fn as_many_devices_are_behind_a_gateway_as_its_server_has_places_whoever_brought_them() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path()).unwrap();
    let devices = Devices::load(state.clone()).unwrap();
    let children = (1..CHILDREN_MAX).map(|n| child(&format!("leaf-{n}"), "k", true)).collect();
    devices.take_list(whole(children)).unwrap().durable().await.unwrap();
    let keys = Attestation::Keys(vec![b"local".to_vec()]);
    devices.add(id("here"), &keys, 0).await.unwrap();
    assert!(matches!(devices.add(id("one-more"), &keys, 0).await, Err(DeviceError::Full)));
    drop(devices);
    state.close().await;
    let devices = Devices::load(State::open(dir.path()).unwrap()).unwrap();
    assert_eq!(devices.list().len(), CHILDREN_MAX);
}

#[tokio::test]
async fn a_block_on_the_gateway_holds_whatever_central_says_until_it_is_lifted_there() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path()).unwrap();
    let devices = Devices::load(state.clone()).unwrap();
    assert!(matches!(devices.block(&id("a"), true), Err(DeviceError::Nobody(_))));
    devices.take_list(whole(vec![child("a", "k", true)])).unwrap().durable().await.unwrap();
    devices.block(&id("a"), true).unwrap().durable().await.unwrap();
    devices.take_list(whole(Vec::new())).unwrap().durable().await.unwrap();
    devices.take_list(whole(vec![child("a", "new", true)])).unwrap().durable().await.unwrap();
    drop(devices);
    state.close().await;
    let devices = Devices::load(State::open(dir.path()).unwrap()).unwrap();
    let blocked = || devices.get(&id("a")).unwrap().blocked();
    assert_eq!(blocked(), Some("it is blocked on this gateway"));
    devices.block(&id("a"), false).unwrap().durable().await.unwrap();
    assert_eq!(blocked(), None);
}
