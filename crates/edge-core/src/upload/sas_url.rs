//! The URL of a container of blobs, with the signature that allows to write into it, and the names of the blobs.
//!
//! Guarantee: neither `Debug`, `Display` nor an error shows more of a URL than scheme, host and port. A path may be as secret as a
//! signature: other stores than Azure's have their token in it.

use std::fmt;
use std::net::IpAddr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use schemas::timestamp::rfc3339;
use serde_json::Value;

use crate::daemon_method::{PayloadError, SAS_URL};

/// What HTTP servers commonly accept as the target of a request.
const URL_BYTES_MAX: usize = 8 * 1024;
/// RFC 3986: what a segment of a path may have as it is.
const IN_SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const ALLOWED: &str = "write the URL of a blob container with its signature, https://HOST/CONTAINER?SIGNATURE; http is for \
    loopback addresses alone";

/// Where blobs may be written.
#[derive(Clone, PartialEq, Eq)]
pub struct SasUrl {
    is_https: bool,
    /// A name or an address; one of IPv6 without brackets.
    host: String,
    port: u16,
    /// Begins with a slash, or is empty.
    path: String,
    query: Option<String>,
}

impl SasUrl {
    /// Reads the field `sasUrl` of a request.
    ///
    /// # Errors
    /// [`PayloadError::Field`], which names the field and shows nothing of the URL.
    pub fn read(field: Option<&Value>) -> Result<Self, PayloadError> {
        let found = match field {
            None | Some(Value::Null) => {
                let allowed = "write the URL of a blob container with its signature; uploads without it, to central, are not supported";
                return Err(wrong("nothing", allowed));
            }
            Some(Value::String(text)) => text.trim(),
            Some(_) => return Err(wrong("no text", ALLOWED)),
        };
        if found.is_empty() || found.len() > URL_BYTES_MAX {
            return Err(wrong("an empty text, or one of more than 8 KiB", ALLOWED));
        }
        // Every other byte would end the request's line, or needs an escape.
        if !found.bytes().all(|byte| byte.is_ascii_graphic()) || found.contains('#') {
            return Err(wrong("blanks, line breaks, `#` or characters beyond ASCII in it", ALLOWED));
        }
        let (scheme, rest) = found.split_once("://").ok_or_else(|| wrong("no URL", ALLOWED))?;
        let is_https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(wrong("another scheme than https", ALLOWED)),
        };
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (host, port) =
            authority_of(authority).ok_or_else(|| wrong("no usable host and port", ALLOWED))?;
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        let port = port.unwrap_or(if is_https { 443 } else { 80 });
        let path = path.trim_end_matches('/').to_owned();
        let url = Self { is_https, host, port, path, query };
        if !url.is_https && !url.is_loopback() {
            return Err(wrong("http to another machine", ALLOWED));
        }
        Ok(url)
    }

    pub fn is_https(&self) -> bool {
        self.is_https
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns true if the store is on this machine.
    pub fn is_loopback(&self) -> bool {
        let is_address = self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        is_address || self.host.eq_ignore_ascii_case("localhost")
    }

    /// Host and port as the header `Host` has them.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.is_https, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }

    /// Path and query of a blob in this container. Secret.
    pub fn target(&self, blob: &str) -> String {
        let segments = blob.split('/').map(|segment| utf8_percent_encode(segment, IN_SEGMENT).to_string());
        let blob = segments.collect::<Vec<_>>().join("/");
        let query = self.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        format!("{}/{blob}{query}", self.path)
    }
}

/// Shows the store alone.
impl fmt::Display for SasUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_https { "https" } else { "http" }, self.authority())
    }
}

impl fmt::Debug for SasUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SasUrl({self})")
    }
}

fn wrong(found: &str, allowed: &'static str) -> PayloadError {
    PayloadError::Field { field: SAS_URL.to_owned(), found: found.to_owned(), allowed }
}

/// Host and port; `None` for anything else than a name, an address, and a port.
fn authority_of(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => {
            let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
            // Neither user and password, nor `$upstream` of IoT Edge's nested gateways.
            let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
            if host.is_empty() || !host.chars().all(is_name) {
                return None;
            }
            (host, port)
        }
    };
    let port = match port {
        None => None,
        Some(port) => Some(port.parse::<u16>().ok().filter(|port| *port > 0)?),
    };
    Some((host.to_owned(), port))
}

/// Name of a blob as IoT Edge makes it: `HUB/DEVICE/ID-2026-11-29--03-00-00.EXTENSION`, in UTC.
pub fn blob_name(hub: &str, device: &str, id: &str, at_ms: u64, extension: &str) -> String {
    let time = rfc3339(at_ms);
    let (date, clock) = (&time[..10], time[11..19].replace(':', "-"));
    format!("{hub}/{device}/{id}-{date}--{clock}.{extension}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<SasUrl, PayloadError> {
        SasUrl::read(Some(&json!(text)))
    }

    #[test]
    fn blobs_are_put_below_the_containers_path_with_its_signature() {
        let name = blob_name("hub", "gw#1", "sensor", 1_795_964_400_000, "log.gz");
        assert_eq!(name, "hub/gw#1/sensor-2026-11-29--15-00-00.log.gz");
        let encoded = "hub/gw%231/sensor-2026-11-29--15-00-00.log.gz";
        for (url, authority, target) in [
            (
                "https://a.blob.core.windows.net/logs?sv=1&sig=a%2Bb",
                "a.blob.core.windows.net",
                format!("/logs/{encoded}?sv=1&sig=a%2Bb"),
            ),
            ("HTTPS://store:8443/deep/logs/?sig=x", "store:8443", format!("/deep/logs/{encoded}?sig=x")),
            ("https://store", "store", format!("/{encoded}")),
            ("https://store?sig=a/b?c", "store", format!("/{encoded}?sig=a/b?c")),
            ("http://localhost:11002/logs?sig=x", "localhost:11002", format!("/logs/{encoded}?sig=x")),
            ("http://[::1]/logs", "[::1]", format!("/logs/{encoded}")),
            ("http://127.8.0.1:80/", "127.8.0.1", format!("/{encoded}")),
        ] {
            let found = read(url).unwrap();
            assert_eq!((found.authority(), found.target(&name)), (authority.to_owned(), target), "{url}");
            let shown = format!("{found} {found:?}");
            assert!(!shown.contains("logs") && !shown.contains("sig"), "{shown}");
        }
    }

    #[test]
    fn what_is_wrong_in_a_url_is_named_and_nothing_of_the_url_is_shown() {
        for (found, expected) in [
            (None, "sasUrl: found nothing; write the URL of a blob container"),
            (Some(json!(null)), "sasUrl: found nothing; write the URL of a blob container"),
            (Some(json!({"url": "s3cr3t"})), "sasUrl: found no text"),
            (Some(json!(" ")), "sasUrl: found an empty text"),
            (Some(json!("s3cr3t".repeat(2000))), "sasUrl: found an empty text, or one of more than 8 KiB"),
            (Some(json!("s3cr3t")), "sasUrl: found no URL"),
            (Some(json!("ftp://s3cr3t/x")), "sasUrl: found another scheme than https"),
            (Some(json!("http://s3cr3t/logs?sig=s3cr3t")), "sasUrl: found http to another machine"),
            (Some(json!("http://localhost.s3cr3t.com/")), "sasUrl: found http to another machine"),
            (Some(json!("http://10.0.0.1/s3cr3t")), "sasUrl: found http to another machine"),
            (Some(json!("https://user:s3cr3t@store/")), "sasUrl: found no usable host"),
            (Some(json!("http://localhost@s3cr3t/")), "sasUrl: found no usable host"),
            (Some(json!("https://$upstream:443/s3cr3t")), "sasUrl: found no usable host"),
            (Some(json!("https:///s3cr3t")), "sasUrl: found no usable host"),
            (Some(json!("https://store:0/s3cr3t")), "sasUrl: found no usable host"),
            (Some(json!("https://store:99999/s3cr3t")), "sasUrl: found no usable host"),
            (Some(json!("https://[s3cr3t]/")), "sasUrl: found no usable host"),
            (Some(json!("https://store/a?sig=s3cr3t\r\nHost: x")), "sasUrl: found blanks, line breaks"),
            (Some(json!("https://store/s3cr3t#part")), "sasUrl: found blanks, line breaks, `#`"),
        ] {
            let error = SasUrl::read(found.as_ref()).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(shown.starts_with(expected) && !shown.contains("s3cr3t"), "{found:?}: {shown}");
        }
    }

    proptest! {
        #[test]
        fn no_text_ends_the_program_and_no_blob_ends_the_line_of_a_request(text in "(https?://[a-z]{1,3}/)?\\PC{0,60}", blob in "\\PC{0,20}[\r\n]?") {
            if let Ok(url) = read(&text) {
                let target = url.target(&blob);
                prop_assert!(target.starts_with('/') && target.bytes().all(|byte| byte.is_ascii_graphic()), "{}", target);
            }
        }
    }
}
