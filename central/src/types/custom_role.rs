//! A role that an administrator made: a name and a set of permissions.

use std::fmt;

use central_core::access::permission::Permissions;
use schemas::names;

use super::single_line::DisplayName;

/// Characters of an id.
const ID_LENGTH_MAX: usize = 64;

/// The id of a role that an administrator made. Two that differ in case only are the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleId(String);

/// A text was no id of a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found `{}`; write 1 to {ID_LENGTH_MAX} letters, digits and - _ ., not dots alone", .0.escape_debug())]
pub struct InvalidRoleId(String);

impl RoleId {
    /// As it is stored and shown.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for RoleId {
    type Err = InvalidRoleId;

    fn from_str(text: &str) -> Result<Self, InvalidRoleId> {
        let is_id = (1..=ID_LENGTH_MAX).contains(&text.len())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !names::is_dots(text);
        if is_id {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidRoleId(text.chars().take(ID_LENGTH_MAX).collect()))
        }
    }
}

impl fmt::Display for RoleId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A role that an administrator made. It holds the whole site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomRole {
    /// In the API's paths, and in assignments.
    pub id: RoleId,
    /// For people. No two roles share one.
    pub display_name: DisplayName,
    /// What it allows, with all that these need.
    pub permissions: Permissions,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_plain_name_that_a_path_can_have() {
        for id in ["night-shift", "a", "A_1.b", "344138e9-8de4-4497-8c54-5237e96d6aaf", &"a".repeat(64)] {
            assert_eq!(id.parse::<RoleId>().unwrap().as_str(), id);
        }
        for wrong in ["", ".", "..", "a b", "a/b", "a\n", "ä", "a,b", &"a".repeat(65)] {
            assert!(wrong.parse::<RoleId>().is_err(), "{wrong}");
        }
    }
}
