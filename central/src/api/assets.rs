//! The console's files, embedded in the program, on every path that is none of the API's. They hold no secret and are open to
//! everybody; what they show comes from the API.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::response::{IntoResponse as _, Response};

use super::error::ApiError;

/// A file of the console.
struct File {
    /// Begins with a slash.
    path: &'static str,
    content: &'static [u8],
    /// The same, compressed with Brotli.
    brotli: Option<&'static [u8]>,
}

include!(concat!(env!("OUT_DIR"), "/console_files.rs"));

/// The page that every path leads to that has no file: the console's own router reads the path.
const INDEX: &str = "/index.html";
/// Files below have a hash of their content in their names.
const HASHED: &str = "/assets/";
/// Paths outside `/api` that are no page of the console.
const OTHERS: [&str; 3] = ["/openapi.json", "/metrics", "/status"];
/// Scripts, styles, pictures, fonts and connections are of this server alone, and none of them inline, so that text which gets into a
/// page unescaped does not run. No other page may show this one in a frame.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; \
                      frame-ancestors 'none'";

/// Whether a request reads the console rather than the API.
pub(super) fn is_console(method: &Method, path: &str) -> bool {
    let is_api = path.strip_prefix("/api").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    matches!(*method, Method::GET | Method::HEAD) && !is_api && !OTHERS.contains(&path)
}

/// Answers what the API has no path for.
pub(super) async fn fallback(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path();
    let is_missing_asset = || path.starts_with(HASHED);
    // Looked up by the whole path as it came: no path leads out of the table.
    let found = FILES.iter().find(|file| file.path == path);
    let file = match found {
        _ if !is_console(&method, path) => None,
        // A page of an older version asks for scripts that are gone; an HTML page in their place would tell nobody.
        None if is_missing_asset() => None,
        None => FILES.iter().find(|file| file.path == INDEX),
        found => found,
    };
    file.map_or_else(
        || ApiError::not_found("there is no such path; /openapi.json has all of the API's").into_response(),
        |file| answer(file, &headers),
    )
}

fn answer(file: &File, headers: &HeaderMap) -> Response {
    let brotli = file.brotli.filter(|_| accepts_brotli(headers));
    let mut response = brotli.unwrap_or(file.content).into_response();
    let is_hashed = file.path.starts_with(HASHED);
    // With a hash in its name a file never changes; the others name the files that do.
    let caching = if is_hashed { "public, max-age=31536000, immutable" } else { "no-cache" };
    let fields: [(HeaderName, &'static str); 4] = [
        (header::CONTENT_TYPE, content_type(file.path)),
        (header::CACHE_CONTROL, caching),
        (header::VARY, "Accept-Encoding"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    for (name, value) in fields {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    if brotli.is_some() {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("br"));
    }
    response
}

/// By the file's extension; unknown ones are bytes, which no browser runs.
fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "webp" => "image/webp",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        "wasm" => "application/wasm",
        _ => "application/octet-stream",
    }
}

/// Whether `Accept-Encoding` names Brotli with a weight above 0.
fn accepts_brotli(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING);
    let mut codings =
        values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    codings.any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_brotli = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("br"));
        let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(Ok(1.0), str::parse::<f32>);
        is_brotli && weight.is_ok_and(|weight| weight > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_described_path_is_the_apis_and_none_of_it_is_served_to_everybody() {
        let (_, description) = crate::api::described();
        for path in description.paths.paths.keys() {
            assert!(!is_console(&Method::GET, path), "{path}");
        }
        for path in ["/api", "/api/", "/api/ext/nothing"] {
            assert!(!is_console(&Method::GET, path), "{path}");
        }
        for path in ["/", "/devices/d", "/apiary", "/index.html"] {
            assert!(is_console(&Method::GET, path) && is_console(&Method::HEAD, path), "{path}");
            assert!(!is_console(&Method::POST, path) && !is_console(&Method::OPTIONS, path), "{path}");
        }
    }

    #[test]
    fn brotli_is_given_to_who_accepts_it() {
        let accepts = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap());
            accepts_brotli(&headers)
        };
        for yes in ["br", "gzip, deflate, br, zstd", "gzip;q=1.0, BR;q=0.5"] {
            assert!(accepts(yes), "{yes}");
        }
        for no in ["", "gzip", "br;q=0", "br; q=0.0", "brotli", "br;q=x"] {
            assert!(!accepts(no), "{no}");
        }
        assert!(!accepts_brotli(&HeaderMap::new()));
    }

    #[test]
    fn the_index_is_there_and_every_file_has_a_type_that_a_browser_knows() {
        assert!(FILES.iter().any(|file| file.path == INDEX));
        for file in FILES {
            assert_ne!(content_type(file.path), "application/octet-stream", "{}", file.path);
        }
    }
}
