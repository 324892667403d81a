//! A newcomer's walk: the commands of docs/install.md, run unchanged on two clean Debian machines, up to a device's value; then the
//! packages are upgraded, removed and purged.
//!
//! A machine is a container of Debian's minimal installation. A script takes the part of `systemctl`: it starts what a unit's `ExecStart`
//! says and waits for the ready line.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use site_tests::STEP;
use site_tests::docker::{self, docker};
use site_tests::process::{binary, run};
use site_tests::rest::eventually;
use tokio::process::Command;

const NETWORK: &str = "lineside-install";
const IMAGE: &str = "lineside-test/clean-machine:1";

/// The page's machines: the word after `sh` of a block, and the host name in its commands.
const MACHINES: [(&str, &str); 2] = [("central", "central.example"), ("gateway", "gateway.example")];

/// The gateway's data, on its machine and on this one.
const DATA: &str = "/var/lib/edge-agent";
/// Each machine with what is installed on it.
const PROGRAMS: [(&str, &str); 2] = [("gateway", "edge-agent"), ("central", "central")];

/// The commands of systemd that packages and the page use. A service is the process whose id is in /run/NAME.pid.
const SYSTEMCTL: &str = r#"#!/bin/bash
set -euo pipefail
now=
if [[ ${2:-} == --now || ${2:-} == --quiet ]]; then
    [[ $2 == --quiet ]] || now=yes
    set -- "$1" "${3:-}"
fi
name=${2:-}
name=${name%.service}
stop() {
    if [[ -e /run/$name.pid ]]; then
        process=$(cat "/run/$name.pid")
        kill "$process" 2>/dev/null || true
        # Not a child of this script: its end is seen by what waits for a foreign process.
        timeout 180 tail --pid="$process" -f /dev/null
        rm "/run/$name.pid"
    fi
}
start() {
    unit=/usr/lib/systemd/system/$name.service
    command=$(sed -n 's/^ExecStart=//p' "$unit")
    user=$(sed -n 's/^User=//p' "$unit")
    directory=$(sed -n 's/^StateDirectory=//p' "$unit")
    [[ -z $directory ]] || install -d -m 700 -o "$user" -g "$user" "/var/lib/$directory"
    log=/var/log/$name.log
    # The program is started beside this script, and may come to its log later than what reads it.
    : >"$log"
    setsid ${user:+setpriv --reuid "$user" --regid "$user" --init-groups --} $command >"$log" 2>&1 </dev/null &
    echo $! >"/run/$name.pid"
    # Ends when the line is there, when the program has ended, or after three minutes.
    if ! timeout 180 grep -qm1 "$name ready" <(exec tail -n +1 -f --pid=$! "$log" 2>/dev/null); then
        cat "$log" >&2
        exit 1
    fi
}
case $1 in
daemon-reload) ;;
enable) touch "/run/$name.enabled"; [[ -z $now ]] || start ;;
disable) rm -f "/run/$name.enabled"; [[ -z $now ]] || stop ;;
is-enabled) [[ -e /run/$name.enabled ]] ;;
start) start ;;
stop) stop ;;
restart) stop; start ;;
*) echo "the stand-in knows no systemctl $1" >&2; exit 1 ;;
esac
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

async fn image() -> Result<()> {
    let archive = concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/clean-debian.tar");
    ensure!(Path::new(archive).exists(), "{archive} is missing; make it: scripts/ensure-clean-debian.sh");
    docker(&["import", archive, IMAGE]).await?;
    Ok(())
}

/// The packages of the binaries under test.
async fn packages() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let program = binary("edge-agent")?;
    let binaries = program.parent().context("a program is in a directory")?;
    let (code, _, error) =
        run(Command::new("scripts/build-debs.sh").arg(binaries).current_dir(&root)).await?;
    ensure!(code == 0, "build-debs.sh: {error}");
    Ok(root.join("target/deb").canonicalize()?)
}

/// Starts a clean machine that holds the files that the page says to copy.
async fn machine(packages: &Path, name: &str, host: &str) -> Result<()> {
    let container = format!("lineside-install-{name}");
    let copied = format!("{}:/root/copied:ro", packages.display());
    let data = format!("{DATA}:{DATA}");
    let mut arguments = vec!["run", "--detach", "--name", &container, "--hostname", host];
    arguments.extend(["--network", NETWORK, "--network-alias", host, "--volume", &copied]);
    arguments.extend(["--workdir", "/root/copied"]);
    if name == "gateway" {
        arguments.extend(["--volume", "/var/run/docker.sock:/var/run/docker.sock"]);
        // The engine is this machine's: what modules' containers mount of the gateway must have the same path there.
        arguments.extend(["--volume", &data]);
    }
    // A shell, which reaps services that have ended, as a machine's first process does.
    arguments.extend([IMAGE, "bash", "-c", "sleep infinity & wait"]);
    docker(&arguments).await?;
    let script = "mkdir -p /run/systemd/system && cat > /usr/local/bin/systemctl && chmod 755 /usr/local/bin/systemctl";
    let mut exec = Command::new("docker");
    exec.args(["exec", "--interactive", &container, "bash", "-c", script]);
    let mut child = exec.stdin(std::process::Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    tokio::io::AsyncWriteExt::write_all(&mut stdin, SYSTEMCTL.as_bytes()).await?;
    drop(stdin);
    ensure!(child.wait().await?.success(), "systemctl's stand-in was not written");
    Ok(())
}

/// Runs a command on a machine and gives its standard output.
async fn on(machine: &str, line: &str) -> Result<String> {
    let container = format!("lineside-install-{machine}");
    let (code, out, error) =
        run(Command::new("docker").args(["exec", &container, "bash", "-c", line])).await?;
    ensure!(code == 0, "on {machine}: {line}\nexited {code}: {out}{error}");
    Ok(out)
}

/// Every file of a machine, without those that change by themselves.
async fn files(machine: &str) -> Result<BTreeSet<String>> {
    let all = on(machine, "find / -xdev -not -path '/proc*' -not -path '/sys*' -not -path '/tmp*'").await?;
    Ok(all.lines().map(str::to_owned).collect())
}

async fn walk(page: &str) -> Result<Vec<String>> {
    let mut words: BTreeMap<&str, String> = BTreeMap::new();
    let mut ran = Vec::new();
    for (machine, command) in commands(page) {
        let mut line = command.clone();
        for (word, value) in &words {
            line = line.replace(word, value);
        }
        let execute = || on(&machine, &line);
        // Both are on their way while the command for it is typed: the link when the gateway was started, and the value.
        let sought = match command.as_str() {
            command if command.starts_with("curl ") => Some("21.5"),
            "edge-agent status" => Some("connected since"),
            _ => None,
        };
        let output = match sought {
            None => execute().await?,
            Some(sought) => {
                eventually(&format!("`{sought}` in the answer of {command}"), STEP, || async {
                    let output = execute().await?;
                    Ok(output.contains(sought).then_some(output))
                })
                .await?
            }
        };
        remember(&command, &output, &mut words);
        ran.push(command);
    }
    Ok(ran)
}

/// What is on the machines after the walk: a gateway that `check` finds nothing wrong with; and after it, nothing.
async fn upgrade_and_remove(before: &BTreeMap<&str, BTreeSet<String>>) -> Result<()> {
    on("gateway", "edge-agent check").await?;
    let manifest = r#"{"modulesContent": {
        "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": {
            "lineside-install-idle": {"settings": {"image": "lineside/simulated-sensor:1"}, "imagePullPolicy": "never"}}}},
        "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {}}}}}"#;
    on("gateway", &format!("edge-agent apply --wait 180 - <<'MANIFEST'\n{manifest}\nMANIFEST")).await?;
    let container = || docker(&["inspect", "--format", "{{.Id}}", "lineside-install-idle"]);
    let created = container().await?;
    for (machine, program) in PROGRAMS {
        let process = on(machine, &format!("cat /run/{program}.pid")).await?;
        on(machine, &format!("dpkg --install {program}_*.deb")).await?;
        ensure!(
            on(machine, &format!("cat /run/{program}.pid")).await? != process,
            "an upgrade restarts {program}"
        );
    }
    ensure!(container().await? == created, "an upgrade leaves the modules' containers");
    on("gateway", "edge-agent status").await?;

    for (machine, program) in PROGRAMS {
        on(machine, &format!("dpkg --remove {program}")).await?;
        let is_data = |file: &str| {
            [format!("/etc/{program}"), format!("/var/lib/{program}")]
                .iter()
                .any(|dir| file.starts_with(dir.as_str()))
                || file.starts_with("/var/lib/dpkg/")
                || file.starts_with("/var/log/")
                // What useradd keeps of the files that it changes.
                || ["/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-"].contains(&file)
        };
        let left = files(machine).await?;
        let left: Vec<&String> = left.difference(&before[machine]).filter(|file| !is_data(file)).collect();
        ensure!(left.is_empty(), "left of {program} after its removal: {left:?}");
        on(machine, &format!("test -d /var/lib/{program}")).await?;
    }
    ensure!(container().await.is_err(), "a removal takes the modules' containers along");
    // What was kept is taken up again.
    on("gateway", "dpkg --install edge-agent_*.deb && edge-agent status").await?;
    for (machine, program) in PROGRAMS {
        // The gateway's is a mount point here, which stays.
        let is_empty = format!("test -z \"$(ls -A /var/lib/{program} 2>/dev/null)\"");
        on(machine, &format!("dpkg --purge {program} && test ! -e /etc/{program} && {is_empty}")).await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_commands_of_the_install_page_lead_to_a_devices_value_on_two_clean_machines() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/install.md")).unwrap();
    docker::remove_network(NETWORK).await.unwrap();
    let data = Path::new(DATA);
    assert!(!data.exists(), "{DATA} is there; the test needs it, remove it if it is no gateway's");
    let walked = async {
        docker(&["network", "create", NETWORK]).await?;
        image().await?;
        let packages = packages().await?;
        let mut before = BTreeMap::new();
        for (name, host) in MACHINES {
            machine(&packages, name, host).await?;
            before.insert(name, files(name).await?);
        }
        let ran = walk(&page).await?;
        upgrade_and_remove(&before).await?;
        anyhow::Ok(ran)
    }
    .await;
    let mut logs = String::new();
    for (machine, program) in PROGRAMS {
        logs += &on(machine, &format!("cat /var/log/{program}.log")).await.unwrap_or_default();
    }
    docker::remove_network(NETWORK).await.unwrap();
    // The network of modules, which the gateway made on this machine's engine.
    docker::remove_network("azure-iot-edge").await.unwrap();
    docker(&["rmi", "--force", IMAGE]).await.unwrap();
    std::fs::remove_dir_all(data).unwrap();
    let ran = walked.map_err(|error| format!("{error:#}\n{logs}")).unwrap();
    for part in ["gateway add", "init --join", "mosquitto_pub", "curl"] {
        assert!(ran.iter().any(|command| command.contains(part)), "the page has no `{part}`");
    }
}
