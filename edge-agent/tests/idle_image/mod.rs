//! The image of the test modules, made of busybox alone.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Once;

/// An image whose command is a line for busybox's shell; it stays for the next run.
pub(crate) const IMAGE: &str = "lineside/test-idle:1";

/// Makes [`IMAGE`] where the engine does not have it.
pub(crate) fn make() {
    static MADE: Once = Once::new();
    MADE.call_once(|| {
        let inspected = Command::new("docker").args(["image", "inspect", IMAGE]).output();
        if inspected.expect("the docker command is installed").status.success() {
            return;
        }
        let busybox = Path::new("/bin/busybox");
        assert!(busybox.exists(), "/bin/busybox is missing: apt-get install busybox-static");
        let tar =
            Command::new("tar").args(["-C", "/", "-c", "bin/busybox"]).output().expect("tar is installed");
        let mut import = Command::new("docker")
            .args(["import", "--change", "ENTRYPOINT [\"/bin/busybox\", \"sh\", \"-c\"]", "-", IMAGE])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the docker command is installed");
        import.stdin.take().expect("it is piped").write_all(&tar.stdout).expect("docker import reads it all");
        assert!(import.wait().expect("it was started").success(), "docker import failed");
    });
}
