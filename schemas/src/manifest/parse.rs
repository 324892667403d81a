//! Reads documents and twins into a [`Manifest`].

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::error::{ManifestError, ROOT};
use super::read;
use super::sections::{self, Current};
use super::types::{EdgeAgent, EdgeHub, Manifest};
use super::warnings::{self, Warning};
use crate::json::{self, JsonError};
use crate::names::ModuleId;
use crate::redaction::{REDACTED, find_redacted, find_redacted_in};

/// The largest document, in bytes. IoT Edge's twins hold 32 KB; a manifest may be larger here, not endless.
pub const DOCUMENT_BYTES_MAX: usize = 4 * 1024 * 1024;

impl Manifest {
    /// One that wants nothing.
    pub fn empty() -> Self {
        Self { edge_agent: EdgeAgent::default(), edge_hub: EdgeHub::default(), module_twins: BTreeMap::new() }
    }

    /// Reads a whole document, `modulesContent` or `content.modulesContent` on top.
    ///
    /// # Errors
    /// [`ManifestError`] for the first field that is wrong, or that holds central's mark of a secret. Route texts are not
    /// looked into here.
    pub fn parse(text: &[u8]) -> Result<Self, ManifestError> {
        Self::parse_over(&Self::document(text)?, &|_| Map::new())
    }

    /// Reads a document as it will be once it is laid over what the gateway has: flat keys without a whole
    /// `properties.desired` change that, and a part that the document leaves out stays.
    ///
    /// # Errors
    /// As [`Manifest::parse`].
    pub fn parse_over(document: &Value, current: Current<'_>) -> Result<Self, ManifestError> {
        // A document that a viewer has read has marks in place of secrets; stored, it would replace the secrets.
        refuse_redacted(find_redacted(document))?;
        let mut sections = Self::sections_over(document, current)?;
        let (agent, hub) = (ModuleId::edge_agent(), ModuleId::edge_hub());
        let edge_agent = match sections.remove(&agent).unwrap_or_else(|| current(&agent)) {
            nothing if nothing.is_empty() => {
                return Err(ManifestError {
                    path: format!("{ROOT}.$edgeAgent"),
                    found: "nothing".into(),
                    allowed: "write an object with properties.desired, which has schemaVersion and modules"
                        .into(),
                });
            }
            section => section,
        };
        let edge_hub = sections.remove(&hub).unwrap_or_else(|| current(&hub));
        let manifest = Self { module_twins: sections, ..Self::from_twins(&edge_agent, &edge_hub)? };
        // Whoever gives a document can correct it, so one invalid part refuses all of it (decision 0008).
        let mut modules = manifest.edge_agent.modules.values();
        if let Some(refused) = modules.find_map(|module| module.create_options_refused.clone()) {
            return Err(refused);
        }
        match manifest.edge_hub.routes_refused.into_values().next() {
            Some(refused) => Err(refused),
            None => Ok(Self {
                edge_hub: EdgeHub { routes_refused: BTreeMap::new(), ..manifest.edge_hub },
                ..manifest
            }),
        }
    }

    /// Checks that no two names of modules, in `modules` and of sections, differ in case alone. Routes compare names without regard
    /// to case: they would take messages of both, and a section would be of a module that is not there.
    ///
    /// # Errors
    /// [`ManifestError`] for the first module or section whose name is like that of a module before it.
    pub fn check_names(&self) -> Result<(), ManifestError> {
        let modules = self.edge_agent.modules.keys().map(|id| (id, true));
        let sections = self.module_twins.keys().map(|id| (id, false));
        let mut known: BTreeMap<String, &ModuleId> = BTreeMap::new();
        for (id, is_module) in modules.chain(sections) {
            let first = *known.entry(id.as_str().to_ascii_lowercase()).or_insert(id);
            if first != id {
                let place = if is_module { ".$edgeAgent.properties.desired.modules" } else { "" };
                return Err(ManifestError {
                    path: format!("{ROOT}{place}.{id}"),
                    found: format!("the module name \"{id}\" beside \"{first}\""),
                    allowed:
                        "write names of modules that differ in more than capitals: routes take these for one"
                            .into(),
                });
            }
        }
        Ok(())
    }

    /// Reads the text of a document within its limits of size and nesting, in which no key may stand twice; what it says is not
    /// looked into.
    ///
    /// # Errors
    /// [`ManifestError`] with the path `manifest`.
    pub fn document(text: &[u8]) -> Result<Value, ManifestError> {
        let refuse =
            |found: String, allowed: String| ManifestError { path: "manifest".into(), found, allowed };
        if text.len() > DOCUMENT_BYTES_MAX {
            return Err(refuse(format!("{} bytes", text.len()), format!("{DOCUMENT_BYTES_MAX} are allowed")));
        }
        // Editors on Windows write a byte order mark.
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        json::from_operator(text).map_err(|why| match why {
            JsonError::TooDeep { max } => {
                refuse("JSON nested deeper".into(), format!("{max} levels are allowed"))
            }
            JsonError::Number { .. } | JsonError::Key { .. } => {
                refuse(why.to_string(), "write what can be given back as it is written".into())
            }
            JsonError::Wrong(why) => {
                refuse(format!("text that is not JSON ({why})"), "write a deployment manifest as JSON".into())
            }
        })
    }

    /// Reads the desired sections as they stand in the twins of `$edgeAgent` and `$edgeHub`. An empty `$edgeHub` has
    /// no routes; an empty `$edgeAgent` is an error, because it says nothing about what shall run.
    ///
    /// # Errors
    /// [`ManifestError`] for the first field that is wrong, with the path it would have in a document.
    pub fn from_twins(
        edge_agent: &Map<String, Value>,
        edge_hub: &Map<String, Value>,
    ) -> Result<Self, ManifestError> {
        Ok(Self {
            edge_agent: read::edge_agent(edge_agent)?,
            edge_hub: read::edge_hub(edge_hub)?,
            module_twins: BTreeMap::new(),
        })
    }

    /// Checks that no desired section of `$edgeAgent` or `$edgeHub` holds central's mark of a secret.
    ///
    /// # Errors
    /// [`ManifestError`] for the first field with the mark.
    pub fn check_redaction(
        edge_agent: &Map<String, Value>,
        edge_hub: &Map<String, Value>,
    ) -> Result<(), ManifestError> {
        for (module, members) in [("$edgeAgent", edge_agent), ("$edgeHub", edge_hub)] {
            let path =
                find_redacted_in(members).map(|path| format!("{ROOT}.{module}.properties.desired.{path}"));
            refuse_redacted(path)?;
        }
        Ok(())
    }

    /// The desired sections that a document writes into twins, by module; flat keys such as
    /// `properties.desired.modules.sensor` are put where they belong. A module without any is not among them.
    ///
    /// # Errors
    /// [`ManifestError`] when the envelope or a flat key is wrong; what the sections say is not looked into here.
    pub fn sections(document: &Value) -> Result<BTreeMap<ModuleId, Map<String, Value>>, ManifestError> {
        Self::sections_over(document, &|_| Map::new())
    }

    /// As [`Manifest::sections`]. A section that is written by flat keys alone is laid over what its module has now.
    ///
    /// # Errors
    /// As [`Manifest::sections`].
    pub fn sections_over(
        document: &Value,
        current: Current<'_>,
    ) -> Result<BTreeMap<ModuleId, Map<String, Value>>, ManifestError> {
        sections::of(document, current)
    }

    /// What in a document has no effect, or may not be what its author meant.
    pub fn warnings(document: &Value) -> Vec<Warning> {
        warnings::of(document)
    }

    /// Whether a section of the document is written by flat keys alone, as in a layered deployment.
    pub fn has_layer(document: &Value) -> bool {
        sections::has_layer(document)
    }
}

fn refuse_redacted(path: Option<String>) -> Result<(), ManifestError> {
    let Some(path) = path else { return Ok(()) };
    Err(ManifestError {
        path: if path.is_empty() { "manifest".into() } else { path },
        found: format!("`{REDACTED}`, which stands for a secret that viewers are not shown"),
        allowed: "write the secret, or change a manifest that was read with an operator's token".into(),
    })
}
