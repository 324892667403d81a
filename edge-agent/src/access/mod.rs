//! Who may connect to this gateway and do what: leaf devices, modules and local users, their keys and certificates, and what becomes
//! of everything that a removed one leaves behind.

pub mod authorizer;
pub mod certificate;
pub mod devices;
pub mod enrolments;
pub mod generations;
pub mod identity_state;
pub mod module_generations;
pub mod module_keys;
pub mod passwords;
pub mod removals;
pub mod users;
