#!/usr/bin/env bash
# Makes sure that a Docker Engine answers: installs Debian's when there is none, starts it when it sleeps.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

# How long an engine may take to answer, in seconds: a first start takes about ten, and a machine may be twenty times as slow.
readonly PATIENCE=300
readonly LOG=/var/log/lineside-dockerd.log

# Where there is no engine, this fails at once; one that is busy may take its time.
answers() {
    timeout 60 docker version --format '{{.Server.Version}}' >/dev/null 2>&1
}

if answers; then
    exit 0
fi
if [[ -n ${DOCKER_HOST:-} ]]; then
    echo "ensure-docker: DOCKER_HOST is $DOCKER_HOST and nobody answers there; start that engine or unset it" >&2
    exit 1
fi
if ! command -v dockerd >/dev/null || ! command -v docker >/dev/null; then
    "$here/ensure-packages.sh" docker.io iptables ca-certificates
    # Newer Debians have the command in a package of its own.
    if ! command -v docker >/dev/null; then
        "$here/ensure-packages.sh" docker-cli
    fi
fi
if ((EUID != 0)); then
    echo "ensure-docker: no engine answers; start it as root, or join the group docker" >&2
    exit 1
fi

dockerd_id=
if answers; then
    # Installing it has started it.
    exit 0
elif [[ -d /run/systemd/system ]]; then
    echo "Starting the Docker Engine with systemd."
    systemctl start docker
else
    pid_file=/var/run/docker.pid
    if [[ -f $pid_file && $(cat "/proc/$(<"$pid_file")/comm" 2>/dev/null) == dockerd ]]; then
        echo "The Docker Engine is there and does not answer yet."
    else
        # A pid file of an earlier boot may name a process that is no engine now; dockerd would refuse to start beside it.
        rm -f "$pid_file"
        echo "Starting the Docker Engine in the background; it writes to $LOG."
        # A session and files of its own: it must outlive this script and hold nobody's output open.
        setsid nohup dockerd >"$LOG" 2>&1 </dev/null &
        dockerd_id=$!
    fi
fi

deadline=$((SECONDS + PATIENCE))
until answers; do
    if [[ -n $dockerd_id ]] && ! kill -0 "$dockerd_id" 2>/dev/null; then
        tail -n 20 "$LOG" >&2
        echo "ensure-docker: dockerd ended; its last words are above" >&2
        exit 1
    fi
    if ((SECONDS >= deadline)); then
        [[ -z $dockerd_id ]] || tail -n 20 "$LOG" >&2
        echo "ensure-docker: the engine did not answer within $PATIENCE s" >&2
        exit 1
    fi
    sleep 0.5
done
echo "Docker Engine $(docker version --format '{{.Server.Version}}') answers."
