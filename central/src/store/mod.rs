//! What central keeps, in one SQLite file: one thread writes in groups, a few connections read.
//!
//! # Guarantees
//! - Work that is submitted first is done first, and its place is fixed when [`Store::submit`] returns.
//! - The future of a submitted work ends after the COMMIT that holds it (`synchronous = FULL`: on disk). All works that
//!   arrived while the last commit ran share the next one.
//! - A work that fails undoes itself only; the others of its group are committed.

mod age_clock;
pub mod age_clock_task;
pub mod audit;
pub mod backup;
pub mod changes;
pub mod cloud_messages;
pub mod cloud_properties;
mod columns;
pub mod commands;
mod damage;
mod derived;
#[cfg(test)]
pub(crate) mod derived_tests;
pub mod devices;
pub mod enrollments;
mod error;
pub(crate) mod etag;
mod file_reserve;
pub mod filter;
mod generations;
pub mod grid;
mod handle;
pub mod integrity;
pub mod last_values;
mod last_values_task;
mod limits;
mod log;
pub mod losses;
pub mod manifest_quotes;
pub mod manifests;
pub mod modules;
pub mod numbers;
mod opened_files;
mod opening;
pub mod operations;
pub mod overview;
pub mod overview_tiles;
pub mod page;
mod paths;
pub mod queues;
pub mod record;
pub mod relationships;
pub mod roles;
pub mod schema;
pub mod selection;
pub mod series;
mod series_chunks;
mod series_compaction;
mod series_left_out;
pub mod series_reading;
mod series_task;
pub mod sessions;
mod space;
mod tail_bounds;
pub mod telemetry;
pub mod telemetry_reading;
pub mod telemetry_retention;
pub mod templates;
#[cfg(test)]
mod tests;
pub mod tokens;
pub mod twins;
pub mod unreadable;
pub mod users;
mod writer;

pub use error::StoreError;
pub use handle::Store;
pub use limits::{Keep, Quotas};
pub use log::forget_cached;
pub use opening::{open, open_with};
pub use paths::{FILE, LOCK_FILE};
pub use space::Disk;
