//! Users in their browsers: the first one, signing in and out, what ends a session, and who guesses.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use std::time::Instant;

use central::clock::now_ms;
use central::store::StoreError;
use common::browser::{ADMIN, Browser, PASSWORD};
use common::{Central, STEP, start, start_with};
use reqwest::Method;
use serde_json::{Value, json};

const HOUR_MS: u64 = 3600 * 1000;

async fn setup(browser: &mut Browser, code: &str, user: &str, password: &str) -> (u16, Value) {
    let body = json!({"code": code, "user": user, "password": password});
    browser.send(Method::POST, "/api/ext/setup", Some(body)).await
}

/// Changes rows of the store as time or damage would.
async fn in_store(central: &Central, statement: String) {
    let work = central.started.store().submit(move |c| Ok::<_, StoreError>(c.execute_batch(&statement)?));
    work.await.unwrap();
}

#[tokio::test]
async fn the_first_user_is_made_once_by_who_has_the_code_and_is_an_administrator() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let mut browser = central.browser();
    assert_eq!(browser.get("/api/ext/setup").await, (200, json!({"needed": true})));
    assert!(!browser.is_signed_in().await);
    assert_eq!(browser.sign_in(ADMIN, PASSWORD).await.0, 401, "nobody can sign in yet");
    let code = std::fs::read_to_string(dir.path().join("setup-code")).unwrap();
    assert_eq!(code.len(), 24, "{code}");
    for (code, user, password, status, phrase) in [
        ("", ADMIN, PASSWORD, 401, "code"),
        ("AAAA-AAAA-AAAA-AAAA-AAAA", ADMIN, PASSWORD, 401, "setup-code"),
        (code.as_str(), "a b", PASSWORD, 422, "user"),
        (&code, "", PASSWORD, 422, "user"),
        (&code, ADMIN, "short", 422, "10"),
        (&code, ADMIN, &"x".repeat(257), 422, "256"),
        (&code, ADMIN, "ADMIN@plant.example", 422, "name"),
    ] {
        let (found, answer) = setup(&mut browser, code, user, password).await;
        assert!(
            found == status && answer.to_string().contains(phrase),
            "{user} {password}: {found} {answer}"
        );
        assert!(browser.cookie.is_none());
    }
    let typed = code.to_lowercase().replace('-', " ");
    let (status, session) = setup(&mut browser, &typed, ADMIN, PASSWORD).await;
    assert_eq!(status, 201, "{session}");
    assert_eq!(
        (&session["user"]["name"], &session["user"]["role"], &session["user"]["roleName"]),
        (&json!(ADMIN), &json!("administrator"), &json!("Administrator"))
    );
    assert_eq!(browser.get("/api/ext/session").await.1["user"], session["user"]);
    assert_eq!(browser.get("/api/apiTokens").await.0, 200, "an administrator's right");

    assert!(!dir.path().join("setup-code").exists());
    let mut late = central.browser();
    assert_eq!(late.get("/api/ext/setup").await.1, json!({"needed": false}));
    let (status, answer) = setup(&mut late, &code, "other", PASSWORD).await;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("Conflict")), "{answer}");
    central.end().await;

    let central = start(dir.path()).await;
    assert!(!dir.path().join("setup-code").exists(), "no new code for a site that has users");
    assert_eq!(central.browser().get("/api/ext/setup").await.1, json!({"needed": false}));
    central.end().await;
}

#[tokio::test]
async fn of_several_set_ups_at_once_one_makes_the_user() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let code = std::fs::read_to_string(dir.path().join("setup-code")).unwrap();
    let attempts = (0..6).map(|number| {
        let (mut browser, code) = (central.browser(), code.clone());
        async move { setup(&mut browser, &code, &format!("user-{number}"), PASSWORD).await.0 }
    });
    let mut statuses = futures_util::future::join_all(attempts).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409]);
    central.end().await;
}

#[tokio::test]
async fn the_code_outlives_a_restart_and_a_kill_while_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let path = dir.path().join("setup-code");
    let code = std::fs::read_to_string(&path).unwrap();
    central.end().await;
    let central = start(dir.path()).await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), code);
    central.end().await;
    std::fs::write(&path, "AB").unwrap();
    std::fs::write(dir.path().join("setup-code.new"), "CD").unwrap();
    let central = start(dir.path()).await;
    assert_eq!(std::fs::read_to_string(&path).unwrap().len(), 24);
    assert_eq!(setup(&mut central.browser(), "AB", ADMIN, PASSWORD).await.0, 401);
    central.end().await;
}

#[tokio::test]
async fn who_signs_in_wrong_does_not_learn_what_was_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.set_up(dir.path()).await;
    let mut messages = Vec::new();
    for (user, password) in [
        (ADMIN, "wrong horse battery"),
        ("nobody", PASSWORD),
        (ADMIN, ""),
        ("", PASSWORD),
        ("a/b\u{1b}[0m", PASSWORD),
        (ADMIN, &"x".repeat(10_000)),
        (&"x".repeat(10_000), PASSWORD),
    ] {
        let mut browser = central.browser();
        let (status, answer) = browser.sign_in(user, password).await;
        assert_eq!(status, 401, "{answer}");
        assert!(browser.cookie.is_none());
        messages.push(answer["error"]["message"].clone());
    }
    messages.dedup();
    assert_eq!(messages, [json!("the user or the password is wrong")]);
    central.sign_in(&ADMIN.to_uppercase(), PASSWORD).await;
    central.end().await;
}

#[tokio::test]
async fn a_sessions_cookie_is_for_this_site_alone_and_secure_where_browsers_come_by_https() {
    for (is_https, proxy, url) in [
        (false, false, None),
        (false, false, Some("http://central.test")),
        (true, false, Some("https://central.test")),
        (true, true, None),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let central = start_with(dir.path(), |config| {
            config.http.behind_tls_proxy = proxy;
            config.http.public_url = url.map(str::to_owned);
        })
        .await;
        let mut browser = central.set_up(dir.path()).await;
        for (what, max_age) in [("set-up", "604800"), ("sign-in", "604800"), ("sign-out", "0")] {
            match what {
                "sign-in" => assert_eq!(browser.sign_in(ADMIN, PASSWORD).await.0, 200),
                "sign-out" => {
                    assert_eq!(browser.send(Method::DELETE, "/api/ext/session", None).await.0, 204);
                }
                _ => {}
            }
            let cookie = browser.headers["set-cookie"].to_str().unwrap();
            let mut parts: Vec<&str> = cookie.split("; ").skip(1).collect();
            parts.sort_unstable();
            let max_age = format!("Max-Age={max_age}");
            let mut expected = vec!["HttpOnly", max_age.as_str(), "Path=/", "SameSite=Strict"];
            expected.extend(is_https.then_some("Secure"));
            assert_eq!(parts, expected, "{what} {url:?}");
        }
        central.end().await;
    }
}

#[tokio::test]
async fn a_session_ends_by_signing_out_and_by_signing_in_anew_and_not_by_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let mut first = central.set_up(dir.path()).await;
    let mut second = central.sign_in(ADMIN, PASSWORD).await;
    assert_ne!(first.cookie, second.cookie);
    central.end().await;

    let central = start(dir.path()).await;
    for browser in [&mut first, &mut second] {
        let mut moved = central.browser();
        browser.cookie.clone_into(&mut moved.cookie);
        *browser = moved;
        assert!(browser.is_signed_in().await);
    }
    let before = second.cookie.clone();
    assert_eq!(second.sign_in(ADMIN, PASSWORD).await.0, 200);
    let mut old = central.browser();
    old.cookie = before;
    assert!(!old.is_signed_in().await, "another session begins with each sign-in");

    let kept = first.cookie.clone();
    assert_eq!(first.send(Method::DELETE, "/api/ext/session", None).await.0, 204);
    assert!(first.cookie.is_none());
    first.cookie = kept;
    assert!(!first.is_signed_in().await && second.is_signed_in().await);
    for wrong in ["", "x", "%00", &"x".repeat(4000)] {
        first.cookie = Some(wrong.to_owned());
        assert!(!first.is_signed_in().await);
    }
    central.end().await;
}

#[tokio::test]
async fn a_session_ends_12_hours_after_its_last_use_and_7_days_after_the_sign_in() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let mut browser = central.set_up(dir.path()).await;
    let minute = HOUR_MS / 60;
    for (created_ago, used_ago, is_valid) in [
        (24 * HOUR_MS, 12 * HOUR_MS - minute, true),
        (24 * HOUR_MS, 12 * HOUR_MS + minute, false),
        (7 * 24 * HOUR_MS - minute, minute, true),
        (7 * 24 * HOUR_MS + minute, minute, false),
    ] {
        let now = now_ms();
        let (created, used) = (now - created_ago, now - used_ago);
        in_store(&central, format!("UPDATE sessions SET created_ms = {created}, used_ms = {used}")).await;
        assert_eq!(browser.is_signed_in().await, is_valid, "{created_ago} {used_ago}");
    }
    // A use is noted, and moves the end. Not of the session above, whose use was noted just now.
    let mut browser = central.sign_in(ADMIN, PASSWORD).await;
    let now = now_ms();
    in_store(&central, format!("UPDATE sessions SET created_ms = {now}, used_ms = {now} - 11 * {HOUR_MS}"))
        .await;
    let expires = browser.get("/api/ext/session").await.1["expiresAt"].clone();
    let deadline = Instant::now() + STEP;
    while browser.get("/api/ext/session").await.1["expiresAt"] == expires {
        assert!(Instant::now() < deadline, "{expires}");
    }
    central.end().await;
}

#[tokio::test]
async fn neither_passwords_nor_sessions_nor_the_code_are_in_any_file() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let code = std::fs::read_to_string(dir.path().join("setup-code")).unwrap();
    let browser = central.set_up(dir.path()).await;
    let cookie = browser.cookie.clone().unwrap();
    central.end().await;
    let mut read = 0;
    for entry in std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap).filter(|e| e.path().is_file()) {
        let bytes = std::fs::read(entry.path()).unwrap();
        for secret in [PASSWORD, &cookie, &code] {
            let is_there = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!is_there, "{:?}", entry.path());
        }
        read += bytes.len();
    }
    assert!(read > 50_000);
}

#[tokio::test]
async fn who_guesses_waits_longer_each_time_and_other_users_of_the_same_address_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.set_up(dir.path()).await;
    let mut waits = Vec::new();
    for number in 0..4 {
        let since = Instant::now();
        let (status, _) = central.browser().sign_in("victim", &format!("guess number {number}")).await;
        assert_eq!(status, 401);
        waits.push(since.elapsed().as_millis());
    }
    // 0, 250, 500 and 1000 ms at least: time on a busy machine is added, never taken.
    for (wait, least) in waits.iter().zip([0, 250, 500, 1000]) {
        assert!(*wait >= least, "{waits:?}");
    }
    // Many at once: those that would wait too long are refused, and an owner signs in meanwhile.
    let guesses = futures_util::future::join_all((0..40).map(|number| {
        let mut browser = central.browser();
        async move { browser.sign_in("victim", &format!("another guess {number}")).await.0 }
    }));
    let mut guesses = std::pin::pin!(guesses);
    let owner = central.sign_in(ADMIN, PASSWORD);
    tokio::select! {
        biased;
        statuses = &mut guesses => panic!("40 guesses were answered before one sign-in: {statuses:?}"),
        _ = owner => {}
    }
    let statuses = guesses.await;
    assert!(statuses.iter().all(|status| [401, 429].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&429) && statuses.contains(&401), "{statuses:?}");
    central.end().await;
}

#[tokio::test]
async fn a_flood_of_made_up_names_keeps_nobody_out_behind_the_same_address() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.set_up(dir.path()).await;
    central.sign_in(ADMIN, PASSWORD).await;
    let flood = futures_util::future::join_all((0..90).map(|number| {
        let mut browser = central.browser();
        async move { browser.sign_in(&format!("name-{number}"), "some password").await.0 }
    }));
    let mut flood = std::pin::pin!(flood);
    // Known here, and not behind the 90 in the row.
    tokio::select! {
        biased;
        statuses = &mut flood => panic!("the flood was answered first: {statuses:?}"),
        _ = central.sign_in(ADMIN, PASSWORD) => {}
    }
    assert!(flood.await.iter().all(|status| [401, 429].contains(status)));
    central.end().await;
}

#[tokio::test]
async fn users_are_added_changed_and_removed_in_iot_centrals_shape() {
    const ADMINISTRATOR: &str = "ca310b8d-2f4a-44e0-a36e-957c202cd8d4";
    const OPERATOR: &str = "ae2c9854-393b-4f97-8c42-479d70ce626e";
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.set_up(dir.path()).await;
    let path = "/api/users/123";
    let roles = json!([{"role": OPERATOR}, {"role": "c495eb57-eb18-489e-9802-62c474e5645c", "organization": "seattle"}]);
    let body = json!({"type": "email", "roles": roles, "email": "bob@contoso.com"});
    let made = central.put(path, body.clone()).await;
    for (field, value) in body.as_object().unwrap() {
        assert_eq!(&made[field], value);
    }
    assert_eq!(
        (&made["id"], &made["hasPassword"], &made["organization"]),
        (&json!("123"), &json!(false), &json!("root"))
    );
    assert_eq!(central.get(path).await, made);
    assert_eq!(
        central.browser().sign_in("bob@contoso.com", "").await.0,
        401,
        "without a password nobody signs in"
    );

    let changed = central.patch(path, json!({"roles": [{"role": "viewer"}]})).await;
    assert_eq!((&changed["roles"], &changed["email"]), (&json!([{"role": "viewer"}]), &made["email"]));
    let changed = central.patch(path, json!({"email": "bob"})).await;
    assert_eq!((&changed["roles"], &changed["email"]), (&json!([{"role": "viewer"}]), &json!("bob")));
    let listed = central.get("/api/users").await;
    let listed = listed["value"].as_array().unwrap();
    assert!(listed.len() == 2 && listed.contains(&changed), "{listed:?}");
    let first = listed.iter().find(|user| user["email"] == ADMIN).unwrap();
    assert_eq!((&first["roles"], &first["hasPassword"]), (&json!([{"role": ADMINISTRATOR}]), &json!(true)));
    let page = central.get("/api/users?maxpagesize=1").await;
    assert!(page["nextLink"].as_str().unwrap().contains("skiptoken"), "{page}");

    for (method, path, body, status, phrase) in [
        (Method::PUT, "/api/users/u", json!({"email": "u", "roles": [{"role": "viewer"}]}), 422, "type"),
        (
            Method::PUT,
            "/api/users/u",
            json!({"type": "adGroup", "tenantId": "t", "objectId": "o"}),
            422,
            "type",
        ),
        (Method::PUT, "/api/users/u", json!({"type": "email", "roles": [{"role": "viewer"}]}), 422, "email"),
        (
            Method::PUT,
            "/api/users/u",
            json!({"type": "email", "email": "a b", "roles": [{"role": "viewer"}]}),
            422,
            "email",
        ),
        (Method::PUT, "/api/users/u", json!({"type": "email", "email": "u", "roles": []}), 422, "roles"),
        (
            Method::PUT,
            "/api/users/u",
            json!({"type": "email", "email": "u", "roles": [{"role": "root"}]}),
            422,
            "roles.0.role",
        ),
        (
            Method::PUT,
            "/api/users/u",
            json!({"type": "email", "email": "BOB", "roles": [{"role": "viewer"}]}),
            409,
            "BOB",
        ),
        (Method::PATCH, path, json!({"email": "ADMIN@plant.example"}), 409, "ADMIN"),
        (Method::PATCH, path, json!({"id": "124"}), 422, "id"),
        (Method::PATCH, path, json!({"roles": null}), 422, "roles"),
        (Method::PATCH, "/api/users/u", json!({}), 404, "`u`"),
        (Method::DELETE, "/api/users/u", json!({}), 404, "`u`"),
        (Method::POST, "/api/ext/users/u/password", json!({"password": PASSWORD}), 404, "`u`"),
        (Method::POST, "/api/ext/users/123/password", json!({"password": "short"}), 422, "10"),
    ] {
        let (found, answer) = central.send(method.clone(), path, Some(body.clone())).await;
        assert!(
            found == status && answer.to_string().contains(phrase),
            "{method} {path} {body}: {found} {answer}"
        );
    }
    central.ok(Method::DELETE, path, None).await;
    assert_eq!(central.send(Method::GET, path, None).await.0, 404);
    let roles = central.get("/api/roles").await;
    let administrator = json!({"id": ADMINISTRATOR, "displayName": "Administrator"});
    assert!(roles["value"].as_array().unwrap().contains(&administrator), "{roles}");
    assert_eq!(central.get(&format!("/api/roles/{ADMINISTRATOR}")).await, administrator);
    assert_eq!(central.send(Method::GET, "/api/roles/none", None).await.0, 404);
    assert_eq!(central.send(Method::GET, "/api/ext/roles/none", None).await.0, 404);
    central.end().await;
}

#[tokio::test]
async fn a_backup_that_is_restored_brings_users_back_and_no_session() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let central = start(dir.path()).await;
    let mut browser = central.set_up(dir.path()).await;
    let file = other.path().join("backup");
    central::store::backup::make(dir.path(), &file, now_ms()).unwrap();
    central.end().await;
    let restored = other.path().join("data");
    std::fs::create_dir(&restored).unwrap();
    central::store::backup::restore(&restored, &file, false, now_ms()).unwrap();
    let central = start(&restored).await;
    let mut moved = central.browser();
    moved.cookie = browser.cookie.take();
    assert!(!moved.is_signed_in().await);
    assert_eq!(moved.sign_in(ADMIN, PASSWORD).await.0, 200);
    central.end().await;
}

#[tokio::test]
async fn the_last_administrator_is_neither_removed_nor_made_less() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let mut admin = central.set_up(dir.path()).await;
    let id = admin.get("/api/ext/session").await.1["user"]["id"].as_str().unwrap().to_owned();
    let own = format!("/api/users/{id}");
    let less = json!({"roles": [{"role": "operator"}]});
    let body = |name: &str| json!({"type": "email", "email": name, "roles": [{"role": "administrator"}]});
    // One who cannot sign in is of no help.
    central.put("/api/users/second", body("second")).await;
    assert_eq!(admin.send(Method::DELETE, &own, None).await.0, 409);
    assert_eq!(admin.send(Method::PATCH, &own, Some(less.clone())).await.0, 409);
    central.ok(Method::POST, "/api/ext/users/second/password", Some(json!({"password": PASSWORD}))).await;
    // Both at once: one of them stays.
    let mut second = central.sign_in("second", PASSWORD).await;
    let (first_removed, second_removed) = tokio::join!(
        second.send(Method::DELETE, &own, None),
        admin.send(Method::PATCH, "/api/users/second", Some(less))
    );
    let statuses = [first_removed.0, second_removed.0];
    let done = statuses.iter().filter(|status| [200, 204].contains(*status)).count();
    assert_eq!(done, 1, "{statuses:?}");
    central.end().await;
}

#[tokio::test]
async fn a_users_sessions_end_when_it_is_removed_or_gets_another_password_or_role() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let mut admin = central.set_up(dir.path()).await;
    let path = "/api/users/op";
    let body = |role: &str| json!({"type": "email", "email": "op", "roles": [{"role": role}]});
    let set_password = "/api/ext/users/op/password";
    let with = |password: &str| Some(json!({"password": password}));
    central.put(path, body("operator")).await;
    central.ok(Method::POST, set_password, with(PASSWORD)).await;

    let mut op = central.sign_in("op", PASSWORD).await;
    central.put(path, body("operator")).await;
    central.patch(path, json!({"email": "op"})).await;
    assert!(op.is_signed_in().await, "nothing was changed");
    central.patch(path, json!({"roles": [{"role": "viewer"}]})).await;
    assert!(!op.is_signed_in().await, "another role");

    let mut op = central.sign_in("op", PASSWORD).await;
    assert_eq!(op.send(Method::PUT, "/api/devices/d", Some(json!({}))).await.0, 403, "the new role");
    central.ok(Method::POST, set_password, with("another password")).await;
    assert!(!op.is_signed_in().await, "another password");
    assert_eq!(central.browser().sign_in("op", PASSWORD).await.0, 401);

    // One's own, by who knows the current one; a viewer too.
    let (mut op, mut other) =
        (central.sign_in("op", "another password").await, central.sign_in("op", "another password").await);
    let own = |current: &str| Some(json!({"password": "a third password", "currentPassword": current}));
    assert_eq!(op.send(Method::POST, set_password, with("a third password")).await.0, 422);
    assert_eq!(op.send(Method::POST, set_password, own("a wrong password")).await.0, 403);
    assert!(op.is_signed_in().await && other.is_signed_in().await);
    assert_eq!(op.send(Method::POST, set_password, own("another password")).await.0, 204);
    assert!(!op.is_signed_in().await && !other.is_signed_in().await);

    let mut op = central.sign_in("op", "a third password").await;
    let admins = admin.get("/api/ext/session").await.1["user"]["id"].as_str().unwrap().to_owned();
    let of_admin = format!("/api/ext/users/{admins}/password");
    assert_eq!(op.send(Method::POST, &of_admin, own("a third password")).await.0, 403);
    central.ok(Method::DELETE, path, None).await;
    assert!(!op.is_signed_in().await, "removed");
    central.put(path, body("operator")).await;
    assert!(!op.is_signed_in().await, "a user of the same id is another one");
    assert!(admin.is_signed_in().await);
    central.end().await;
}
