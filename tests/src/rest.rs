//! central's REST API as a script of an operator uses it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use reqwest::Method;
use serde_json::Value;

use crate::STEP;

/// A client with a token.
#[derive(Clone)]
pub struct Rest {
    base: String,
    token: String,
    http: reqwest::Client,
}

impl Rest {
    /// Speaks to `http://{address}` with `token`.
    pub fn new(address: &str, token: &str) -> Self {
        Self { base: format!("http://{address}"), token: token.to_owned(), http: reqwest::Client::new() }
    }

    /// One request; gives the status and the body (`null` when there is none).
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let url = format!("{}{path}{separator}api-version=2022-10-31-preview", self.base);
        let mut request = self.http.request(method.clone(), &url).header("Authorization", &self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.timeout(STEP).send().await.with_context(|| format!("{method} {path}"))?;
        let status = response.status().as_u16();
        let text = response.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
    }

    async fn expect_success(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let (status, answer) = self.send(method.clone(), path, body).await?;
        if !(200..300).contains(&status) {
            bail!("{method} {path} answered {status}: {answer}");
        }
        Ok(answer)
    }

    /// GET that must succeed.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.expect_success(Method::GET, path, None).await
    }

    /// PUT that must succeed.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value> {
        self.expect_success(Method::PUT, path, Some(body)).await
    }

    /// PATCH that must succeed.
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Value> {
        self.expect_success(Method::PATCH, path, Some(body)).await
    }

    /// POST that must succeed.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.expect_success(Method::POST, path, Some(body)).await
    }

    /// Every stored message of a device, oldest first, read page by page.
    pub async fn messages(&self, device: &str) -> Result<Vec<Value>> {
        let mut messages: Vec<Value> = Vec::new();
        loop {
            let after = messages.last().and_then(|last| last["id"].as_i64()).unwrap_or(0);
            let page =
                self.get(&format!("/api/ext/devices/{device}/messages?after={after}&limit=1000")).await?;
            let page = page["value"].as_array().context("messages: `value` is not a list")?.clone();
            if page.is_empty() {
                return Ok(messages);
            }
            messages.extend(page);
        }
    }
}

/// Asks again until `check` gives a value, at most `within`. `what` names what was waited for.
pub async fn eventually<T, F>(what: &str, within: Duration, mut check: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let deadline = tokio::time::Instant::now() + within;
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    loop {
        ticks.tick().await;
        let last = match check().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if tokio::time::Instant::now() > deadline {
            match last {
                Some(error) => return Err(error.context(format!("{what}: not within {within:?}"))),
                None => bail!("{what}: not within {within:?}"),
            }
        }
    }
}
