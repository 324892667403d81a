//! What a gateway gives to operators about itself: logs of its modules ([`log_reader`]), and an archive for whoever helps ([`bundle`]).

pub mod bundle;
pub mod log_reader;
