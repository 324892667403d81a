//! The desired sections of which a deployment is made, as they are kept.

use std::collections::BTreeMap;

use schemas::manifest::{Manifest, ManifestError, Route};
use schemas::twin::Section;
use serde::{Deserialize, Serialize};

/// The two sections of which a deployment is made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sections {
    pub edge_agent: Section,
    pub edge_hub: Section,
    /// Routes that are wrong in `edge_hub`, as they were when they were last right.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kept_routes: BTreeMap<String, Route>,
}

impl Sections {
    /// Whether both are the same sections of the same versions.
    pub fn wants_the_same(&self, other: &Self) -> bool {
        (&self.edge_agent, &self.edge_hub) == (&other.edge_agent, &other.edge_hub)
    }

    /// Their manifest.
    ///
    /// # Errors
    /// [`ManifestError`] for the first field that is wrong.
    pub fn manifest(&self) -> Result<Manifest, ManifestError> {
        Manifest::from_twins(&self.edge_agent.properties, &self.edge_hub.properties)
    }
}
