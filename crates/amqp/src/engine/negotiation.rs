//! Before open: which protocol, and SASL.

use bytes::BytesMut;

use super::event::Credentials;
use super::fault::Fault;
use super::outbox::Outbox;
use super::settings::{Mechanism, MechanismKind, Settings};
use crate::codec::frame::{self, FrameKind, Protocol, ReadFrame};
use crate::codec::sasl::{Code, Init, Mechanisms, Outcome, PlainCredentials, SaslFrame, SecretBytes};

/// ```text
/// Header ── AMQP 0 ─────────────────────────────────────────────────► (open)
///    └───── AMQP 3 ──► Init ──► Verifying ── ok ──► HeaderAfterSasl ───┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Negotiation {
    Header,
    Init,
    Verifying,
    HeaderAfterSasl,
}

/// What the client's bytes led to.
#[derive(Debug)]
pub(super) enum Step {
    /// Bytes are missing, or the application's answer is.
    Wait,
    Next(Negotiation),
    Authenticate(Credentials),
    /// SASL has failed: the connection ends without a close, which belongs to a layer that has not begun.
    Failed(&'static str),
    /// Frames of AMQP follow.
    Done,
}

impl Negotiation {
    pub(super) fn step(
        self,
        buffer: &mut BytesMut,
        settings: &Settings,
        outbox: &mut Outbox,
    ) -> Result<Step, Fault> {
        match self {
            Self::Header | Self::HeaderAfterSasl => Ok(self.header(buffer, settings, outbox)),
            Self::Init => init(buffer, settings, outbox),
            Self::Verifying => Ok(Step::Wait),
        }
    }

    fn header(self, buffer: &mut BytesMut, settings: &Settings, outbox: &mut Outbox) -> Step {
        let is_before_sasl = self == Self::Header;
        let read = match Protocol::read(buffer) {
            Ok(None) => return Step::Wait,
            Ok(Some(protocol)) => Some(protocol),
            Err(_) => None,
        };
        match read {
            Some(Protocol::Amqp) if !is_before_sasl || settings.allows_bare_connections => {
                outbox.header(Protocol::Amqp.header());
                Step::Done
            }
            Some(Protocol::Sasl) if is_before_sasl => {
                outbox.header(Protocol::Sasl.header());
                let sasl_server_mechanisms =
                    settings.mechanisms.iter().map(|known| known.name.clone()).collect();
                outbox.sasl(&SaslFrame::Mechanisms(Mechanisms { sasl_server_mechanisms }));
                Step::Next(Self::Init)
            }
            // What would be understood is the answer to anything else (section 2.2).
            _ => {
                let protocol = if is_before_sasl { Protocol::Sasl } else { Protocol::Amqp };
                outbox.header(protocol.header());
                Step::Failed("the client's protocol is not spoken here")
            }
        }
    }
}

fn init(buffer: &mut BytesMut, settings: &Settings, outbox: &mut Outbox) -> Result<Step, Fault> {
    let frame = match frame::read(buffer, settings.sasl_frame_bytes_max)? {
        ReadFrame::Missing(_) => return Ok(Step::Wait),
        ReadFrame::Whole(frame) => frame,
    };
    if frame.kind != FrameKind::Sasl {
        return Ok(Step::Failed("a frame of AMQP during SASL"));
    }
    let SaslFrame::Init(init) = SaslFrame::read(frame.body, settings.read_limits)? else {
        return Ok(Step::Failed("a frame of SASL that is not the client's turn"));
    };
    Ok(credentials(init, &settings.mechanisms).map_or_else(
        || {
            answer(Code::Auth, outbox);
            Step::Failed("a mechanism that is not offered, or a response that is not of the mechanism")
        },
        Step::Authenticate,
    ))
}

fn credentials(init: Init, mechanisms: &[Mechanism]) -> Option<Credentials> {
    let mechanism = mechanisms.iter().find(|known| known.name == init.mechanism)?;
    let response = init.initial_response.unwrap_or_default();
    Some(match mechanism.kind {
        MechanismKind::Anonymous => Credentials::Anonymous,
        MechanismKind::External => Credentials::External(response),
        MechanismKind::Plain => {
            let SecretBytes(response) = response;
            Credentials::Plain(PlainCredentials::read(&response)?)
        }
    })
}

/// Ends SASL.
pub(super) fn answer(code: Code, outbox: &mut Outbox) {
    outbox.sasl(&SaslFrame::Outcome(Outcome { code, additional_data: None }));
}
