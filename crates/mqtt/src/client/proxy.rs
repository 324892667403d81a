//! The way out of a plant whose network has one: HTTP CONNECT, or SOCKS 5.

use std::fmt;

use hyper::Uri;
use hyper::service::Service as _;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use tokio::net::TcpStream;

/// A proxy and what proves us to it. Its password is never printed.
#[derive(Clone)]
pub struct Proxy(Intercept);

/// Why text names no proxy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "write http://HOST:PORT or socks5://HOST:PORT, with USER:PASSWORD@ before the host if the proxy requires them"
)]
pub struct ProxyError;

/// Why a proxy leads to no server.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The server's name cannot be part of a URL.
    #[error("`{0}` is not a host name")]
    Host(String),
    /// The proxy has no usable address.
    #[error("its address is wrong")]
    Address,
    /// The proxy was not reached, or refused.
    #[error("{}", with_causes(.0.as_ref()))]
    Refused(Box<dyn std::error::Error + Send + Sync>),
}

impl TunnelError {
    fn refused(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Refused(error.into())
    }
}

impl Proxy {
    /// Reads `http://…` or `socks5://…`. The name of the server is left to the proxy to look up.
    ///
    /// # Errors
    /// [`ProxyError`] for anything else.
    pub fn parse(text: &str) -> Result<Self, ProxyError> {
        if !["http://", "socks5://", "socks5h://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Err(ProxyError);
        }
        let found =
            Matcher::builder().https(encoded(text)).build().intercept(&Uri::from_static("https://server"));
        found.map(Self).filter(|proxy| proxy.0.uri().host().is_some()).ok_or(ProxyError)
    }

    /// The proxy that the environment names for a server: `HTTPS_PROXY` or `ALL_PROXY`, unless `NO_PROXY` has the server; in
    /// lower case too.
    pub fn from_environment(host: &str, port: u16) -> Option<Self> {
        // A CGI program's caller may set HTTP_PROXY by a header; this is none, and reads HTTPS_PROXY.
        let variable = |name: &str| {
            std::env::var(name).or_else(|_| std::env::var(name.to_ascii_lowercase())).unwrap_or_default()
        };
        let matcher = Matcher::builder()
            .all(encoded(&variable("ALL_PROXY")))
            .https(encoded(&variable("HTTPS_PROXY")))
            .no(variable("NO_PROXY"))
            .build();
        let found = matcher.intercept(&uri("https", host, port)?)?;
        // A proxy behind TLS is not spoken to.
        matches!(found.uri().scheme_str(), Some("http" | "socks5" | "socks5h")).then_some(Self(found))
    }

    fn is_socks(&self) -> bool {
        self.0.uri().scheme_str().is_some_and(|scheme| scheme.starts_with("socks"))
    }

    /// A connection to the server through the proxy.
    pub(super) async fn tunnel(&self, host: &str, port: u16) -> Result<TcpStream, TunnelError> {
        let to = uri("https", host, port).ok_or_else(|| TunnelError::Host(host.to_owned()))?;
        let default_port = if self.is_socks() { 1080 } else { 80 };
        let (proxy, port) = (self.0.uri(), self.0.uri().port_u16().unwrap_or(default_port));
        let via = uri("http", proxy.host().unwrap_or_default(), port).ok_or(TunnelError::Address)?;
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        let connected: TokioIo<TcpStream> = match (self.is_socks(), self.0.raw_auth(), self.0.basic_auth()) {
            (true, None, _) => TowerToHyperService::new(SocksV5::new(via, tcp))
                .call(to)
                .await
                .map_err(TunnelError::refused)?,
            (true, Some((user, password)), _) => {
                let socks = SocksV5::new(via, tcp).with_auth(user.to_owned(), password.to_owned());
                TowerToHyperService::new(socks).call(to).await.map_err(TunnelError::refused)?
            }
            (false, _, None) => TowerToHyperService::new(Tunnel::new(via, tcp))
                .call(to)
                .await
                .map_err(TunnelError::refused)?,
            (false, _, Some(basic)) => {
                let tunnel = Tunnel::new(via, tcp).with_auth(basic.clone());
                TowerToHyperService::new(tunnel).call(to).await.map_err(TunnelError::refused)?
            }
        };
        Ok(connected.into_inner())
    }
}

/// A proxy's URL with its user and password percent-encoded. Operators write `@`, `:`, `/`, `#` or `?` of a password as they
/// are, so the host begins behind the last `@`. `%40` stays what it is, and a `%` that begins no escape is one of the password.
fn encoded(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let Some((user_info, host)) = rest.rsplit_once('@') else { return url.to_owned() };
    let encode = |text: &str| {
        let decoded: Vec<u8> = percent_decode_str(text).collect();
        percent_encode(&decoded, NON_ALPHANUMERIC).to_string()
    };
    let user_info = match user_info.split_once(':') {
        Some((user, password)) => format!("{}:{}", encode(user), encode(password)),
        None => encode(user_info),
    };
    let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
    format!("{scheme}{user_info}@{host}")
}

fn uri(scheme: &str, host: &str, port: u16) -> Option<Uri> {
    let host =
        if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
    format!("{scheme}://{host}:{port}").parse().ok()
}

/// The error and what caused it.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uri = self.0.uri();
        write!(f, "{}://{}", uri.scheme_str().unwrap_or("http"), uri.host().unwrap_or_default())?;
        uri.port_u16().map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

impl PartialEq for Proxy {
    fn eq(&self, other: &Self) -> bool {
        self.0.uri() == other.0.uri()
            && self.0.basic_auth() == other.0.basic_auth()
            && self.0.raw_auth() == other.0.raw_auth()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_password_with_reserved_characters_is_the_same_written_as_it_is_and_percent_encoded() {
        for (text, basic) in [
            ("http://user:p@ss@10.0.0.1:8080", "user:p@ss"),
            ("http://user:a/b?c#d@proxy:3128", "user:a/b?c#d"),
            ("http://user:a:b@[fd00::1]:3128", "user:a:b"),
            ("http://user:50%off@proxy", "user:50%off"),
            ("http://DOMAIN\\user:p w@proxy", "DOMAIN\\user:p w"),
            ("http://us%3Aer:%25@proxy", "us:er:%"),
            ("http://user:pässword@proxy", "user:pässword"),
        ] {
            let proxy = Proxy::parse(text).unwrap();
            let expected = format!("Basic {}", STANDARD.encode(basic));
            assert_eq!(proxy.0.basic_auth().unwrap(), expected.as_str(), "{text}");
            let shown = format!("{proxy} {proxy:?}");
            assert!(!shown.contains("user") && !shown.contains("p@ss"), "{shown}");
        }
    }

    proptest! {
        #[test]
        fn any_password_reaches_the_proxy_however_it_is_written(
            user in "[a-zA-Z0-9@/?#!$&'()*+,;= _.~\\\\-]{1,12}",
            // A text that looks like an escape is one: those are written with %25.
            password in "[a-zA-Z0-9:@/?#\\[\\]!$&'()*+,;= _.~\"<>^`{|}\\\\-]{1,20}",
            host in prop::sample::select(vec!["proxy", "10.0.0.1", "[fd00::1]"]),
            is_socks in any::<bool>(), is_encoded in any::<bool>(),
        ) {
            let write = |text: &str| if is_encoded { percent_encode(text.as_bytes(), NON_ALPHANUMERIC).to_string() } else { text.to_owned() };
            let scheme = if is_socks { "socks5" } else { "http" };
            let proxy = Proxy::parse(&format!("{scheme}://{}:{}@{host}:3128", write(&user), write(&password))).unwrap();
            prop_assert_eq!(proxy.to_string(), format!("{scheme}://{host}:3128"));
            if is_socks {
                prop_assert_eq!(proxy.0.raw_auth().unwrap(), (user.as_str(), password.as_str()));
            } else {
                let basic = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
                prop_assert_eq!(proxy.0.basic_auth().unwrap(), basic.as_str());
            }
        }
    }

    #[test]
    fn a_proxy_is_read_and_printed_without_its_password() {
        for (text, shown) in [
            ("http://proxy.plant:3128", "http://proxy.plant:3128"),
            ("http://user:p%40ss@10.0.0.1:8080", "http://10.0.0.1:8080"),
            ("socks5://user:secret@proxy", "socks5://proxy"),
        ] {
            let proxy = Proxy::parse(text).unwrap();
            assert_eq!(
                (proxy.to_string(), format!("{proxy:?}")),
                (shown.to_owned(), format!("Proxy({shown})"))
            );
        }
        let basic = Proxy::parse("http://user:p%40ss@10.0.0.1:8080").unwrap();
        assert_eq!(basic.0.basic_auth().unwrap(), "Basic dXNlcjpwQHNz");
        for text in ["", "proxy:3128", "https://proxy", "ftp://proxy", "http://", "socks4://proxy"] {
            assert_eq!(Proxy::parse(text), Err(ProxyError), "{text}");
        }
    }
}
