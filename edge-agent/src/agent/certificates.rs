//! The gateway's certificates, and the tasks that keep them good.

use anyhow::{Context as _, Result};
use edge_hub::tasks::Tasks;
use edge_tls::issue::Authority;
use edge_tls::keep::Keeper;
use edge_tls::trust::TrustKeeper;
use tokio_util::sync::CancellationToken;

use crate::access::certificate;
use crate::config::Config;

pub(super) struct Certificates {
    pub(super) authority: Option<Authority>,
    pub(super) keeper: Keeper,
    pub(super) trust: TrustKeeper,
}

impl Certificates {
    pub(super) fn load(config: &Config) -> Result<Self> {
        let authority = certificate::authority(config);
        let trust = certificate::trust(config, authority.as_ref())?;
        let keeper = certificate::keeper(config, authority.clone())?;
        Ok(Self { authority, keeper, trust })
    }

    /// Starts the tasks; gives the gateway's certificate authority, if it has one.
    pub(super) fn keep(self, tasks: &mut Tasks, stop: &CancellationToken) -> Option<Authority> {
        let Self { authority, keeper, trust } = self;
        let stop_keeper = stop.clone();
        tasks.essential("certificate", async move {
            keeper.run(stop_keeper).await.context("keeping the server's certificate")
        });
        let stop_trust = stop.clone();
        tasks.essential("authorities of devices", async move {
            trust.run(stop_trust).await.context("keeping the authorities of devices")
        });
        authority
    }
}
