//! Where a message goes: the grammar of routes, what they are evaluated for, and the table of all of them.

mod grammar;
mod message;
pub mod sample;
mod source;
pub mod table;
#[cfg(test)]
mod tests;

pub use grammar::Sink;
pub use message::{Kind, Message, TOPIC_PROPERTY, TWIN_CHANGE_SCHEMA, system_on_the_wire};
pub use table::{QueueClass, QueuesNeeded, RouteError, RouteResult, RouteTable, RouteText, Target, Verdict};
