//! Query parameters: an operation takes those that its description names, each once, and `api-version`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use percent_encoding::percent_decode_str;
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::{OpenApi, RefOr, Schema};

use super::error::ApiError;

/// Every path takes it; those of IoT Central need it.
pub(super) const API_VERSION: &str = "api-version";
/// The versions of IoT Central's API that are answered; their paths that exist here agree.
pub(super) const VERSIONS: &[&str] = &[
    "1.0",
    "1.1-preview",
    "1.2-preview",
    "2022-05-31",
    "2022-06-30-preview",
    "2022-07-31",
    "2022-10-31-preview",
];

/// The decoded parameters of a request, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct QueryPairs(pub(super) Vec<(String, String)>);

impl QueryPairs {
    /// Decodes a query: percent-encoded UTF-8, in which `+` is a space.
    ///
    /// # Errors
    /// 400 for what is not UTF-8.
    pub(super) fn parse(query: &str) -> Result<Self, ApiError> {
        let decode = |part: &str| {
            let part = part.replace('+', " ");
            let decoded = percent_decode_str(&part).decode_utf8();
            decoded.map(|text| text.into_owned()).map_err(|_| {
                ApiError::bad_request("InvalidQuery", format!("query: `{part}` does not decode to UTF-8"))
            })
        };
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        });
        Ok(Self(pairs.collect::<Result<_, ApiError>>()?))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// Checks the version of IoT Central's API that a request names.
///
/// # Errors
/// 400 for another one, and for none where one is needed.
pub(super) fn check_version(query: &str, is_needed: bool) -> Result<(), ApiError> {
    let pairs = QueryPairs::parse(query)?;
    let found = match pairs.get(API_VERSION) {
        Some(version) if VERSIONS.contains(&version) => return Ok(()),
        Some(version) => format!("`{version}`"),
        None if is_needed => "nothing".to_owned(),
        None => return Ok(()),
    };
    let versions = VERSIONS.join(", ");
    Err(ApiError::bad_request(
        "InvalidApiVersion",
        format!("{API_VERSION}: found {found}; allowed are {versions}"),
    ))
}

/// The query parameters that each operation has, by its path and method.
pub(super) struct DescribedParameters(BTreeMap<String, Vec<(Method, Known)>>);

/// Names of parameters, and whether one may stand more than once: it is a list.
type Known = BTreeMap<String, bool>;

impl DescribedParameters {
    pub(super) fn of(description: &OpenApi) -> Self {
        let paths = description.paths.paths.iter();
        Self(paths.map(|(path, item)| (path.clone(), operations(item))).collect())
    }

    /// The parameters of an operation; `None` where there is no such operation.
    fn get(&self, path: &str, method: &Method) -> Option<&Known> {
        // A HEAD is answered by what answers GET.
        let method = if method == Method::HEAD { &Method::GET } else { method };
        self.0.get(path)?.iter().find(|(of, _)| of == method).map(|(_, parameters)| parameters)
    }
}

fn operations(item: &PathItem) -> Vec<(Method, Known)> {
    let all = [
        (Method::GET, &item.get),
        (Method::PUT, &item.put),
        (Method::POST, &item.post),
        (Method::PATCH, &item.patch),
        (Method::DELETE, &item.delete),
    ];
    let described = all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_ref()?)));
    described.map(|(method, operation)| (method, query_parameters(operation))).collect()
}

fn query_parameters(operation: &Operation) -> Known {
    let is_list = |schema: &Option<RefOr<Schema>>| matches!(schema, Some(RefOr::T(Schema::Array(_))));
    let parameters = operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
        RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query => {
            Some((parameter.name.clone(), is_list(&parameter.schema)))
        }
        _ => None,
    });
    parameters.collect()
}

/// Refuses a request with a query parameter that its operation does not have, or that is no list and has been given twice.
pub(super) async fn check_parameters(
    State(described): State<Arc<DescribedParameters>>,
    request: Request,
    next: Next,
) -> Response {
    match check(&described, &request) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

fn check(described: &DescribedParameters, request: &Request) -> Result<(), ApiError> {
    let Some(query) = request.uri().query() else { return Ok(()) };
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    // The method is refused elsewhere.
    let Some(known) = described.get(path, request.method()) else { return Ok(()) };
    let wrong = |why: String| Err(ApiError::bad_request("InvalidQuery", why));
    let mut seen = BTreeSet::new();
    for (name, _) in QueryPairs::parse(query)?.0 {
        if name != API_VERSION && !known.contains_key(&name) {
            let others = known.keys().filter(|name| *name != API_VERSION).map(String::as_str);
            let all: Vec<&str> = std::iter::once(API_VERSION).chain(others).collect();
            return wrong(format!("{name}: this path has no such parameter; allowed are {}", all.join(", ")));
        }
        if seen.contains(&name) && !known.get(&name).is_some_and(|is_list| *is_list) {
            return wrong(format!("{name}: found twice; write it once"));
        }
        seen.insert(name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_as_the_client_encoded_it_and_what_is_no_text_is_refused() {
        let pairs = QueryPairs::parse("a=1&%24top=2%2D3&&b&c=x+y%2B").unwrap();
        let found: Vec<(&str, &str)> =
            pairs.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(found, [("a", "1"), ("$top", "2-3"), ("b", ""), ("c", "x y+")]);
        assert!(QueryPairs::parse("a=%ff").is_err());
    }

    #[test]
    fn every_version_of_the_api_is_taken_also_when_it_is_encoded_and_no_other() {
        for version in VERSIONS {
            check_version(&format!("x=1&api-version={version}"), true).unwrap();
            check_version(&format!("api%2Dversion={}", version.replace('-', "%2D")), true).unwrap();
        }
        for wrong in ["", "api-version", "api-version=2018-06-30", "api-version=1.0%20", "API-VERSION=1.0"] {
            assert!(check_version(wrong, true).is_err(), "{wrong}");
        }
        check_version("", false).unwrap();
        check_version("api-version=2018-06-30", false).unwrap_err();
    }
}
