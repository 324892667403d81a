//! Why a connection ends.

use mqtt::codec::reason::Reason;

/// Why an open connection ends.
#[derive(Debug)]
pub(super) enum End {
    /// The client said goodbye: its will is not published.
    Disconnected,
    /// The connection broke, or the client closed it without a word, or asked for its will.
    Lost(String),
    /// Closed by the server; a client of MQTT 5 is sent the reason.
    Closed(String, Reason),
    Stopped,
}

impl End {
    pub(super) fn why(&self) -> &str {
        match self {
            Self::Disconnected => "the client disconnected",
            Self::Lost(why) | Self::Closed(why, _) => why,
            Self::Stopped => "the server stops",
        }
    }

    pub(super) fn reason(&self) -> Option<Reason> {
        match self {
            Self::Disconnected | Self::Lost(_) => None,
            Self::Closed(_, reason) => Some(*reason),
            Self::Stopped => Some(Reason::SERVER_SHUTTING_DOWN),
        }
    }
}
