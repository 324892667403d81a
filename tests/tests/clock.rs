//! A gateway's clock is not proven: what is right but for the time is told to come back, not refused for good.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use edge_core::access::sas;
use site_tests::site::{KEY_HERE, Site};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// CONNACK 5 makes Azure's Python SDK give up for good; 3 makes it try again.
#[tokio::test]
async fn a_right_token_that_this_clock_calls_expired_gets_connack_3_and_a_wrong_one_5() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "clock", false).unwrap();
    site.init_alone().await.unwrap();
    site.start_agent().await.unwrap();
    let mut login = site.add_here(&["press-1".into()]).await.unwrap().remove(0);
    let token = |key: &[u8]| sas::token("localhost", &"press-1".parse().unwrap(), key, 946_684_800);
    for (key, code) in [(&KEY_HERE[..], 3), (b"guessed", 5)] {
        login.account.as_mut().unwrap().1 = token(key);
        let mut stream = TcpStream::connect(("127.0.0.1", site.gateway_mqtt)).await.unwrap();
        stream.write_all(&login.connect(0)).await.unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [0x20, 2, 0, code]);
    }
    site.end(false).await.unwrap();
}
