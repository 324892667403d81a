//! Docker image references: `[host[:port]/]name[/name…][:tag][@digest]`, the grammar of the distribution project.

/// What an image reference must look like, as text.
pub(super) const ALLOWED: &str =
    "write [host[:port]/]name[:tag][@sha256:…], for example ghcr.io/acme/filter:1.2, its name in lower case";

/// Said of `$upstream:443/name`, which in IoT Edge is an image at the parent gateway.
pub(super) const NO_PARENT: &str = "gateways have no parent here, write the registry's own host";

/// For `${MODULES.sensor}`, which templates contain.
pub(super) const TEMPLATE: &str = "this is a template; `edge-agent plan` and `apply` replace ${VARIABLE} from the environment in files with the \
     key $schema-template or named *.template.json; ${MODULES.…} is replaced by the image's own name, or build the \
     template with `iotedgedev genconfig`";

/// The longest name without tag and digest (distribution's limit).
const NAME_LENGTH_MAX: usize = 255;
/// The longest tag.
const TAG_LENGTH_MAX: usize = 128;

/// Checks a reference and adds `:latest` if it has neither tag nor digest. `None` when it is not a reference.
pub(super) fn normalize(reference: &str) -> Option<String> {
    let (tagged, digest) = match reference.split_once('@') {
        Some((tagged, digest)) => (tagged, Some(digest)),
        None => (reference, None),
    };
    // A colon before the last slash belongs to the host's port.
    let last_part = tagged.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match tagged[last_part..].find(':') {
        Some(colon) => (&tagged[..last_part + colon], Some(&tagged[last_part + colon + 1..])),
        None => (tagged, None),
    };
    let is_right = is_name(name) && tag.is_none_or(is_tag) && digest.is_none_or(is_digest);
    match (tag, digest) {
        _ if !is_right => None,
        (None, None) => Some(format!("{reference}:latest")),
        _ => Some(reference.to_owned()),
    }
}

fn is_name(name: &str) -> bool {
    let path = match name.split_once('/') {
        Some((host, rest)) if is_host_like(host) => is_host(host).then_some(rest),
        _ => Some(name),
    };
    name.len() <= NAME_LENGTH_MAX && path.is_some_and(|path| path.split('/').all(is_component))
}

/// Docker takes the first part for a registry when it could not be anything else.
fn is_host_like(part: &str) -> bool {
    part == "localhost" || part.contains(['.', ':']) || part.chars().any(|c| c.is_ascii_uppercase())
}

fn is_host(host: &str) -> bool {
    // Colons within the brackets of an IPv6 address are not a port's.
    let (name, port) = match host.rsplit_once(':').filter(|_| !host.ends_with(']')) {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_address = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    (is_address || name.split('.').all(is_label))
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Small letters and digits, joined by one dot, one or two underscores, or any number of dashes.
fn is_component(component: &str) -> bool {
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let joints = component.split(is_alphanumeric).filter(|joint| !joint.is_empty());
    component.starts_with(is_alphanumeric)
        && component.ends_with(is_alphanumeric)
        && joints
            .into_iter()
            .all(|joint| matches!(joint, "." | "_" | "__") || joint.chars().all(|c| c == '-'))
}

fn is_tag(tag: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.starts_with(is_word)
        && tag.len() <= TAG_LENGTH_MAX
        && tag.chars().all(|c| is_word(c) || c == '.' || c == '-')
}

fn is_digest(digest: &str) -> bool {
    let hex = |length: usize| {
        move |hex: &str| hex.len() == length && hex.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
    };
    digest.strip_prefix("sha256:").is_some_and(hex(64))
        || digest.strip_prefix("sha512:").is_some_and(hex(128))
}

#[cfg(test)]
mod tests {
    use super::normalize;

    #[test]
    fn an_image_reference_gets_a_tag_and_a_wrong_one_is_refused() {
        let digest = format!("acme/filter@sha256:{}", "0a".repeat(32));
        for (reference, normal) in [
            ("nginx", Some("nginx:latest")),
            ("lineside/threshold-filter:1", Some("lineside/threshold-filter:1")),
            ("localhost:5000/a__b/c-d.e", Some("localhost:5000/a__b/c-d.e:latest")),
            ("mcr.microsoft.com/azureiotedge-agent:1.5", Some("mcr.microsoft.com/azureiotedge-agent:1.5")),
            ("[::1]:5000/a:1", Some("[::1]:5000/a:1")),
            (&digest, Some(&*digest)),
            ("", None),
            ("nginx:", None),
            ("nginx:a b", None),
            ("Nginx", None),
            ("a//b", None),
            ("/a", None),
            ("a/", None),
            ("a___b", None),
            ("host:port/a", None),
            ("a@sha256:12", None),
            ("$upstream:443/a:1", None),
            (" nginx", None),
            ("http://a/b", None),
        ] {
            assert_eq!(normalize(reference).as_deref(), normal, "{reference}");
        }
    }
}
