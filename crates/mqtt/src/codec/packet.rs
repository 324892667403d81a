//! The packets of MQTT 3.1.1 and 5 as one set of types. What 3.1.1 does not have is empty there and costs nothing.

use bytes::Bytes;

use super::reason::Reason;
use super::text::{Text, UserProperties};

/// A version of MQTT, which a connection keeps from its CONNECT on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V4,
    /// MQTT 5.0, protocol level 5.
    V5,
}

/// What both ends of a connection can say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// The first packet of a client.
    Connect(Box<Connect>),
    /// The server's answer to CONNECT.
    ConnAck(Box<ConnAck>),
    /// A message, in either direction.
    Publish(Publish),
    /// QoS 1: the message was taken.
    PubAck(Ack),
    /// QoS 2: the message was taken, first of three.
    PubRec(Ack),
    /// QoS 2: its identifier is let go, second of three.
    PubRel(Ack),
    /// QoS 2: its identifier is free, third of three.
    PubComp(Ack),
    /// Asks for messages; at least one filter.
    Subscribe(Subscribe),
    /// What the server grants of a SUBSCRIBE, filter by filter.
    SubAck(SubAck),
    /// Asks for no more messages.
    Unsubscribe(Unsubscribe),
    /// The server sends no more messages for the filters of an UNSUBSCRIBE.
    UnsubAck(SubAck),
    /// The client is here.
    PingReq,
    /// The server is here.
    PingResp,
    /// The connection ends; in MQTT 5 either side may say so, and why.
    Disconnect(Box<Disconnect>),
    /// MQTT 5: a step of an extended authentication.
    Auth(Box<Auth>),
}

/// Who connects, how its session begins, and what is published when it is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// By the packet's protocol level; every later packet of the connection is read and written by it.
    pub version: Version,
    /// May be empty.
    pub client_id: String,
    /// `None` when the flag of the user name is not set; MQTT 3.1.1 allows no password then.
    pub user_name: Option<String>,
    /// As sent: any bytes.
    pub password: Option<Vec<u8>>,
    /// Clean start (MQTT 5), clean session (3.1.1).
    pub is_clean: bool,
    /// Protocol level 0x84: a bridge of mosquitto. It is not sent its own messages, and sees retain flags as published. A
    /// bridge of MQTT 5 asks for both with its subscriptions.
    pub is_bridge: bool,
    /// Seconds; 0 is none.
    pub keep_alive: u16,
    /// What is published when the client is lost.
    pub will: Option<Will>,
    /// MQTT 5 only; otherwise as if nothing had been said.
    pub properties: ConnectProperties,
}

/// The properties of a CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectProperties {
    /// Seconds that the session outlives its connection; `u32::MAX` is for ever, `None` is 0.
    pub session_expiry: Option<u32>,
    /// QoS 1 and 2 messages that may be in flight to the client; never 0.
    pub receive_max: Option<u16>,
    /// Bytes of the largest packet that the client takes, fixed header included; never 0.
    pub packet_bytes_max: Option<u32>,
    /// Topic aliases that the server may use.
    pub topic_alias_max: u16,
    /// Whether the client asks for response information in the CONNACK.
    pub wants_response_information: bool,
    /// Whether reason strings and user properties may be sent in any packet, not only PUBLISH, CONNACK and DISCONNECT.
    pub wants_problem_information: bool,
    /// For the CONNECT itself.
    pub user_properties: UserProperties,
    /// Names an extended authentication (MQTT 5.0 section 4.12).
    pub authentication_method: Option<Text>,
    /// Only with a method.
    pub authentication_data: Option<Bytes>,
}

impl Default for ConnectProperties {
    fn default() -> Self {
        Self {
            session_expiry: None,
            receive_max: None,
            packet_bytes_max: None,
            topic_alias_max: 0,
            wants_response_information: false,
            wants_problem_information: true,
            user_properties: UserProperties::default(),
            authentication_method: None,
            authentication_data: None,
        }
    }
}

/// The will of a CONNECT. Its bytes are its own: they do not keep the CONNECT in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// A topic name: not empty, without wildcards.
    pub topic: String,
    /// Any bytes, up to 65,535.
    pub payload: Bytes,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Whether it is retained.
    pub retain: bool,
    /// Seconds between the end of the connection and the will (MQTT 5).
    pub delay: u32,
    /// MQTT 5 only.
    pub properties: Option<Box<PublishProperties>>,
}

/// Whether the connection is accepted, and what the server allows on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnAck {
    /// Whether the server has the session of an earlier connection.
    pub is_session_present: bool,
    /// Success, or why not. For MQTT 3.1.1 the nearest of its return codes is written.
    pub reason: Reason,
    /// MQTT 5 only.
    pub properties: ConnAckProperties,
}

/// The properties of a CONNACK. A `None` is not written; the specification says what it then means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnAckProperties {
    /// Seconds, when it is not what the client asked for.
    pub session_expiry: Option<u32>,
    /// QoS 1 and 2 messages that may be in flight to the server.
    pub receive_max: Option<u16>,
    /// 0 or 1, when QoS 2 is not served.
    pub qos_max: Option<u8>,
    /// Whether messages are retained.
    pub is_retain_available: Option<bool>,
    /// Bytes of the largest packet that the server takes, fixed header included.
    pub packet_bytes_max: Option<u32>,
    /// The client id that the server gave to a client without one.
    pub assigned_client_id: Option<Text>,
    /// Topic aliases that the client may use.
    pub topic_alias_max: Option<u16>,
    /// For people who read a log, not for programs.
    pub reason_string: Option<Text>,
    /// As the server likes.
    pub user_properties: UserProperties,
    /// Whether filters may hold wildcards.
    pub are_wildcards_available: Option<bool>,
    /// Whether subscriptions may have identifiers.
    pub are_subscription_ids_available: Option<bool>,
    /// Whether subscriptions may be shared.
    pub are_shared_subscriptions_available: Option<bool>,
    /// Seconds, when it is not what the client asked for.
    pub server_keep_alive: Option<u16>,
    /// Where response topics may be.
    pub response_information: Option<Text>,
    /// Another server that the client may use, with [`Reason::USE_ANOTHER_SERVER`] or [`Reason::SERVER_MOVED`].
    pub server_reference: Option<Text>,
    /// The method of the CONNECT, again.
    pub authentication_method: Option<Text>,
    /// Only with a method.
    pub authentication_data: Option<Bytes>,
}

/// A message as it was read; [`super::message::Message`] writes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// UTF-8; a slice of the bytes that were read. Empty only with a topic alias.
    pub topic: Bytes,
    /// A slice of the bytes that were read.
    pub payload: Bytes,
    /// 0, 1 or 2.
    pub qos: u8,
    /// 0 when the QoS is 0.
    pub id: u16,
    /// Sent before. Never with QoS 0.
    pub dup: bool,
    /// To be retained, or retained.
    pub retain: bool,
    /// MQTT 5 only, and only when there are any.
    pub properties: Option<Box<PublishProperties>>,
}

impl Publish {
    /// The topic as text.
    #[inline]
    pub fn topic(&self) -> &str {
        std::str::from_utf8(&self.topic).expect("read() lets only UTF-8 topics through")
    }
}

/// The properties of a PUBLISH or a will.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublishProperties {
    /// Whether the payload is UTF-8 text. Whether it really is, is not checked here.
    pub is_utf8: Option<bool>,
    /// Seconds that the message may wait for a receiver.
    pub message_expiry: Option<u32>,
    /// Not 0; never of a will, and never passed on.
    pub topic_alias: Option<u16>,
    /// Where the receiver is to send its answer; a topic name without wildcards.
    pub response_topic: Option<Text>,
    /// Any bytes.
    pub correlation_data: Option<Bytes>,
    /// In their order.
    pub user_properties: UserProperties,
    /// From a server to a client only; none is 0.
    pub subscription_ids: Vec<u32>,
    /// For people and programs.
    pub content_type: Option<Text>,
}

impl PublishProperties {
    /// A copy that does not keep the packet in memory.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self {
            is_utf8: self.is_utf8,
            message_expiry: self.message_expiry,
            topic_alias: self.topic_alias,
            response_topic: self.response_topic.as_ref().map(Text::detached),
            correlation_data: self.correlation_data.as_deref().map(Bytes::copy_from_slice),
            user_properties: self.user_properties.detached(),
            subscription_ids: self.subscription_ids.clone(),
            content_type: self.content_type.as_ref().map(Text::detached),
        }
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// Not 0.
    pub id: u16,
    /// Success in MQTT 3.1.1.
    pub reason: Reason,
    /// MQTT 5 only, and only when there is something.
    pub properties: Option<Box<ReasonProperties>>,
}

impl Ack {
    /// Says that all is well.
    #[inline]
    pub fn success(id: u16) -> Self {
        Self { id, reason: Reason::SUCCESS, properties: None }
    }
}

/// What most answers may carry beside their reason code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReasonProperties {
    /// For people who read a log, not for programs.
    pub reason_string: Option<Text>,
    /// In their order.
    pub user_properties: UserProperties,
}

/// Filters to which a client subscribes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// Not 0.
    pub id: u16,
    /// At least one. Whether each is well formed and may be had is for the SUBACK to say.
    pub filters: Vec<Filter>,
    /// MQTT 5 only; not 0.
    pub subscription_id: Option<u32>,
    /// MQTT 5 only.
    pub user_properties: UserProperties,
}

/// One filter of a SUBSCRIBE and how it is to be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// As sent, `$share/...` included.
    pub path: String,
    /// 0, 1 or 2: at most.
    pub qos: u8,
    /// MQTT 5: not the client's own messages.
    pub no_local: bool,
    /// MQTT 5: the retain flag is passed on as it was published.
    pub retain_as_published: bool,
    /// MQTT 5.
    pub retain_handling: RetainHandling,
}

impl Filter {
    /// A filter as MQTT 3.1.1 has it.
    pub fn v4(path: String, qos: u8) -> Self {
        let retain_handling = RetainHandling::default();
        Self { path, qos, no_local: false, retain_as_published: false, retain_handling }
    }
}

/// When retained messages are sent on a SUBSCRIBE.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RetainHandling {
    /// Always, as MQTT 3.1.1 does.
    #[default]
    Send,
    /// When the subscription is new.
    SendIfNew,
    /// Never.
    DoNotSend,
}

/// The answer to a SUBSCRIBE or an UNSUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubAck {
    /// That of the request; not 0.
    pub id: u16,
    /// One for each filter, in the request's order; none in an UNSUBACK of MQTT 3.1.1.
    pub reasons: Vec<Reason>,
    /// MQTT 5 only, and only when there is something.
    pub properties: Option<Box<ReasonProperties>>,
}

/// Filters for which a client wants no more messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Not 0.
    pub id: u16,
    /// At least one.
    pub filters: Vec<String>,
    /// MQTT 5 only.
    pub user_properties: UserProperties,
}

/// Ends a connection, and says why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect {
    /// [`Reason::SUCCESS`] in MQTT 3.1.1.
    pub reason: Reason,
    /// From a client only: a new session expiry, in seconds.
    pub session_expiry: Option<u32>,
    /// For people who read a log, not for programs.
    pub reason_string: Option<Text>,
    /// From a server only: another server.
    pub server_reference: Option<Text>,
    /// In their order.
    pub user_properties: UserProperties,
}

impl Disconnect {
    /// A DISCONNECT that says nothing but its reason.
    pub fn because(reason: Reason) -> Self {
        Self {
            reason,
            session_expiry: None,
            reason_string: None,
            server_reference: None,
            user_properties: UserProperties::default(),
        }
    }
}

/// A step of an extended authentication (MQTT 5.0 section 4.12).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// Success, continue authentication, or re-authenticate.
    pub reason: Reason,
    /// Absent only in an AUTH without properties.
    pub authentication_method: Option<Text>,
    /// Any bytes.
    pub authentication_data: Option<Bytes>,
    /// For people who read a log, not for programs.
    pub reason_string: Option<Text>,
    /// In their order.
    pub user_properties: UserProperties,
}
