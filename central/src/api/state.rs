//! The services that handlers take.

use std::sync::Arc;

use axum::extract::FromRef;

use crate::c2d::service::C2d;
use crate::deployments::service::Deployments;
use crate::enrollment::service::Enrollment;
use crate::registry::service::Registry;
use crate::services::Services;
use crate::store::Store;

impl FromRef<Services> for Store {
    fn from_ref(services: &Services) -> Self {
        services.store.clone()
    }
}

impl FromRef<Services> for Arc<Registry> {
    fn from_ref(services: &Services) -> Self {
        services.registry.clone()
    }
}

impl FromRef<Services> for Arc<Deployments> {
    fn from_ref(services: &Services) -> Self {
        services.deployments.clone()
    }
}

impl FromRef<Services> for Arc<C2d> {
    fn from_ref(services: &Services) -> Self {
        services.c2d.clone()
    }
}

impl FromRef<Services> for Arc<Enrollment> {
    fn from_ref(services: &Services) -> Self {
        services.enrollment.clone()
    }
}
