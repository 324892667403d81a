//! The main job, end to end, on a real Docker Engine.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::path::PathBuf;

use site_tests::job::{self, Report};
use site_tests::site::Site;

#[tokio::test]
async fn the_main_job_holds_end_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let manifests = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../manifests");
    let mut site = Site::new(dir.path(), "job-gateway", true).unwrap();
    let mut report = Report::default();
    let result = async {
        let leaves = job::start(&mut site, &manifests, &mut report).await?;
        job::prove(&mut site, &manifests, leaves, &mut report).await
    }
    .await;
    let log = site.agent_log();
    let ended = site.end(true).await;
    result.unwrap();
    ended.unwrap();
    assert!(report.is_success(), "a step failed; the agent's log:\n{log}");
}
