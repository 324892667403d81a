//! What each parser must keep when it is given any bytes: it ends, it does not panic, and what it says holds together.
//!
//! One function for each parser. `corpus/{name}` has bytes that are worth trying; every test run tries them all, and
//! `driver` (built with coverage) goes on from there: `make fuzz`.

mod amqp_frames;
mod dialect;
mod documents;
mod models;
mod packets;

/// A parser under test: takes any bytes and panics when a promise is broken.
pub type Target = fn(&[u8]);

/// Every target by the name of its corpus.
pub const TARGETS: [(&str, Target); 10] = [
    ("packets", packets::packets),
    ("amqp", amqp_frames::amqp),
    ("topics", dialect::topics),
    ("filters", dialect::filters),
    ("bags", dialect::bags),
    ("sas", dialect::sas),
    ("routes", documents::routes),
    ("manifest", documents::manifest),
    ("twin", documents::twin),
    ("models", models::models),
];

/// The target of that name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}
