//! The whole validation of a manifest, routes included.
//!
//! Two ways, because two people ask. Whoever gives a manifest (`apply`, central's API) can mend it: the first wrong route
//! refuses all of it, and nothing has changed. A gateway that receives one cannot: it takes the good routes and reports the
//! wrong ones (docs/decisions/0008-a-bad-route-alone-is-left-out.md).

use std::collections::BTreeMap;

use schemas::manifest::{Manifest, ManifestError, ROOT};

use super::desired::Desired;
use crate::route::{RouteError, RouteTable};

/// What a manifest wants, and the way its messages go.
///
/// # Errors
/// [`ManifestError`] for the first route that cannot be read, with the path of the route.
pub fn check(manifest: &Manifest) -> Result<(Desired, RouteTable), ManifestError> {
    let (desired, table, refused) = take(manifest);
    match refused.into_values().next() {
        Some(refused) => Err(refused),
        None => Ok((desired, table)),
    }
}

/// As [`check`], without the routes that cannot be read, which are given beside, by name.
pub fn take(manifest: &Manifest) -> (Desired, RouteTable, BTreeMap<String, ManifestError>) {
    let hub = &manifest.edge_hub;
    let (table, wrong) = RouteTable::parse(hub.routes.iter().map(|(name, route)| (name.as_str(), route)));
    let mut refused = hub.routes_refused.clone();
    refused.extend(wrong.into_iter().map(|wrong| (wrong.route.clone(), in_manifest(wrong))));
    (Desired::of(manifest), table, refused)
}

fn in_manifest(RouteError { route, error }: RouteError) -> ManifestError {
    ManifestError {
        path: format!("{ROOT}.$edgeHub.properties.desired.routes.{route}"),
        found: format!("{} at {}", error.found, error.at),
        allowed: error.allowed,
    }
}
