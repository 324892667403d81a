//! central in this process, on a directory and ports of its own, for tests that look at its store.

#[path = "../starting/mod.rs"]
pub(crate) mod starting;

use std::path::Path;

use central::config::Config;
use central::server::{self, Started};
use tokio_util::sync::CancellationToken;

pub(crate) async fn start(dir: &Path) -> anyhow::Result<(Started, CancellationToken)> {
    let any = ([127, 0, 0, 1], 0).into();
    let mut config =
        Config { hostname: "central.test".into(), data_dir: dir.to_owned(), ..Config::default() };
    (config.http.listen, config.mqtt.mqtts, config.metrics.listen) = (any, any, None);
    let stop = CancellationToken::new();
    drop(starting::starting());
    Ok((server::start(config, stop.clone()).await?, stop))
}

pub(crate) async fn end((started, stop): (Started, CancellationToken)) {
    stop.cancel();
    started.ended().await.unwrap();
}
