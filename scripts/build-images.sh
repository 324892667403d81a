#!/usr/bin/env bash
# Builds the container images from the static binaries of `make build`: build-images.sh [DIRECTORY OF THE BINARIES]
# An image whose binary and Dockerfile are unchanged is left as it is.
set -euo pipefail
cd "$(dirname "$0")/.."
binaries=${1:-target/x86_64-unknown-linux-gnu/dist}

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT

# The binary's name, and the stage of the Dockerfile that says how it runs.
build() {
    local program=$1 target=$2 image=lineside/$1:1 binary=$binaries/$1
    if [[ ! -x $binary ]]; then
        echo "build-images: $binary is not there; build it first: make build" >&2
        exit 1
    fi
    local source present
    source=$(cat "$binary" Dockerfile | sha256sum | cut -d ' ' -f 1)
    present=$(docker image inspect --format '{{index .Config.Labels "lineside.source"}}' "$image" 2>/dev/null || true)
    if [[ $present == "$source" ]]; then
        echo "Image $image is up to date."
        return
    fi
    # A context of just the binary: nothing else of this tree is sent to the engine.
    rm -rf "${context:?}"/*
    cp "$binary" "$context/"
    if ! docker build --quiet --file Dockerfile --target "$target" --build-arg "PROGRAM=$program" \
        --label "lineside.source=$source" --tag "$image" "$context" >"$context.log" 2>&1; then
        cat "$context.log" >&2
        rm -f "$context.log"
        echo "build-images: $image could not be built; the engine's words are above" >&2
        exit 1
    fi
    rm -f "$context.log"
    echo "Image $image built ($(du -h "$binary" | cut -f 1))."
}

build simulated-sensor module
build threshold-filter module
build edge-agent edge-agent
build central central
