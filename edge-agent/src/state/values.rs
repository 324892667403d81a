//! All of the state in memory.

use std::collections::BTreeMap;

use super::Room;

/// Each value by its namespace and key.
pub(super) type Values = BTreeMap<(Room, String), Vec<u8>>;
