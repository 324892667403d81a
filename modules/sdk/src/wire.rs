//! What a topic that arrives at a module means. The topics that leave are built by `schemas::topics`.

use percent_encoding::percent_decode_str;
use schemas::bag::PropertyBag;
use schemas::names::Identity;

/// A message from the gateway, by its topic.
#[derive(Debug, PartialEq)]
pub(crate) enum Arrival {
    /// A message on an input.
    Input { name: String, bag: PropertyBag },
    /// The answer to a twin request.
    TwinAnswer { status: u16, request_id: String, version: Option<u64> },
    /// A patch of the desired properties.
    DesiredPatch { version: Option<u64> },
    /// A method call.
    Method { name: String, request_id: String },
}

/// Reads a topic; `None` when it is none that a module subscribes to.
pub(crate) fn arrival(identity: &Identity, topic: &str) -> Option<Arrival> {
    let inputs = schemas::topics::module_inputs(identity);
    if let Some(rest) = topic.strip_prefix(inputs.trim_end_matches('#')) {
        let (name, bag) = rest.split_once('/').unwrap_or((rest, ""));
        return Some(Arrival::Input { name: decoded(name)?, bag: PropertyBag::parse(bag) });
    }
    let (path, query) = topic.strip_prefix("$iothub/")?.split_once("/?")?;
    let parameter = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let version = parameter("$version").and_then(|version| version.parse().ok());
    let request_id = || parameter("$rid").map(str::to_owned);
    if path == "twin/PATCH/properties/desired" {
        return Some(Arrival::DesiredPatch { version });
    }
    if let Some(status) = path.strip_prefix("twin/res/") {
        return Some(Arrival::TwinAnswer {
            status: status.parse().ok()?,
            request_id: request_id()?,
            version,
        });
    }
    let name = path.strip_prefix("methods/POST/")?;
    Some(Arrival::Method { name: decoded(name)?, request_id: request_id()? })
}

fn decoded(text: &str) -> Option<String> {
    Some(percent_decode_str(text).decode_utf8().ok()?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::topics;

    #[test]
    fn what_a_gateway_publishes_to_a_module_is_read_back() {
        let me: Identity = "gw/filter".parse().unwrap();
        let mut bag = PropertyBag::new();
        bag.set("k", "a b");
        let read = |topic: &str| arrival(&me, topic).unwrap();
        for bag in [bag, PropertyBag::new()] {
            let topic = topics::module_input(&me, "readings", &bag);
            assert_eq!(read(&topic), Arrival::Input { name: "readings".into(), bag });
        }
        let (status, request_id) = (204, "7".to_owned());
        assert_eq!(
            read(&topics::twin_response(status, &request_id, Some(3))),
            Arrival::TwinAnswer { status, request_id: request_id.clone(), version: Some(3) }
        );
        assert_eq!(read(&topics::twin_desired(9)), Arrival::DesiredPatch { version: Some(9) });
        assert_eq!(
            read(&topics::method_call("reset", &request_id)),
            Arrival::Method { name: "reset".into(), request_id }
        );
    }

    #[test]
    fn other_topics_mean_nothing() {
        let me: Identity = "gw/filter".parse().unwrap();
        for topic in [
            "devices/gw/modules/filter2/inputs/in/",
            "$iothub/twin/res/abc/?$rid=1",
            "$iothub/methods/POST/reset/?",
            "plant/temperature",
        ] {
            assert_eq!(arrival(&me, topic), None, "{topic}");
        }
    }
}
