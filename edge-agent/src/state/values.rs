//! All of the state in memory.

use std::collections::BTreeMap;

use super::Namespace;

/// Each value by its namespace and key.
pub(super) type Values = BTreeMap<(Namespace, String), Vec<u8>>;
