//! The messages to a gateway, made of the store as it is now: older state never follows newer.

use std::collections::BTreeMap;

use bytes::Bytes;
use edge_core::dialect::link::LinkDown;
use edge_core::link::snapshot;
use rusqlite::Connection;
use schemas::link::{
    CHILDREN_IN_PARTS, Child, Children, CommandDown, Desired, GENERATIONS, MessageDown, Purges, Stored,
    TAKEN_COMMANDS, TakenCommands,
};
use schemas::names::{DeviceId, Identity, ModuleId};
use schemas::twin::Section;
use uuid::Uuid;

use super::outbox::{Batch, Update};
use crate::access::admission::Admission;
use crate::clock::{is_valid, now_ms, steady_ms};
use crate::error::ServiceError;
use crate::lookup::modules;
use crate::store::cloud_messages::{self, StoredMessage};
use crate::store::commands;
use crate::store::devices::{self, Device};
use crate::store::modules as module_generations;
use crate::store::telemetry;
use crate::store::twins::{self, Half};

/// Bytes of a list in one message. A gateway takes 8 MB, and puts each of the devices on its disk before it acknowledges.
const PART_BYTES_MAX: usize = 128 * 1024;

/// A message on a gateway's link.
pub(super) type Message = (LinkDown, Bytes);

/// The gateway that messages are made for.
pub(super) struct Recipient {
    pub(super) gateway: DeviceId,
    /// The version of the link that it speaks.
    pub(super) link_version: u32,
    /// The opening of the store that the messages are made of.
    pub(super) opened: Uuid,
}

/// Returns everything that a gateway must be sent when it subscribes.
pub(super) fn everything(c: &Connection, gateway: &DeviceId) -> Result<Vec<Update>, ServiceError> {
    let mut updates =
        vec![Update::Stored, Update::Children, Update::Desired(Identity::device(gateway.clone()))];
    for module in modules(c, gateway)? {
        updates.push(Update::Desired(Identity::module(gateway.clone(), module)));
    }
    updates.extend(commands::waiting(c, gateway)?.into_iter().map(Update::Command));
    for child in devices::children(c, gateway)? {
        updates.extend(commands::waiting(c, &child.id)?.into_iter().map(Update::Command));
        for sequence in cloud_messages::sequences(c, &child.id)? {
            updates.push(Update::Message(child.id.clone(), sequence));
        }
        updates.push(Update::Desired(Identity::device(child.id)));
    }
    updates.extend([Update::Purges, Update::TakenCommands]);
    Ok(updates)
}

/// Returns the messages of a batch; none when nothing is left to send.
pub(super) fn messages(
    c: &Connection,
    recipient: &Recipient,
    batch: Batch,
) -> Result<Vec<Message>, ServiceError> {
    let Recipient { gateway, link_version, opened } = recipient;
    let takes_parts = *link_version >= CHILDREN_IN_PARTS;
    match batch {
        Batch::One(Update::Children) if takes_parts => children_in_parts(c, gateway),
        Batch::Children(devices) if takes_parts => changed_children(c, gateway, devices),
        // The list must be whole: this gateway takes what is not in it for gone.
        Batch::One(Update::Children) | Batch::Children(_) => Ok(vec![all_children(c, gateway)?]),
        Batch::One(Update::Purges) => purges(c, gateway, None),
        Batch::Purges(devices) => purges(c, gateway, Some(devices)),
        Batch::One(Update::Child(device)) => changed_children(c, gateway, vec![device]),
        Batch::One(Update::Purge(device)) => purges(c, gateway, Some(vec![device])),
        Batch::One(Update::Stored) => {
            let stored =
                Stored { opened: Some(opened.simple().to_string()), ..telemetry::stored(c, gateway)? };
            Ok(vec![(LinkDown::Stored, json(&stored))])
        }
        Batch::One(Update::Desired(of)) => Ok(desired(c, recipient, of)?.into_iter().collect()),
        Batch::One(Update::TakenCommands) if *link_version < TAKEN_COMMANDS => Ok(Vec::new()),
        Batch::One(Update::TakenCommands) => {
            let commands = commands::taken_by(c, gateway)?;
            // Most gateways have none: nothing is said then.
            let taken = Some(TakenCommands { commands }).filter(|taken| !taken.commands.is_empty());
            Ok(taken.map(|taken| (LinkDown::TakenCommands, json(&taken))).into_iter().collect())
        }
        Batch::One(Update::Command(row)) => Ok(command(c, gateway, row)?.into_iter().collect()),
        Batch::One(Update::Message(device, sequence)) => {
            Ok(cloud_message(c, gateway, device, sequence)?.into_iter().collect())
        }
    }
}

fn all_children(c: &Connection, gateway: &DeviceId) -> Result<Message, ServiceError> {
    let children = devices::children(c, gateway)?.into_iter().filter_map(child).collect();
    Ok((LinkDown::Children, json(&Children { children, ..Children::default() })))
}

fn children_in_parts(c: &Connection, gateway: &DeviceId) -> Result<Vec<Message>, ServiceError> {
    let children = devices::children(c, gateway)?.into_iter().filter_map(child);
    let parts = snapshot::parts(now_ms(), children, PART_BYTES_MAX).into_iter();
    let messages = parts.map(|(part, children)| {
        let children = Children { children, snapshot: Some(part), ..Children::default() };
        (LinkDown::Children, json(&children))
    });
    Ok(messages.collect())
}

fn changed_children(
    c: &Connection,
    gateway: &DeviceId,
    devices: Vec<DeviceId>,
) -> Result<Vec<Message>, ServiceError> {
    let (mut children, mut removed) = (Vec::new(), Vec::new());
    for id in devices {
        let device = devices::get(c, &id)?;
        let behind = device.filter(|device| device.gateway.as_ref() == Some(gateway));
        match behind.and_then(child) {
            Some(child) => children.push(child),
            None => removed.push(id),
        }
    }
    let change = Children { children, removed, is_difference: true, snapshot: None };
    Ok(vec![(LinkDown::Children, json(&change))])
}

/// How far the messages of these devices, or of all, were purged.
fn purges(
    c: &Connection,
    gateway: &DeviceId,
    devices: Option<Vec<DeviceId>>,
) -> Result<Vec<Message>, ServiceError> {
    let purged: Vec<(DeviceId, u64)> = match devices {
        None => cloud_messages::purges(c, gateway)?.into_iter().collect(),
        Some(devices) => {
            let mut purged = Vec::new();
            for device in devices {
                // It may be behind another gateway now.
                let behind = devices::get(c, &device)?.and_then(|device| device.gateway);
                if behind.as_ref() == Some(gateway)
                    && let Some(up_to) = cloud_messages::purged(c, &device)?
                {
                    purged.push((device, up_to));
                }
            }
            purged
        }
    };
    let parts = snapshot::split(purged, PART_BYTES_MAX).into_iter();
    let messages = parts
        .filter(|part| !part.is_empty())
        .map(|part| (LinkDown::Purges, json(&Purges { purged: part.into_iter().collect() })));
    Ok(messages.collect())
}

fn desired(c: &Connection, recipient: &Recipient, of: Identity) -> Result<Option<Message>, ServiceError> {
    let stored = twins::section(c, &of, Half::Desired)?;
    if stored.is_unreadable {
        // The gateway keeps what it has; an empty section would take its modules away.
        return Ok(None);
    }
    let section = stored.section;
    // Version 0: no operator ever wrote it, and the gateway's own empty section has that version too.
    if section.version == 0 {
        return Ok(None);
    }
    let is_manifest = of.module == Some(ModuleId::edge_agent());
    // An older gateway would take them for a property.
    let generations = if is_manifest && recipient.link_version >= GENERATIONS {
        generations(c, &recipient.gateway, &section)?
    } else {
        BTreeMap::new()
    };
    Ok(Some((LinkDown::Desired(of), json(&Desired { section, generations }))))
}

fn command(c: &Connection, gateway: &DeviceId, row: u64) -> Result<Option<Message>, ServiceError> {
    let Some(command) = commands::waiting_at(c, row)? else { return Ok(None) };
    let lifetime = command.lifetime();
    if !is_valid(lifetime) {
        return Ok(None);
    }
    // Its device may be behind another gateway now.
    let serving_gateway = devices::get(c, &command.target.device)?;
    if serving_gateway.as_ref().and_then(Device::serving_gateway) != Some(gateway) {
        return Ok(None);
    }
    let left_ms = lifetime.until_ms.saturating_sub(steady_ms());
    let down = CommandDown { request: command.request, valid_for_in_seconds: Some(left_ms.div_ceil(1000)) };
    let operation = LinkDown::Command { command_id: command.id, target: command.target };
    Ok(Some((operation, json(&down))))
}

fn cloud_message(
    c: &Connection,
    gateway: &DeviceId,
    device: DeviceId,
    sequence: u64,
) -> Result<Option<Message>, ServiceError> {
    // It may have ended since, or its device is behind another gateway now.
    let behind = devices::get(c, &device)?.and_then(|device| device.gateway);
    let waiting = cloud_messages::get(c, sequence)?.filter(|message| message.ended.is_none());
    let valid = waiting.filter(|stored| behind.as_ref() == Some(gateway) && is_valid(stored.lifetime));
    Ok(valid.map(|StoredMessage { message, lifetime, .. }| {
        let valid_for_ms = Some(lifetime.until_ms.saturating_sub(steady_ms()));
        (LinkDown::Message { device, sequence }, json(&MessageDown { message, valid_for_ms }))
    }))
}

/// The generations of the modules that a section of `$edgeAgent` names; 0 of one that was there before generations were kept.
fn generations(
    c: &Connection,
    gateway: &DeviceId,
    section: &Section,
) -> Result<BTreeMap<ModuleId, u64>, ServiceError> {
    let known = module_generations::generations(c, gateway)?;
    let named = section.properties.get("modules").and_then(serde_json::Value::as_object);
    let named = named.into_iter().flat_map(serde_json::Map::keys);
    let generation = |name: &String| {
        let module: ModuleId = name.parse().ok()?;
        let generation = known.get(&module).copied().unwrap_or(0);
        Some((module, generation))
    };
    Ok(named.filter_map(generation).collect())
}

/// A device as its gateway must know it; `None` for one that the gateway brought and holds the keys of.
fn child(device: Device) -> Option<Child> {
    let enabled = device.admission() == Admission::Admitted;
    let (primary_key, secondary_key) = match (&device.x509, device.keys) {
        // A gateway is not given keys that prove nothing.
        (Some(_), _) => (String::new(), String::new()),
        (None, Some(keys)) => (keys.primary, keys.secondary),
        // Its TPM would prove it, which gateways cannot check: nothing else does.
        (None, None) if device.endorsement_key.is_some() => (String::new(), String::new()),
        (None, None) => return None,
    };
    let x509 = device.x509.unwrap_or_default();
    Some(Child {
        device_id: device.id,
        primary_key,
        secondary_key,
        thumbprints: x509.thumbprints(),
        is_ca_signed: x509.is_ca_signed,
        enabled,
        generation: Some(device.attachment),
    })
}

pub(super) fn json(value: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec(value).expect("the link's types have text keys only").into()
}
