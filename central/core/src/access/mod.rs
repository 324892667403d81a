//! What users and tokens may do: permissions, and the roles that consist of them.

pub mod built_in;
pub mod further;
pub mod permission;
