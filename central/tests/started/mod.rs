//! central in this process, on a directory and ports of its own, for tests that look at its store.

use std::path::Path;
use std::time::{Duration, Instant};

use central::config::Config;
use central::server::{self, Started};
use tokio_util::sync::CancellationToken;

/// A process that another test starts has this one's lock files open between its fork and its exec, which takes as long as the machine
/// is busy.
const FORKED: Duration = Duration::from_secs(60);

pub(crate) async fn start(dir: &Path) -> anyhow::Result<(Started, CancellationToken)> {
    let any = ([127, 0, 0, 1], 0).into();
    let mut config =
        Config { hostname: "central.test".into(), data_dir: dir.to_owned(), ..Config::default() };
    (config.http.listen, config.mqtt.mqtts, config.metrics.listen) = (any, any, None);
    let stop = CancellationToken::new();
    let until = Instant::now() + FORKED;
    loop {
        match server::start(config.clone(), stop.clone()).await {
            Err(error)
                if error.to_string().contains("in use by another central") && Instant::now() < until =>
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            started => return Ok((started?, stop)),
        }
    }
}

pub(crate) async fn end((started, stop): (Started, CancellationToken)) {
    stop.cancel();
    started.ended().await.unwrap();
}
