//! The deployment manifest of a gateway: which modules run, with what, and which way their messages go.
//!
//! It is Azure IoT Edge's deployment manifest (schema versions 1.0 and 1.1 of `$edgeAgent`, 1.0 to 1.3 of `$edgeHub`),
//! read into types that cannot be wrong. Keys are read without regard to case, as IoT Edge does, keys without a meaning
//! here are ignored, and `null` is the same as leaving a key out. What IoT Edge requires only to choose a runtime
//! (`runtime`, `type`, `systemModules`) may be left out: Docker is the only runtime here.
//!
//! [`document`] has the same manifest as its authors write it, for the JSON Schema.

pub mod authorization;
pub mod create_options;
pub mod document;
mod error;
mod field;
mod image;
mod parse;
mod read;
mod sections;
pub mod start_order;
mod types;
pub mod warnings;

pub use error::{ManifestError, ROOT};
pub use parse::DOCUMENT_BYTES_MAX;
pub use types::{
    DesiredStatus, EdgeAgent, EdgeHub, FailurePolicy, ImagePullPolicy, Manifest, Module, PRIORITY_DEFAULT,
    RegistryCredential, RestartPolicy, Route, StartCondition, WhenFull,
};
