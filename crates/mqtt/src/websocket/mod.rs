//! MQTT over WebSocket (RFC 6455, MQTT 3.1.1 section 6): the upgrade of an HTTP request, and the stream of bytes inside.
//!
//! The handshake and the frame headers are tungstenite's; its buffered messages are not used. MQTT needs the bytes of
//! binary frames in order and nothing else, so the stream takes them through as they come: an idle connection has no
//! buffer here, and nobody can make the server hold a large frame before its CONNECT is proven.

mod stream;

use tungstenite::handshake::server::create_response_with_body;
use tungstenite::http::{HeaderMap, Request, Response, StatusCode, header};

pub use stream::WebSocket;

/// The sub-protocol, and the only one: MQTT 3.1.1 and 5 share its name. Azure's SDK for C writes it in capitals.
const MQTT: &str = "mqtt";

/// Why a request does not become a WebSocket for MQTT. Its text is meant for whoever sent the request.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// It does not ask for a WebSocket of RFC 6455, or not as that demands.
    #[error(transparent)]
    Handshake(#[from] tungstenite::Error),
    /// It asks for a WebSocket and does not offer the sub-protocol `mqtt`.
    #[error("Sec-WebSocket-Protocol: the sub-protocol `mqtt` is spoken here and no other")]
    SubProtocol,
}

/// The answer (status 101, with a body that `empty` makes) that turns a request into a WebSocket. Extensions that were offered
/// are not accepted.
///
/// # Errors
/// [`UpgradeError`]: the request deserves status 400.
pub fn accept<B, Empty>(
    request: &Request<B>,
    empty: impl FnOnce() -> Empty,
) -> Result<Response<Empty>, UpgradeError> {
    let mut response = create_response_with_body(request, empty)?;
    let mqtt = offered(request.headers()).ok_or(UpgradeError::SubProtocol)?;
    debug_assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, mqtt);
    Ok(response)
}

/// The sub-protocol as the client wrote it, which is how it must be echoed.
fn offered(headers: &HeaderMap) -> Option<header::HeaderValue> {
    let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter();
    let mut offers = offers.filter_map(|offer| offer.to_str().ok()).flat_map(|offer| offer.split(','));
    let mqtt = offers.find(|offer| offer.trim().eq_ignore_ascii_case(MQTT))?;
    header::HeaderValue::from_str(mqtt.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let request = Request::builder().uri("/mqtt");
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).unwrap()
    }

    const UPGRADE: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("UPGRADE", "WebSocket"),
        // As Azure's Python SDK writes it.
        ("Sec-Websocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn the_sub_protocol_mqtt_is_echoed_alone_and_no_extension_is_accepted() {
        let mut headers = UPGRADE.to_vec();
        headers.push(("Sec-WebSocket-Protocol", "mqttv3.1, mqtt"));
        headers.push(("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"));
        let response = accept(&request(&headers), || ()).unwrap();
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["sec-websocket-protocol"], "mqtt");
        // RFC 6455, section 1.3.
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(!response.headers().contains_key("sec-websocket-extensions"));
    }

    #[test]
    fn the_sub_protocol_is_echoed_as_the_client_wrote_it() {
        for protocol in ["mqtt", "MQTT", "mqttv3.1, MQTT"] {
            let mut headers = UPGRADE.to_vec();
            headers.push(("Sec-WebSocket-Protocol", protocol));
            let response = accept(&request(&headers), || ()).unwrap();
            assert_eq!(response.headers()["sec-websocket-protocol"], protocol.rsplit(' ').next().unwrap());
        }
    }

    #[test]
    fn what_is_no_websocket_for_mqtt_is_refused_with_the_reason() {
        let error = accept(&request(&UPGRADE), || ()).unwrap_err().to_string();
        assert!(error.contains("`mqtt`"), "{error}");
        for protocol in ["mqttv3.1", "amqp", ""] {
            let mut headers = UPGRADE.to_vec();
            headers.push(("Sec-WebSocket-Protocol", protocol));
            accept(&request(&headers), || ()).unwrap_err();
        }
        for left_out in 0..UPGRADE.len() {
            let mut headers = UPGRADE.to_vec();
            headers.push(("Sec-WebSocket-Protocol", "mqtt"));
            headers.remove(left_out);
            accept(&request(&headers), || ()).unwrap_err();
        }
    }
}
