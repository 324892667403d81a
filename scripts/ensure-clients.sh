#!/usr/bin/env bash
# Makes sure that the real clients of the tests are there, unmodified and at the versions that tests/clients/ pins: Azure's
# device SDKs for Python and Node, paho, aiomqtt, MQTT.js, rhea and mosquitto's own. They go to .cache/clients/ of this tree.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly CACHE=.cache/clients

packages=(mosquitto mosquitto-clients python3 python3-venv)
# Any Node from 18 on serves; Debian's is installed only where there is none.
command -v node >/dev/null || packages+=(nodejs)
command -v npm >/dev/null || packages+=(npm)
scripts/ensure-packages.sh "${packages[@]}"
mkdir -p "$CACHE"

# Whether what a directory was made of is still so: is_made DIRECTORY FILE…
is_made() {
    local directory=$1
    shift
    [[ -f $directory/.made-of ]] && cat "$@" | sha256sum | cmp -s - "$directory/.made-of"
}
made() {
    local directory=$1
    shift
    cat "$@" | sha256sum >"$directory/.made-of"
}
# Runs a command whose words matter only when it fails.
quietly() {
    local log
    log=$(mktemp)
    if ! "$@" >"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        echo "ensure-clients: failed: $*; its last words are above" >&2
        exit 1
    fi
    rm -f "$log"
}

# Debian's Python, not whichever stands first in the PATH: the module image of the tests is made of the same one.
python_environment() {
    local directory=$CACHE/$1 requirements=tests/clients/python/requirements-$1.txt
    is_made "$directory" "$requirements" && return
    echo "Installing $(grep -c == "$requirements") Python packages of $requirements with pip into $directory."
    rm -rf "$directory"
    quietly /usr/bin/python3 -m venv "$directory"
    quietly "$directory/bin/pip" install --disable-pip-version-check --requirement "$requirements"
    made "$directory" "$requirements"
}
python_environment azure
python_environment plain
python_environment api

node=$CACHE/node
listed=(tests/clients/node/package.json tests/clients/node/package-lock.json)
if ! is_made "$node" "${listed[@]}"; then
    echo "Installing the Node packages of tests/clients/node/package.json with npm into $node."
    rm -rf "$node"
    mkdir -p "$node"
    cp "${listed[@]}" "$node/"
    quietly npm ci --prefix "$node" --no-audit --no-fund --ignore-scripts
    made "$node" "${listed[@]}"
fi
