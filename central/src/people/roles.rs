//! Roles as IoT Central's API names them, and as central's command line does.

use central_core::access::built_in::{BUILT_IN, BuiltIn, Holds};

use crate::token::{Role, SiteRoles};

/// The built-in role of the API that stands for one of the command line.
pub fn of(role: Role) -> &'static BuiltIn {
    let holds = Holds::Site(role.permissions());
    BUILT_IN.iter().find(|one| one.holds == holds).expect("each role of the command line is one of the API")
}

/// The role with this id, or with its name on the command line: `viewer`, `operator`, `builder`, `administrator`.
pub fn by_id(text: &str) -> Option<Role> {
    Role::ALL.into_iter().find(|role| role.as_str() == text || of(*role).id == text)
}

/// For people: the names of all roles of a user or token.
pub fn names(roles: &SiteRoles) -> String {
    let built_in = roles.built_in.map(|role| of(role).display_name);
    let custom = roles.custom.iter().map(|role| &*role.display_name);
    built_in.into_iter().chain(custom).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_found_by_its_id_and_by_its_word() {
        for role in Role::ALL {
            assert_eq!((by_id(of(role).id), by_id(role.as_str())), (Some(role), Some(role)));
            assert_eq!(of(role).display_name.to_lowercase(), role.as_str());
        }
        assert_eq!(by_id("344138e9-8de4-4497-8c54-5237e96d6aaf"), Some(Role::Builder));
        assert_eq!(by_id("84cc62c1-dabe-49d3-b16e-8b291232b285"), None, "it holds in an organization");
    }
}
