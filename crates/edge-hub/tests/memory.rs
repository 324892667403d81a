//! What a connection costs that says nothing. In a process of its own: the memory of a process is shared by its tests.

#![allow(clippy::unwrap_used, reason = "tests; the leave for them does not reach helper functions")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use bytes::Bytes;
use edge_core::access::authorization::Rights;
use edge_core::access::proof::Proof;
use edge_hub::mqtt_server::MqttServer;
use edge_hub::service::{Admitted, Client, ConnectRequest, Login, Refusal, Rejected, Service};
use edge_hub::sessions::Sessions;
use edge_hub::settings::MqttServerSettings;
use futures_util::future::BoxFuture;
use schemas::bag::PropertyBag;
use schemas::names::Identity;
use schemas::twin::Twin;
use serde_json::{Map, Value};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Promised: at most 4 kB for each connected client that is idle and plain, which the benchmark holds a program with optimizations to.
/// This build measures 3.97 kB, and the rest is for pages that the process needs for something else meanwhile.
const BYTES_MAX: usize = 4_096;
const CLIENTS: usize = 200;
/// Batches of clients that are measured together: tables that grow do so in one of them.
const BATCHES: usize = 3;

struct Program;

impl Service for Program {
    type Denied = std::convert::Infallible;

    fn may_leave_will(&self, _left_by: &Identity, _topic: &str) -> Result<(), Self::Denied> {
        Ok(())
    }

    async fn authenticate(self: &Arc<Self>, request: ConnectRequest) -> Result<Admitted, Refusal> {
        let identity = request.client_id.parse().unwrap();
        Ok(Admitted { identity, proof: Proof::IdentityAlone, ends_at: None, generation: 0 })
    }

    fn authorize(&self, _identity: &Identity, _login: &Login) -> Result<Rights, Self::Denied> {
        Ok(Rights::all())
    }

    fn telemetry(
        self: &Arc<Self>,
        _client: &Client,
        _from: Identity,
        _bag: PropertyBag,
        _payload: Bytes,
    ) -> BoxFuture<'static, Result<(), Rejected>> {
        Box::pin(async { Ok(()) })
    }

    fn telemetry_will(
        self: &Arc<Self>,
        _left_by: &Identity,
        _from: Identity,
        _bag: PropertyBag,
        _payload: Bytes,
    ) -> BoxFuture<'static, Result<(), Rejected>> {
        Box::pin(async { Ok(()) })
    }

    async fn twin(self: &Arc<Self>, _client: &Client) -> Result<Twin, Rejected> {
        Ok(Twin::default())
    }

    async fn report(self: &Arc<Self>, _client: &Client, _patch: Map<String, Value>) -> Result<u64, Rejected> {
        Ok(1)
    }
}

fn memory_bytes() -> usize {
    let smaps = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = smaps.lines().find(|line| line.starts_with("Private_Dirty:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

fn connect(address: SocketAddr, first: usize) -> Vec<TcpStream> {
    (first..first + CLIENTS)
        .map(|n| {
            let mut stream = TcpStream::connect(address).unwrap();
            let name = format!("device-{n:06}");
            let mut body = b"\0\x04MQTT\x04\x02\0\0\0".to_vec();
            body.push(name.len() as u8);
            body.extend(name.as_bytes());
            stream.write_all(&[&[0x10, body.len() as u8][..], &body].concat()).unwrap();
            let mut connack = [0; 4];
            stream.read_exact(&mut connack).unwrap();
            assert_eq!(connack, [0x20, 2, 0, 0]);
            stream
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_idle_connection_costs_at_most_4_kb() {
    let dir = tempfile::TempDir::new().unwrap();
    let sessions = Sessions::open(dir.path(), MqttServerSettings::default()).await.unwrap();
    let (server, stop) = (MqttServer::new(sessions, Arc::new(Program)), CancellationToken::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(server.clone().serve_tcp(listener, stop.clone()));
    // The first ones pay for what all share.
    let warm = tokio::task::spawn_blocking(move || connect(address, 0)).await.unwrap();
    let before = memory_bytes();
    let connect_all =
        move || (1..=BATCHES).map(|batch| connect(address, batch * CLIENTS)).collect::<Vec<_>>();
    let idle = tokio::task::spawn_blocking(connect_all).await.unwrap();
    let each = (memory_bytes() - before) / (CLIENTS * BATCHES);
    assert!(each <= BYTES_MAX, "{each} bytes for each idle connection");
    println!("{each} bytes for each idle connection");
    drop((warm, idle));
    stop.cancel();
    served.await.unwrap();
    server.close().await;
}
