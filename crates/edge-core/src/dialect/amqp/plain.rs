//! User names of SASL PLAIN: `{device}[/modules/{module}]@[sas.]{hub}`, ids percent-encoded.

use super::address::identity;
use crate::access::sas::Audience;

/// Whom a user name claims to be, and at which hub. `None` for other names.
pub fn audience(user_name: &str) -> Option<Audience> {
    // Ids may have an `@`, names of hubs may not.
    let (id, host) = user_name.rsplit_once('@')?;
    let (device, module) = match id.split_once("/modules/") {
        Some((device, module)) => (device, Some(module)),
        None => (id, None),
    };
    let identity = identity(device, module)?.ok()?;
    let host = host.strip_prefix("sas.").unwrap_or(host);
    // A service finds the host by the first `/`.
    (!host.is_empty() && !host.contains('/')).then(|| Audience { host: host.to_owned(), identity })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names_of_devices_and_modules_are_read() {
        let read = |name: &str| audience(name).map(|found| (found.identity.to_string(), found.host));
        let found = |who: &str| Some((who.to_owned(), "hub".to_owned()));
        assert_eq!(read("d@sas.hub"), found("d"));
        assert_eq!(read("d@hub"), found("d"));
        assert_eq!(read("d/modules/m@sas.hub"), found("d/m"));
        assert_eq!(read("a@b/modules/%24edgeHub@sas.hub"), found("a@b/$edgeHub"));
        for other in [
            "",
            "d",
            "d@",
            "d@sas.",
            "@hub",
            "d/m@hub",
            "d/modules/@hub",
            "%ff@hub",
            "d@sas.S/registrations/d/api-version=1",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
