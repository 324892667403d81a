//! Uploads of module logs and support bundles to a container of blobs, as `UploadModuleLogs`, `UploadSupportBundle` and
//! `GetTaskStatus` of `$edgeAgent` request them: the requests ([`request`]), the container and its blobs ([`sas_url`]), and what
//! became of each upload ([`tasks`]).

pub mod request;
pub mod sas_url;
pub mod tasks;
