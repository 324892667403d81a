//! Which permission each operation needs. What is not here needs all of them, and is answered as missing to whoever lacks one.

use axum::http::Method;
use central_core::access::permission::Permission;

/// What an operation needs beside a token or a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    /// It is about the session itself.
    Nothing,
    One(Permission),
}

/// What an operation needs that is not open to everybody; `None` where central has no operation.
pub fn needed(method: &Method, path: &str) -> Option<Needed> {
    let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
    let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    let permission = match segments.as_slice() {
        ["status"] if method == "GET" => Permission::DeviceInstancesView,
        ["api", "ext", "session"] if ["GET", "DELETE"].contains(&method) => return Some(Needed::Nothing),
        ["api", "devices", of @ ..] | ["api", "ext", "devices", of @ ..] => of_devices(method, of)?,
        ["api", "enrollmentGroups", of @ ..] => of_groups(method, of)?,
        ["api", "ext", of @ ..] => of_extensions(method, of)?,
        ["api", of @ ..] => of_site(method, of)?,
        _ => return None,
    };
    Some(Needed::One(permission))
}

/// What operations need below `/api/devices` and `/api/ext/devices`.
fn of_devices(method: &str, path: &[&str]) -> Option<Permission> {
    Some(match (method, path) {
        ("POST", ["export"]) => Permission::DeviceInstancesExport,
        ("POST", ["import"] | ["import", "preview"]) => Permission::DeviceInstancesCreate,
        ("POST", [_, "applyDeploymentManifest"] | [_, "deploymentManifest", "preview"]) => {
            Permission::EdgeManifestsDeploy
        }
        ("POST", [_, "template"]) => Permission::DeviceTemplatesManage,
        ("POST", [_, "approve" | "reject"]) => Permission::ConnectivityManageInstance,
        // The line has the gateway's key.
        ("GET", [_, "credentials" | "attestation"]) | ("POST", [_, "join"]) => {
            Permission::ConnectivityReadInstance
        }
        ("PUT" | "PATCH", [_, "attestation"]) => Permission::ConnectivityManageInstance,
        ("POST", [_, .., "commands", _] | [_, "messages", "devicebound"])
        // It is read by a command (decision 0099).
        | ("GET", [_, "modules", _, "logs"]) => Permission::DeviceInstancesExecuteCommands,
        ("GET", _) => Permission::DeviceInstancesView,
        ("PUT", [_]) => Permission::DeviceInstancesCreate,
        ("PUT" | "PATCH", [_, ..]) => Permission::DeviceInstancesUpdate,
        ("DELETE", [_, ..]) => Permission::DeviceInstancesDelete,
        _ => return None,
    })
}

/// What operations need below `/api/enrollmentGroups`.
fn of_groups(method: &str, path: &[&str]) -> Option<Permission> {
    Some(match (method, path) {
        ("GET", []) => Permission::ConnectivityView,
        // With the group's keys one may enrol anything.
        ("GET", _) => Permission::ConnectivityReadGlobal,
        ("PUT" | "PATCH" | "POST", [_, ..]) => Permission::ConnectivityManageGlobal,
        ("DELETE", [_, ..]) => Permission::ConnectivityDeleteGlobal,
        _ => return None,
    })
}

/// Further paths that IoT Central has.
fn of_site(method: &str, path: &[&str]) -> Option<Permission> {
    Some(match (method, path) {
        ("GET", ["deviceTemplates", ..]) => Permission::DeviceTemplatesView,
        ("PUT" | "PATCH", ["deviceTemplates", _]) => Permission::DeviceTemplatesManage,
        ("DELETE", ["deviceTemplates", _]) => Permission::DeviceTemplatesDelete,
        ("GET", ["deploymentManifests", ..]) => Permission::EdgeManifestsView,
        ("PUT" | "PATCH", ["deploymentManifests", _]) => Permission::EdgeManifestsManage,
        ("DELETE", ["deploymentManifests", _]) => Permission::EdgeManifestsDelete,
        ("GET", ["roles", ..]) => Permission::RolesView,
        ("GET", ["users", ..]) => Permission::UsersView,
        ("PUT" | "PATCH", ["users", _]) => Permission::UsersManage,
        ("DELETE", ["users", _]) => Permission::UsersDelete,
        ("GET", ["apiTokens", ..]) => Permission::ApiTokensView,
        ("PUT", ["apiTokens", _]) => Permission::ApiTokensCreate,
        ("DELETE", ["apiTokens", _]) => Permission::ApiTokensDelete,
        _ => return None,
    })
}

/// Further paths below `/api/ext`.
fn of_extensions(method: &str, path: &[&str]) -> Option<Permission> {
    Some(match (method, path) {
        ("GET", ["events" | "operations" | "grid" | "overview" | "messages", ..]) => {
            Permission::DeviceInstancesView
        }
        ("GET", ["connection" | "mqtt-server" | "provisioning"] | ["enrollmentGroups", ..]) => {
            Permission::ConnectivityView
        }
        ("PUT", ["enrollmentGroups", _, "approval"]) => Permission::ConnectivityManageGlobal,
        ("POST", ["approvals"]) => Permission::ConnectivityManageInstance,
        ("GET", ["deviceTemplates", ..]) => Permission::DeviceTemplatesView,
        ("PUT" | "POST", ["deviceTemplates", ..]) => Permission::DeviceTemplatesManage,
        ("GET", ["deploymentManifests", ..]) => Permission::EdgeManifestsView,
        ("POST", ["routes", "test"]) => Permission::EdgeManifestsManage,
        ("GET", ["audit"]) => Permission::AuditLogView,
        ("GET", ["roles", ..]) => Permission::RolesView,
        ("PUT" | "PATCH", ["roles", _]) => Permission::RolesManage,
        ("DELETE", ["roles", _]) => Permission::RolesDelete,
        // Of others; one's own needs nothing.
        ("POST", ["users", _, "password"]) => Permission::UsersManage,
        _ => return None,
    })
}
