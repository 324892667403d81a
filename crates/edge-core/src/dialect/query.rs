//! The query part of a topic: `k=v&k2=v2`.

/// The value of one key of a `k=v&k2=v2` query, not decoded.
pub(super) fn query_value(query: &str, key: &str) -> Option<String> {
    query
        .split('&')
        .find_map(|pair| pair.split_once('=').filter(|(k, _)| *k == key))
        .map(|(_, v)| v.to_owned())
}
