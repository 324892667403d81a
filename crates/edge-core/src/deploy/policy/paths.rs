//! Paths of the host as the engine and the kernel take them. Pure: whoever knows the host gives the function that follows
//! symbolic links.

/// Sockets that give the whole host to whoever reaches them, beside the one that edge.toml names.
const SOCKETS: [&str; 5] = [
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/docker/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/crio/crio.sock",
];

/// The host's side of the check.
pub struct HostPaths<'a> {
    /// Follows the symbolic links of a path; what does not exist stays as written. `None` when the host does not tell.
    pub resolve: &'a dyn Fn(&str) -> Option<String>,
    pub engine_socket: String,
}

impl HostPaths<'_> {
    /// Everything that a path may mean: the engine cleans it before the kernel follows its links, the local volume driver
    /// leaves all of it to the kernel. `None` if it cannot be determined, and for a path that is not absolute.
    pub(super) fn meanings(&self, path: &str) -> Option<Vec<String>> {
        if !path.starts_with('/') || path.contains('\0') {
            return None;
        }
        let cleaned = clean(path);
        let mut meant = vec![self.resolved(&cleaned)?, self.resolved(path)?];
        // Links of processes lead elsewhere for the engine than for whoever asks here.
        for link in ["/proc", "/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr"] {
            if is_within(&cleaned, link) && cleaned != "/proc" {
                meant.push("/".to_owned());
            }
        }
        meant.push(cleaned);
        Some(meant)
    }

    pub(super) fn resolved(&self, path: &str) -> Option<String> {
        (self.resolve)(path).map(|resolved| clean(&resolved))
    }

    pub(super) fn sockets(&self) -> Vec<String> {
        let known = SOCKETS.iter().map(|socket| (*socket).to_owned());
        let own = [Some(clean(&self.engine_socket)), self.resolved(&self.engine_socket)];
        known.chain(own.into_iter().flatten()).collect()
    }
}

/// A path without `.`, `..`, doubled and trailing slashes, and with `/run` for `/var/run`.
pub(super) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let is_var_run = parts.starts_with(&["var", "run"]);
    let parts = if is_var_run { &parts[1..] } else { &parts[..] };
    format!("/{}", parts.join("/"))
}

/// Whether a clean path is `root` or below it.
pub(super) fn is_within(path: &str, root: &str) -> bool {
    let rest = path.strip_prefix(root.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
