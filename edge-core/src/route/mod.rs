//! Where a message goes: route grammar and route table.

mod grammar;
pub mod table;

pub use grammar::Sink;
pub use table::{RouteError, RouteTable};
