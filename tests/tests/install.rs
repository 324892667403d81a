//! A newcomer's walk: the commands of docs/install.md, run as they stand on two clean machines, up to a device's value.
//!
//! A machine is a container with the programs of this one (`/usr`, read-only) and nothing else of it: its own `/etc`, `/var` and
//! network name. A script takes the part of `systemctl`: it starts what a unit's `ExecStart` says and waits for the ready line.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use site_tests::docker::{self, docker};
use site_tests::process::{binary, run};
use site_tests::rest::eventually;
use tokio::process::Command;

const NETWORK: &str = "lineside-install";
const IMAGE: &str = "lineside-test/clean-machine:1";
/// How long a value may take from the device to central, on a busy machine.
const STEP: Duration = Duration::from_secs(60);

/// The page's machines: the word after `sh` of a block, and the host name in its commands.
const MACHINES: [(&str, &str); 2] = [("central", "central.example"), ("gateway", "gateway.example")];

/// `systemctl enable --now NAME`: runs the unit's `ExecStart` as its `User` and waits for the line that says it is ready.
const SYSTEMCTL: &str = r#"#!/bin/bash
set -euo pipefail
[[ "$1 $2" == "enable --now" ]]
unit=/etc/systemd/system/$3.service
command=$(sed -n 's/^ExecStart=//p' "$unit")
user=$(sed -n 's/^User=//p' "$unit")
directory=$(sed -n 's/^StateDirectory=//p' "$unit")
[[ -z $directory ]] || install -d -m 700 -o "$user" -g "$user" "/var/lib/$directory"
log=/var/log/$3.log
# The program is started beside this script, and may come to its log later than what reads it.
: >"$log"
setsid ${user:+runuser -u "$user" --} $command >"$log" 2>&1 </dev/null &
# Ends when the line is there, when the program has ended, or after a minute.
if ! timeout 60 grep -qm1 "$3 ready" <(exec tail -n +1 -f --pid=$! "$log" 2>/dev/null); then
    cat "$log" >&2
    exit 1
fi
"#;

/// The commands of the page, each with the machine it is for.
fn commands(page: &str) -> Vec<(String, String)> {
    let mut machine = None;
    let mut commands = Vec::new();
    for line in page.lines() {
        match (line.strip_prefix("```"), &machine) {
            (Some(""), _) => machine = None,
            (Some(fence), _) => machine = fence.strip_prefix("sh ").map(str::to_owned),
            (None, Some(machine)) => commands.push((machine.clone(), line.to_owned())),
            (None, None) => {}
        }
    }
    commands
}

/// What later commands take from the output of this one.
fn remember(command: &str, output: &str, words: &mut BTreeMap<&'static str, String>) {
    let after = |label: &str| {
        let line = output.lines().find(|line| line.starts_with(label));
        line.map(|line| line[label.len()..].trim().to_owned())
    };
    let found = match command {
        _ if command.contains("token create") => [
            ("TOKEN", after("SharedAccessSignature").map(|rest| format!("SharedAccessSignature {rest}"))),
            ("", None),
        ],
        _ if command.contains("gateway add") => [("JOIN_WORD", after("edge-agent init --join")), ("", None)],
        _ if command.contains("device token") => {
            [("USER_NAME", after("user name")), ("PASSWORD", after("password"))]
        }
        _ => return,
    };
    words.extend(found.into_iter().filter_map(|(word, value)| Some((word, value?))));
}

async fn image(dir: &Path) -> Result<()> {
    let root = dir.join("root");
    for directory in ["etc", "root", "run", "tmp", "usr", "var/lib", "var/log", "proc", "sys", "dev"] {
        std::fs::create_dir_all(root.join(directory))?;
    }
    for link in ["bin", "sbin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{link}"), root.join(link))?;
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/bash\n")?;
    std::fs::write(root.join("etc/group"), "root:x:0:\n")?;
    let archive = dir.join("root.tar");
    let (code, _, error) =
        run(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg(".")).await?;
    ensure!(code == 0, "tar: {error}");
    docker(&["import", archive.to_str().context("a path of UTF-8")?, IMAGE]).await?;
    Ok(())
}

/// Starts a clean machine that holds the files that the page says to copy.
async fn machine(dir: &Path, name: &str, host: &str) -> Result<()> {
    let program = if name == "gateway" { "edge-agent" } else { "central" };
    let unit = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../packaging/{program}.service"));
    let copied = dir.join(name);
    std::fs::create_dir_all(&copied)?;
    std::fs::copy(binary(program)?, copied.join(program))?;
    std::fs::copy(&unit, copied.join(format!("{program}.service"))).with_context(|| format!("{unit:?}"))?;
    let container = format!("lineside-install-{name}");
    let copied = format!("{}:/root/copied:ro", copied.display());
    let mut arguments = vec!["run", "--detach", "--name", &container, "--hostname", host];
    arguments.extend(["--network", NETWORK, "--network-alias", host, "--volume", &copied]);
    arguments.extend(["--volume", "/usr:/usr:ro", "--volume", "/etc/pam.d:/etc/pam.d:ro"]);
    arguments.extend(["--volume", "/etc/security:/etc/security:ro"]);
    arguments.extend(["--tmpfs", "/usr/local:exec", "--workdir", "/root/copied"]);
    if name == "gateway" {
        arguments.extend(["--volume", "/var/run/docker.sock:/var/run/docker.sock"]);
    }
    arguments.extend([IMAGE, "sleep", "infinity"]);
    docker(&arguments).await?;
    let script =
        "mkdir -p /usr/local/bin && cat > /usr/local/bin/systemctl && chmod 755 /usr/local/bin/systemctl";
    let mut exec = Command::new("docker");
    exec.args(["exec", "--interactive", &container, "bash", "-c", script]);
    let mut child = exec.stdin(std::process::Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    tokio::io::AsyncWriteExt::write_all(&mut stdin, SYSTEMCTL.as_bytes()).await?;
    drop(stdin);
    ensure!(child.wait().await?.success(), "systemctl's stand-in was not written");
    Ok(())
}

async fn walk(page: &str) -> Result<Vec<String>> {
    let mut words: BTreeMap<&str, String> = BTreeMap::new();
    let mut ran = Vec::new();
    for (machine, command) in commands(page) {
        let mut line = command.clone();
        for (word, value) in &words {
            line = line.replace(word, value);
        }
        let container = format!("lineside-install-{machine}");
        let execute = || async {
            let (code, out, error) =
                run(Command::new("docker").args(["exec", &container, "bash", "-c", &line])).await?;
            ensure!(code == 0, "on {machine}: {command}\nexited {code}: {out}{error}");
            Ok(out)
        };
        let output = if command.starts_with("curl ") {
            // The value is on its way while the command for it is typed.
            eventually("the value in central", STEP, || async {
                let output = execute().await?;
                Ok(output.contains("21.5").then_some(output))
            })
            .await?
        } else {
            execute().await?
        };
        if command.contains("edge-agent status") && !output.contains("connected") {
            bail!("the gateway is not connected: {output}");
        }
        remember(&command, &output, &mut words);
        ran.push(command);
    }
    Ok(ran)
}

#[tokio::test]
async fn the_commands_of_the_install_page_lead_to_a_devices_value_on_two_clean_machines() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/install.md")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    docker::remove_network(NETWORK).await.unwrap();
    let walked = async {
        docker(&["network", "create", NETWORK]).await?;
        image(dir.path()).await?;
        for (name, host) in MACHINES {
            machine(dir.path(), name, host).await?;
        }
        walk(&page).await
    }
    .await;
    let mut logs = String::new();
    for (name, program) in [("central", "central"), ("gateway", "edge-agent")] {
        let log = format!("/var/log/{program}.log");
        logs +=
            &docker(&["exec", &format!("lineside-install-{name}"), "cat", &log]).await.unwrap_or_default();
    }
    docker::remove_network(NETWORK).await.unwrap();
    // The network of modules, which the gateway made on this machine's engine.
    docker::remove_network("azure-iot-edge").await.unwrap();
    docker(&["rmi", "--force", IMAGE]).await.unwrap();
    let ran = walked.map_err(|error| format!("{error:#}\n{logs}")).unwrap();
    for part in ["gateway add", "init --join", "mosquitto_pub", "curl"] {
        assert!(ran.iter().any(|command| command.contains(part)), "the page has no `{part}`");
    }
}
