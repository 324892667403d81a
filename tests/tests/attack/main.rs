//! Attacks on a running site: hostile input, exhaustion and impersonation, each as a program with a bound on its count and
//! time. Measured: memory and log bytes of both programs, and how long a well-behaved device waits meanwhile.
//! All traffic stays on loopback. `LINESIDE_ATTACK=1` makes the long form.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod exhaustion;
mod hostile_input;
mod operators;
mod target;
