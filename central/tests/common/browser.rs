//! A browser with the console open: it keeps the session's cookie and says where its requests come from.

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::described::{self, Exchange};
use super::{Central, STEP};

/// The first user that [`Central::set_up`] makes.
pub const ADMIN: &str = "admin@plant.example";
pub const PASSWORD: &str = "correct horse battery";

pub struct Browser {
    base: String,
    http: reqwest::Client,
    pub cookie: Option<String>,
    /// Of the last answer.
    pub headers: HeaderMap,
}

impl Central {
    pub fn browser(&self) -> Browser {
        let base = format!("http://{}", self.started.http);
        Browser { base, http: reqwest::Client::new(), cookie: None, headers: HeaderMap::new() }
    }

    /// The first user's browser.
    pub async fn set_up(&self, dir: &std::path::Path) -> Browser {
        let code = std::fs::read_to_string(dir.join("setup-code")).unwrap();
        let mut browser = self.browser();
        let body = json!({"code": code, "user": ADMIN, "password": PASSWORD});
        let (status, answer) = browser.send(Method::POST, "/api/ext/setup", Some(body)).await;
        assert_eq!(status, 201, "{answer}");
        browser
    }

    /// The browser of a user who signs in.
    pub async fn sign_in(&self, user: &str, password: &str) -> Browser {
        let mut browser = self.browser();
        let (status, answer) = browser.sign_in(user, password).await;
        assert_eq!(status, 200, "{answer}");
        browser
    }
}

impl Browser {
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method.clone(), format!("{}{path}", self.base)).timeout(5 * STEP);
        let request = request.header("Sec-Fetch-Site", "same-origin");
        let request = if method == Method::GET { request } else { request.header("Origin", &self.base) };
        match &self.cookie {
            Some(cookie) => request.header("Cookie", format!("other=1; lineside_session={cookie}")),
            None => request,
        }
    }

    pub async fn send(&mut self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut request =
            self.request(method.clone(), &format!("{path}{separator}api-version=2022-10-31-preview"));
        if let Some(body) = &body {
            request = request.json(body);
        }
        let response = request.send().await.unwrap();
        self.headers = response.headers().clone();
        if let Some(set) = self.headers.get("set-cookie") {
            let value = set.to_str().unwrap().split(';').next().unwrap();
            let value = value.strip_prefix("lineside_session=").unwrap();
            self.cookie = Some(value.to_owned()).filter(|value| !value.is_empty());
        }
        let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
        let method = method.as_str();
        described::check(&Exchange { method, path, sent: body.as_ref(), status, text: &text });
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    pub async fn get(&mut self, path: &str) -> (u16, Value) {
        self.send(Method::GET, path, None).await
    }

    pub async fn sign_in(&mut self, user: &str, password: &str) -> (u16, Value) {
        self.send(Method::POST, "/api/ext/session", Some(json!({"user": user, "password": password}))).await
    }

    /// Whether the session stands.
    pub async fn is_signed_in(&mut self) -> bool {
        match self.get("/api/ext/session").await.0 {
            200 => true,
            401 => false,
            other => panic!("{other}"),
        }
    }
}
