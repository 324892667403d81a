//! What a client may do on free topics: the rules of the manifest, read for one client.
//!
//! Source: `mqttBroker.authorizations` of `$edgeHub`, schema 1.2, which IoT Edge had in a preview and dropped. The first
//! statement that says anything about a topic decides, a denial in it before a permission; where none does, the answer
//! is no. Connecting is the one operation that a proven client may do without a rule, or no SDK device would come in.
//!
//! A subscription is authorized as a whole and its messages are not looked at again: it needs a permission that covers every
//! topic of the filter, and a denial that touches any of them refuses it.

use schemas::manifest::authorization::{Authorization, Operation, Rule};
use schemas::names::{DeviceId, Identity};

use mqtt::filter;

/// The client whose rights are read.
#[derive(Debug, Clone, Copy)]
pub struct AuthorizedClient<'a> {
    pub identity: &'a Identity,
    /// As it sent it.
    pub client_id: &'a str,
    /// The device that a local user may speak for.
    pub speaks_for: Option<&'a DeviceId>,
}

/// Where the rules are in force.
#[derive(Debug, Clone, Copy)]
pub struct HubNames<'a> {
    pub device: &'a DeviceId,
    /// Names of the hub, which may stand before an identity (`hub.example/device`).
    pub hosts: &'a [String],
}

/// What one client may do. Nothing by default. Every connection has its own: no larger than what it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    is_kept_out: bool,
    statements: Box<[Statement]>,
}

/// Resource filters with this client's names in them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Statement {
    publish: Sides,
    subscribe: Sides,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Sides {
    deny: Box<[Box<str>]>,
    allow: Box<[Box<str>]>,
}

impl Rights {
    /// The rights that the rules give to a client.
    pub fn read(rules: &[Authorization], subject: &AuthorizedClient<'_>, place: &HubNames<'_>) -> Self {
        let (mut is_kept_out, mut is_connect_decided) = (false, false);
        let mut statements = Vec::new();
        for rule in rules.iter().filter(|rule| rule.identities.iter().any(|id| is_meant(id, subject, place)))
        {
            for (rule, is_denial) in both(rule) {
                if rule.operations.contains(&Operation::Connect) && !is_connect_decided {
                    (is_connect_decided, is_kept_out) = (true, is_denial);
                }
            }
            let sides = |operation| Sides::read(rule, operation, subject, place);
            match (sides(Operation::Publish), sides(Operation::Subscribe)) {
                (Ok(publish), Ok(subscribe)) => statements.push(Statement { publish, subscribe }),
                // A name that would change what a filter means: it must neither widen a permission nor void a denial.
                _ => return Self { is_kept_out, statements: Box::default() },
            }
        }
        Self { is_kept_out, statements: statements.into() }
    }

    /// Every right on every free topic; for a server without rules of its own, in tests.
    pub fn all() -> Self {
        let all = Sides { deny: Box::default(), allow: Box::new(["#".into()]) };
        Self {
            is_kept_out: false,
            statements: Box::new([Statement { publish: all.clone(), subscribe: all }]),
        }
    }

    /// Whether it may be connected at all.
    pub fn may_connect(&self) -> bool {
        !self.is_kept_out
    }

    /// Whether it may publish on this topic.
    pub fn may_publish(&self, topic: &str) -> bool {
        let touches = |filters: &[Box<str>]| filters.iter().any(|rule| filter::matches(rule, topic));
        let decided = self.statements.iter().find_map(|statement| {
            let Sides { deny, allow } = &statement.publish;
            if touches(deny) { Some(false) } else { touches(allow).then_some(true) }
        });
        decided.unwrap_or(false)
    }

    /// Whether it may have everything that this filter (without `$share/…/`) matches.
    pub fn may_subscribe(&self, filter_of_client: &str) -> bool {
        let decided = self.statements.iter().find_map(|statement| {
            let Sides { deny, allow } = &statement.subscribe;
            if deny.iter().any(|rule| filter::overlaps(rule, filter_of_client)) {
                Some(false)
            } else {
                allow.iter().any(|rule| filter::covers(rule, filter_of_client)).then_some(true)
            }
        });
        decided.unwrap_or(false)
    }
}

impl Sides {
    /// What a statement says of one operation.
    fn read(
        rule: &Authorization,
        operation: Operation,
        subject: &AuthorizedClient<'_>,
        place: &HubNames<'_>,
    ) -> Result<Self, Unfit> {
        let side = |rules: &[Rule]| -> Result<Box<[Box<str>]>, Unfit> {
            let meant = rules.iter().filter(|rule| rule.operations.contains(&operation));
            let filters: Result<Vec<_>, _> = meant.map(|rule| resources(rule, subject, place)).collect();
            Ok(filters?.into_iter().flatten().collect())
        };
        Ok(Self { deny: side(&rule.deny)?, allow: side(&rule.allow)? })
    }
}

/// A statement's rules, those that deny first and marked so.
fn both(rule: &Authorization) -> impl Iterator<Item = (&Rule, bool)> {
    let denials = rule.deny.iter().map(|rule| (rule, true));
    denials.chain(rule.allow.iter().map(|rule| (rule, false)))
}

/// How a client's identity is written in a rule: a local user's without its client id.
fn written(identity: &Identity) -> String {
    // The client id is the client's own choice, so a rule names the user without it (decision 0010).
    if identity.is_user() { identity.device.to_string() } else { identity.to_string() }
}

/// Whether an entry of `identities` means this client.
fn is_meant(entry: &str, subject: &AuthorizedClient<'_>, place: &HubNames<'_>) -> bool {
    let Ok(Some(entry)) = filled(entry, subject, place) else { return false };
    let own = written(subject.identity);
    let behind_host = entry
        .split_once('/')
        .filter(|(host, _)| place.hosts.iter().any(|known| known.eq_ignore_ascii_case(host)));
    entry == own || behind_host.is_some_and(|(_, identity)| identity == own)
}

/// A name that the client chose and that must not stand in a filter.
struct Unfit;

/// The resources of a rule that have a meaning for this client.
fn resources(
    rule: &Rule,
    subject: &AuthorizedClient<'_>,
    place: &HubNames<'_>,
) -> Result<Vec<Box<str>>, Unfit> {
    let filled = rule.resources.iter().filter_map(|resource| filled(resource, subject, place).transpose());
    filled.map(|filter| filter.map(String::into_boxed_str)).collect()
}

/// A text with its variables filled in; `None` for a variable that this client has no value for, such as the module of a
/// device.
fn filled(text: &str, subject: &AuthorizedClient<'_>, place: &HubNames<'_>) -> Result<Option<String>, Unfit> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("{{") {
        let Some((variable, after)) = behind.split_once("}}") else { break };
        filled.push_str(before);
        let identity = subject.identity;
        let value = match variable.trim() {
            "iot:identity" | "iot:client_id" => Some(written(identity)),
            "iot:device_id" if identity.is_user() => subject.speaks_for.map(ToString::to_string),
            "iot:device_id" => Some(identity.device.to_string()),
            "iot:module_id" if identity.is_user() => None,
            "iot:module_id" => identity.module.as_ref().map(ToString::to_string),
            "iot:this_device_id" => Some(place.device.to_string()),
            "mqtt:client_id" => Some(chosen(subject.client_id)?),
            // A device's user name is no name: it holds the hub, the device and the SDK's version.
            "mqtt:username" => identity.user_name().map(|name| name.to_string()),
            // The manifest's reader lets no other through.
            _ => None,
        };
        let Some(value) = value else { return Ok(None) };
        filled.push_str(&value);
        rest = after;
    }
    filled.push_str(rest);
    Ok(Some(filled))
}

/// A value that the client chose itself: as one level, or not at all. A module's client id is two levels.
fn chosen(value: &str) -> Result<String, Unfit> {
    // Topics with `$` in front are not matched by a leading wildcard: a denial of `#` would not cover them.
    let is_plain = !value.is_empty() && !value.contains(['+', '#', '\0']) && !value.starts_with('$');
    let is_own = value.split('/').all(|level| !level.is_empty()) && value.matches('/').count() <= 1;
    if is_plain && is_own { Ok(value.to_owned()) } else { Err(Unfit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(json: serde_json::Value) -> Vec<Authorization> {
        let serde_json::Value::Object(hub) = serde_json::json!({
            "schemaVersion": "1.2", "routes": {}, "mqttBroker": {"authorizations": json}
        }) else {
            unreachable!("an object was just written")
        };
        let agent = serde_json::json!({"schemaVersion": "1.1"});
        let manifest = schemas::manifest::Manifest::from_twins(agent.as_object().unwrap(), &hub).unwrap();
        manifest.edge_hub.authorizations
    }

    fn rights(rules: &[Authorization], identity: &str) -> Rights {
        let user = identity.strip_prefix("$user:").map(|rest| rest.split_once('/').unwrap());
        let (identity, client_id) = match user {
            Some((name, id)) => (Identity::user(&name.parse().unwrap(), id).unwrap(), id),
            None => (identity.parse().unwrap(), identity),
        };
        let subject = AuthorizedClient { identity: &identity, client_id, speaks_for: None };
        let (device, hosts) = ("gw".parse().unwrap(), ["hub.net".to_owned()]);
        Rights::read(rules, &subject, &HubNames { device: &device, hosts: &hosts })
    }

    #[test]
    fn without_a_rule_nothing_is_allowed_but_to_connect() {
        let none = rights(&[], "press-1");
        assert!(none.may_connect() && !none.may_publish("a") && !none.may_subscribe("a"));
    }

    #[test]
    fn a_rule_holds_for_its_identities_and_fills_in_their_names() {
        let rules = rules(serde_json::json!([
            {"identities": ["{{iot:identity}}"], "allow": [
                {"operations": ["mqtt:publish"], "resources": ["lines/{{iot:device_id}}/#", "m/{{iot:module_id}}"]},
                {"operations": ["mqtt:subscribe"], "resources": ["{{iot:this_device_id}}/news/+"]}]},
            {"identities": ["hub.net/panel", "$user:plc1", "gw/cam"], "allow": [
                {"operations": ["mqtt:publish", "mqtt:subscribe"], "resources": ["shared/#"]}]}
        ]));
        let press = rights(&rules, "press-1");
        assert!(
            press.may_publish("lines/press-1/temperature") && !press.may_publish("lines/press-2/temperature")
        );
        assert!(press.may_subscribe("gw/news/today") && press.may_subscribe("gw/news/+"));
        assert!(
            !press.may_subscribe("gw/news/#") && !press.may_subscribe("#") && !press.may_publish("shared/a")
        );
        assert!(rights(&rules, "panel").may_publish("shared/a"));
        assert!(rights(&rules, "gw/cam").may_publish("m/cam"));
        let user = rights(&rules, "$user:plc1/anything");
        assert!(user.may_publish("shared/a") && user.may_subscribe("shared/#"));
        assert!(
            !user.may_publish("lines/plc1/x") && !rights(&rules, "$user:other/x").may_publish("shared/a")
        );
        assert!(!rights(&rules, "plc1").may_publish("shared/a"), "a device is not the user of its name");
    }

    #[test]
    fn the_first_statement_that_says_anything_decides_and_denies_before_it_allows() {
        let rules = rules(serde_json::json!([
            {"identities": ["{{iot:identity}}"],
             "allow": [{"operations": ["mqtt:publish", "mqtt:subscribe"], "resources": ["a/#"]}],
             "deny": [{"operations": ["mqtt:publish", "mqtt:subscribe"], "resources": ["a/secret/#"]}]},
            {"identities": ["{{iot:identity}}"],
             "allow": [{"operations": ["mqtt:publish", "mqtt:subscribe"], "resources": ["#"]}],
             "deny": [{"operations": ["mqtt:connect"]}]}
        ]));
        let d = rights(&rules, "d");
        assert!(!d.may_connect());
        assert!(d.may_publish("a/b") && !d.may_publish("a/secret/b") && d.may_publish("b"));
        assert!(d.may_subscribe("a/b") && d.may_subscribe("b/#"));
        for touches_what_is_denied in ["a/#", "#", "+/secret/x", "a/+/x"] {
            assert!(!d.may_subscribe(touches_what_is_denied), "{touches_what_is_denied}");
        }
    }

    #[test]
    fn a_client_id_that_would_be_a_wildcard_gives_no_rights() {
        let rules = rules(serde_json::json!([{"identities": ["{{iot:identity}}"], "allow": [
            {"operations": ["mqtt:publish", "mqtt:subscribe"], "resources": ["own/{{mqtt:client_id}}/#"]}]}]));
        assert!(rights(&rules, "$user:plc/esp32").may_publish("own/esp32/x"));
        for wild in ["+", "#", "a/+", "a/b/c", "/", "$SYS"] {
            let wild = rights(&rules, &format!("$user:plc/{wild}"));
            assert!(!wild.may_publish("own/esp32/x") && !wild.may_subscribe("own/+/#"));
        }
    }
}
