//! A name server for one name: it answers with an address, with an error, or not at all.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The name has this address, for now (time to live 0).
    Address(Ipv4Addr),
    Unknown,
    /// It cannot tell (SERVFAIL).
    Broken,
    Silent,
}

/// A name server on port 53 of an address of loopback, until it is dropped.
pub struct NameServer {
    pub address: Ipv4Addr,
    answer: Arc<Mutex<Answer>>,
    task: JoinHandle<()>,
}

impl NameServer {
    /// Starts it.
    ///
    /// # Errors
    /// When port 53 is taken there, or this is not root.
    pub async fn start(answer: Answer) -> Result<Self> {
        let [.., high, low] = std::process::id().to_be_bytes();
        let address = Ipv4Addr::new(127, 83, high, low.max(1));
        let listen = SocketAddr::from((address, 53));
        let socket = UdpSocket::bind(listen).await.with_context(|| format!("a name server on {listen}"))?;
        let answer = Arc::new(Mutex::new(answer));
        let says = answer.clone();
        let task = tokio::spawn(async move {
            let mut buffer = [0; 512];
            loop {
                let Ok((length, asker)) = socket.recv_from(&mut buffer).await else { continue };
                let now = *says.lock().expect("nothing panics while it holds the answer");
                if let Some(reply) = reply(&buffer[..length], now) {
                    let _ = socket.send_to(&reply, asker).await;
                }
            }
        });
        Ok(Self { address, answer, task })
    }

    /// From now on it says this.
    pub fn say(&self, answer: Answer) {
        *self.answer.lock().expect("nothing panics while it holds the answer") = answer;
    }

    /// What `/etc/resolv.conf` says to ask it, and to be done soon.
    pub fn resolv_conf(&self) -> String {
        format!("nameserver {}\noptions timeout:1 attempts:2\n", self.address)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The answer to a query (RFC 1035, section 4); `None` to say nothing.
fn reply(query: &[u8], answer: Answer) -> Option<Vec<u8>> {
    const HEADER_BYTES: usize = 12;
    let name_bytes = query.get(HEADER_BYTES..)?.iter().position(|byte| *byte == 0)? + 1;
    let question_end = HEADER_BYTES + name_bytes + 4;
    let kind = query.get(question_end - 4..question_end - 2)?;
    let (code, address) = match answer {
        Answer::Silent => return None,
        Answer::Unknown => (3, None),
        Answer::Broken => (2, None),
        // A name may have no address of the other kind.
        Answer::Address(address) => (0, Some(address).filter(|_| kind == [0, 1])),
    };
    let mut out = query[..2].to_vec();
    // A response; recursion was asked for and is there.
    out.extend([0x81, 0x80 | code, 0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
    out.extend(&query[HEADER_BYTES..question_end]);
    if let Some(address) = address {
        // The name of the question, type A, class IN, time to live 0, four bytes.
        out.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        out.extend(address.octets());
    }
    Some(out)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_the_address_and_a_query_that_is_cut_gets_none() {
        let query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01c\x04test\x00\x00\x01\x00\x01";
        let reply_of = |answer| reply(query, answer);
        let with = reply_of(Answer::Address(Ipv4Addr::new(198, 18, 0, 2))).unwrap();
        assert_eq!((&with[..4], &with[with.len() - 4..]), (&b"\x12\x34\x81\x80"[..], &[198, 18, 0, 2][..]));
        assert_eq!(reply_of(Answer::Unknown).unwrap()[3], 0x83);
        assert_eq!(reply_of(Answer::Silent), None);
        assert_eq!(reply(&query[..20], Answer::Unknown), None);
    }
}
