//! What gateways report: properties of devices and modules, who is connected to them, lost messages, and removed devices.

use std::sync::Arc;

use edge_core::error_chain::chain;
use edge_hub::clients::Clients;
use futures_util::future::{BoxFuture, FutureExt as _};
use rusqlite::Connection;
use schemas::generation::{Counter, Generation};
use schemas::link::{ClientPresence, Losses, Presence, RemovedDevice, Reported};
use schemas::names::{DeviceId, Identity, ModuleId};
use schemas::twin::Section;

use super::connections::Connections;
use super::speaker::Speaker;
use super::turns::Turns;
use crate::access::authenticator::Authenticator;
use crate::access::authorize::{Statement, authorize, remove_claim};
use crate::clock::now_ms;
use crate::error::ServiceError;
use crate::store::twins::{self, Half};
use crate::store::{Store, devices, losses};

/// The largest reported section of a system module: a gateway's report on a manifest of some hundred modules.
const REPORT_BYTES_MAX: usize = 256 * 1024;
/// Clients of which one work of the writer looks up who they are: some hundredths of a second.
const PRESENCE_PART_MAX: usize = 250;

/// Stores the reports of gateways.
pub struct GatewayReports {
    store: Store,
    clients: Clients,
    connections: Arc<Connections>,
    authenticator: Arc<Authenticator>,
    /// Of lists in which a sender is looked up for each client or loss.
    turns: Turns,
}

impl GatewayReports {
    pub fn new(
        store: Store,
        clients: Clients,
        connections: Arc<Connections>,
        authenticator: Arc<Authenticator>,
    ) -> Self {
        Self { store, clients, connections, authenticator, turns: Turns::default() }
    }

    /// Stores a reported section of `of`.
    pub(crate) fn reported(
        &self,
        gateway: DeviceId,
        of: Identity,
        reported: Reported,
        size_bytes: usize,
    ) -> BoxFuture<'static, Result<(), ServiceError>> {
        let Reported { section, generation } = reported;
        if let Err(error) = check_report(&of, &section) {
            return std::future::ready(Err(error)).boxed();
        }
        let now_ms = now_ms();
        let work = move |c: &Connection| {
            authorize(c, &gateway, &of, Statement::Reported, generation)?;
            if of.module.is_none()
                && let Some(Generation { number, counter: Counter::Central, .. }) = generation
                && devices::get(c, &of.device)?.is_some_and(|device| device.attachment != number)
            {
                // The gateway does not know yet that this is another device. An error would make it send this for ever.
                tracing::info!(device = %of, %gateway, "reported properties of an earlier device of this id were left out");
                return Ok(());
            }
            let stored = twins::section(c, &of, Half::Reported)?.section;
            // A gateway that lost its data counts from the beginning again: a lower version is a change too.
            if stored.version != section.version || stored.properties != section.properties {
                twins::write(c, &of, Half::Reported, &section, now_ms)?;
            }
            Ok(())
        };
        self.store.submit_then(size_bytes, work, |()| {})
    }

    /// Ends the registration of a device that was added on its gateway and removed there, unless an operator has taken it over.
    pub(crate) fn removed(
        &self,
        gateway: DeviceId,
        removed: RemovedDevice,
    ) -> BoxFuture<'static, Result<(), ServiceError>> {
        let (store, authenticator) = (self.store.clone(), self.authenticator.clone());
        // Behind the lists that were sent before it, which may name the device.
        let mut turn = self.turns.take(&gateway);
        Box::pin(async move {
            turn.come().await;
            let id = removed.device_id.clone();
            let is_removed = store.submit(move |c| remove_claim(c, &gateway, &removed)).await?;
            if is_removed {
                authenticator.forget(&id, "it was removed on its gateway").await;
            }
            Ok(())
        })
    }

    /// Stores loss records.
    pub(crate) fn lost(
        &self,
        gateway: DeviceId,
        mut losses: Losses,
        size_bytes: usize,
    ) -> BoxFuture<'static, Result<(), ServiceError>> {
        if let Err(error) = losses::check(&mut losses) {
            return std::future::ready(Err(ServiceError::Wrong(error.to_string()))).boxed();
        }
        let now_ms = now_ms();
        let (store, mut turn) = (self.store.clone(), self.turns.take(&gateway));
        let work = move |c: &Connection| {
            leave_out_known(c, &gateway, &mut losses)?;
            check_senders(c, &gateway, &mut losses)?;
            if losses::insert(c, &gateway, &losses, now_ms)? {
                for loss in losses.losses.iter().filter(|loss| loss.cause == losses::CENTRAL_RESTORED) {
                    let (queue, first, last, count) = (&losses.name, loss.first, loss.last, loss.count);
                    tracing::error!(%gateway, queue, first, last, count, "messages that central had confirmed are not in its store, which was restored from a backup; the gateway has deleted them");
                }
                Ok(())
            } else {
                Err(ServiceError::Forbidden("the gateway brings more queues than one may have".into()))
            }
        };
        Box::pin(async move {
            turn.come().await;
            store.submit_then(size_bytes, work, |()| {}).await
        })
    }

    /// Notes which clients are connected to a gateway: in parts, with the works of others between two.
    pub(crate) fn presence(
        &self,
        gateway: DeviceId,
        connection: u64,
        mut presence: Presence,
        size_bytes: usize,
    ) -> BoxFuture<'static, Result<(), ServiceError>> {
        let (store, connections, clients) =
            (self.store.clone(), self.connections.clone(), self.clients.clone());
        let (now_ms, mut turn) = (now_ms(), self.turns.take(&gateway));
        Box::pin(async move {
            turn.come().await;
            let mut unchecked = std::mem::take(&mut presence.clients);
            while unchecked.len() > PRESENCE_PART_MAX {
                let part = unchecked.drain(..PRESENCE_PART_MAX).collect();
                let of = gateway.clone();
                let known =
                    store.submit_then(size_bytes, move |c| known_clients(c, &of, part, now_ms), |_| {});
                presence.clients.extend(known.await?);
            }
            let last = store.submit_then(
                size_bytes,
                move |c| {
                    presence.clients.extend(known_clients(c, &gateway, unchecked, now_ms)?);
                    Ok::<_, ServiceError>((gateway, presence))
                },
                move |(gateway, presence)| {
                    if let Err(error) = connections.note_presence(gateway, connection, presence) {
                        // It begins again on its next connection.
                        tracing::error!(%gateway, error = %chain(&error), "the gateway's list of clients was rejected");
                        let gateway = Identity::device(gateway.clone());
                        clients.disconnect(&gateway, "a part of its list of clients is missing");
                    }
                },
            );
            last.await.map(drop)
        })
    }
}

/// Returns the clients for whom a gateway speaks, and notes when the devices among them were seen.
fn known_clients(
    c: &Connection,
    gateway: &DeviceId,
    clients: Vec<ClientPresence>,
    now_ms: u64,
) -> Result<Vec<ClientPresence>, ServiceError> {
    let mut known = Vec::with_capacity(clients.len());
    let (mut left_out, mut why) = (0, None);
    let mut speaker = Speaker::new(c, gateway, Statement::Presence);
    for client in clients {
        match speaker.authorize(&client.identity, client.generation) {
            Ok(()) => {
                if client.identity.device != *gateway {
                    devices::seen(c, &client.identity.device, now_ms)?;
                }
                known.push(client);
            }
            Err(ServiceError::Store(error)) => return Err(error.into()),
            Err(error) => {
                left_out += 1;
                why.get_or_insert(error);
            }
        }
    }
    if let Some(error) = why {
        tracing::warn!(%gateway, clients = left_out, error = %chain(&error), "clients for whom the gateway does not speak were left out");
    }
    Ok(known)
}

/// Leaves out what is stored already: a gateway repeats it to each opening of the store, and it was logged when it came first.
fn leave_out_known(c: &Connection, gateway: &DeviceId, losses: &mut Losses) -> rusqlite::Result<()> {
    let (known, before) = (losses::last_number(c, gateway, &losses.queue)?, losses.losses.len());
    losses.losses.retain(|loss| loss.number > known);
    let repeated = before - losses.losses.len();
    if repeated > 0 {
        tracing::debug!(%gateway, queue = losses.name, repeated, "losses that are stored were reported again");
    }
    Ok(())
}

/// Leaves senders out of losses for whom the gateway does not speak: the messages are lost all the same, and nobody else has
/// lost them.
fn check_senders(c: &Connection, gateway: &DeviceId, losses: &mut Losses) -> Result<(), ServiceError> {
    let (mut left_out, mut why) = (0, None);
    let mut speaker = Speaker::new(c, gateway, Statement::Loss);
    for loss in losses.losses.iter_mut().filter(|loss| !loss.sender.is_empty()) {
        let may = match loss.sender.parse::<Identity>() {
            Ok(of) => speaker.authorize(&of, loss.generation),
            Err(error) => Err(ServiceError::Wrong(format!("sender: {error}"))),
        };
        match may {
            Ok(()) => {}
            Err(ServiceError::Store(error)) => return Err(error.into()),
            Err(error) => {
                loss.sender.clear();
                left_out += 1;
                why.get_or_insert(error);
            }
        }
    }
    if let Some(error) = why {
        tracing::warn!(%gateway, losses = left_out, error = %chain(&error), "senders of lost messages were left out");
    }
    Ok(())
}

/// Returns an error if a reported section is larger than its owner may report.
fn check_report(of: &Identity, section: &Section) -> Result<(), ServiceError> {
    let is_system = of.module.as_ref().is_some_and(ModuleId::is_system);
    // Counted as the gateway counts them for a patch, with a margin for another version's count.
    let max = if is_system { REPORT_BYTES_MAX } else { 2 * edge_core::twin::SECTION_BYTES_MAX };
    let bytes = serde_json::to_vec(&section.properties).map_or(usize::MAX, |text| text.len());
    if bytes > max {
        let why = format!("the reported section of `{of}` has {bytes} bytes; {max} are allowed");
        return Err(ServiceError::TooLarge(why));
    }
    if i64::try_from(section.version).is_err() {
        return Err(ServiceError::Wrong(format!(
            "the reported section of `{of}` has version {}",
            section.version
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
