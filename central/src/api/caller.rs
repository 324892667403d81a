//! Where a request comes from.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::ConnectInfo;
use axum::http::request::Parts;

/// The address of the client that made a request: of its connection, or, behind a proxy, the one that the proxy names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientAddress(pub(super) IpAddr);

/// The header in which proxies name the clients that they speak for, the last one last.
const FORWARDED: &str = "x-forwarded-for";

impl ClientAddress {
    /// `is_behind_proxy`: nobody but a proxy reaches the listener, so the last address in `X-Forwarded-For` is the proxy's word.
    /// Everywhere else it is the client's, and counts for nothing.
    pub(super) fn of(parts: &Parts, is_behind_proxy: bool) -> Self {
        let forwarded = || {
            let last = parts.headers.get_all(FORWARDED).iter().next_back()?.to_str().ok()?;
            last.rsplit(',').next()?.trim().parse().ok()
        };
        let peer = || parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
        let address = is_behind_proxy.then(forwarded).flatten().or_else(peer);
        // An IPv4 client of an IPv6 listener has the address that it has everywhere else.
        Self(address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).to_canonical())
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[test]
    fn a_client_is_where_its_connection_comes_from_unless_a_proxy_that_is_configured_says_otherwise() {
        let address = |forwarded: &[&str], is_behind_proxy| {
            let mut request = Request::builder();
            for value in forwarded {
                request = request.header(FORWARDED, *value);
            }
            let (mut parts, ()) = request.body(()).unwrap().into_parts();
            parts.extensions.insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 1))));
            ClientAddress::of(&parts, is_behind_proxy).0.to_string()
        };
        for forged in [&["192.0.2.7"][..], &[], &["nonsense"]] {
            assert_eq!(address(forged, false), "127.0.0.1");
        }
        assert_eq!(address(&["198.51.100.1, 192.0.2.7"], true), "192.0.2.7");
        assert_eq!(address(&["198.51.100.1", "2001:db8::7"], true), "2001:db8::7");
        assert_eq!(address(&["::ffff:192.0.2.7"], true), "192.0.2.7");
        assert_eq!(address(&["nonsense"], true), "127.0.0.1");
        assert_eq!(address(&[], true), "127.0.0.1");
    }
}
