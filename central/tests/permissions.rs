//! Who may ask for what: every operation of `/openapi.json`, by every role, with a token, with a session and with nothing; and the
//! page that says it.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use central::token::Role;
use central_core::access::further::{ALWAYS, FURTHER, Further};
use central_core::access::permission::{Permission, Permissions};
use common::browser::{Browser, PASSWORD};
use common::described::concrete;
use common::{Central, STEP, start};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use reqwest::{Method, RequestBuilder};
use serde_json::json;

/// What an operation needs by docs/operating/permissions.md; `None`: nothing.
fn needed(method: &str, path: &str) -> Option<Role> {
    let is_below = |root: &str| path == root || path.starts_with(&format!("{root}/"));
    match (method, path) {
        ("get", "/openapi.json" | "/api/ext/health" | "/api/ext/setup") => None,
        ("post", "/api/ext/setup" | "/api/ext/session") => None,
        (_, "/api/ext/session") => Some(Role::Viewer),
        ("get", "/api/ext/audit") => Some(Role::Administrator),
        // One's own needs no role, and is tested with users.
        _ if is_below("/api/ext/users") || is_below("/api/users") || is_below("/api/apiTokens") => {
            Some(Role::Administrator)
        }
        ("put" | "patch" | "delete", "/api/ext/roles/{role_id}") => Some(Role::Administrator),
        ("get", path) if path.ends_with("/credentials") || path.ends_with("/attestation") => {
            Some(Role::Operator)
        }
        ("get", path) if path.starts_with("/api/enrollmentGroups/") => Some(Role::Operator),
        ("get", "/api/ext/devices/{device_id}/modules/{module_name}/logs") => Some(Role::Operator),
        ("get", _) => Some(Role::Viewer),
        ("delete", _) => Some(Role::Builder),
        _ => Some(Role::Operator),
    }
}

/// An operation of `/openapi.json`, and what it says of it.
struct Described {
    method: String,
    template: String,
    is_open: bool,
    /// The id of the permission that it needs.
    permission: Option<String>,
}

impl Described {
    /// As tables name it.
    fn name(&self) -> String {
        format!("{} {}", self.method.to_uppercase(), self.template)
    }

    /// The ids of the permissions that every request for it needs.
    fn permissions(&self) -> Vec<&str> {
        let name = self.name();
        let is_its = |further: &&&'static Further| {
            further.part == ALWAYS && further.operations.contains(&name.as_str())
        };
        let further = FURTHER.iter().filter(is_its).map(|further| further.permission.id());
        self.permission.as_deref().into_iter().chain(further).collect()
    }
}

fn operations() -> Vec<Described> {
    let document = serde_json::to_value(central::api::described().1).unwrap();
    let mut all = Vec::new();
    for (template, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            all.push(Described {
                method: method.clone(),
                template: template.clone(),
                is_open: operation["security"].as_array().unwrap().is_empty(),
                permission: operation["x-lineside-permission"].as_str().map(str::to_owned),
            });
        }
    }
    assert!(all.len() > 110, "{}", all.len());
    all
}

#[test]
fn every_operation_names_a_permission_that_exactly_the_roles_from_its_own_on_have() {
    for described in operations() {
        let name = format!("{} {}", described.method, described.template);
        let needed = needed(&described.method, &described.template);
        assert_eq!(needed.is_none(), described.is_open, "{name}");
        if described.is_open || described.template == "/api/ext/session" {
            assert_eq!(described.permission, None, "{name}");
            continue;
        }
        let id = described.permission.unwrap_or_else(|| panic!("{name} needs no permission"));
        for role in Role::ALL {
            let has = role.permissions().iter().any(|permission| permission.id() == id);
            assert_eq!(has, Some(role) >= needed, "{name}: {id} of {role:?}");
        }
    }
}

#[test]
fn every_part_with_a_permission_of_its_own_is_of_operations_that_there_are_and_of_no_permission_that_they_have()
 {
    let operations = operations();
    for further in FURTHER {
        for operation in further.operations {
            let described = operations.iter().find(|described| described.name() == *operation);
            let described = described.unwrap_or_else(|| panic!("{operation} is none"));
            let own: Permission = described.permission.as_deref().unwrap().parse().unwrap();
            let own = Permissions::of(&[own]).with_needs();
            assert!(!own.has(further.permission), "{operation}: {} has it already", further.part);
        }
    }
}

/// A table whose columns are as wide as their cells.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        cells.fold("|".to_owned(), |line, cell| format!("{line} {cell} |")) + "\n"
    };
    let mut text = line(&mut head.iter().copied());
    text += &line(&mut head.iter().map(|_| "---").collect::<Vec<_>>().into_iter());
    rows.iter().for_each(|row| text += &line(&mut row.iter().map(String::as_str)));
    text
}

/// `LINESIDE_WRITE_GOLDEN=1 cargo test -p central --test permissions page` writes the page anew.
#[test]
fn the_page_of_permissions_is_what_the_server_does() {
    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operating/permissions.md");
    const BEGIN: &str = "<!-- written by central/tests/permissions.rs -->\n";
    let by_role = |permission: Permission| {
        let allowed = |role: &Role| if role.permissions().has(permission) { "yes" } else { "" }.to_owned();
        Role::ALL.iter().map(allowed).collect::<Vec<_>>()
    };
    let code = |text: &str| format!("`{text}`");
    let permissions: Vec<Vec<String>> = Permission::all()
        .map(|permission| {
            let needs: Vec<String> = permission.needs().iter().map(|one| code(one.id())).collect();
            let first = [code(permission.id()), permission.meaning().to_owned(), needs.join(", ")];
            first.into_iter().chain(by_role(permission)).collect()
        })
        .collect();
    let operations: Vec<Vec<String>> = operations()
        .into_iter()
        .map(|described| {
            let all: Vec<String> = described.permissions().into_iter().map(code).collect();
            let needs = match described.permission {
                Some(_) => all.join(", "),
                None if described.is_open => "nothing, without a token too".to_owned(),
                None => "a session".to_owned(),
            };
            vec![code(&described.name()), needs]
        })
        .collect();
    let parts = FURTHER.iter().filter(|further| further.part != ALWAYS).flat_map(|further| {
        let row =
            |operation: &&str| vec![code(operation), further.part.to_owned(), code(further.permission.id())];
        further.operations.iter().map(row)
    });
    let parts: Vec<Vec<String>> = parts.collect();
    let head = ["Permission", "Allows to", "Needs", "viewer", "operator", "builder", "administrator"];
    let written = format!(
        "{BEGIN}\n{}\n## Operations\n\n{}\n## Parts of requests that need another permission too\n\n{}",
        table(&head, &permissions),
        table(&["Operation", "Needs"], &operations),
        table(&["Operation", "With", "Needs too"], &parts)
    );
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (before, found) = page.split_at(page.find(BEGIN).unwrap());
    if std::env::var_os("LINESIDE_WRITE_GOLDEN").is_some() {
        std::fs::write(PAGE, format!("{before}{written}")).unwrap();
        return;
    }
    assert!(
        found == written,
        "docs/operating/permissions.md is not what central does: write it anew as this test tells"
    );
}

/// A user of a role, in a browser.
async fn user(central: &Central, role: Role) -> Browser {
    let name = role.as_str();
    let users = format!("/api/users/{name}");
    central.put(&users, json!({"type": "email", "email": name, "roles": [{"role": name}]})).await;
    let password = format!("/api/ext/users/{name}/password");
    central.ok(Method::POST, &password, Some(json!({"password": PASSWORD}))).await;
    central.sign_in(name, PASSWORD).await
}

/// The status alone: what streams has no end.
async fn status(request: RequestBuilder, method: &Method) -> u16 {
    let request = request.query(&[("api-version", "2022-10-31-preview")]).timeout(STEP);
    let request = if *method == Method::GET { request } else { request.json(&json!({})) };
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn every_operation_is_for_its_roles_whether_they_come_with_a_token_or_a_session() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.set_up(dir.path()).await;
    let (mut tokens, mut browsers) = (Vec::new(), Vec::new());
    for role in Role::ALL {
        tokens.push((role, central.new_token(role).await));
        browsers.push((role, user(&central, role).await));
    }
    let mut tried = 0;
    for Described { method: name, template, .. } in operations() {
        let (path, method) =
            (concrete(&template), Method::from_bytes(name.to_uppercase().as_bytes()).unwrap());
        let needed = needed(&name, &template);
        let expect = |status: u16, role: Option<Role>, what: &str| {
            let what = format!("{name} {path} as {role:?} {what}: {status}");
            match needed {
                _ if status >= 500 => assert_eq!(status, 503, "{what}"),
                // Nothing is told but that the request is wrong.
                None => assert_ne!(status, 403, "{what}"),
                Some(_) if role.is_none() => assert_eq!(status, 401, "{what}"),
                Some(_) if template == "/api/ext/session" && what.contains("token") => {
                    assert_eq!(status, 401, "{what}");
                }
                Some(needed) if role < Some(needed) => assert_eq!(status, 403, "{what}"),
                Some(_) => assert!(![401, 403].contains(&status), "{what}"),
            }
        };
        let bare = central.http.request(method.clone(), central.url(&path));
        expect(status(bare, &method).await, None, "with nothing");
        for (role, token) in &tokens {
            let request = central.http.request(method.clone(), central.url(&path));
            let request = request.header("Authorization", token);
            expect(status(request, &method).await, Some(*role), "with a token");
        }
        for (role, browser) in &mut browsers {
            let request = browser.request(method.clone(), &path);
            expect(status(request, &method).await, Some(*role), "with a session");
            if (name.as_str(), template.as_str()) == ("delete", "/api/ext/session") {
                *browser = central.sign_in(role.as_str(), PASSWORD).await;
            }
        }
        tried += 1 + 2 * Role::ALL.len();
    }
    assert!(tried > 900, "{tried}");
    central.end().await;
}

/// Custom roles of a run of the test below.
const RANDOM_ROLES: usize = 6;

/// Permissions of which each was chosen by a coin, and what these need.
fn random_permissions(random: &mut StdRng) -> Permissions {
    let coins: u64 = random.random();
    let chosen = Permission::all().enumerate().filter(|(at, _)| coins >> at & 1 == 1);
    let chosen: Permissions = chosen.map(|(_, permission)| permission).collect();
    // A role has one at least.
    if chosen == Permissions::default() {
        Permissions::of(&[Permission::RolesView])
    } else {
        chosen.with_needs()
    }
}

/// A user with a custom role that has these permissions, in a browser, and a token with that role.
async fn with_custom_role(central: &Central, id: &str, permissions: Permissions) -> (Browser, String) {
    let ids: Vec<&str> = permissions.iter().map(Permission::id).collect();
    let role = json!({"displayName": format!("Role {id}"), "permissions": ids});
    central.put(&format!("/api/ext/roles/{id}"), role).await;
    let roles = json!([{"role": id}]);
    central.put(&format!("/api/users/{id}"), json!({"type": "email", "email": id, "roles": roles})).await;
    let password = format!("/api/ext/users/{id}/password");
    central.ok(Method::POST, &password, Some(json!({"password": PASSWORD}))).await;
    let token = central.put(&format!("/api/apiTokens/{id}"), json!({"roles": roles})).await;
    (central.sign_in(id, PASSWORD).await, token["token"].as_str().unwrap().to_owned())
}

/// Generated: each operation is allowed exactly to the custom roles that have its permission. `LINESIDE_SEED` repeats a run.
#[tokio::test]
async fn every_operation_is_for_the_custom_roles_that_have_its_permission_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.set_up(dir.path()).await;
    let (mut allowed, mut refused) = (0, 0);
    let seed = std::env::var("LINESIDE_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("LINESIDE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for number in 0..RANDOM_ROLES {
        let permissions = random_permissions(&mut random);
        let ids: Vec<&str> = permissions.iter().map(Permission::id).collect();
        let (browser, token) = with_custom_role(&central, &format!("random-{number}"), permissions).await;
        for described in operations().into_iter().filter(|described| described.permission.is_some()) {
            let has_it = described.permissions().iter().all(|needed| ids.contains(needed));
            let Described { method: name, template, .. } = described;
            let (path, method) =
                (concrete(&template), Method::from_bytes(name.to_uppercase().as_bytes()).unwrap());
            let with_token =
                central.http.request(method.clone(), central.url(&path)).header("Authorization", &token);
            for (what, request) in
                [("token", with_token), ("session", browser.request(method.clone(), &path))]
            {
                let status = status(request, &method).await;
                let is_refused = [401, 403].contains(&status);
                assert_eq!(is_refused, !has_it, "{name} {path} by a {what} with {ids:?}: {status}");
                if has_it { allowed += 1 } else { refused += 1 }
            }
        }
    }
    // Far fewer than by any coins.
    assert!(allowed > 20 && refused > 20, "{allowed} allowed, {refused} refused");
    central.end().await;
}

/// What makes a request of a page of another site, or of a form, in place of one of the console.
#[derive(Debug, Clone, Copy)]
enum Foreign {
    Site,
    Neighbor,
    OldBrowser,
    Sandbox,
    Form,
    FormOfFiles,
    Text,
    NoType,
    AlmostJson,
}

const FOREIGN: [Foreign; 9] = [
    Foreign::Site,
    Foreign::Neighbor,
    Foreign::OldBrowser,
    Foreign::Sandbox,
    Foreign::Form,
    Foreign::FormOfFiles,
    Foreign::Text,
    Foreign::NoType,
    Foreign::AlmostJson,
];

impl Foreign {
    /// Its headers, and the status that such a request gets.
    fn headers(self) -> (&'static [(&'static str, &'static str)], u16) {
        const JSON: (&str, &str) = ("Content-Type", "application/json");
        match self {
            Self::Site => {
                (&[("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site"), JSON], 403)
            }
            Self::Neighbor => {
                (&[("Origin", "https://other.central.test"), ("Sec-Fetch-Site", "same-site"), JSON], 403)
            }
            Self::OldBrowser => (&[("Origin", "https://evil.example"), JSON], 403),
            Self::Sandbox => (&[("Origin", "null"), JSON], 403),
            Self::Form => (&[("Content-Type", "application/x-www-form-urlencoded")], 415),
            Self::FormOfFiles => (&[("Content-Type", "multipart/form-data; boundary=x")], 415),
            Self::Text => (&[("Content-Type", "text/plain; application/json")], 415),
            Self::NoType => (&[], 415),
            Self::AlmostJson => (&[("Content-Type", "application/jsonx")], 415),
        }
    }
}

#[tokio::test]
async fn no_foreign_page_changes_anything_with_a_session_or_signs_anybody_in() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let mut browser = central.set_up(dir.path()).await;
    let cookie = format!("lineside_session={}", browser.cookie.clone().unwrap());
    let document = central.get("/openapi.json").await;
    let mut tried = 0;
    for (template, item) in document["paths"].as_object().unwrap() {
        for name in item.as_object().unwrap().keys().filter(|name| *name != "get") {
            for foreign in FOREIGN {
                let (headers, expected) = foreign.headers();
                let method = Method::from_bytes(name.to_uppercase().as_bytes()).unwrap();
                let mut request = central.http.request(method, central.url(&concrete(template)));
                for (name, value) in headers {
                    request = request.header(*name, *value);
                }
                let request =
                    request.query(&[("api-version", "2022-10-31-preview")]).header("Cookie", &cookie);
                let answer = request.body("{}").timeout(STEP).send().await.unwrap();
                assert_eq!(answer.status().as_u16(), expected, "{name} {template} by {foreign:?}");
                assert!(!answer.headers().contains_key("set-cookie"));
                assert!(!answer.headers().contains_key("access-control-allow-origin"));
                tried += 1;
            }
        }
    }
    assert!(tried > 250, "{tried}");
    assert!(browser.is_signed_in().await);
    // What the console sends is taken.
    let (status, answer) = browser.send(Method::PUT, "/api/devices/d", Some(json!({}))).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(browser.send(Method::DELETE, "/api/devices/d", None).await.0, 204);
    central.end().await;
}
