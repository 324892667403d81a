//! Frames of SASL, and the responses of two mechanisms (section 5.3).

use std::fmt;

use bytes::{Bytes, BytesMut};

use super::composite::composite;
use super::descriptor;
use super::error::DecodeError;
use super::limits::ReadLimits;
use super::reader::Reader;
use super::symbol::Symbol;
use super::wire::Wire;

/// Bytes that can hold a password: `Debug` shows their number only.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SecretBytes(pub Bytes);

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

impl Wire for SecretBytes {
    fn read(reader: &mut Reader, code: u8) -> Result<Self, DecodeError> {
        Bytes::read(reader, code).map(Self)
    }

    fn write(&self, out: &mut BytesMut) {
        self.0.write(out);
    }
}

composite! {
    /// The server's mechanisms.
    Mechanisms = 0x40 "sasl-mechanisms" {
        /// In the server's order of preference.
        many sasl_server_mechanisms "sasl-server-mechanisms": Symbol,
    }
}

composite! {
    /// The client's choice.
    Init = 0x41 "sasl-init" {
        /// One of the server's.
        required mechanism "mechanism": Symbol,
        /// Depends on the mechanism.
        optional initial_response "initial-response": SecretBytes,
        /// Host that the client means to have reached.
        optional hostname "hostname": String,
    }
}

composite! {
    /// A question of the server.
    Challenge = 0x42 "sasl-challenge" {
        /// Depends on the mechanism.
        required challenge "challenge": SecretBytes,
    }
}

composite! {
    /// Answers a challenge.
    Response = 0x43 "sasl-response" {
        /// Depends on the mechanism.
        required response "response": SecretBytes,
    }
}

composite! {
    /// Ends SASL. A protocol header follows if the code is [`Code::Ok`].
    Outcome = 0x44 "sasl-outcome" {
        /// Whether the client is authenticated.
        required code "code": Code,
        /// Depends on the mechanism.
        optional additional_data "additional-data": SecretBytes,
    }
}

/// Outcome of SASL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Code {
    /// The client is authenticated.
    Ok,
    /// The credentials are wrong.
    #[default]
    Auth,
    /// The server failed.
    System,
    /// The server failed, and the same attempt will fail again.
    SystemPermanent,
    /// The server failed, and a later attempt may succeed.
    SystemTemporary,
}

impl Wire for Code {
    fn read(reader: &mut Reader, code: u8) -> Result<Self, DecodeError> {
        Ok(match u8::read(reader, code)? {
            0 => Self::Ok,
            1 => Self::Auth,
            2 => Self::System,
            3 => Self::SystemPermanent,
            4 => Self::SystemTemporary,
            _ => return Err(DecodeError::Malformed("a code of an outcome that is not 0 to 4")),
        })
    }

    fn write(&self, out: &mut BytesMut) {
        let number: u8 = match self {
            Self::Ok => 0,
            Self::Auth => 1,
            Self::System => 2,
            Self::SystemPermanent => 3,
            Self::SystemTemporary => 4,
        };
        number.write(out);
    }
}

/// What a frame of SASL says.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the types say it")]
pub enum SaslFrame {
    Mechanisms(Mechanisms),
    Init(Init),
    Challenge(Challenge),
    Response(Response),
    Outcome(Outcome),
}

impl SaslFrame {
    /// Reads the body of a frame.
    ///
    /// # Errors
    /// [`DecodeError`]: it is none of SASL's, a field of it is wrong, or bytes follow it.
    pub fn read(body: Bytes, limits: ReadLimits) -> Result<Self, DecodeError> {
        const EXPECTED: &str = "SASL frame";
        let mut reader = Reader::new(body, limits);
        let frame = match descriptor::read(&mut reader, EXPECTED)? {
            Mechanisms::DESCRIPTOR => Self::Mechanisms(Mechanisms::read_list(&mut reader)?),
            Init::DESCRIPTOR => Self::Init(Init::read_list(&mut reader)?),
            Challenge::DESCRIPTOR => Self::Challenge(Challenge::read_list(&mut reader)?),
            Response::DESCRIPTOR => Self::Response(Response::read_list(&mut reader)?),
            Outcome::DESCRIPTOR => Self::Outcome(Outcome::read_list(&mut reader)?),
            other => return Err(descriptor::unexpected(other, EXPECTED)),
        };
        if reader.is_at_end() {
            Ok(frame)
        } else {
            Err(DecodeError::Malformed("bytes behind a frame of SASL"))
        }
    }

    /// Writes the body of a frame.
    pub fn write(&self, out: &mut BytesMut) {
        match self {
            Self::Mechanisms(mechanisms) => mechanisms.write(out),
            Self::Init(init) => init.write(out),
            Self::Challenge(challenge) => challenge.write(out),
            Self::Response(response) => response.write(out),
            Self::Outcome(outcome) => outcome.write(out),
        }
    }
}

/// User name and password of the mechanism PLAIN (RFC 4616).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainCredentials {
    /// Whom the user acts for; empty for itself.
    pub authorization_id: String,
    /// The user who authenticates.
    pub authentication_id: String,
    /// As sent.
    pub password: SecretBytes,
}

impl PlainCredentials {
    /// Reads `authorization id NUL user name NUL password`. `None` if a part is missing, the user name is empty or a name is not
    /// UTF-8.
    pub fn read(response: &Bytes) -> Option<Self> {
        let mut parts = response.splitn(3, |byte| *byte == 0);
        let mut name = || Some(std::str::from_utf8(parts.next()?).ok()?.to_owned());
        let (authorization_id, authentication_id) = (name()?, name()?);
        let password = SecretBytes(response.slice_ref(parts.next()?));
        (!authentication_id.is_empty()).then_some(Self { authorization_id, authentication_id, password })
    }
}
