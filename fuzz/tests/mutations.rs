//! The corpus, changed at random for a few seconds a target: what every test run can afford. `make fuzz` goes deeper.

#![allow(clippy::unwrap_used, reason = "tests; the leave for them does not reach helper functions")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

/// How long each target is tried, in seconds, when the environment does not say.
const SECONDS: u64 = 5;
/// Longer inputs tell nothing more.
const BYTES_MAX: usize = 4096;
/// What parsers treat in a way of its own.
const TOKENS: [&[u8]; 24] = [
    b"\0",
    b"\xff",
    b"\x80\x80",
    b"\xff\xff\xff\x7f",
    b"\0\x01",
    b"\xff\xff",
    b"/",
    b"#",
    b"+",
    b"$",
    b"%",
    b"%2F",
    b"&",
    b"=",
    b"?",
    b"\"",
    b"'",
    b"(",
    b")",
    b"{\"a\":",
    b"null",
    b"18446744073709551616",
    b"\xc3\xa9",
    b"\n",
];

/// Runs a target until its time is over.
fn run(name: &str) {
    let target = fuzz::target(name).expect("a target");
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let seeds: Vec<Vec<u8>> =
        fs::read_dir(corpus).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
    let seconds = std::env::var("LINESIDE_FUZZ_SECONDS").map_or(SECONDS, |text| text.parse().unwrap());
    let (start, limit) = (Instant::now(), Duration::from_secs(seconds));
    let seed = rand::random();
    let mut random = SmallRng::seed_from_u64(seed);
    let mut tries = 0u64;
    while start.elapsed() < limit {
        for _ in 0..64 {
            let input = mutated(&seeds, &mut random);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(&input))) {
                eprintln!("{name}, seed {seed}: {} broke a promise", input.escape_ascii());
                resume_unwind(panic);
            }
            tries += 1;
        }
    }
    println!("{name}: {tries} inputs in {seconds} s from {} of the corpus, seed {seed}", seeds.len());
}

fn mutated(seeds: &[Vec<u8>], random: &mut SmallRng) -> Vec<u8> {
    let mut bytes = seeds[random.random_range(0..seeds.len())].clone();
    for _ in 0..random.random_range(1..=6) {
        let at = random.random_range(0..=bytes.len());
        let end = random.random_range(at..=bytes.len().min(at + 16));
        match random.random_range(0..8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = random.random(),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let part = bytes[at..end].to_vec();
                let to = random.random_range(0..=bytes.len());
                bytes.splice(to..to, part);
            }
            4 => {
                let other = &seeds[random.random_range(0..seeds.len())];
                let from = random.random_range(0..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            5 if at < bytes.len() => bytes[at] = bytes[at].wrapping_add(1),
            6 => bytes.truncate(at),
            _ => {
                let token = TOKENS[random.random_range(0..TOKENS.len())];
                bytes.splice(at..at, token.iter().copied());
            }
        }
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

#[test]
fn packets_keep_their_promises() {
    run("packets");
}

#[test]
fn amqp_frames_keep_their_promises() {
    run("amqp");
}

#[test]
fn topics_keep_their_promises() {
    run("topics");
}

#[test]
fn filters_keep_their_promises() {
    run("filters");
}

#[test]
fn property_bags_keep_their_promises() {
    run("bags");
}

#[test]
fn sas_tokens_keep_their_promises() {
    run("sas");
}

#[test]
fn routes_keep_their_promises() {
    run("routes");
}

#[test]
fn manifests_keep_their_promises() {
    run("manifest");
}

#[test]
fn twin_patches_keep_their_promises() {
    run("twin");
}

#[test]
fn models_keep_their_promises() {
    run("models");
}
