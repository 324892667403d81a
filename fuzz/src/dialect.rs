//! What stands in topics and CONNECTs: IoT Hub's dialect.

use edge_core::access::claim::claim;
use edge_core::access::sas;
use edge_core::dialect::client::{Publish, Subscribe, parse_publish, parse_subscribe};
use edge_core::dialect::link::{LinkDown, LinkUp};
use mqtt::filter;
use schemas::bag::PropertyBag;
use schemas::names::Identity;

/// A topic of a PUBLISH: what is no topic is refused, and a free topic is none of the reserved ones.
pub(crate) fn topics(data: &[u8]) {
    let Ok(topic) = std::str::from_utf8(data) else { return };
    let meaning = parse_publish(topic);
    if meaning == Ok(Publish::Free) {
        assert!(!topic.starts_with('$') && !topic.starts_with("devices/"), "{topic:?} is reserved");
    }
    if filter::check_topic(topic).is_ok() {
        assert!(filter::check_filter(topic).is_ok(), "a topic is a filter without wildcards");
        assert!(filter::matches(topic, topic));
        assert_eq!(filter::matches("#", topic), !topic.starts_with('$'));
    }
    let _ = (LinkUp::parse(topic), LinkDown::parse(topic));
}

/// A filter and a topic, one line each: the filter matches as its levels do, one by one.
pub(crate) fn filters(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (filter_text, topic) = text.split_once('\n').unwrap_or((text, "line1/oven/temperature"));
    if parse_subscribe(filter_text) == Ok(Subscribe::Free) {
        assert!(filter::check_filter(filter_text).is_ok(), "{filter_text:?} was let through");
    }
    if filter::check_filter(filter_text).is_err() || filter::check_topic(topic).is_err() {
        return;
    }
    let (filter_levels, topic_levels): (Vec<_>, Vec<_>) =
        (filter_text.split('/').collect(), topic.split('/').collect());
    let has_rest = filter_levels.last() == Some(&"#");
    let fixed = filter_levels.len() - usize::from(has_rest);
    let fits = if has_rest { topic_levels.len() >= fixed } else { topic_levels.len() == fixed };
    let are_equal = filter_levels[..fixed].iter().zip(&topic_levels).all(|(f, t)| *f == "+" || f == t);
    let is_hidden = topic.starts_with('$') && filter_text.starts_with(['+', '#']);
    assert_eq!(
        filter::matches(filter_text, topic),
        fits && are_equal && !is_hidden,
        "{filter_text:?} {topic:?}"
    );
}

/// A property bag: what is read is written to text that reads as the same.
pub(crate) fn bags(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let bag = PropertyBag::parse(text);
    let written = bag.to_string();
    assert_eq!(PropertyBag::parse(&written), bag, "{text:?} was written as {written:?}");
}

/// A client id, a user name and a SAS token, one line each: nobody is let in without the key.
pub(crate) fn sas(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (client_id, user_name, token) = (line(), line(), line());
    let _ = (claim(client_id, None), claim(client_id, Some(user_name)));
    let device: Identity = "d1".parse().expect("an identity");
    let keys: [&[u8]; 2] = [b"the key of this run: nobody guesses it", b"nor this one"];
    assert!(sas::verify(token, &device, &["hub"], &keys, 0).is_err(), "{token:?} was let in");
}
