//! How many requests were answered, by method, path and status.
//!
//! The path is the one of the API's description, with its placeholders, so that a client makes no series by asking for what it likes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;

use super::assets;

/// Path of the console's files.
const CONSOLE: &str = "console";
/// Path or method that the API does not have.
const OTHER: &str = "other";

/// The counts since central started.
#[derive(Debug, Default)]
pub struct RequestCounts(Mutex<BTreeMap<Key, u64>>);

/// Method, path and status. Bounded by the paths of the API and the statuses that it answers.
type Key = (&'static str, Arc<str>, u16);

impl RequestCounts {
    fn add(&self, method: &Method, path: Option<&str>, status: u16) {
        let key = (known(method), path.unwrap_or(OTHER).into(), status);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
    }

    pub fn all(&self) -> Vec<(Key, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(key, count)| (key.clone(), *count)).collect()
    }
}

/// The method if the API has paths with it: a client may invent others.
fn known(method: &Method) -> &'static str {
    const METHODS: [&str; 7] = ["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS"];
    METHODS.into_iter().find(|known| *known == method.as_str()).unwrap_or(OTHER)
}

pub(super) async fn count(
    State(counts): State<Arc<RequestCounts>>,
    request: Request,
    next: Next,
) -> Response {
    let method = request.method().clone();
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let is_console = assets::is_console(&method, request.uri().path());
    let response = next.run(request).await;
    let path = matched.as_ref().map(MatchedPath::as_str).or(is_console.then_some(CONSOLE));
    counts.add(&method, path, response.status().as_u16());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_invents_methods_and_paths_makes_one_series() {
        let counts = RequestCounts::default();
        for number in 0..1_000 {
            let method = Method::from_bytes(format!("METHOD{number}").as_bytes()).unwrap();
            counts.add(&method, None, 404);
        }
        assert_eq!(counts.all(), [((OTHER, OTHER.into(), 404), 1_000)]);
    }
}
