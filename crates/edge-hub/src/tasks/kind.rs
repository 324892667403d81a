//! What the failure of a task means.

/// What a task's panic or end means, as the table of the module's page has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Essential,
    Restarted,
    Isolated,
}

impl Kind {
    #[cfg(debug_assertions)]
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Essential => "essential",
            Self::Restarted => "restarted",
            Self::Isolated => "isolated",
        }
    }
}
