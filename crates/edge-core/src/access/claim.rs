//! Who a CONNECT claims to be, by its client id and user name; nothing is proven yet.

use schemas::names::{Identity, UserName};

use super::error::AccessError;

/// Who a CONNECT claims to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// A device or module, in the dialect of the Azure SDKs.
    Identity(Identity),
    /// A local user: a client that knows a name and a password and nothing of the dialect.
    User(UserName),
}

/// Who a CONNECT claims to be, from its client id and user name. A user name without `/` is that of a local user, whose
/// client id is free; every other is an identity's.
///
/// # Errors
/// [`AccessError`] when either cannot be read or they differ. The user name's host is not compared with anything
/// (edgeHub does not either: SDKs put the hub there, Node with X.509 the gateway).
pub fn claim(client_id: &str, user_name: Option<&str>) -> Result<Claim, AccessError> {
    let user_name = user_name.unwrap_or("");
    let wrong = || AccessError::UserName { user_name: user_name.to_owned() };
    if !user_name.is_empty() && !user_name.contains('/') {
        return user_name.parse().map(Claim::User).map_err(|_| wrong());
    }
    let identity: Identity = client_id
        .parse()
        .map_err(|why| AccessError::ClientId { client_id: client_id.to_owned(), why: format!("{why}") })?;
    // SDK user agents carry percent-encoded text after the first `/?`; older ones put the query without `?`.
    let (path, query) = match user_name.split_once("/?") {
        Some(parts) => parts,
        None => user_name
            .rsplit_once('/')
            .filter(|(_, query)| query.contains("api-version="))
            .ok_or_else(wrong)?,
    };
    let has_version =
        query.split('&').any(|pair| pair.strip_prefix("api-version=").is_some_and(|v| !v.is_empty()));
    let (_host, id) = path.split_once('/').filter(|_| has_version).ok_or_else(wrong)?;
    if id == client_id {
        Ok(Claim::Identity(identity))
    } else {
        Err(AccessError::Mismatch { client_id: client_id.to_owned(), user_name: id.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Claim {
        Claim::Identity(text.parse().unwrap())
    }

    #[test]
    fn user_names_of_the_azure_sdks_are_understood() {
        for (client_id, user_name) in [
            ("d", "hub.net/d/?api-version=2019-10-01&DeviceClientType=py%2F2.14%3B%28x%23%29"),
            ("d/m", "hub.net/d/m/?api-version=2021-04-12&model-id=dtmi:a;1"),
            ("d", "gateway/d/api-version=2016-11-14"),
        ] {
            assert_eq!(claim(client_id, Some(user_name)), Ok(id(client_id)), "{user_name}");
        }
        assert!(matches!(claim("d", Some("hub/e/?api-version=1")), Err(AccessError::Mismatch { .. })));
        assert!(matches!(claim("d", Some("hub/d/?api-version=")), Err(AccessError::UserName { .. })));
        assert!(matches!(claim("d", None), Err(AccessError::UserName { .. })));
        assert!(matches!(claim("a b", Some("hub/a b/?api-version=1")), Err(AccessError::ClientId { .. })));
    }

    #[test]
    fn a_user_name_without_a_slash_is_a_local_users_whatever_the_client_id() {
        let user = |name: &str| Ok(Claim::User(name.parse().unwrap()));
        assert_eq!(claim("press 1 / whatever", Some("plc1")), user("plc1"));
        assert_eq!(claim("", Some("node-red@line1")), user("node-red@line1"));
        assert!(matches!(claim("d", Some("plc 1")), Err(AccessError::UserName { .. })));
        assert!(matches!(claim("d", Some("")), Err(AccessError::UserName { .. })), "nobody is anonymous");
        assert!(
            matches!(
                claim("$user:plc1", Some("h/$user:plc1/?api-version=1")),
                Err(AccessError::ClientId { .. })
            ),
            "no device can be taken for a user"
        );
    }
}
