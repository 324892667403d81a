//! What a test needs of its machine: root, a Docker Engine, programs of packages.
//!
//! A test that lacks something fails, unless an ordinary user runs `make test`: that names a file in `LINESIDE_SKIPPED`, to which each
//! skipped test adds a line with the reason, and prints the list at its end. As root nothing is skipped but what the machine itself
//! cannot do, and that stands in the list too.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::panic::Location;
use std::path::Path;

/// Names the file for the list of what was skipped.
const LIST: &str = "LINESIDE_SKIPPED";
const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// Something that not every machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// All rights: for mounts, network namespaces and other users' processes.
    Root,
    /// An engine that this user may use, and the `docker` command.
    Docker,
    /// A program in the `PATH`.
    Program(&'static str),
    /// A file of a package.
    File(&'static str),
}

impl Need {
    /// Why it is not met; `None` when it is.
    fn missing(self) -> Option<String> {
        match self {
            Self::Root => (!is_root()).then(|| "it needs root".to_owned()),
            Self::Docker => match UnixStream::connect(DOCKER_SOCKET) {
                Ok(_) => Self::Program("docker").missing(),
                Err(error) => Some(format!("it needs a Docker Engine: {DOCKER_SOCKET}: {error}")),
            },
            Self::Program(name) => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                let is_there = std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
                (!is_there).then(|| format!("it needs the program {name}"))
            }
            Self::File(path) => (!Path::new(path).exists()).then(|| format!("it needs {path}")),
        }
    }
}

/// Returns true if this process runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Returns true if a test can run, and false if it is to be skipped: it returns then.
///
/// # Panics
/// When something is missing and this is not `make test` of an ordinary user.
#[track_caller]
pub fn has(needs: &[Need]) -> bool {
    let missing = needs.iter().find_map(|need| need.missing());
    if let Some(why) = &missing {
        skip(why);
    }
    missing.is_none()
}

/// Lists the test, or a part of it, as skipped.
///
/// # Panics
/// When this is not `make test` of an ordinary user.
#[track_caller]
pub fn skip(why: &str) {
    let is_permitted = !is_root() && std::env::var_os(LIST).is_some();
    assert!(
        is_permitted,
        "{why}; `make test` as an ordinary user leaves such tests out, as root it installs what is missing"
    );
    list(why);
}

/// Lists the test as skipped for what no package and no right can give this machine, also as root.
#[track_caller]
pub fn skip_on_this_machine(why: &str) {
    list(why);
}

#[track_caller]
fn list(why: &str) {
    let test = std::thread::current().name().filter(|name| *name != "main").unwrap_or("a test").to_owned();
    let line = format!("{} ({}): {}\n", test, Location::caller().file(), why.replace('\n', " "));
    print!("SKIPPED {line}");
    if let Some(list) = std::env::var_os(LIST) {
        let opened = OpenOptions::new().create(true).append(true).open(&list);
        // One write: tests run beside each other.
        let written = opened.and_then(|mut file| file.write_all(line.as_bytes()));
        written.unwrap_or_else(|error| panic!("{}: {error}", list.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(Need::Program("sh").missing(), None);
        assert_eq!(Need::File("/proc/self").missing(), None);
        let missing = Need::Program("no-such-program").missing().unwrap();
        assert!(missing.contains("no-such-program"), "{missing}");
        assert_eq!(Need::Root.missing().is_none(), is_root());
    }
}
