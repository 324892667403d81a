//! How a subscription receives its messages.

/// How a subscription is served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// At most.
    pub qos: u8,
    /// Not the client's own messages.
    pub no_local: bool,
    /// The retain flag is passed on as it was published.
    pub retain_as_published: bool,
    pub id: Option<u32>,
}
