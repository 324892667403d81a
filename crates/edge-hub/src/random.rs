//! The sources of random numbers, opened while file descriptors are free.

use std::collections::HashMap;

use rand::TryRngCore as _;
use rand::rngs::OsRng;
use rustls::crypto::ring::default_provider;

/// Why the system gives no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random numbers: neither getrandom(2) nor /dev/urandom can be used")]
pub struct NoRandomness;

/// Uses each library's source once. Where getrandom(2) is missing or forbidden, each of them opens /dev/urandom at its first
/// use and keeps it open; late, with no descriptor left, that would be a panic.
///
/// # Errors
/// [`NoRandomness`]: keys and tokens cannot be made.
pub fn seed() -> Result<(), NoRandomness> {
    let mut bytes = [0; 32];
    default_provider().secure_random.fill(&mut bytes).map_err(|_| NoRandomness)?;
    let _ = uuid::Uuid::new_v4();
    // Tried first: the thread's generator, which is seeded from it, panics without it.
    OsRng.try_next_u64().map_err(|_| NoRandomness)?;
    let _: u64 = rand::random();
    let _ = HashMap::<u8, u8>::new();
    Ok(())
}
