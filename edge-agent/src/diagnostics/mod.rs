//! What a gateway gives to operators about itself: logs of its modules ([`log_reader`]).

pub mod log_reader;
