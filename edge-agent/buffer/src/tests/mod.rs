//! The log through its own door, on a real directory and on a disk that fails.
