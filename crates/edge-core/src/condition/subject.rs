//! What a condition is evaluated for: a message, a device, a row; whoever asks writes this trait for it.

use serde_json::{Map, Value as Json};

use super::body::BodyError;
use super::path::Path;

/// The twin sections that conditions look into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TwinSection {
    /// `$twin.properties.desired`
    Desired,
    /// `$twin.properties.reported`
    Reported,
    /// `$twin.tags`
    Tags,
}

impl TwinSection {
    /// As written in a condition, after `$twin.`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Desired => "properties.desired",
            Self::Reported => "properties.reported",
            Self::Tags => "tags",
        }
    }
}

/// What can be looked up. Everything is only asked for when the condition comes to it, so that what is dear (reading a
/// body, fetching a twin) can be done then, once.
pub trait Subject {
    /// An application property. Names are compared without regard to case.
    fn property(&self, _name: &str) -> Option<&str> {
        None
    }

    /// A system property by its name without the `$`, for example `contentType`. Without regard to case.
    fn system(&self, _name: &str) -> Option<&str> {
        None
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// [`BodyError`].
    fn body(&self) -> Result<&Json, &BodyError> {
        Err(&BodyError::Absent)
    }

    /// A section of the twin of whoever it is about; `None` when there is no such twin.
    fn twin(&self, _section: TwinSection) -> Option<&Map<String, Json>> {
        None
    }

    /// The patch of a twin change, when that is what it is about, and the section that it changed.
    fn twin_change(&self) -> Option<(TwinSection, &Json)> {
        None
    }
}

/// Nothing is known: for what does not depend on anything.
pub(super) struct Nothing;

impl Subject for Nothing {}

/// The value at a path below a section.
pub(super) fn in_section<'a>(section: &'a Map<String, Json>, path: &Path) -> Option<&'a Json> {
    path.walk_members(section)
}
