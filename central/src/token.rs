//! API tokens in IoT Central's form, `SharedAccessSignature sr=…&sig=…&skn=…&se=…`, and what a role may do.
//!
//! `sig` is 32 random bytes: the secret. Only its SHA-256 is kept; a random secret of that size needs no salt and no slow
//! hash. `sr`, `skn` and `se` tell people what the token is for; the store's copy of them is what counts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use central_core::access::built_in;
use central_core::access::permission::Permissions;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use schemas::names;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::types::custom_role::CustomRole;

/// How long a token lives when nothing is chosen, in milliseconds: IoT Central's year.
pub const LIFE_MS_DEFAULT: u64 = 365 * 24 * 3600 * 1000;

/// Characters of a token's name.
const NAME_LENGTH_MAX: usize = 128;

/// A built-in role for the whole site, as the command line and the store name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Reads, writes, commands.
    Operator,
    /// Reads, writes, commands, deletes.
    Builder,
    /// Everything.
    Administrator,
}

impl Role {
    /// From the least to the most.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::Builder, Self::Administrator];

    /// As it is stored and printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Builder => "builder",
            Self::Administrator => "administrator",
        }
    }

    /// What it allows.
    pub fn permissions(self) -> Permissions {
        match self {
            Self::Viewer => built_in::VIEWER,
            Self::Operator => built_in::OPERATOR,
            Self::Builder => built_in::BUILDER,
            Self::Administrator => Permissions::ALL,
        }
    }
}

/// A role was none of [`Role::ALL`].
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no role; allowed are viewer, operator, builder, administrator")]
pub struct UnknownRole(String);

impl std::str::FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

/// The roles of a user or a token for the whole site. Together they allow what any of them allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SiteRoles {
    /// The highest built-in one.
    pub built_in: Option<Role>,
    /// Those that administrators made, by id.
    pub custom: Vec<CustomRole>,
}

impl SiteRoles {
    /// What they allow.
    pub fn permissions(&self) -> Permissions {
        let built_in = self.built_in.map_or_else(Permissions::default, Role::permissions);
        self.custom.iter().fold(built_in, |all, role| all.and(role.permissions))
    }

    /// The built-in one as it is stored, and the ids of the others.
    pub fn ids(&self) -> Vec<&str> {
        let custom = self.custom.iter().map(|role| role.id.as_str());
        self.built_in.map(Role::as_str).into_iter().chain(custom).collect()
    }
}

impl From<Role> for SiteRoles {
    fn from(role: Role) -> Self {
        Self { built_in: Some(role), custom: Vec::new() }
    }
}

/// The name of a new token: its id in the API, and what the log calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenName(String);

/// A name was not one.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no name of a token; write 1 to {NAME_LENGTH_MAX} letters, digits and - _ ., not dots alone"
)]
pub struct InvalidTokenName(String);

impl TokenName {
    /// A name that nobody has chosen.
    pub fn random() -> Self {
        Self(format!("token-{:08x}", rand::random::<u32>()))
    }

    /// As [`TokenName::random`], of a token that a command on central's machine makes for itself: the audit log names it.
    pub fn of_command_line() -> Self {
        Self(format!("command-line-{:08x}", rand::random::<u32>()))
    }

    /// As it is stored and printed.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for TokenName {
    type Err = InvalidTokenName;

    fn from_str(text: &str) -> Result<Self, InvalidTokenName> {
        let is_name = (1..=NAME_LENGTH_MAX).contains(&text.len())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !names::is_dots(text);
        if is_name { Ok(Self(text.to_owned())) } else { Err(InvalidTokenName(text.to_owned())) }
    }
}

/// A role, for the whole site or in an organization. The roles of the second kind are kept for scripts: central does not confine
/// a token to an organization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct RoleAssignment {
    /// The id of a role, or `administrator`, `builder`, `operator` or `viewer`.
    pub role: String,
    /// The id of an organization; the role holds for the whole site when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
}

impl RoleAssignment {
    /// A role for the whole site.
    pub fn of_site(role: &str) -> Self {
        Self { role: role.to_owned(), organization: None }
    }
}

/// What a token grants, and to whom. Times are in milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// One token only has it. Tokens of older versions may have names that [`TokenName`] does not allow.
    pub name: String,
    /// What it may do.
    pub roles: SiteRoles,
    /// `None` for a token of a version that did not note it.
    pub created_ms: Option<u64>,
    /// Until when.
    pub expires_ms: u64,
    /// When it was last used, to the minute; `None` when it never was.
    pub used_ms: Option<u64>,
}

/// A new token: the line that is shown once, the hash that is kept, and what it grants.
pub struct NewToken {
    /// `SharedAccessSignature …`; secret.
    pub line: String,
    /// What is stored of it.
    pub hash: String,
    /// What it grants.
    pub grant: Grant,
}

/// Makes a token for the central called `hostname`, which is valid until `expires_ms`.
pub fn create(
    hostname: &str,
    name: &TokenName,
    roles: impl Into<SiteRoles>,
    now_ms: u64,
    expires_ms: u64,
) -> NewToken {
    let secret = STANDARD.encode(rand::random::<[u8; 32]>());
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let line = format!(
        "SharedAccessSignature sr={}&sig={}&skn={}&se={expires_ms}",
        encode(hostname),
        encode(&secret),
        encode(name.as_str())
    );
    let grant = Grant {
        name: name.as_str().to_owned(),
        roles: roles.into(),
        created_ms: Some(now_ms),
        expires_ms,
        used_ms: None,
    };
    NewToken { line, hash: hash(&secret), grant }
}

/// How an Authorization header carries a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `SharedAccessSignature` or `Bearer`: a program put it there. No browser adds it by itself.
    Token,
    /// HTTP Basic: a browser repeats it for every request to this server, whichever page asked for the request.
    Basic,
}

/// A token as an Authorization header carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// Decides where the token counts.
    pub scheme: Scheme,
    /// Finds the token in the store.
    pub hash: String,
}

/// Reads an Authorization header: the whole line of a token, `Bearer` with the line or with its `sig` alone, or HTTP Basic
/// with either as the password. `None` when there is no token in it.
pub fn presented(header: &str) -> Option<Presented> {
    let (scheme, rest) = header.trim().split_once(' ')?;
    let (scheme, secret) = match scheme.to_ascii_lowercase().as_str() {
        "sharedaccesssignature" => (Scheme::Token, signature(rest)?),
        "bearer" => (Scheme::Token, signature(rest).unwrap_or_else(|| rest.trim().to_owned())),
        "basic" => {
            let decoded = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
            let (_user, password) = decoded.split_once(':')?;
            (Scheme::Basic, signature(password).unwrap_or_else(|| password.trim().to_owned()))
        }
        _ => return None,
    };
    Some(Presented { scheme, hash: hash(&secret) })
}

fn signature(fields: &str) -> Option<String> {
    let fields = fields.trim().trim_start_matches("SharedAccessSignature ");
    let value = fields.split('&').find_map(|pair| pair.strip_prefix("sig="))?;
    Some(percent_decode_str(value).decode_utf8().ok()?.into_owned())
}

/// What is stored of a random secret.
pub fn hash(secret: &str) -> String {
    STANDARD.encode(Sha256::digest(secret.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_in_every_form_of_the_header_and_its_hash_does_not_hold_it() {
        let name: TokenName = "ci-1".parse().unwrap();
        let create = || create("central.example", &name, Role::Operator, 1000, 2000);
        let token = create();
        assert!(token.line.starts_with("SharedAccessSignature sr="), "{}", token.line);
        assert!(token.line.ends_with(&"&se=2000"));
        let fields = token.line.split_once(' ').unwrap().1;
        let secret = signature(fields).unwrap();
        let basic = format!("Basic {}", STANDARD.encode(format!("anyone:{}", token.line)));
        for (header, scheme) in [
            (token.line.clone(), Scheme::Token),
            (format!("Bearer {}", token.line), Scheme::Token),
            (format!("bearer {secret}"), Scheme::Token),
            (basic, Scheme::Basic),
        ] {
            let expected = Presented { scheme, hash: token.hash.clone() };
            assert_eq!(presented(&header), Some(expected), "{header}");
        }
        assert!(!token.hash.contains(&secret));
        assert_ne!(token.hash, create().hash);
        for wrong in ["", ".", "..", "a b", "a/b", "ä", &"a".repeat(129)] {
            assert!(wrong.parse::<TokenName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_header_without_a_token_gives_none() {
        for header in ["", "Bearer", "SharedAccessSignature sr=x", "Basic !", "Digest sig=x"] {
            assert_eq!(presented(header), None, "{header}");
        }
    }

    #[test]
    fn roles_are_ordered_by_what_they_may_do() {
        for pair in Role::ALL.windows(2) {
            assert!(pair[0] < pair[1] && pair[0].permissions().is_within(pair[1].permissions()), "{pair:?}");
        }
        assert!("root".parse::<Role>().unwrap_err().to_string().contains("viewer, operator"));
    }
}
