//! The state that a change was made for.

use axum::http::{HeaderMap, HeaderName, header};

use crate::error::ServiceError;

/// States that a header or body names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tags {
    /// `*`: any, if there is one.
    Any,
    These(Vec<String>),
}

impl Tags {
    /// All values of a header; `None` when there is none.
    pub(crate) fn of(headers: &HeaderMap, name: &HeaderName) -> Option<Self> {
        // A header that is no text names no state, so its condition is not met.
        let texts: Vec<&str> =
            headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("")).collect();
        match texts.as_slice() {
            [] => None,
            all if all.iter().any(|text| text.trim() == "*") => Some(Self::Any),
            all => Some(Self::These(all.iter().flat_map(|text| text.split(',')).map(plain).collect())),
        }
    }

    pub(crate) fn name(&self, current: Option<&str>) -> bool {
        match (self, current) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::These(tags), Some(current)) => tags.contains(&plain(current)),
        }
    }
}

/// An etag without quotation marks and without `W/`: clients write it with and without.
fn plain(tag: &str) -> String {
    let tag = tag.trim();
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag).to_owned()
}

/// What must hold for a change: `If-Match`, `If-None-Match` and the `etag` of the body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Precondition {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
    of_body: Option<Tags>,
}

impl Precondition {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self {
            if_match: Tags::of(headers, &header::IF_MATCH),
            if_none_match: Tags::of(headers, &header::IF_NONE_MATCH),
            of_body: None,
        }
    }

    /// With the `etag` that a body gives back. It says nothing about what is not there yet: bodies are also copied from elsewhere.
    #[must_use]
    pub(crate) fn with_body(self, etag: Option<String>) -> Self {
        Self { of_body: etag.map(|etag| Tags::These(vec![plain(&etag)])), ..self }
    }

    /// Checks it against the etag of what current_state; `None` when there is nothing. Within the work that makes the change.
    ///
    /// # Errors
    /// [`ServiceError::PreconditionFailed`].
    pub fn check(&self, current: Option<&str>) -> Result<(), ServiceError> {
        let failed = |what: &str| {
            let current_state = current.map_or("nothing".to_owned(), |current| format!("etag {current}"));
            Err(ServiceError::PreconditionFailed(format!(
                "{what}: found {current_state}; read it again, and change the current state"
            )))
        };
        if self.if_match.as_ref().is_some_and(|tags| !tags.name(current)) {
            return failed("If-Match");
        }
        if self.if_none_match.as_ref().is_some_and(|tags| tags.name(current)) {
            return failed("If-None-Match");
        }
        if current.is_some() && self.of_body.as_ref().is_some_and(|tags| !tags.name(current)) {
            return failed("etag");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_change_is_made_only_to_the_state_that_it_names() {
        use header::{IF_MATCH, IF_NONE_MATCH};
        for (pairs, body, current, is_met) in [
            (vec![], None, None, true),
            (vec![(IF_MATCH, "\"1\"")], None, Some("\"1\""), true),
            (vec![(IF_MATCH, "1")], None, Some("\"1\""), true),
            (vec![(IF_MATCH, "W/\"1\"")], None, Some("\"1\""), true),
            (vec![(IF_MATCH, "\"0\", \"1\"")], None, Some("\"1\""), true),
            (vec![(IF_MATCH, "\"0\""), (IF_MATCH, "\"1\"")], None, Some("\"1\""), true),
            (vec![(IF_MATCH, "*")], None, Some("\"1\""), true),
            (vec![(IF_MATCH, "*")], None, None, false),
            (vec![(IF_MATCH, "\"1\"")], None, None, false),
            (vec![(IF_MATCH, "\"1\"")], None, Some("\"2\""), false),
            (vec![(IF_MATCH, "")], None, Some("\"2\""), false),
            (vec![(IF_NONE_MATCH, "*")], None, None, true),
            (vec![(IF_NONE_MATCH, "*")], None, Some("\"1\""), false),
            (vec![(IF_NONE_MATCH, "\"1\"")], None, Some("\"1\""), false),
            (vec![(IF_NONE_MATCH, "\"1\"")], None, Some("\"2\""), true),
            (vec![], Some("\"1\""), Some("\"1\""), true),
            (vec![], Some("\"1\""), Some("\"2\""), false),
            (vec![], Some("\"1\""), None, true),
            (vec![(IF_MATCH, "\"2\"")], Some("\"1\""), Some("\"2\""), false),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in &pairs {
                headers.append(name.clone(), HeaderValue::from_static(value));
            }
            let precondition = Precondition::of(&headers).with_body(body.map(str::to_owned));
            assert_eq!(precondition.check(current).is_ok(), is_met, "{pairs:?} {body:?} {current:?}");
        }
    }
}
