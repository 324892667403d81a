//! Logins in their turn: who has failed before waits, the longer the oftener, and nobody else waits for it.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use edge_core::access::throttle::{Throttle, ThrottleSettings, Turn};
use tokio::time::Instant;

use crate::counts::{Counts, count};
use crate::service::{Admitted, Refusal};

/// The failures at one server.
#[derive(Debug)]
pub(crate) struct Attempts {
    throttle: Mutex<Throttle>,
    since: Instant,
}

impl Attempts {
    pub(crate) fn new(settings: ThrottleSettings) -> Self {
        Self { throttle: Mutex::new(Throttle::new(settings)), since: Instant::now() }
    }

    fn lock(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits until this login may be checked.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] when it would have to wait for longer than the longest wait.
    pub(crate) async fn turn(&self, address: IpAddr, claimed: &str, counts: &Counts) -> Result<(), Refusal> {
        let turn = self.lock().arrive(self.now_ms(), address, claimed);
        match turn {
            Turn::After(0) => {}
            Turn::After(wait_ms) => {
                count(&counts.logins_delayed);
                tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            }
            Turn::Refused => {
                count(&counts.logins_refused);
                return Err(Refusal::Unavailable(
                    "too many logins failed, and too many wait for their turn; it was not looked at"
                        .to_owned(),
                ));
            }
        }
        Ok(())
    }

    /// Notes how a login ended.
    pub(crate) fn ended(
        &self,
        address: IpAddr,
        claimed: &str,
        result: &Result<Admitted, Refusal>,
        counts: &Counts,
    ) {
        match result {
            Ok(_) => self.lock().succeeded(self.now_ms(), address, claimed),
            Err(Refusal::NotAuthorized(_)) => {
                count(&counts.logins_failed);
                self.lock().failed(self.now_ms(), address, claimed);
            }
            // The service could not tell: nobody guessed wrong.
            Err(Refusal::Unavailable(_)) => {}
        }
    }
}
