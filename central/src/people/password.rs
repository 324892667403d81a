//! Passwords of users: what a new one must be, and how they are hashed, few at once.
//!
//! A verification takes 20 ms of one core and 19 MiB ([`edge_core::access::password`]). Those of users who signed in before from the
//! same address have a place of their own, so that nobody who guesses elsewhere, or with other names, makes them wait.

use std::sync::Arc;

use edge_core::access::password::{self, Memory, PasswordError};
use edge_core::access::secret::Secret;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::names::UserName;

/// Characters of a new password.
pub const LENGTH_MIN: usize = 10;
/// Characters of any password; longer ones are wrong without being hashed.
pub const LENGTH_MAX: usize = 256;
/// Verifications that wait; more than one address may have connections by default (`http.connections_per_address`).
const WAITING_MAX: usize = 192;
/// Verified in place of the hash of who is not there or has no password, so that the time tells nobody who is.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Why a new password is not taken. The texts have no `password:`, after which viewers are shown nothing. Which characters it has is free: rules about them make passwords worse (NIST SP 800-63B).
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordRule {
    /// Fewer than [`LENGTH_MIN`] characters.
    #[error("the password has {0} characters; write at least {LENGTH_MIN}")]
    TooShort(usize),
    /// More than [`LENGTH_MAX`] characters.
    #[error("the password has {0} characters; write at most {LENGTH_MAX}")]
    TooLong(usize),
    /// The name is what is guessed first.
    #[error("the password is the user's name; choose another one")]
    IsName,
}

/// A password that may be set.
#[derive(Debug, Clone)]
pub struct NewPassword(Secret);

impl NewPassword {
    /// A password for the user called `name`.
    ///
    /// # Errors
    /// [`PasswordRule`].
    pub fn new(text: &str, name: &UserName) -> Result<Self, PasswordRule> {
        match text.chars().count() {
            length if length < LENGTH_MIN => Err(PasswordRule::TooShort(length)),
            length if length > LENGTH_MAX => Err(PasswordRule::TooLong(length)),
            _ if text.eq_ignore_ascii_case(name.as_str()) => Err(PasswordRule::IsName),
            _ => Ok(Self(Secret::new(text.as_bytes()))),
        }
    }

    /// 120 random bits as text, which is returned to be shown once.
    pub fn random() -> (Self, String) {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(rand::random::<[u8; 15]>());
        (Self(Secret::new(text.as_bytes())), text)
    }

    /// Its hash, with a salt of its own. Takes 20 ms.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub fn hash(&self) -> Result<String, PasswordError> {
        password::hash(self.0.bytes(), rand::random(), &mut Memory::default())
    }
}

/// Why a password was not hashed or verified.
#[derive(Debug, thiserror::Error)]
pub enum HashingError {
    #[error("{WAITING_MAX} passwords wait to be verified already; try again in a few seconds")]
    Busy,
    /// It cannot be hashed.
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error("the password was not hashed, because central is stopping")]
    Stopping,
}

/// Who waits for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashQueue {
    /// The user has signed in from this address before.
    Known,
    Unknown,
}

/// Bounds how many passwords are hashed at once: one of each [`HashQueue`].
#[derive(Debug)]
pub struct Hasher {
    known: Arc<Semaphore>,
    unknown: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Default for Hasher {
    fn default() -> Self {
        Self {
            known: Arc::new(Semaphore::new(1)),
            unknown: Arc::new(Semaphore::new(1)),
            waiting: Semaphore::new(WAITING_MAX),
        }
    }
}

/// The right to hash one password now. It goes along with the work, which goes on when nobody waits for it any more.
#[derive(Debug)]
pub struct Turn(#[allow(dead_code, reason = "gives the place back when it is dropped")] OwnedSemaphorePermit);

impl Hasher {
    /// Waits in order of arrival. Who gives up waiting costs nothing.
    ///
    /// # Errors
    /// [`HashingError::Busy`].
    pub async fn turn(&self, queue: HashQueue) -> Result<Turn, HashingError> {
        let semaphore = match queue {
            // Each waits for its own failures already: there are no more of them than users.
            HashQueue::Known => return acquire(&self.known).await,
            HashQueue::Unknown => &self.unknown,
        };
        let _place = self.waiting.try_acquire().map_err(|_| HashingError::Busy)?;
        acquire(semaphore).await
    }

    /// Whether nothing is hashed for those who are not known.
    #[cfg(test)]
    pub(super) fn is_free(&self) -> bool {
        self.unknown.available_permits() > 0
    }

    /// The hash of a new password.
    ///
    /// # Errors
    /// [`HashingError`].
    pub async fn hash(&self, new: NewPassword, queue: HashQueue) -> Result<String, HashingError> {
        let turn = self.turn(queue).await?;
        let hashed = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            new.hash()
        });
        Ok(hashed.await.map_err(|_| HashingError::Stopping)??)
    }
}

async fn acquire(semaphore: &Arc<Semaphore>) -> Result<Turn, HashingError> {
    semaphore.clone().acquire_owned().await.map(Turn).map_err(|_| HashingError::Stopping)
}

/// A password as somebody presents it; one that is too long is nobody's.
pub(super) fn presented(text: &str) -> Secret {
    let is_too_long = text.chars().count() > LENGTH_MAX;
    Secret::new(if is_too_long { &b""[..] } else { text.as_bytes() })
}

/// Whether a password has the hash; for `None` (nobody) it takes as long and is false. Blocks for 20 ms.
pub fn verify(password: &Secret, hash: Option<&str>) -> bool {
    let is_right = password::verify(password.bytes(), hash.unwrap_or(NOBODY), &mut Memory::default());
    is_right && hash.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_password_has_10_to_256_characters_of_any_kind_and_is_not_the_name() {
        let name: UserName = "Alice.Liddell".parse().unwrap();
        let new = |text: &str| NewPassword::new(text, &name).map(|_| ());
        for right in ["aaaaaaaaaa", "ä€𝄞 ä€𝄞 ä€", &"x".repeat(256), &"𝄞".repeat(256)] {
            assert_eq!(new(right), Ok(()), "{right}");
        }
        assert_eq!(new("123456789"), Err(PasswordRule::TooShort(9)));
        assert_eq!(new("𝄞𝄞𝄞"), Err(PasswordRule::TooShort(3)));
        assert_eq!(new(&"x".repeat(257)), Err(PasswordRule::TooLong(257)));
        assert_eq!(new("alice.liddell"), Err(PasswordRule::IsName));
        assert!(!format!("{:?}", NewPassword::random()).contains(&NewPassword::random().1));
    }

    #[test]
    fn a_password_is_known_by_its_hash_and_nobody_has_one_that_costs_less_to_guess() {
        let (new, text) = NewPassword::random();
        let hash = new.hash().unwrap();
        assert!(verify(&Secret::new(text.as_bytes()), Some(&hash)));
        assert!(!verify(&Secret::new(*b"something else"), Some(&hash)));
        assert!(!verify(&Secret::new(text.as_bytes()), None));
        let parameters = |hash: &str| hash.split('$').take(4).collect::<Vec<_>>().join("$");
        assert_eq!(parameters(&hash), parameters(NOBODY), "as much work for nobody as for a user");
        let lengths = |hash: &str| hash.split('$').skip(4).map(str::len).collect::<Vec<_>>();
        assert_eq!(lengths(&hash), lengths(NOBODY));
    }

    #[tokio::test]
    async fn one_of_each_queue_is_hashed_at_once_and_so_many_may_wait() {
        let hasher = Hasher::default();
        let unknown = hasher.turn(HashQueue::Unknown).await.unwrap();
        let mut waiting: Vec<_> =
            (0..WAITING_MAX).map(|_| Box::pin(hasher.turn(HashQueue::Unknown))).collect();
        for turn in &mut waiting {
            assert!(futures_util::poll!(turn.as_mut()).is_pending());
        }
        assert!(matches!(hasher.turn(HashQueue::Unknown).await, Err(HashingError::Busy)));
        // Who guesses keeps out nobody who is known.
        let known = hasher.turn(HashQueue::Known).await.unwrap();
        assert!(futures_util::poll!(Box::pin(hasher.turn(HashQueue::Known))).is_pending());
        drop(known);
        // Who has gone has left its place.
        waiting.pop();
        let mut late = Box::pin(hasher.turn(HashQueue::Unknown));
        assert!(futures_util::poll!(late.as_mut()).is_pending());
        drop((waiting, unknown));
        late.await.unwrap();
    }
}
