//! The whole validation of a manifest, routes included: what `apply` does before anything changes.

use schemas::manifest::{Manifest, ManifestError, ROOT};

use super::desired::Desired;
use crate::route::RouteTable;

/// What a manifest wants, and the way its messages go.
///
/// # Errors
/// [`ManifestError`] when a route cannot be read, with the path of the route.
pub fn check(manifest: &Manifest) -> Result<(Desired, RouteTable), ManifestError> {
    let routes = manifest.edge_hub.routes.iter().map(|(name, route)| (name.as_str(), route.query.as_str()));
    let routes = RouteTable::parse(routes).map_err(|why| ManifestError {
        path: format!("{ROOT}.$edgeHub.properties.desired.routes.{}", why.route),
        found: why.found,
        allowed: why.allowed,
    })?;
    Ok((Desired::of(manifest), routes))
}
