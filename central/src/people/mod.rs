//! Who uses central in a browser: users with passwords, their sessions, and the first user of a new site.
//!
//! Another way to sign in (OpenID Connect) ends, as a password does, in a [`session::Session`] of a user of the store.

pub mod accounts;
pub mod assigned;
pub mod authority;
pub mod caller;
mod change_password;
pub mod custom_roles;
pub mod error;
mod guesses;
pub mod names;
pub mod password;
pub mod roles;
pub mod service;
pub mod session;
mod session_use;
mod set_up;
pub mod setup_code;
mod sign_in;
pub mod user;
