//! The codec against the specification's tables, against itself, and against bytes of any kind.

mod any_bytes;
mod encodings;
mod round_trip;
mod sample;
