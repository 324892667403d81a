//! A broker that is there and says nothing is given up within one keep-alive, the one that `edge.toml` has.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::broker::{STEP, gateway};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_goes_silent_is_given_up_after_the_keep_alive_of_the_configuration() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let upstream = format!(
        "kind = \"mqtt\"\nhost = \"127.0.0.1\"\nport = {port}\ntransport = \"plain\"\nversion = \"3.1.1\"\n\
         keep_alive_secs = 4\ntopic = \"site/{{device}}\"\n"
    );
    let mut site = gateway(dir.path(), "up-silent", &upstream).await;
    let (mut stream, _) = tokio::time::timeout(STEP, listener.accept()).await.unwrap().unwrap();
    // Fixed header, length, `MQTT`, level, flags, keep-alive (MQTT 3.1.1 section 3.1.2).
    let mut head = [0; 2];
    stream.read_exact(&mut head).await.unwrap();
    assert!(head[0] == 0x10 && head[1] > 10 && head[1] < 0x80, "{head:?}");
    let mut connect = vec![0; usize::from(head[1])];
    stream.read_exact(&mut connect).await.unwrap();
    assert_eq!((&connect[..7], &connect[8..10]), (&b"\0\x04MQTT\x04"[..], &[0, 4][..]));
    let since = Instant::now();
    stream.write_all(&[0x20, 2, 0, 0]).await.unwrap();
    let mut said = Vec::new();
    let _ended = tokio::time::timeout(STEP, stream.read_to_end(&mut said)).await.unwrap();
    let silent = since.elapsed();
    // Not at the first opportunity, and not after the 60 s that are the default; the rest is for a loaded machine.
    assert_eq!(said, [0xc0, 0], "one question, and nothing else");
    assert!((Duration::from_millis(3_500)..Duration::from_secs(55)).contains(&silent), "{silent:?}");
    site.end(false).await.unwrap();
}
