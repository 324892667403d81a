//! What a connection costs that says nothing. In a process of its own: the memory of a process is shared by its tests.

#![allow(clippy::unwrap_used, reason = "tests; the leave for them does not reach helper functions")]

mod idle_program;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use edge_hub::files::FileBudget;
use edge_hub::mqtt_server::MqttServer;
use edge_hub::sessions::Sessions;
use edge_hub::settings::MqttServerSettings;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use idle_program::{Program, memory_bytes};

/// Promised: at most 4 kB for each connected client that is idle and plain, which the benchmark holds a program with optimizations to.
/// This build measures 3.94 kB, and the rest is for pages that the process needs for something else meanwhile.
const BYTES_MAX: usize = 4_096;
const CLIENTS: usize = 200;
/// Batches of clients that are measured together: tables that grow do so in some of them, and a page that the process needs for
/// something else is little among so many.
const BATCHES: usize = 7;

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
    // Each has a file here and one at the server.
    let files =
        FileBudget { reserved: 100, connections_max: CLIENTS * (1 + BATCHES), files_per_connection: 2 };
    files.claim().unwrap();
    let dir = tempfile::TempDir::new().unwrap();
    let sessions = Sessions::open(dir.path(), MqttServerSettings::default()).await.unwrap();
    let (server, stop) = (MqttServer::new(sessions, Arc::new(Program)), CancellationToken::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(server.clone().serve_tcp(listener, stop.clone()));
    // One thread for all of them: another one would be counted as theirs.
    let (order, orders) = std::sync::mpsc::channel();
    let (connected, mut are_connected) = tokio::sync::mpsc::unbounded_channel();
    let clients = std::thread::spawn(move || {
        let mut idle = Vec::new();
        for batch in orders {
            idle.push(connect(address, batch * CLIENTS));
            connected.send(()).unwrap();
        }
    });
    // The first ones pay for what all share.
    order.send(0).unwrap();
    are_connected.recv().await.unwrap();
    let before = memory_bytes();
    for batch in 1..=BATCHES {
        order.send(batch).unwrap();
        are_connected.recv().await.unwrap();
    }
    let each = (memory_bytes() - before) / (CLIENTS * BATCHES);
    assert!(each <= BYTES_MAX, "{each} bytes for each idle connection");
    println!("{each} bytes for each idle connection");
    drop(order);
    tokio::task::spawn_blocking(move || clients.join().unwrap()).await.unwrap();
    stop.cancel();
    served.await.unwrap();
    server.close().await;
}
