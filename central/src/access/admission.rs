//! Whether a registered device may connect: one rule for central's own listener, its gateways, enrolment and the API.
//!
//! ```text
//!   enrols by a group that does not approve ──> Waiting ──approve──> Admitted
//!                                                │   ^                │   ^
//!                                          reject│   │unblock    block│   │unblock
//!                                                v   │                v   │
//!                                               Blocked              Blocked
//! ```
//!
//! A block keeps what stood before it: a device that was rejected while it waited waits again once it is unblocked.

/// Whether a device may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    Admitted,
    /// It enrolled by a group whose devices an operator approves one by one.
    Waiting,
    /// By an operator.
    Blocked,
}

/// Why a device may not connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    #[error("it waits for an operator's approval")]
    Waiting,
    #[error("it is blocked by an operator")]
    Blocked,
}

impl Admission {
    pub(crate) fn of(is_enabled: bool, is_waiting: bool) -> Self {
        match (is_enabled, is_waiting) {
            (false, _) => Self::Blocked,
            (true, true) => Self::Waiting,
            (true, false) => Self::Admitted,
        }
    }

    /// # Errors
    /// [`NotAdmitted`] unless it may connect.
    pub fn check(self) -> Result<(), NotAdmitted> {
        match self {
            Self::Admitted => Ok(()),
            Self::Waiting => Err(NotAdmitted::Waiting),
            Self::Blocked => Err(NotAdmitted::Blocked),
        }
    }
}
