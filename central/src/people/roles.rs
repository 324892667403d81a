//! Roles as IoT Central's API names them.

use crate::token::Role;

/// Every role: its id in the API, and its name. The ids of administrator and operator are IoT Central's, which scripts have written
/// down; it has no viewer outside of organizations.
pub const ROLES: [(Role, &str, &str); 3] = [
    (Role::Administrator, "ca310b8d-2f4a-44e0-a36e-957c202cd8d4", "Administrator"),
    (Role::Operator, "ae2c9854-393b-4f97-8c42-479d70ce626e", "Operator"),
    (Role::Viewer, "viewer", "Viewer"),
];

/// The id of a role.
pub fn id(role: Role) -> &'static str {
    ROLES.iter().find(|(of, ..)| *of == role).map_or(role.as_str(), |(_, id, _)| id)
}

/// The name of a role, for people.
pub fn display_name(role: Role) -> &'static str {
    ROLES.iter().find(|(of, ..)| *of == role).map_or(role.as_str(), |(.., name)| name)
}

/// The role with this id, or with our word for it: `viewer`, `operator`, `administrator`.
pub fn by_id(text: &str) -> Option<Role> {
    ROLES.iter().find(|(role, id, _)| *id == text || role.as_str() == text).map(|(role, ..)| *role)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_found_by_its_id_and_by_its_word() {
        for role in [Role::Viewer, Role::Operator, Role::Administrator] {
            assert_eq!((by_id(id(role)), by_id(role.as_str())), (Some(role), Some(role)));
            assert_eq!(display_name(role).to_lowercase(), role.as_str());
        }
        assert_eq!(by_id("344138e9-8de4-4497-8c54-5237e96d6aaf"), None);
    }
}
