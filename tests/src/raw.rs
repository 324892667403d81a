//! MQTT 3.1.1 by hand: packets built once and sent as bytes, answers read by their place. What a load generator and a
//! misbehaving client need, and a client library does not give.

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::STEP;

#[derive(Debug, Clone)]
pub struct Login {
    pub client_id: String,
    /// The user name and the password; a broker without accounts wants none.
    pub account: Option<(String, String)>,
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend(u16::try_from(text.len()).expect("a test's text is short").to_be_bytes());
    out.extend(text.as_bytes());
}

/// A whole packet of a first byte and what follows the length.
pub fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut length = rest.len();
    loop {
        let digit = u8::try_from(length % 128).expect("a remainder of 128");
        length /= 128;
        out.push(if length > 0 { digit | 0x80 } else { digit });
        if length == 0 {
            break;
        }
    }
    out.extend(rest);
    out
}

impl Login {
    /// A CONNECT of a clean session; a keep-alive of 0 s asks for none.
    pub fn connect(&self, keep_alive_secs: u16) -> Vec<u8> {
        self.connect_with(keep_alive_secs, true)
    }

    fn connect_with(&self, keep_alive_secs: u16, is_clean: bool) -> Vec<u8> {
        let mut rest = Vec::new();
        text(&mut rest, "MQTT");
        rest.push(4);
        rest.push(if self.account.is_some() { 0xc0 } else { 0 } | if is_clean { 2 } else { 0 });
        rest.extend(keep_alive_secs.to_be_bytes());
        text(&mut rest, &self.client_id);
        if let Some((name, password)) = &self.account {
            text(&mut rest, name);
            text(&mut rest, password);
        }
        packet(0x10, &rest)
    }

    /// Connects to a port of this machine, without TLS and without keep-alive.
    ///
    /// # Errors
    /// When the connection is not accepted.
    pub async fn open(&self, port: u16) -> Result<TcpStream> {
        self.open_with(port, true).await
    }

    /// Leaves a session that is kept, with a subscription at QoS 1, and goes.
    ///
    /// # Errors
    /// When the connection is not accepted, or the subscription not granted.
    pub async fn leave_session(&self, port: u16, filter: &str) -> Result<()> {
        let mut stream = self.open_with(port, false).await?;
        subscribed(&mut stream, filter, 1).await?;
        stream.write_all(&packet(0xe0, &[])).await?;
        Ok(())
    }

    async fn open_with(&self, port: u16, is_clean: bool) -> Result<TcpStream> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&self.connect_with(0, is_clean)).await?;
        let answer =
            answer::<4>(&mut stream).await.with_context(|| format!("{} connects", self.client_id))?;
        ensure!(answer[..2] == [0x20, 2] && answer[3] == 0, "{}: CONNACK {answer:?}", self.client_id);
        Ok(stream)
    }
}

async fn answer<const LENGTH: usize>(stream: &mut TcpStream) -> Result<[u8; LENGTH]> {
    let mut answer = [0; LENGTH];
    match tokio::time::timeout(STEP, stream.read_exact(&mut answer)).await {
        Ok(read) => read.map(|_| answer).context("the connection was closed"),
        Err(_) => bail!("no answer within {STEP:?}"),
    }
}

/// A SUBSCRIBE of one filter.
pub fn subscribe(filter: &str, qos: u8) -> Vec<u8> {
    let mut rest = vec![0, 1];
    text(&mut rest, filter);
    rest.push(qos);
    packet(0x82, &rest)
}

/// Subscribes and waits until it was granted.
///
/// # Errors
/// When it was not.
pub async fn subscribed(stream: &mut TcpStream, filter: &str, qos: u8) -> Result<()> {
    stream.write_all(&subscribe(filter, qos)).await?;
    let answer = answer::<5>(stream).await.with_context(|| format!("subscribing to {filter}"))?;
    ensure!(answer[..2] == [0x90, 3] && answer[4] == qos, "SUBACK {answer:?} for {filter}");
    Ok(())
}

/// A PUBLISH; its packet identifier is of use with QoS 1 and 2 only.
pub fn publish(topic: &str, qos: u8, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut rest = Vec::new();
    text(&mut rest, topic);
    if qos > 0 {
        rest.extend(id.to_be_bytes());
    }
    rest.extend(payload);
    packet(0x30 | (qos << 1), &rest)
}

/// Where the packet identifier of such a PUBLISH stands.
pub fn place_of_id(packet: &[u8], topic: &str) -> usize {
    let length_bytes = packet[1..].iter().position(|byte| byte & 0x80 == 0).expect("a length ends") + 1;
    1 + length_bytes + 2 + topic.len()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_packet_says_its_own_length_also_beyond_127_bytes() {
        let short = publish("a/b", 1, 7, b"x");
        assert_eq!(short, [0x32, 8, 0, 3, b'a', b'/', b'b', 0, 7, b'x']);
        assert_eq!(place_of_id(&short, "a/b"), 7);
        let long = publish("a/b", 1, 0x0102, &[0; 300]);
        assert_eq!(long[..3], [0x32, 0xb3, 0x02]);
        let place = place_of_id(&long, "a/b");
        assert_eq!(long[place..place + 2], [1, 2]);
        assert_eq!(long.len(), 3 + 307);
    }

    #[test]
    fn a_connect_holds_the_account_only_when_there_is_one() {
        let mut login = Login { client_id: "c".into(), account: None };
        assert_eq!(login.connect(60), [0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'c']);
        login.account = Some(("u".into(), "p".into()));
        let connect = login.connect(0);
        assert_eq!((connect[1], connect[9]), (19, 0xc2));
        assert!(connect.ends_with(&[0, 1, b'c', 0, 1, b'u', 0, 1, b'p']));
    }
}
