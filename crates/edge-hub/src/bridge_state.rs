//! The states of mosquitto's bridges, each account's apart from all others'.
//!
//! | On the wire | In the table, in what is retained, and in the journal |
//! |---|---|
//! | `$SYS/broker/connection/{bridge}/state` | `$SYS/broker/connection/{account}/{bridge}/state` |
//!
//! The account is a level of its own, put in when a topic or filter comes from a client and taken out when a message goes to
//! one: two accounts whose bridges have the same name never meet, and no filter reaches over it.

use bytes::Bytes;
use edge_core::dialect::client::BRIDGES;
use schemas::names::Identity;

/// The longest topic of MQTT.
const TOPIC_BYTES_MAX: usize = 65_535;

/// How the account of a local user begins; no device id does.
const USER: &str = "$user:";

/// The account of a client: its local user, or the device or module itself. No id has a space, so none is taken for two
/// levels and no two identities share one.
fn account(identity: &Identity) -> String {
    match &identity.module {
        Some(module) if !identity.is_user() => format!("{} {module}", identity.device),
        _ => identity.device.to_string(),
    }
}

/// A topic or filter below [`BRIDGES`] as it is kept; `None` when it is too long for that.
pub(crate) fn kept(identity: &Identity, topic: &str) -> Option<String> {
    let rest = topic.strip_prefix(BRIDGES)?;
    Some(format!("{BRIDGES}{}/{rest}", account(identity))).filter(|kept| kept.len() <= TOPIC_BYTES_MAX)
}

/// A filter as it is kept: any other than of bridges' states stays as it is. `None` as with [`kept`].
pub(crate) fn kept_filter(identity: &Identity, filter: String) -> Option<String> {
    if is_kept(&filter) { kept(identity, &filter) } else { Some(filter) }
}

/// A kept topic as its receiver sees it; `None` for all other topics, which are shown as they are.
pub(crate) fn shown(topic: &Bytes) -> Option<Bytes> {
    let kept = topic.strip_prefix(BRIDGES.as_bytes())?;
    let at = kept.iter().position(|byte| *byte == b'/')?;
    Some([BRIDGES.as_bytes(), &kept[at + 1..]].concat().into())
}

/// Whose a kept topic is: all clients of a local user, or a device or module.
pub(crate) fn owner(topic: &str) -> Option<Identity> {
    let (account, _) = topic.strip_prefix(BRIDGES)?.split_once('/')?;
    match (account.strip_prefix(USER), account.split_once(' ')) {
        (Some(name), _) => name.parse().ok().map(|name| Identity::account(&name)),
        (None, Some((device, module))) => Some(Identity::module(device.parse().ok()?, module.parse().ok()?)),
        (None, None) => account.parse().ok().map(Identity::device),
    }
}

/// Returns true for a topic as it is kept, which only its own account subscribes to.
pub(crate) fn is_kept(topic: &str) -> bool {
    topic.starts_with(BRIDGES)
}

#[cfg(test)]
mod tests {
    use mqtt::filter::matches;
    use proptest::prelude::*;

    use super::*;

    fn client() -> impl Strategy<Value = Identity> {
        let id = "[ab$%:.]{1,3}";
        let device = id.prop_filter_map("an id", |id| Some(Identity::device(id.parse().ok()?)));
        let module = (id, id).prop_filter_map("ids", |(device, module)| {
            Some(Identity::module(device.parse().ok()?, module.parse().ok()?))
        });
        let user = ("[ab]{1,2}", "[ab/+#%$ ]{1,3}")
            .prop_map(|(name, client_id)| Identity::user(&name.parse().unwrap(), &client_id).unwrap());
        prop_oneof![device, module, user]
    }

    proptest! {
        #[test]
        fn a_filter_of_one_account_never_matches_a_state_of_another(
            publisher in client(), subscriber in client(),
            topic in "[ab$:/]{1,5}", filter in prop::sample::select(vec!["#", "+/#", "+/+", "+/+/+", "+/+/#", "a/#", "$user:a/#"]),
        ) {
            let kept_topic = kept(&publisher, &format!("{BRIDGES}{topic}")).unwrap();
            let kept_filter = kept(&subscriber, &format!("{BRIDGES}{filter}")).unwrap();
            let is_same = account(&publisher) == account(&subscriber);
            let is_match = matches(&format!("{BRIDGES}{filter}"), &format!("{BRIDGES}{topic}"));
            prop_assert_eq!(matches(&kept_filter, &kept_topic), is_same && is_match);
            let same_user = publisher.is_user() && publisher.device == subscriber.device;
            prop_assert_eq!(is_same, publisher == subscriber || same_user);
            let owner = owner(&kept_topic).unwrap();
            prop_assert_eq!(owner == publisher, !publisher.is_user());
            prop_assert_eq!(&owner.device, &publisher.device);
            prop_assert_eq!(shown(&kept_topic.into()).unwrap(), format!("{BRIDGES}{topic}"));
        }
    }
}
