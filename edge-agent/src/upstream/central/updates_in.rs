//! What central tells: children, desired sections, commands, messages for devices.
//!
//! Each is acknowledged when it is on this gateway's disk, or can never be taken.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use edge_core::dialect::link::LinkDown;
use edge_core::error_chain::chain;
use edge_core::link::budget::Cause;
use schemas::link::{
    CentralTime, Children, CommandDown, Desired, MessageDown, Purges, Stored, TakenCommands,
};
use schemas::names::{DeviceId, Identity, ModuleId};
use schemas::provisioning::EnrolmentAnswer;
use schemas::redaction::{REDACTED, find_redacted_in};

use super::ended::Ended;
use super::uplink::Uplink;

impl Uplink {
    /// Takes what central tells; `Ok` when it is on disk, or can never be taken. Gives what it was, when that is known.
    pub(super) async fn received(&self, topic: &str, payload: &Bytes) -> Result<Option<LinkDown>, Ended> {
        let operation = LinkDown::parse(topic);
        if let Some(operation) = &operation {
            self.take(operation.clone(), topic, payload).await?;
        } else {
            tracing::warn!(topic, "central said something that this version does not know");
        }
        Ok(operation)
    }

    async fn take(&self, operation: LinkDown, topic: &str, payload: &Bytes) -> Result<(), Ended> {
        match operation {
            LinkDown::Stored => {
                if let Some(stored) = from_json::<Stored>(topic, payload) {
                    self.central_version.store(stored.version, Ordering::Relaxed);
                    self.note_whether_named(&stored);
                    for lost in self.queues.upstream().is_stored(&stored) {
                        self.sent_updates.lost_by_central(&lost.queue.to_string(), lost.first, lost.last);
                    }
                    self.sent_updates.compare(&stored);
                }
            }
            LinkDown::Children => {
                let Some(list) = from_json::<Children>(topic, payload) else { return Ok(()) };
                let removal = self.authorizer.removals.begin().await;
                // Noted before the disk has the list: a kill in between does not lose it.
                let note = |left: &[_]| removal.note_devices(left.iter().cloned());
                let received = self.authorizer.devices.take_list_noting(list, note)?;
                // At once: the disk may be slow, and who was blocked must not wait for it.
                self.authorizer.review();
                received.durable().await?;
                // Before anything else is taken from central, which may be for the next one of a name.
                removal.finish().await?;
            }
            LinkDown::Desired(identity) => {
                let Some(desired) = from_json::<Desired>(topic, payload) else { return Ok(()) };
                self.desired(identity, desired).await?;
            }
            LinkDown::Command { command_id, target } => {
                let Some(command) = from_json::<CommandDown>(topic, payload) else { return Ok(()) };
                let is_here = || self.authorizer.is_here(&target);
                self.commands.take(command_id, target.clone(), command, is_here).await?;
            }
            LinkDown::TakenCommands => {
                let Some(taken) = from_json::<TakenCommands>(topic, payload) else { return Ok(()) };
                self.commands.report_lost(taken).await?;
            }
            LinkDown::Message { device, sequence } => {
                let Some(message) = from_json::<MessageDown>(topic, payload) else { return Ok(()) };
                let is_here = || self.authorizer.is_here(&Identity::device(device.clone()));
                self.cloud_messages.take(&device, sequence, message, is_here).await?;
                self.dispatcher.wake(&device);
            }
            LinkDown::Enrolled { request_id } => {
                if let Some(answer) = from_json::<EnrolmentAnswer>(topic, payload) {
                    self.enrolments.answered(&request_id, answer);
                }
            }
            LinkDown::Time => {
                if let Some(CentralTime { time_request, now_ms }) = from_json(topic, payload) {
                    crate::clock::upstream_answered(time_request, now_ms);
                }
            }
            LinkDown::Purges => {
                if let Some(purges) = from_json::<Purges>(topic, payload) {
                    self.cloud_messages.purge(&purges);
                }
            }
        }
        Ok(())
    }

    /// Says once when central is from before stores had names: its losses by a restore from a backup cannot be distinguished from messages that
    /// it never had. What waits here is kept until it has it, all the same.
    fn note_whether_named(&self, stored: &Stored) {
        let is_unnamed = stored.origin.is_none();
        if !self.is_store_unnamed.swap(is_unnamed, Ordering::Relaxed) && is_unnamed {
            tracing::warn!(
                "central is of an older version: messages that it loses when it is restored from a backup are not reported as lost; update central"
            );
        }
    }

    async fn desired(&self, identity: Identity, desired: Desired) -> Result<(), Ended> {
        let Desired { section, generations } = desired;
        // A deployment with the mark is refused where it would come in force, and reported.
        if let (false, Some(field)) =
            (self.is_own_system_module(&identity), find_redacted_in(&section.properties))
        {
            let version = section.version;
            tracing::error!(
                %identity,
                version,
                field,
                "central's desired section was refused: it holds `{REDACTED}` in place of a secret; the one before it stays"
            );
            return Ok(());
        }
        // Before the section is saved, because it is not sent again.
        let has_replaced =
            self.is_own_system_module(&identity) && self.deployments.replace_modules(&generations).await?;
        let is_here = || self.authorizer.is_here(&identity);
        let (change, saved) = self.twins.desired_from_central(&identity, section, is_here);
        if let Some(saved) = saved {
            saved.durable().await?;
        }
        if has_replaced {
            self.deployments.take_up().await?;
            return Ok(());
        }
        let Some(change) = change else { return Ok(()) };
        if self.is_own_system_module(&identity) {
            // With what modules left that are gone: the next section may be of the next module of a name.
            self.deployments.take_up().await?;
        } else {
            self.clients.send_desired(&identity, change.version, &change.patch);
        }
        Ok(())
    }

    fn is_own_system_module(&self, identity: &Identity) -> bool {
        let gateway: &DeviceId = &self.upstream.device_id;
        identity.device == *gateway && identity.module.as_ref().is_some_and(ModuleId::is_system)
    }
}

/// What a topic of central's is for.
pub(super) fn cause(topic: &str) -> Cause {
    match LinkDown::parse(topic) {
        Some(LinkDown::Desired(identity)) => {
            if identity.module.as_ref().is_some_and(ModuleId::is_system) {
                Cause::Deployments
            } else {
                Cause::Twins
            }
        }
        Some(LinkDown::Command { .. } | LinkDown::TakenCommands) => Cause::Commands,
        Some(LinkDown::Message { .. } | LinkDown::Purges) => Cause::Messages,
        Some(LinkDown::Children | LinkDown::Enrolled { .. } | LinkDown::Stored | LinkDown::Time) | None => {
            Cause::Link
        }
    }
}

/// `None`, and a line in the log, for what can never be read: it is acknowledged, or central would send it for ever.
fn from_json<T: serde::de::DeserializeOwned>(topic: &str, payload: &Bytes) -> Option<T> {
    schemas::json::from_link(payload)
        .map_err(
            |error| tracing::error!(topic, error = %chain(&error), "an update of central could not be read"),
        )
        .ok()
}
