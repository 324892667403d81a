//! The clients that were refused last: who each said it is, why it was refused, when, from where, and what it showed.
//!
//! Whoever reaches a listener can add to it under any name, so it is bounded, and nobody's flood displaces what technicians look for:
//! - Identities that the program knows have space of their own; names that nobody knows displace each other only.
//! - Within one identity each address has one record, which counts. A further address displaces the one that was quiet the longest.
//!
//! It is kept in memory: it says what is wrong now.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use edge_core::access::proof::Fingerprint;
use tokio::sync::Notify;

use crate::service::ConnectRequest;
use mqtt::codec::packet::Version;

/// Identities that the program knows, of which refusals are kept.
const KNOWN_MAX: usize = 1_024;
/// Names that it does not know.
const UNKNOWN_MAX: usize = 256;
/// Addresses of one identity.
const ADDRESSES_MAX: usize = 8;
/// Names and reasons are cut after so many characters.
const TEXT_CHARS_MAX: usize = 200;
/// Hexadecimal digits by which a token is named.
const TOKEN_DIGITS: usize = 16;

/// A client that was refused, once or often, from one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Who it said it is; empty when the connection ended before it said so.
    pub identity: String,
    /// Where it came from.
    pub address: IpAddr,
    /// Why it was refused the last time.
    pub why: String,
    /// `MQTT 3.1.1`, `MQTT 5`, `AMQP` or `TLS`.
    pub protocol: &'static str,
    /// What it showed the last time, by a fingerprint: a certificate or a token; `None` for a password or nothing.
    pub proof: Option<String>,
    /// When it was refused first since this is remembered, in milliseconds since the Unix epoch.
    pub first_ms: u64,
    /// When it was refused last.
    pub last_ms: u64,
    pub count: u64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Refusing<'a> {
    pub(crate) identity: &'a str,
    /// Whether the program knows an identity of this name.
    pub(crate) is_known: bool,
    pub(crate) address: IpAddr,
    pub(crate) why: &'a str,
    pub(crate) protocol: &'static str,
    pub(crate) proof: Option<&'a str>,
}

/// Refused clients of one server.
#[derive(Debug, Default)]
pub struct Refusals {
    kept: Mutex<Kept>,
    of_known: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    known: HashMap<String, Vec<Refused>>,
    unknown: HashMap<String, Vec<Refused>>,
}

impl Refusals {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a refusal.
    pub(crate) fn note(&self, now_ms: u64, refusing: Refusing<'_>) {
        let identity = cut(refusing.identity);
        if refusing.is_known {
            self.of_known.notify_one();
        }
        let mut kept = self.lock();
        if refusing.is_known {
            // It may have become known since.
            kept.unknown.remove(&identity);
        }
        let (identities, max) =
            if refusing.is_known { (&mut kept.known, KNOWN_MAX) } else { (&mut kept.unknown, UNKNOWN_MAX) };
        if !identities.contains_key(&identity) && identities.len() >= max {
            let quiet =
                identities.iter().min_by_key(|(_, records)| last_of(records)).map(|(name, _)| name.clone());
            quiet.map(|name| identities.remove(&name));
        }
        let records = identities.entry(identity.clone()).or_default();
        let (why, proof) = (cut(refusing.why), refusing.proof.map(cut));
        if let Some(record) = records.iter_mut().find(|record| record.address == refusing.address) {
            record.count += 1;
            record.last_ms = now_ms;
            (record.why, record.protocol, record.proof) = (why, refusing.protocol, proof);
            return;
        }
        if records.len() >= ADDRESSES_MAX
            && let Some((quiet, _)) = records.iter().enumerate().min_by_key(|(_, record)| record.last_ms)
        {
            records.swap_remove(quiet);
        }
        let (address, protocol) = (refusing.address, refusing.protocol);
        records.push(Refused {
            identity,
            address,
            why,
            protocol,
            proof,
            first_ms: now_ms,
            last_ms: now_ms,
            count: 1,
        });
    }

    /// Ends when a known identity was refused since this was called last. For one caller at a time.
    pub async fn known_refused(&self) {
        self.of_known.notified().await;
    }

    /// The last ones first: those of identities that the program knows, then those of names that it does not.
    pub fn all(&self) -> Vec<Refused> {
        let kept = self.lock();
        let sorted = |identities: &HashMap<String, Vec<Refused>>| {
            let mut records: Vec<Refused> = identities.values().flatten().cloned().collect();
            records.sort_by(|a, b| b.last_ms.cmp(&a.last_ms).then_with(|| a.identity.cmp(&b.identity)));
            records
        };
        let mut records = sorted(&kept.known);
        records.extend(sorted(&kept.unknown));
        records
    }
}

fn last_of(records: &[Refused]) -> u64 {
    records.iter().map(|record| record.last_ms).max().unwrap_or_default()
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The version as people say it.
pub(crate) fn protocol(version: Version) -> &'static str {
    match version {
        Version::V4 => "MQTT 3.1.1",
        Version::V5 => "MQTT 5",
    }
}

/// What a client showed, by a fingerprint. Of a token by its hash, which tells whether two were the same. Of a password there is none:
/// whoever reads the fingerprint could try passwords until one fits.
pub(crate) fn proof(request: &ConnectRequest) -> Option<String> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    if let Some(certificate) = request.client_cert() {
        return Some(format!("certificate SHA-256 {}", hex(&Fingerprint::of(certificate.leaf()).sha256)));
    }
    let password = request.password.as_ref()?.text()?;
    let has_signature = password.starts_with("SharedAccessSignature ") && password.contains("sig=");
    let digits = || hex(&Fingerprint::of(password.as_bytes()).sha256)[..TOKEN_DIGITS].to_owned();
    has_signature.then(|| format!("SAS token SHA-256 {}", digits()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusing(identity: &str, is_known: bool, address: [u8; 4]) -> Refusing<'_> {
        Refusing {
            identity,
            is_known,
            address: address.into(),
            why: "wrong key",
            protocol: "MQTT 5",
            proof: None,
        }
    }

    #[test]
    fn a_flood_of_names_displaces_no_refusal_of_a_known_identity() {
        let refusals = Refusals::default();
        refusals.note(1, refusing("press-1", true, [10, 0, 0, 1]));
        for number in 0..20_000u32 {
            let [_, a, b, c] = number.to_be_bytes();
            refusals.note(2 + u64::from(number), refusing(&format!("forged-{number}"), false, [10, a, b, c]));
        }
        let all = refusals.all();
        assert_eq!((all[0].identity.as_str(), all[0].count), ("press-1", 1));
        assert_eq!(all.len(), 1 + UNKNOWN_MAX);
        assert_eq!(all[1].identity, "forged-19999");
    }

    #[test]
    fn whoever_repeats_itself_counts_and_takes_no_space_of_others() {
        let refusals = Refusals::default();
        refusals.note(1, refusing("press-1", true, [10, 0, 0, 1]));
        for at in 0..10_000 {
            refusals.note(2 + at, refusing("press-1", true, [10, 0, 0, 2]));
        }
        let all = refusals.all();
        assert_eq!(all.iter().map(|refused| refused.count).collect::<Vec<_>>(), [10_000, 1]);
        // The quietest address gives way to a new one.
        for last in 3..=20u8 {
            refusals.note(20_000 + u64::from(last), refusing("press-1", true, [10, 0, 0, last]));
        }
        assert_eq!(refusals.all().len(), ADDRESSES_MAX);
    }

    #[test]
    fn everything_that_is_kept_is_bounded() {
        let refusals = Refusals::default();
        let (long, bad) = ("é".repeat(100_000), "a\n\u{1b}[2Jb");
        for number in 0..3_000u32 {
            let identity = format!("{number}{long}");
            let [_, _, a, b] = number.to_be_bytes();
            let why = if number % 2 == 0 { &*long } else { bad };
            for is_known in [true, false] {
                let address = [10, 0, a, b].into();
                let (identity, proof) = (&*identity, Some(&*long));
                let refusing = Refusing { identity, is_known, address, why, protocol: "MQTT 5", proof };
                refusals.note(u64::from(number), refusing);
            }
        }
        let all = refusals.all();
        assert_eq!(all.len(), KNOWN_MAX + UNKNOWN_MAX);
        let texts = |refused: &Refused| {
            [refused.identity.clone(), refused.why.clone(), refused.proof.clone().unwrap()]
        };
        for text in all.iter().flat_map(texts) {
            assert!(text.chars().count() <= TEXT_CHARS_MAX && !text.contains(char::is_control), "{text}");
        }
    }
}
