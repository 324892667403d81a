//! Clients whose messages the disk fails to store send them again: what of each client is stored first is in order.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use edge_buffer::{Full, Log, LogOptions};
use edge_hub::settings::MqttServerSettings;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::site::{PATIENCE, Site};

const CLIENTS: usize = 3;
const MESSAGES: u16 = 300;
/// Messages that a client has in flight.
const WINDOW: u16 = 20;

/// A directory that can be made to fail: segments cannot be begun in it.
struct FailingDirectory {
    dir: TempDir,
}

impl FailingDirectory {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        std::fs::create_dir(dir.path().join("disk")).unwrap();
        std::fs::write(dir.path().join("no-disk"), "").unwrap();
        let this = Self { dir };
        this.lead_to("disk");
        this
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn lead_to(&self, to: &str) {
        let new = self.dir.path().join("new");
        std::os::unix::fs::symlink(Path::new(to), &new).unwrap();
        std::fs::rename(new, self.path()).unwrap();
    }
}

/// One connection: sends what is not acknowledged, until it ends or all is.
async fn send(address: SocketAddr, client_id: &str, acknowledged: &mut u16) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let mut connect = b"\x10\x11\0\x04MQTT\x04\x80\0\0\0\x02d1\0\x01u".to_vec();
    connect[14..16].copy_from_slice(client_id.as_bytes());
    stream.write_all(&connect).await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    let mut next = *acknowledged + 1;
    while *acknowledged < MESSAGES {
        while next <= MESSAGES && next <= *acknowledged + WINDOW {
            let (topic, payload) = (format!("devices/{client_id}/messages/events/"), format!("{next:05}"));
            let mut packet = vec![0x32, u8::try_from(2 + topic.len() + 2 + payload.len()).unwrap(), 0];
            packet.push(u8::try_from(topic.len()).unwrap());
            packet.extend_from_slice(topic.as_bytes());
            packet.extend_from_slice(&next.to_be_bytes());
            packet.extend_from_slice(payload.as_bytes());
            stream.write_all(&packet).await?;
            next += 1;
        }
        stream.read_exact(&mut answer).await?;
        assert_eq!(answer[..2], [0x40, 2], "a PUBACK");
        assert_eq!(u16::from_be_bytes([answer[2], answer[3]]), *acknowledged + 1, "in order");
        *acknowledged += 1;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_arrivals_of_each_client_are_in_order_while_the_disk_fails_and_heals() {
    let directory = FailingDirectory::new();
    let full = Full::Refuse;
    let options = LogOptions { segment_bytes: 1024, keep_free_bytes: 0, full, ..LogOptions::default() };
    let log = Log::open(&directory.path(), options.clone()).unwrap();
    let site = Site::open(MqttServerSettings::default()).await;
    *site.program.log.lock().unwrap() = Some(log.clone());
    let address = site.address;
    // From the first segment on: none of them is done before it has failed.
    directory.lead_to("no-disk");
    let failures = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for of in 0..CLIENTS {
        let failures = failures.clone();
        clients.spawn(async move {
            let (client_id, mut acknowledged) = (format!("d{of}"), 0);
            while acknowledged < MESSAGES {
                // It ends with an error whenever a message was not stored.
                if send(address, &client_id, &mut acknowledged).await.is_err() {
                    failures.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    let all = timeout(PATIENCE, async {
        while failures.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut fails = 0;
        while !clients.is_empty() {
            directory.lead_to("no-disk");
            // Once for so long that the log checks its files meanwhile.
            let fails_for = if fails == 10 { 1500 } else { 2 };
            tokio::time::sleep(Duration::from_millis(fails_for)).await;
            fails += 1;
            directory.lead_to("disk");
            if let Ok(Some(ended)) = timeout(Duration::from_millis(10), clients.join_next()).await {
                ended.unwrap();
            }
        }
    });
    all.await.expect("all is stored when the disk has healed");
    *site.program.log.lock().unwrap() = None;
    site.close().await;
    log.close().await;
    drop(log);

    let log = Log::open(&directory.path(), options).unwrap();
    let lost = log.stats().lost;
    assert_eq!((lost.damaged, lost.evicted), (0, 0), "{lost:?}");
    let mut arrived: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in log.records() {
        let text = String::from_utf8(record.unwrap().payload.to_vec()).unwrap();
        let (of, n) = text.split_once(' ').unwrap();
        let of = arrived.entry(of.to_owned()).or_default();
        if !of.iter().any(|known| known == n) {
            of.push(n.to_owned());
        }
    }
    assert_eq!(arrived.len(), CLIENTS);
    for (of, arrived) in arrived {
        assert_eq!(arrived.len(), usize::from(MESSAGES), "{of}");
        assert!(arrived.is_sorted(), "{of}: {arrived:?}");
    }
}
