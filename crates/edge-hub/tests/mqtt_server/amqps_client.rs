//! A client of AMQP 1.0 over TLS that writes frames and reads the server's.

use amqp::codec::definitions::{AmqpError, MessageId, Role};
use amqp::codec::delivery_state::DeliveryState;
use amqp::codec::frame::{self, FrameKind, Protocol, ReadFrame};
use amqp::codec::limits::ReadLimits;
use amqp::codec::message::{Body, Message, Properties};
use amqp::codec::performative::{Attach, Begin, Close, Detach, Flow, Open, Performative, Transfer};
use amqp::codec::sasl::{Code, Init, SaslFrame, SecretBytes};
use amqp::codec::symbol::Symbol;
use amqp::codec::terminus::{AnyTarget, Source, Target};
use amqp::codec::value::{Map, Value};
use bytes::{Bytes, BytesMut};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::site::{PATIENCE, Site};
use crate::tls::handshake;

/// Handles of the links to and from `$cbs`.
const REQUESTS: u32 = 0;
const ANSWERS: u32 = 1;
/// Of a delivery, in one frame.
const FRAME_PAYLOAD_BYTES: usize = 32 * 1024;

pub(crate) struct Amqps {
    stream: TlsStream<TcpStream>,
    input: BytesMut,
    /// Number of the next delivery.
    next: u32,
}

/// A token that names this audience, and how the program of these tests takes it.
pub(crate) fn token(path: &str, signature: &str) -> String {
    let resource = format!("hub/devices/{path}").replace('/', "%2F");
    format!("SharedAccessSignature sr={resource}&sig={signature}&se=9999999999")
}

impl Amqps {
    /// Connected over TLS, and nothing more.
    pub(crate) async fn connect(site: &Site, config: ClientConfig) -> Self {
        let stream = handshake(site, config).await.unwrap();
        Self { stream, input: BytesMut::new(), next: 0 }
    }

    /// Without SASL, as the SDKs for C# and Node do, with one session.
    pub(crate) async fn open(site: &Site, config: ClientConfig) -> Self {
        let mut client = Self::connect(site, config).await;
        client.begin().await;
        client
    }

    /// From the header of AMQP to a session.
    pub(crate) async fn begin(&mut self) {
        self.raw(&Protocol::Amqp.header()).await;
        let open = Open { container_id: "client".to_owned(), ..Open::default() };
        self.write(Performative::Open(Box::new(open))).await;
        let begin = Begin { incoming_window: 5_000, outgoing_window: 5_000, ..Begin::default() };
        self.write(Performative::Begin(Box::new(begin))).await;
        assert_eq!(self.header().await, Protocol::Amqp);
        assert!(matches!(self.performative().await, Performative::Open(_)));
        assert!(matches!(self.performative().await, Performative::Begin(_)));
    }

    /// SASL with this mechanism; the code of its outcome.
    pub(crate) async fn sasl(&mut self, mechanism: &str, response: Option<&[u8]>) -> Code {
        self.raw(&Protocol::Sasl.header()).await;
        assert_eq!(self.header().await, Protocol::Sasl);
        let SaslFrame::Mechanisms(offered) = self.sasl_frame().await else { panic!("no mechanisms") };
        let mechanism = Symbol::new(mechanism.to_owned()).unwrap();
        assert!(offered.sasl_server_mechanisms.contains(&mechanism), "{offered:?}");
        let initial_response = response.map(|bytes| SecretBytes(Bytes::copy_from_slice(bytes)));
        let init = SaslFrame::Init(Init { mechanism, initial_response, hostname: None });
        let mut bytes = BytesMut::new();
        frame::write(&mut bytes, FrameKind::Sasl, 0, |out| init.write(out));
        self.raw(&bytes).await;
        let SaslFrame::Outcome(outcome) = self.sasl_frame().await else { panic!("no outcome") };
        outcome.code
    }

    /// Attaches the links to and from `$cbs`.
    pub(crate) async fn attach_cbs(&mut self) {
        self.attach(REQUESTS, Role::Sender, "$cbs").await.unwrap();
        self.attach(ANSWERS, Role::Receiver, "$cbs").await.unwrap();
        let flow = Flow {
            next_incoming_id: Some(0),
            incoming_window: 5_000,
            outgoing_window: 5_000,
            handle: Some(ANSWERS),
            delivery_count: Some(0),
            link_credit: Some(1_000),
            ..Flow::default()
        };
        self.write(Performative::Flow(Box::new(flow))).await;
    }

    /// Puts a token; the status of the answer, and what else came before it.
    pub(crate) async fn put_token(&mut self, token: &str) -> (i32, Vec<Performative>) {
        let number = self.next;
        let pairs = [("operation", "put-token"), ("type", "servicebus.windows.net:sastoken")];
        let message = Message {
            properties: Some(Properties {
                message_id: Some(MessageId::Ulong(number.into())),
                ..Properties::default()
            }),
            application_properties: Map(pairs.map(|(key, value)| (key.into(), value.into())).to_vec()),
            body: Body::Value(token.into()),
            ..Message::default()
        };
        self.send(REQUESTS, 0, &encoded(&message)).await;
        let mut others = Vec::new();
        loop {
            match self.performative().await {
                Performative::Transfer(transfer, payload) => {
                    assert_eq!(transfer.delivery_tag.map(|tag| tag.len()), Some(16));
                    let answer = Message::read(payload, ReadLimits::DEFAULT).unwrap();
                    let correlation_id = answer.properties.unwrap().correlation_id;
                    assert_eq!(correlation_id, Some(MessageId::Ulong(number.into())));
                    let status = answer.application_properties.get("status-code");
                    let Some(Value::Int(status)) = status else { panic!("{status:?}") };
                    return (*status, others);
                }
                Performative::Disposition(disposition) if disposition.first == number => {}
                other => others.push(other),
            }
        }
    }

    /// Attaches a link; the error with which it is refused.
    pub(crate) async fn attach(&mut self, handle: u32, role: Role, address: &str) -> Result<(), AmqpError> {
        let (source, target) = match role {
            Role::Sender => (None, Some(address.to_owned())),
            Role::Receiver => (Some(address.to_owned()), None),
        };
        let attach = Attach {
            name: format!("link {handle}"),
            handle,
            role,
            source: Some(Source { address: source, ..Source::default() }),
            target: Some(AnyTarget::Node(Target { address: target, ..Target::default() })),
            initial_delivery_count: (role == Role::Sender).then_some(0),
            ..Attach::default()
        };
        self.write(Performative::Attach(Box::new(attach))).await;
        let answer = loop {
            match self.performative().await {
                Performative::Attach(answer) => break answer,
                Performative::Flow(_) | Performative::Disposition(_) => {}
                other => panic!("{other:?} instead of an attach"),
            }
        };
        assert_eq!((answer.handle, answer.role), (handle, role.opposite()));
        if answer.source.is_none() {
            let (of, error) = self.detached().await;
            assert_eq!(of, handle);
            return Err(error.unwrap());
        }
        if role == Role::Sender {
            let Performative::Flow(flow) = self.performative().await else { panic!("no credit") };
            assert!(flow.handle == Some(handle) && flow.link_credit > Some(0), "{flow:?}");
        }
        Ok(())
    }

    /// Attaches a link for telemetry of `devices/{path}`.
    pub(crate) async fn attach_telemetry(&mut self, handle: u32, path: &str) -> Result<(), AmqpError> {
        self.attach(handle, Role::Sender, &format!("/devices/{path}/messages/events")).await
    }

    /// Sends a delivery; its number.
    pub(crate) async fn send(&mut self, handle: u32, format: u32, payload: &[u8]) -> u32 {
        let number = self.next;
        self.next += 1;
        let mut parts = payload.chunks(FRAME_PAYLOAD_BYTES).peekable();
        while let Some(part) = parts.next() {
            let transfer = Transfer {
                handle,
                delivery_id: Some(number),
                delivery_tag: Some(Bytes::copy_from_slice(&number.to_be_bytes())),
                message_format: Some(format),
                more: parts.peek().is_some(),
                ..Transfer::default()
            };
            self.write(Performative::Transfer(transfer, Bytes::copy_from_slice(part))).await;
        }
        number
    }

    /// Sends a message with this text.
    pub(crate) async fn send_text(&mut self, handle: u32, text: &str) -> u32 {
        self.send(handle, 0, &text_message(text)).await
    }

    /// The outcome of a delivery, which comes before anything else but outcomes of others and credit.
    pub(crate) async fn outcome(&mut self, number: u32) -> DeliveryState {
        loop {
            match self.performative().await {
                Performative::Disposition(disposition) => {
                    assert!(disposition.settled && disposition.role == Role::Receiver);
                    let last = disposition.last.unwrap_or(disposition.first);
                    if (disposition.first..=last).contains(&number) {
                        return disposition.state.unwrap();
                    }
                }
                Performative::Flow(_) => {}
                other => panic!("{other:?} instead of an outcome"),
            }
        }
    }

    /// The next detach: its handle and error. It is answered.
    pub(crate) async fn detached(&mut self) -> (u32, Option<AmqpError>) {
        loop {
            match self.performative().await {
                Performative::Detach(Detach { handle, error, .. }) => {
                    self.write(Performative::Detach(Detach { handle, closed: true, error: None })).await;
                    return (handle, error);
                }
                Performative::Flow(_) | Performative::Disposition(_) => {}
                other => panic!("{other:?} instead of a detach"),
            }
        }
    }

    /// The error of the server's close.
    pub(crate) async fn closed(&mut self) -> AmqpError {
        loop {
            match self.performative().await {
                Performative::Close(Close { error }) => return error.unwrap(),
                Performative::Flow(_) | Performative::Disposition(_) | Performative::Detach(_) => {}
                other => panic!("{other:?} instead of a close"),
            }
        }
    }

    /// Waits until the server has closed the transport.
    pub(crate) async fn ended(&mut self) {
        let mut rest = Vec::new();
        // However it ends.
        let _ = timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.expect("it goes on");
    }

    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    async fn write(&mut self, performative: Performative) {
        let mut bytes = BytesMut::new();
        frame::write(&mut bytes, FrameKind::Amqp, 0, |out| performative.write(out));
        self.raw(&bytes).await;
    }

    async fn header(&mut self) -> Protocol {
        loop {
            if let Some(protocol) = Protocol::read(&mut self.input).unwrap() {
                return protocol;
            }
            self.read().await;
        }
    }

    async fn sasl_frame(&mut self) -> SaslFrame {
        SaslFrame::read(self.frame().await, ReadLimits::DEFAULT).unwrap()
    }

    async fn performative(&mut self) -> Performative {
        loop {
            let body = self.frame().await;
            if !body.is_empty() {
                return Performative::read(body, ReadLimits::DEFAULT).unwrap();
            }
        }
    }

    async fn frame(&mut self) -> Bytes {
        loop {
            if let ReadFrame::Whole(frame) = frame::read(&mut self.input, u32::MAX).unwrap() {
                return frame.body;
            }
            self.read().await;
        }
    }

    async fn read(&mut self) {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.input)).await.expect("nothing came");
        assert_ne!(read.unwrap(), 0, "the server closed the transport");
    }
}

/// A message with this text, as bytes.
pub(crate) fn text_message(text: &str) -> Bytes {
    let body = Body::Data(vec![Bytes::copy_from_slice(text.as_bytes())]);
    encoded(&Message { body, ..Message::default() })
}

pub(crate) fn encoded(message: &Message) -> Bytes {
    let mut payload = BytesMut::new();
    message.write(&mut payload);
    payload.freeze()
}
