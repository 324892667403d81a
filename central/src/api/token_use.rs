//! What is noted of the use of API tokens: when a right one was used, and who sends wrong ones, who has to wait.

use edge_core::error_chain::chain;
use edge_hub::tasks;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::caller::ClientAddress;
use super::error::ApiError;

use crate::store::Store;
use crate::store::{StoreError, tokens};
use crate::token::Grant;

/// How exactly the last use is known; each note is a write to the store.
const NOTED_EVERY_MS: u64 = 60_000;
/// How long the answer to a wrong token takes. Nobody guesses 256 bits; this keeps who tries from wearing central out.
const WRONG_TAKES: Duration = Duration::from_millis(500);
/// Wrong tokens that wait for their answer at once. Further ones are answered at once, without having been looked at.
const WRONG_WAITING_MAX: usize = 64;

/// Shared by all requests.
pub(super) struct TokenUse {
    waiting: Semaphore,
    /// When the use of a token was last noted, by the token's hash; only tokens of the store are here.
    noted_ms: Mutex<HashMap<String, u64>>,
}

impl Default for TokenUse {
    fn default() -> Self {
        Self { waiting: Semaphore::new(WRONG_WAITING_MAX), noted_ms: Mutex::default() }
    }
}

impl TokenUse {
    /// Notes that a right token was used. The request does not wait for it.
    pub(super) fn note(&self, store: &Store, hash: &str, grant: &Grant, now_ms: u64) {
        let mut noted = self.noted_ms.lock().unwrap_or_else(PoisonError::into_inner);
        let last_ms = noted.get(hash).copied().or(grant.used_ms);
        // A clock that went back is noted too.
        if last_ms.is_some_and(|last_ms| now_ms.abs_diff(last_ms) < NOTED_EVERY_MS) {
            return;
        }
        noted.insert(hash.to_owned(), now_ms);
        drop(noted);
        let (store, hash) = (store.clone(), hash.to_owned());
        tasks::spawn("use of an API token", async move {
            let written = store.submit(move |c| Ok::<_, StoreError>(tokens::used(c, &hash, now_ms)?)).await;
            if let Err(error) = written {
                tracing::debug!(error = %chain(&error), "the use of an API token was not noted");
            }
        });
    }

    /// Tells of a wrong token, and lets its sender wait for the answer. Right tokens never wait here.
    pub(super) async fn wrong(&self, error: ApiError, address: ClientAddress) -> ApiError {
        tracing::warn!(address = %address.0, reason = error.message(), "an API token was refused");
        match self.waiting.try_acquire() {
            Ok(_turn) => {
                tokio::time::sleep(WRONG_TAKES).await;
                error
            }
            Err(_) => ApiError::too_many_requests(
                "too many wrong tokens wait for their answer; try again in a second",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn so_many_wrong_tokens_wait_for_their_answer_and_the_next_is_answered_at_once() {
        let (tokens, address) = (TokenUse::default(), ClientAddress([192, 0, 2, 1].into()));
        let wrong = || tokens.wrong(ApiError::unauthorized("a wrong token"), address);
        let mut waiting: Vec<_> = (0..WRONG_WAITING_MAX).map(|_| Box::pin(wrong())).collect();
        for answer in &mut waiting {
            assert!(futures_util::poll!(answer.as_mut()).is_pending());
        }
        assert!(!wrong().await.is_unauthorized(), "it is refused without having been looked at");
        for answer in waiting {
            assert!(answer.await.is_unauthorized());
        }
    }
}
