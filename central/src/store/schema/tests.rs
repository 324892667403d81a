use super::*;
use crate::token::Role;

#[test]
fn the_file_and_its_log_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let _open = open(&dir.path().join("central.db")).unwrap();
    let files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap).collect();
    assert!(files.len() > 1, "{files:?}");
    for file in files {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
}

/// A store as it was before the step that has `marker` in its text.
pub(in crate::store) fn before(path: &Path, marker: &str) -> Connection {
    let step = STEPS.iter().position(|step| step.contains(marker)).unwrap();
    let old = Connection::open(path).unwrap();
    for step in &STEPS[..step] {
        old.execute_batch(step).unwrap();
    }
    old.pragma_update(None, "user_version", step.cast_signed() as i64).unwrap();
    old
}

#[test]
fn tokens_of_an_older_store_that_share_a_name_get_names_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("central.db");
    let old = before(&path, "tokens_by_name");
    for (hash, name) in [("aaaaaaaa", "token"), ("bbbbbbbb", "token"), ("cccccccc", "ci"), ("dddddddd", "")] {
        let insert = "INSERT INTO tokens VALUES (?1, ?2, 'viewer', 1)";
        old.execute(insert, [hash, name]).unwrap();
    }
    drop(old);
    let new = open(&path).unwrap();
    let tokens = crate::store::tokens::list(&new, "", 10).unwrap();
    let names: Vec<&str> = tokens.iter().map(|token| token.name.as_str()).collect();
    assert_eq!(names, ["-646464646464", "ci", "token-616161616161", "token-626262626262"]);
    assert!(tokens.iter().all(|token| token.created_ms.is_none() && token.used_ms.is_none()));
}

#[test]
fn devices_of_an_older_store_that_only_a_gateway_vouches_for_become_claims() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("central.db");
    let old = before(&path, "is_claim");
    for (id, key, relationship) in [
        ("added", None, "added at the gateway"),
        ("enrolled", None, "added at the gateway"),
        ("placed", None, "an operator's"),
        ("with-key", Some("k"), "added at the gateway"),
    ] {
        let insert = "INSERT INTO devices (id, display_name, is_gateway, enabled, primary_key, revision)
                 VALUES (?1, ?1, 0, 1, ?2, 1)";
        old.execute(insert, (id, key)).unwrap();
        let insert = "INSERT INTO relationships (source, id, name, target) VALUES ('gw', ?1, ?2, ?1)";
        old.execute(insert, [id, relationship]).unwrap();
    }
    old.execute("INSERT INTO enrollments VALUES ('enrolled', 'g', 'o', 1, 1)", []).unwrap();
    drop(old);
    let new = open(&path).unwrap();
    let devices = crate::store::devices::list(&new, "", 10).unwrap();
    let claims: Vec<&str> =
        devices.iter().filter(|device| device.is_claim).map(|device| device.id.as_str()).collect();
    assert_eq!(claims, ["added"]);
    let enrolled = crate::store::enrollments::enrollment(&new, &"enrolled".parse().unwrap()).unwrap();
    assert!(enrolled.is_some_and(|enrolled| enrolled.is_bound && enrolled.token_ends_at == 0));
}

#[test]
fn devices_of_an_older_store_whose_group_was_deleted_are_of_no_later_group_of_its_id() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("central.db");
    let old = before(&path, "is_group_deleted");
    old.execute_batch(
        "INSERT INTO enrollment_groups (id, display_name, enabled, is_edge, primary_key, secondary_key, revision)
             VALUES ('kept', 'kept', 1, 0, '', '', 1);
         INSERT INTO enrollments (device, group_id, operation_id, created_ms, updated_ms)
             VALUES ('of-kept', 'kept', 'o', 1, 1), ('of-deleted', 'deleted', 'o', 1, 1), ('own', '', 'o', 1, 1);",
    )
    .unwrap();
    drop(old);
    let new = open(&path).unwrap();
    for (device, is_group_deleted) in [("of-kept", false), ("of-deleted", true), ("own", false)] {
        let enrolled = crate::store::enrollments::enrollment(&new, &device.parse().unwrap()).unwrap();
        assert_eq!(enrolled.unwrap().is_group_deleted, is_group_deleted, "{device}");
    }
    // The states of what an older version stored keep their etags, and the next ones have none that was there.
    let kept = crate::store::enrollments::group(&new, "kept").unwrap().unwrap();
    assert_eq!(kept.etag(), "\"1\"");
    let next = crate::store::enrollments::put_group(&new, &kept).unwrap();
    let later = crate::store::enrollments::put_group(&new, &kept).unwrap();
    assert!(1 < next && next < later, "{next} {later}");
}

#[test]
fn a_store_from_before_device_templates_keeps_what_its_devices_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("central.db");
    let old = before(&path, "CREATE TABLE device_templates");
    let insert = "INSERT INTO devices (id, display_name, template, is_gateway, enabled, revision)
             VALUES ('d', 'd', 'dtmi:a:b;1', 0, 1, 1)";
    old.execute(insert, []).unwrap();
    drop(old);
    let new = open(&path).unwrap();
    let device = crate::store::devices::get(&new, &"d".parse().unwrap()).unwrap().unwrap();
    assert_eq!(device.template.as_deref(), Some("dtmi:a:b;1"));
    assert_eq!(crate::store::templates::get(&new, "dtmi:a:b;1").unwrap(), None);
    let organization = "SELECT count(*) FROM device_templates WHERE organization = 'root'";
    assert_eq!(new.query_row(organization, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
}

#[test]
fn users_and_tokens_of_a_store_from_before_custom_roles_keep_their_roles() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("central.db");
    let old = before(&path, "CREATE TABLE roles (");
    old.execute_batch(
        "INSERT INTO users (id, name, role, created_ms) VALUES ('u', 'u', 'operator', 1);
         INSERT INTO tokens (hash, name, role, expires_ms) VALUES ('h', 't', 'builder', 1);",
    )
    .unwrap();
    drop(old);
    let new = open(&path).unwrap();
    let user = crate::store::users::get(&new, "u").unwrap().unwrap();
    let token = crate::store::tokens::get(&new, "t").unwrap().unwrap();
    assert_eq!((user.roles, token.roles), (Role::Operator.into(), Role::Builder.into()));
    assert_eq!(crate::store::roles::count(&new).unwrap(), 0);
}

#[test]
fn a_file_of_a_newer_central_is_refused_with_both_versions() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("central.db");
    open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let refused = open(&path).unwrap_err().to_string();
    assert!(refused.contains("version 99") && refused.contains(&format!("up to {VERSION}")), "{refused}");
}
