//! What somebody removed of the state, as `check` tells it.

/// When files of the state were removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovedState {
    /// The directory was missing or empty at the start, and there had been a state.
    BeforeStart,
    /// It was noticed while the daemon runs.
    WhileRunning,
}

impl RemovedState {
    /// What became of it.
    pub fn consequence(self) -> &'static str {
        match self {
            Self::BeforeStart => {
                "state/ was missing at the start: what only this gateway knew of devices, users, twins and commands is lost"
            }
            Self::WhileRunning => {
                "files in state/ were removed while the daemon ran, and were made again from memory"
            }
        }
    }
}
