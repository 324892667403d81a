//! From a deployment manifest to running containers: what is in force, the reconcile passes that make Docker match it, and the
//! workload API that each module gets from its gateway.

pub mod artifacts;
pub mod container_limits;
pub mod deployments;
pub mod docker;
pub mod history;
pub mod reconciler;
pub mod restart_counts;
pub mod restart_requests;
pub mod rollout;
pub mod sections;
pub mod status;
pub mod watched_folder;
pub mod workload;
