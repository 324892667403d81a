//! Types that requests, services and the store share.

pub mod component;
pub mod custom_role;
pub mod organizations;
pub mod overview_tile;
pub mod precondition;
pub mod single_line;
pub mod update;
