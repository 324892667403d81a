//! Which requests read a log, by their path: they need another role than other reads, are noted, and wait for a gateway.

/// Whether this is the path of a module's log ([`super::module_logs`]; decision 0099).
pub(super) fn is_log(path: &str) -> bool {
    let Some(rest) = path.strip_prefix("/api/ext/devices/") else { return false };
    matches!(rest.split('/').collect::<Vec<_>>()[..], [_, "modules", _, "logs"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_log_is_no_other() {
        assert!(is_log("/api/ext/devices/gw/modules/vision/logs"));
        assert!(is_log("/api/ext/devices/gw/modules/%24x/logs"));
        for other in [
            "/api/ext/devices/gw/modules/vision/logs/",
            "/api/ext/devices/logs",
            "/api/ext/devices/modules/x/logs",
            "/api/devices/gw/modules/vision/logs",
            "/api/ext/devices/gw/modules/vision/commands/logs",
            "/api/ext/devices/gw/modules/logs",
        ] {
            assert!(!is_log(other), "{other}");
        }
    }
}
