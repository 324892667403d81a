//! Requests to the node `$cbs`: a client shows a token, for itself or for one of many devices on its connection.

use std::fmt;

use amqp::codec::definitions::MessageId;
use amqp::codec::limits::ReadLimits;
use amqp::codec::message::{Body, Message, Properties};
use amqp::codec::value::{Map, Value};
use bytes::{Bytes, BytesMut};

/// Kinds of tokens that SDKs name: those for Node, Java and C, and the one for C#. Upper and lower case do not count.
const TOKEN_TYPES: [&str; 2] = ["servicebus.windows.net:sastoken", "azure-devices.net:sastoken"];

/// A request that was read.
#[derive(Clone, PartialEq)]
pub struct PutToken {
    /// Comes back in the answer, with its type: clients compare both.
    pub message_id: Option<MessageId>,
    /// The SAS token.
    pub token: String,
}

impl fmt::Debug for PutToken {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PutToken").field("message_id", &self.message_id).finish_non_exhaustive()
    }
}

/// A request that is answered with status 400.
#[derive(Debug, Clone, PartialEq)]
pub struct Malformed {
    /// Comes back in the answer.
    pub message_id: Option<MessageId>,
    /// What is wrong with it.
    pub why: &'static str,
}

/// Reads a request. The audience is the token's own: the name beside it has the gateway's host with some SDKs.
///
/// # Errors
/// [`Malformed`].
pub fn read(payload: Bytes) -> Result<PutToken, Malformed> {
    let read = Message::read(payload, ReadLimits::DEFAULT);
    let message = read.map_err(|_| Malformed { message_id: None, why: "the request is no AMQP message" })?;
    let message_id = message.properties.and_then(|properties| properties.message_id);
    let malformed = |why| Malformed { message_id: message_id.clone(), why };
    let property = |name: &str| message.application_properties.get(name).and_then(Value::as_text);
    if property("operation") != Some("put-token") {
        return Err(malformed("the application property `operation` is not `put-token`"));
    }
    let is_known = |kind: &str| TOKEN_TYPES.iter().any(|known| known.eq_ignore_ascii_case(kind));
    if !property("type").is_some_and(is_known) {
        return Err(malformed("the application property `type` names no SAS token"));
    }
    match message.body {
        Body::Value(Value::String(token)) => Ok(PutToken { message_id, token }),
        _ => Err(malformed("the body is not an AMQP value with the token as a string")),
    }
}

/// The payload of an answer, with an HTTP-like status.
pub fn answer(message_id: Option<MessageId>, status: u16, description: &str) -> Bytes {
    let pairs = vec![
        // Clients take no other type than int.
        ("status-code".into(), Value::Int(status.into())),
        ("status-description".into(), description.into()),
    ];
    let message = Message {
        properties: Some(Properties { correlation_id: message_id, ..Properties::default() }),
        application_properties: Map(pairs),
        body: Body::Value(Value::Null),
        ..Message::default()
    };
    let mut payload = BytesMut::new();
    message.write(&mut payload);
    payload.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(operation: &str, kind: &str, body: Body) -> Bytes {
        let pairs = vec![("operation".into(), operation.into()), ("type".into(), kind.into())];
        let message_id = Some(MessageId::Ulong(7));
        let message = Message {
            properties: Some(Properties { message_id, ..Properties::default() }),
            application_properties: Map(pairs),
            body,
            ..Message::default()
        };
        let mut payload = BytesMut::new();
        message.write(&mut payload);
        payload.freeze()
    }

    #[test]
    fn requests_of_the_azure_sdks_are_read_and_others_are_answered_by_their_id() {
        let token = || Body::Value("SharedAccessSignature x".into());
        for kind in ["servicebus.windows.net:sastoken", "azure-devices.net:SasToken"] {
            let read = read(request("put-token", kind, token())).unwrap();
            assert_eq!(
                (read.message_id, &*read.token),
                (Some(MessageId::Ulong(7)), "SharedAccessSignature x")
            );
        }
        let kind = TOKEN_TYPES[0];
        for (request, part) in [
            (request("delete-token", kind, token()), "operation"),
            (request("put-token", "jwt", token()), "type"),
            (request("put-token", kind, Body::Data(vec![Bytes::from_static(b"x")])), "body"),
        ] {
            let malformed = read(request).unwrap_err();
            assert!(malformed.why.contains(part), "{malformed:?}");
            assert_eq!(malformed.message_id, Some(MessageId::Ulong(7)));
        }
        assert_eq!(read(Bytes::from_static(b"\xff")).unwrap_err().message_id, None);
    }

    #[test]
    fn an_answer_returns_the_id_with_its_type_and_the_status_as_an_int() {
        for id in [MessageId::Uuid([3; 16]), MessageId::String("7".to_owned()), MessageId::Ulong(7)] {
            let payload = answer(Some(id.clone()), 401, "wrong key");
            let message = Message::read(payload, ReadLimits::DEFAULT).unwrap();
            assert_eq!(message.properties.unwrap().correlation_id, Some(id));
            assert_eq!(message.application_properties.get("status-code"), Some(&Value::Int(401)));
            assert_eq!(message.application_properties.get("status-description"), Some(&"wrong key".into()));
        }
    }

    #[test]
    fn a_token_does_not_reach_the_log() {
        let shown = format!("{:?}", PutToken { message_id: None, token: "SECRET".to_owned() });
        assert!(!shown.contains("SECRET"), "{shown}");
    }
}
