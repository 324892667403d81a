//! A program behind a server that does nothing, and what its process holds in memory.

use std::sync::Arc;

use bytes::Bytes;
use edge_buffer::Fence;
use edge_core::access::authorization::Rights;
use edge_core::access::proof::Proof;
use edge_hub::service::{Admitted, Client, ConnectRequest, Login, Refusal, Rejected, Service};
use futures_util::future::BoxFuture;
use schemas::bag::PropertyBag;
use schemas::names::Identity;
use schemas::twin::Twin;
use serde_json::{Map, Value};

pub(crate) struct Program;

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
        _fence: Option<&Fence>,
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

/// Bytes that are this process's own.
pub(crate) fn memory_bytes() -> usize {
    let smaps = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = smaps.lines().find(|line| line.starts_with("Private_Dirty:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}
