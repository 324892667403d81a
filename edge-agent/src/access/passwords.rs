//! Hashes the passwords of local users: on one thread, one after the other, in one block of memory that is given back when
//! nothing waits. Wrong passwords thus cost 19 MiB and one core, however many come at once.
//!
//! A password that was right is known again by a keyed digest in memory: its client is admitted without hashing, whoever
//! guesses meanwhile.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use edge_core::access::password::{self, Memory, PasswordError};
use edge_core::access::proof::KeyFingerprint;
use edge_core::access::secret::Secret;
use edge_hub::tasks;
use schemas::names::UserName;
use tokio::sync::{mpsc, oneshot};

/// Passwords that may wait. Each takes 20 ms, and clients wait 10 s for their CONNACK.
const WAITING_MAX: usize = 500;
/// Name of the thread.
const THREAD: &str = "passwords";
/// How long a password takes as long as none was hashed.
const HASH_TIME: Duration = Duration::from_millis(20);

/// Why a password was not looked at.
#[derive(Debug, thiserror::Error)]
pub enum HashingError {
    #[error("{WAITING_MAX} passwords wait to be checked already; try again")]
    Busy,
    /// It cannot be hashed.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The thread is gone.
    #[error("the thread that hashes passwords has ended; restart edge-agent")]
    Ended,
}

enum Job {
    Hash {
        password: Vec<u8>,
        hashed: oneshot::Sender<Result<String, PasswordError>>,
    },
    Verify {
        password: Secret,
        hash: String,
        is_right: oneshot::Sender<bool>,
    },
    /// Of a user who does not exist: it waits its turn as others do, and costs nothing.
    Pass(oneshot::Sender<()>),
}

/// The passwords that wait to be hashed. Cheap to clone.
#[derive(Clone)]
pub struct Passwords(Arc<Inner>);

struct Inner {
    jobs: mpsc::Sender<Job>,
    /// How long the last one took, in microseconds.
    took_us: Arc<AtomicU64>,
    /// Makes digests of passwords that nobody can try out who does not have it.
    secret: [u8; 32],
    /// The digest of each user's password that was right. At most one per user, and users are bounded.
    right: Mutex<HashMap<UserName, KeyFingerprint>>,
}

impl Passwords {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn start() -> std::io::Result<Self> {
        let (jobs, waiting) = mpsc::channel(WAITING_MAX);
        let took_us = Arc::new(AtomicU64::new(HASH_TIME.as_micros() as u64));
        let times = took_us.clone();
        std::thread::Builder::new().name(THREAD.into()).spawn(move || run(waiting, &times))?;
        Ok(Self(Arc::new(Inner { jobs, took_us, secret: rand::random(), right: Mutex::default() })))
    }

    fn right(&self) -> MutexGuard<'_, HashMap<UserName, KeyFingerprint>> {
        self.0.right.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The digest holds for the stored hash too: a user that is added anew has none.
    fn digest(&self, hash: &str, password: &Secret) -> KeyFingerprint {
        KeyFingerprint::of(&[&self.0.secret[..], hash.as_bytes(), b"\0", password.bytes()].concat())
    }

    /// Whether this password of a user was right before.
    pub fn was_right(&self, user: &UserName, hash: &str, password: &Secret) -> bool {
        let known = self.right().get(user).copied();
        known.is_some_and(|known| known == self.digest(hash, password))
    }

    /// Whether a password has the user's hash; for `None` (no such user) it takes as long, so that time tells nobody who
    /// exists.
    ///
    /// # Errors
    /// [`HashingError`] when it was not looked at.
    pub async fn verify(
        &self,
        user: &UserName,
        hash: Option<String>,
        password: Secret,
    ) -> Result<bool, HashingError> {
        let Some(hash) = hash else {
            let (passed, turn) = oneshot::channel();
            self.put(Job::Pass(passed))?;
            turn.await.map_err(|_| HashingError::Ended)?;
            tokio::time::sleep(Duration::from_micros(self.0.took_us.load(Ordering::Relaxed))).await;
            return Ok(false);
        };
        let digest = self.digest(&hash, &password);
        let (answer, is_right) = oneshot::channel();
        self.put(Job::Verify { password, hash, is_right: answer })?;
        let is_right = is_right.await.map_err(|_| HashingError::Ended)?;
        if is_right {
            self.right().insert(user.clone(), digest);
        }
        Ok(is_right)
    }

    /// The hash of a new password, with a salt of its own.
    ///
    /// # Errors
    /// [`HashingError`] when it was not hashed.
    pub async fn hash(&self, password: &str) -> Result<String, HashingError> {
        let (answer, hashed) = oneshot::channel();
        self.put(Job::Hash { password: password.as_bytes().to_vec(), hashed: answer })?;
        Ok(hashed.await.map_err(|_| HashingError::Ended)??)
    }

    /// A user was removed.
    pub fn forget(&self, user: &UserName) {
        self.right().remove(user);
    }

    fn put(&self, job: Job) -> Result<(), HashingError> {
        self.0.jobs.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => HashingError::Busy,
            mpsc::error::TrySendError::Closed(_) => HashingError::Ended,
        })
    }
}

/// Ends when nobody can ask for anything any more.
fn run(mut waiting: mpsc::Receiver<Job>, took_us: &AtomicU64) {
    while let Some(first) = waiting.blocking_recv() {
        let mut memory = Memory::default();
        let mut next = Some(first);
        while let Some(job) = next {
            let since = Instant::now();
            // Only this requester is refused.
            let hashed = catch_unwind(AssertUnwindSafe(|| {
                tasks::isolated_turn(THREAD);
                job.run(&mut memory)
            }));
            if hashed.is_err() {
                memory = Memory::default();
            }
            if let Ok(true) = hashed {
                took_us.store(since.elapsed().as_micros() as u64, Ordering::Relaxed);
            }
            next = waiting.try_recv().ok();
        }
    }
}

impl Job {
    /// True when it was hashed; whoever has gone is passed over.
    fn run(self, memory: &mut Memory) -> bool {
        match self {
            Self::Hash { password, hashed } => {
                // The requester may have gone.
                let _ = hashed.send(password::hash(&password, rand::random(), memory));
                true
            }
            Self::Verify { is_right, .. } if is_right.is_closed() => false,
            Self::Verify { password, hash, is_right } => {
                let _ = is_right.send(password::verify(password.bytes(), &hash, memory));
                true
            }
            Self::Pass(passed) => {
                let _ = passed.send(());
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident_kb() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[tokio::test]
    async fn a_right_password_is_known_again_until_the_user_is_added_anew_or_removed() {
        let passwords = Passwords::start().unwrap();
        let user: UserName = "plc1".parse().unwrap();
        let (right, wrong) = (Secret::new(*b"right one"), Secret::new(*b"wrong one"));
        let hash = passwords.hash("right one").await.unwrap();
        assert!(!passwords.was_right(&user, &hash, &right));
        assert!(!passwords.verify(&user, Some(hash.clone()), wrong.clone()).await.unwrap());
        assert!(!passwords.verify(&user, None, right.clone()).await.unwrap());
        assert!(!passwords.was_right(&user, &hash, &wrong));
        assert!(passwords.verify(&user, Some(hash.clone()), right.clone()).await.unwrap());
        assert!(passwords.was_right(&user, &hash, &right) && !passwords.was_right(&user, &hash, &wrong));
        assert!(!passwords.was_right(&"plc2".parse().unwrap(), &hash, &right));
        let again = passwords.hash("right one").await.unwrap();
        assert!(!passwords.was_right(&user, &again, &right));
        passwords.forget(&user);
        assert!(!passwords.was_right(&user, &hash, &right));
    }

    #[tokio::test]
    async fn many_passwords_at_once_cost_the_memory_of_one_and_it_is_given_back() {
        let passwords = Passwords::start().unwrap();
        let user: UserName = "plc1".parse().unwrap();
        let hash = passwords.hash("right one").await.unwrap();
        let before_kb = resident_kb();
        let wrong = |n: usize| {
            let (passwords, user, hash) = (passwords.clone(), user.clone(), hash.clone());
            let password = Secret::new(n.to_string().into_bytes());
            tokio::spawn(async move { passwords.verify(&user, Some(hash), password).await })
        };
        let mut peak_kb = 0;
        for round in 0..3 {
            let guesses: Vec<_> = (0..20).map(|n| wrong(round * 100 + n)).collect();
            for guess in guesses {
                assert!(!guess.await.unwrap().unwrap());
                peak_kb = peak_kb.max(resident_kb());
            }
        }
        // Half of what 20 at once would need: other tests in this process allocate too.
        assert!(peak_kb < before_kb + 10 * 19 * 1024, "{before_kb} kB, then {peak_kb} kB");
        assert!(matches!(
            (0..=WAITING_MAX).map(|_| passwords.put(Job::Pass(oneshot::channel().0))).find(Result::is_err),
            None | Some(Err(HashingError::Busy))
        ));
    }
}
