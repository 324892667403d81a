//! An error with all its causes in one line: `reading /var/run/docker.sock: permission denied`.

use std::error::Error;
use std::fmt;

/// Causes after which a chain is cut: an error that is its own cause must not fill the log.
const CAUSES_MAX: usize = 16;

/// Shows an error and everything that led to it. A cause that an error names in its own text is not repeated.
pub fn chain<'a>(error: &'a (dyn Error + 'a)) -> Chain<'a> {
    Chain(error)
}

/// See [`chain`].
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a>(&'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut next = self.0.source();
        for _ in 0..CAUSES_MAX {
            let Some(error) = next else { break };
            let cause = error.to_string();
            if !text.contains(&cause) {
                text.push_str(": ");
                text.push_str(&cause);
            }
            next = error.source();
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failure {
        #[error("no permission")]
        Cause,
        #[error("reading the socket")]
        Silent(#[source] Box<Failure>),
        #[error("listing containers failed: {0}")]
        Reporting(#[source] Box<Failure>),
    }

    #[test]
    fn every_cause_is_shown_once_whether_or_not_an_error_names_its_own() {
        let cause = || Box::new(Failure::Cause);
        let shown = |error: &Failure| chain(error).to_string();
        assert_eq!(shown(&Failure::Cause), "no permission");
        assert_eq!(shown(&Failure::Silent(cause())), "reading the socket: no permission");
        let reporting = |of| Failure::Reporting(Box::new(of));
        assert_eq!(shown(&reporting(Failure::Cause)), "listing containers failed: no permission");
        assert_eq!(
            shown(&reporting(Failure::Silent(cause()))),
            "listing containers failed: reading the socket: no permission"
        );
    }
}
