//! What a browser sends along by itself opens nothing but the status page; a session's cookie is tested in people.rs.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use common::{Central, STEP, start};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::json;

const METHODS: [Method; 5] = [Method::GET, Method::PUT, Method::PATCH, Method::POST, Method::DELETE];

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// A program: no headers of a browser.
    Program,
    /// A page of this server.
    Own,
    /// A page of another site, in a browser that says so by `Sec-Fetch-Site`.
    Foreign,
    /// A page of another host of the same site.
    Neighbor,
    /// A page of another site, in a browser that only sends `Origin`.
    ForeignOld,
    /// A page in a sandboxed frame or of a file.
    Null,
}

const ORIGINS: [Origin; 6] =
    [Origin::Program, Origin::Own, Origin::Foreign, Origin::Neighbor, Origin::ForeignOld, Origin::Null];

impl Origin {
    fn put_on(self, request: RequestBuilder, central: &Central) -> RequestBuilder {
        match self {
            Self::Program => request,
            Self::Own => request
                .header("Origin", format!("http://{}", central.started.http))
                .header("Sec-Fetch-Site", "same-origin"),
            Self::Foreign => {
                request.header("Origin", "https://evil.example").header("Sec-Fetch-Site", "cross-site")
            }
            Self::Neighbor => {
                request.header("Origin", "https://other.central.test").header("Sec-Fetch-Site", "same-site")
            }
            Self::ForeignOld => request.header("Origin", "https://evil.example"),
            Self::Null => request.header("Origin", "null"),
        }
    }

    fn is_foreign(self) -> bool {
        !matches!(self, Self::Program | Self::Own)
    }
}

/// How a request carries a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CredentialForm {
    Nothing,
    Basic,
    Cookie,
    Query,
    SharedAccessSignature,
    Bearer,
}

const CREDENTIAL_FORMS: [CredentialForm; 6] = [
    CredentialForm::Nothing,
    CredentialForm::Basic,
    CredentialForm::Cookie,
    CredentialForm::Query,
    CredentialForm::SharedAccessSignature,
    CredentialForm::Bearer,
];

impl CredentialForm {
    fn put_on(self, request: RequestBuilder, token: &str) -> RequestBuilder {
        match self {
            Self::Nothing => request,
            Self::Basic => request.basic_auth("operator", Some(token)),
            Self::Cookie => {
                request.header("Cookie", format!("session={token}; token={token}; Authorization={token}"))
            }
            Self::Query => request.query(&[("access_token", token), ("Authorization", token)]),
            Self::SharedAccessSignature => request.header("Authorization", token),
            Self::Bearer => request.bearer_auth(token),
        }
    }

    /// Whether only a program that was given the token can send it so.
    fn is_deliberate(self) -> bool {
        matches!(self, Self::SharedAccessSignature | Self::Bearer)
    }
}

/// Every described path with names in place of its parameters.
async fn paths(central: &Central) -> Vec<String> {
    let described = central.get("/openapi.json").await;
    let names = |path: &String| {
        path.split('/')
            .map(|part| match part {
                "{entry}" => "primary",
                part if part.starts_with('{') => "d",
                part => part,
            })
            .collect::<Vec<_>>()
            .join("/")
    };
    described["paths"].as_object().unwrap().keys().map(names).collect()
}

#[tokio::test]
async fn a_foreign_page_can_neither_change_nor_read_anything_with_what_the_browser_remembers() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let mut tried = 0;
    for path in paths(&central).await {
        // Open to everybody, or answered by who is signed in: tests/people.rs has those.
        if ["/openapi.json", "/api/ext/health", "/api/ext/setup", "/api/ext/session"].contains(&path.as_str())
        {
            continue;
        }
        for method in METHODS {
            for form in CREDENTIAL_FORMS {
                for origin in ORIGINS {
                    let url = format!("{}?api-version=2022-07-31", central.url(&path));
                    let request = central.http.request(method.clone(), url).timeout(STEP);
                    let request = request.header("Content-Type", "text/plain").body("{}");
                    let request = form.put_on(origin.put_on(request, &central), &central.token);
                    let status = request.send().await.unwrap().status();
                    let is_read = method == Method::GET;
                    let expected = if path == "/status" && is_read && form == CredentialForm::Basic {
                        None
                    } else if !form.is_deliberate() {
                        Some(StatusCode::UNAUTHORIZED)
                    } else if !is_read && origin.is_foreign() {
                        Some(StatusCode::FORBIDDEN)
                    } else {
                        None
                    };
                    let what = format!("{method} {path} by {form:?} from {origin:?}: {status}");
                    let is_refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status);
                    assert_eq!(is_refused, expected.is_some(), "{what}");
                    assert!(expected.is_none_or(|expected| status == expected), "{what}");
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 5_000, "{tried}");
    central.end().await;
}

#[tokio::test]
async fn basic_opens_the_status_page_and_sends_no_command_and_no_answer_is_for_other_origins() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/press", json!({})).await;
    let with_basic = |method: Method, path: &str| {
        let url = format!("{}?api-version=2022-07-31", central.url(path));
        central.http.request(method, url).basic_auth("operator", Some(&central.token))
    };
    let page = with_basic(Method::GET, "/status").send().await.unwrap();
    assert_eq!(page.status(), 200);
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("frame-ancestors 'none'") && policy.contains("default-src 'none'"), "{policy}");
    for header in ["cache-control", "x-content-type-options", "cross-origin-resource-policy"] {
        assert!(page.headers().contains_key(header), "{header}");
    }
    let command = with_basic(Method::POST, "/api/devices/press/commands/stop").body("{}");
    let refused = command.send().await.unwrap();
    assert_eq!(refused.status(), 401);
    assert!(!refused.headers().contains_key("www-authenticate"), "no browser shall ask for a password here");
    let refusal = refused.text().await.unwrap();
    assert!(refusal.contains("SharedAccessSignature") && refusal.contains("Basic"), "{refusal}");
    let history = central.get("/api/devices/press/commands/stop").await;
    assert_eq!(history["value"], json!([]), "the command was not so much as tried");

    let preflight = central
        .http
        .request(Method::OPTIONS, central.url("/api/devices/press"))
        .header("Origin", "https://evil.example")
        .header("Access-Control-Request-Method", "DELETE")
        .header("Access-Control-Request-Headers", "authorization");
    let answer = preflight.send().await.unwrap();
    assert_eq!(answer.status(), 401);
    assert!(!answer.headers().contains_key("access-control-allow-origin"));
    central.end().await;
}
