//! What a program must answer to stand behind the MQTT server: one method for each thing a client can do.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use edge_buffer::Fence;
use edge_core::access::attestation::Evidence;
use edge_core::access::authorization::Rights;
use edge_core::access::proof::Proof;
use edge_core::access::secret::Secret;
use edge_core::access::x509::PresentedChain;
use edge_core::dialect::client::Subscribe;
use edge_core::dialect::link::LinkUp;
use futures_util::future::BoxFuture;
use rustls::pki_types::CertificateDer;
use schemas::bag::PropertyBag;
use schemas::names::Identity;
use schemas::provisioning::{EnrolmentAnswer, EnrolmentRequest};
use schemas::twin::Twin;
use serde_json::{Map, Value};

/// The certificates that a client showed in its TLS handshake, where it also proved to hold the key of the first; what
/// they are worth is decided when it connects. Cheap to clone.
#[derive(Clone)]
pub struct ClientCert(Arc<[CertificateDer<'static>]>);

impl ClientCert {
    /// From a handshake, the client's own certificate first; `None` for an empty chain.
    pub fn new(chain: &[CertificateDer<'_>]) -> Option<Self> {
        match chain {
            [] => None,
            chain => Some(Self(chain.iter().map(|der| der.clone().into_owned()).collect())),
        }
    }

    /// The client's own certificate, DER.
    pub fn leaf(&self) -> &[u8] {
        self.0.first().map_or(&[], |der| der.as_ref())
    }

    /// What it showed beside its own certificate, DER.
    pub fn intermediates(&self) -> &[CertificateDer<'static>] {
        self.0.get(1..).unwrap_or(&[])
    }
}

/// How the bytes of a connection travel.
#[derive(Clone)]
pub enum Transport {
    /// Plain TCP. Programs listen for it on loopback only.
    Plain,
    /// TLS, with what the client showed in its handshake.
    Tls(Option<ClientCert>),
}

impl Transport {
    /// Returns true for plain TCP.
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Plain)
    }
}

/// A CONNECT as the service sees it.
#[derive(Clone)]
pub struct ConnectRequest {
    pub client_id: String,
    pub user_name: Option<String>,
    /// As sent: a SAS token, or a user's password.
    pub password: Option<Secret>,
    pub transport: Transport,
    /// Where the connection comes from.
    pub peer: SocketAddr,
}

impl ConnectRequest {
    /// The certificates that the client showed in its TLS handshake.
    pub fn client_cert(&self) -> Option<&ClientCert> {
        match &self.transport {
            Transport::Plain => None,
            Transport::Tls(shown) => shown.as_ref(),
        }
    }

    /// Returns true when it gives neither a user name nor a password.
    pub fn is_anonymous(&self) -> bool {
        let has_name = self.user_name.as_ref().is_some_and(|name| !name.is_empty());
        !has_name && self.password.as_ref().is_none_or(|password| password.bytes().is_empty())
    }

    /// What it shows to prove who it is.
    pub fn evidence(&self) -> Evidence<'_> {
        let certificate = self.client_cert();
        Evidence {
            password: self.password.as_ref(),
            certificate: certificate
                .map(|shown| PresentedChain { leaf: shown.leaf(), intermediates: shown.intermediates() }),
        }
    }
}

/// A CONNECT that was proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    pub identity: Identity,
    pub proof: Proof,
    /// When the proof is worth nothing any more and the connection ends, in seconds since the Unix epoch.
    pub ends_at: Option<u64>,
    /// Goes into [`Login::generation`].
    pub generation: u64,
}

/// How a client came in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Login {
    pub client_id: String,
    pub proof: Proof,
    /// Tells whether the identity was removed since, and given to another client: the program's own number, from before it
    /// looked up what the client must prove.
    pub generation: u64,
}

/// A connected client: who it is and which of its connections this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    pub identity: Identity,
    /// Grows with every connection that the server accepts; tells a client's new connection from its old one.
    pub connection: u64,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// How it came in.
    pub login: Arc<Login>,
}

/// Why a client may not come in. The reason goes to the log; the client learns only the code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// CONNACK 5: not who it says it is, unknown, or blocked.
    #[error("{0}")]
    NotAuthorized(String),
    /// CONNACK 3: the service cannot tell yet; the client may try again (SDKs give up for good on 5).
    #[error("{0}")]
    Unavailable(String),
}

/// Why an operation was not done. A telemetry message rejected as [`Rejected::Temporary`] gets no PUBACK and its
/// connection is closed, so that the client sends it again; one rejected for good is acknowledged, counted and logged. For
/// one that there is no space for, a client of MQTT 5 gets reason code 0x97 and the connection stays; a client of MQTT 3.1.1 gets
/// no PUBACK, goes on, and is closed after `MqttServerSettings::full_timeout`, so that it sends again what was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The message or request itself is wrong: HTTP-like status 400 to 499, and why.
    #[error("{1}")]
    Wrong(u16, String),
    /// Not possible now: HTTP-like status 429 or 500 to 599, and why.
    #[error("{1}")]
    Temporary(u16, String),
    /// There is no space for it, and why.
    #[error("{0}")]
    Full(String),
}

/// The program behind the server. Shared by all sessions.
pub trait Service: Send + Sync + 'static {
    /// Why a client that was proven may not stay, or may not publish its will.
    type Denied: std::error::Error;

    /// Whether the proof that a CONNECT shows could be found by trying. Then failed logins delay the next ones. A token made
    /// with a key, a certificate, or a password that was right before cannot: it is checked at once, whoever has failed.
    fn is_guessable(&self, _request: &ConnectRequest) -> bool {
        true
    }

    /// Whether clients of plain connections may leave out user name and password. Those that leave out the client id too
    /// are given one then.
    fn has_anonymous_user(&self) -> bool {
        false
    }

    /// Whether the identity that a CONNECT claims is one of this program's. Refusals of known identities are kept apart from those
    /// of names that anybody makes up.
    fn knows(&self, _request: &ConnectRequest) -> bool {
        false
    }

    /// Proves who a CONNECT is. A client id that is already connected is taken over by the new connection.
    fn authenticate(
        self: &Arc<Self>,
        request: ConnectRequest,
    ) -> impl Future<Output = Result<Admitted, Refusal>> + Send;

    /// What a proven client may do on free topics now. Called before its session opens and once more when it is open; the
    /// program calls `Clients::review` whenever the result may have changed.
    ///
    /// # Errors
    /// When the client may not stay connected.
    fn authorize(&self, identity: &Identity, login: &Login) -> Result<Rights, Self::Denied>;

    /// Takes one telemetry message. The future ends when the message is on disk, and only then is it acknowledged.
    ///
    /// Order: whatever fixes a message's place in a queue must be done before this method returns, not when the future
    /// is first polled; a session calls it once for each message in the order of arrival and keeps many futures. After one
    /// that failed, nothing further of the connection may be stored: the client sends all of it again. `fence` is the
    /// connection's; a session that finds it set takes nothing more.
    fn telemetry(
        self: &Arc<Self>,
        client: &Client,
        from: Identity,
        bag: PropertyBag,
        payload: Bytes,
        fence: Option<&Fence>,
    ) -> BoxFuture<'static, Result<(), Rejected>>;

    /// Takes the will of a client that is gone, on a telemetry topic that [`Service::may_speak_for`] allowed it at CONNECT;
    /// the program decides anew whether `left_by` may still speak for `from`. `bag` has what IoT Hub gives it. Same rules as for
    /// [`Service::telemetry`], but one that is rejected for now is offered again.
    fn telemetry_will(
        self: &Arc<Self>,
        left_by: &Identity,
        from: Identity,
        bag: PropertyBag,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<(), Rejected>>;

    /// Whether a client that is gone may still publish its will on this free topic: called when the will is due, before its
    /// subscribers get it. Its user may have been removed since, the device blocked, or the rules changed.
    ///
    /// # Errors
    /// Why it may not.
    fn may_leave_will(&self, left_by: &Identity, topic: &str) -> Result<(), Self::Denied>;

    /// Returns true for a client that was deleted since it came in: its will is not published, for it would be taken for one of
    /// the next client of its name.
    fn is_removed(&self, _client: &Client) -> bool {
        false
    }

    /// Whether any message on a free topic is wanted beside its subscribers: asked for every one of them.
    fn takes_free(&self) -> bool {
        false
    }

    /// Takes a message on a free topic, which its subscribers get all the same; `bag` has its MQTT 5 properties. Same rules
    /// as for [`Service::telemetry`]: its acknowledgement waits for the future. One with QoS 0 waits for nothing, and its
    /// failure ends no connection: it has no fence.
    fn free(
        self: &Arc<Self>,
        _client: &Client,
        _topic: &str,
        _bag: PropertyBag,
        _payload: Bytes,
        _fence: Option<&Fence>,
    ) -> BoxFuture<'static, Result<(), Rejected>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Takes the will of a client that is gone, on a free topic. Its subscribers get it all the same. One that is rejected
    /// for now is offered again.
    fn free_will(
        self: &Arc<Self>,
        _of: &Identity,
        _topic: &str,
        _bag: PropertyBag,
        _payload: Bytes,
    ) -> BoxFuture<'static, Result<(), Rejected>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// The client's own twin.
    fn twin(self: &Arc<Self>, client: &Client) -> impl Future<Output = Result<Twin, Rejected>> + Send;

    /// Merges a patch into the client's own reported section; gives the new version. The patch is a valid one.
    fn report(
        self: &Arc<Self>,
        client: &Client,
        patch: Map<String, Value>,
    ) -> impl Future<Output = Result<u64, Rejected>> + Send;

    /// Whether `client` may publish telemetry of `other`: a gateway for the devices behind it. Never called for `client` itself.
    fn may_speak_for(&self, _client: &Client, _other: &Identity) -> bool {
        false
    }

    /// Whether `client` is a gateway, and may use the link's topics.
    fn is_gateway(&self, _client: &Client) -> bool {
        false
    }

    /// Takes what a gateway says on its link. Same rules as for [`Service::telemetry`].
    fn link(
        self: &Arc<Self>,
        _client: &Client,
        _operation: LinkUp,
        _payload: Bytes,
    ) -> BoxFuture<'static, Result<(), Rejected>> {
        Box::pin(async { Err(Rejected::Wrong(400, "the link is for gateways at central".into())) })
    }

    /// Answers a device that enrols itself; its identity is one of [`Identity::enrolling`].
    fn enrol(
        self: &Arc<Self>,
        _client: &Client,
        _request: EnrolmentRequest,
    ) -> impl Future<Output = EnrolmentAnswer> + Send {
        async { EnrolmentAnswer::failure(404, "nobody can enrol here") }
    }

    /// A client is connected, after its CONNACK was written.
    fn connected(self: &Arc<Self>, _client: &Client) {}

    /// A client's connection ended. Not called for a connection that a newer one of the same client replaced.
    fn disconnected(self: &Arc<Self>, _client: &Client, _why: &str) {}

    /// A client subscribed, after its SUBACK was written, or came back to a session that holds the subscription.
    fn subscribed(self: &Arc<Self>, _client: &Client, _to: &Subscribe) {}
}
