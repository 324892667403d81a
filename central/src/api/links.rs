//! Addresses that answers give: absolute, so that a client follows them as they stand.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::query::QueryPairs;
use crate::config::Http;

/// Where a page of a list begins.
pub(super) const SKIP_TOKEN: &str = "$skiptoken";
/// RFC 3986 "unreserved", and the `$` of the list parameters, which a query may have as it is.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'$');

/// How clients reach the REST API.
#[derive(Debug, Clone)]
pub struct PublicAddress {
    /// `[http] public_url` without a slash at its end.
    url: Option<String>,
    scheme: &'static str,
    is_behind_proxy: bool,
}

impl PublicAddress {
    /// As the configuration says.
    pub fn new(http: &Http) -> Self {
        let url = http.public_url.as_ref().map(|url| url.trim_end_matches('/').to_owned());
        let scheme = if http.tls || http.behind_tls_proxy { "https" } else { "http" };
        Self { url, scheme, is_behind_proxy: http.behind_tls_proxy }
    }

    /// Whether browsers reach the API over TLS.
    pub(super) fn is_https(&self) -> bool {
        self.scheme == "https" || self.url.as_ref().is_some_and(|url| url.starts_with("https://"))
    }

    /// Whether nobody but a proxy reaches the listener.
    pub(super) fn is_behind_proxy(&self) -> bool {
        self.is_behind_proxy
    }

    /// What precedes the path of an address; empty when the client named no host, as one of HTTP/1.0 need not.
    fn base(&self, headers: &HeaderMap) -> String {
        if let Some(url) = &self.url {
            return url.clone();
        }
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        // It becomes a part of addresses in the answer, so it is not copied as it came.
        match host.map(Authority::try_from) {
            Some(Ok(host)) => format!("{}://{host}", self.scheme),
            _ => String::new(),
        }
    }
}

/// The address of the list that was asked for.
#[derive(Debug)]
pub struct ListAddress {
    base: String,
    uri: Uri,
}

impl<S: Send + Sync> FromRequestParts<S> for ListAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let address = parts.extensions.get::<PublicAddress>();
        let base = address.map(|address| address.base(&parts.headers)).unwrap_or_default();
        Ok(Self { base, uri: parts.uri.clone() })
    }
}

impl ListAddress {
    /// The same list, with all parameters of the client's request, from behind `last_id` on.
    pub(super) fn after(&self, last_id: &str) -> String {
        let encode = |text: &str| utf8_percent_encode(text, ENCODED).to_string();
        let pairs = QueryPairs::parse(self.uri.query().unwrap_or("")).unwrap_or_default();
        let kept = pairs.0.iter().filter(|(name, _)| name != SKIP_TOKEN);
        let pairs: Vec<String> = kept
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .chain([(SKIP_TOKEN, last_id)])
            .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
            .collect();
        format!("{}{}?{}", self.base, self.uri.path(), pairs.join("&"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(http: &Http, host: Option<&str>) -> String {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(header::HOST, host.parse().unwrap());
        }
        let uri = "/api/devices?api-version=2022-07-31&$top=2&$skiptoken=a&%24filter=x%20eq%20'a%26b'";
        let base = PublicAddress::new(http).base(&headers);
        ListAddress { base, uri: uri.parse().unwrap() }.after("ü&b")
    }

    #[test]
    fn the_next_page_has_the_public_address_or_the_host_that_the_client_named_and_all_parameters() {
        let query = "api-version=2022-07-31&$top=2&$filter=x%20eq%20%27a%26b%27&$skiptoken=%C3%BC%26b";
        let plain = Http::default();
        let path = format!("/api/devices?{query}");
        assert_eq!(address(&plain, Some("central:8080")), format!("http://central:8080{path}"));
        for secure in
            [Http { behind_tls_proxy: true, ..Http::default() }, Http { tls: true, ..Http::default() }]
        {
            assert_eq!(address(&secure, Some("central.test")), format!("https://central.test{path}"));
        }
        let public = Http { public_url: Some("https://site.test/central/".into()), ..Http::default() };
        assert_eq!(address(&public, Some("127.0.0.1:8080")), format!("https://site.test/central{path}"));
        for host in [None, Some("a b"), Some("a/b")] {
            assert_eq!(address(&plain, host), path);
        }
    }
}
