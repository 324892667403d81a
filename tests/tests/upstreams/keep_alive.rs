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
    let mut connect = [0; 256];
    let read = stream.read(&mut connect).await.unwrap();
    // Fixed header, length, `MQTT`, level, flags, keep-alive (MQTT 3.1.1 section 3.1.2).
    assert_eq!((&connect[2..9], read > 12), (&b"\0\x04MQTT\x04"[..], true));
    assert_eq!(&connect[10..12], [0, 4]);
    stream.write_all(&[0x20, 2, 0, 0]).await.unwrap();
    let since = Instant::now();
    let mut said = Vec::new();
    let _ended = tokio::time::timeout(STEP, stream.read_to_end(&mut said)).await.unwrap();
    let silent = since.elapsed();
    // The default is 60 s; what is more than a keep-alive is for a loaded machine.
    assert_eq!(said, [0xc0, 0], "one question, and nothing else");
    assert!((Duration::from_millis(3_500)..Duration::from_secs(30)).contains(&silent), "{silent:?}");
    site.end(false).await.unwrap();
}
