#!/usr/bin/env bash
# Makes sure that cargo-deny is there, which audits the dependencies. Building it takes a few minutes, once.
set -euo pipefail
cd "$(dirname "$0")/.."

# A version that builds with the toolchain of rust-toolchain.toml and reads our deny.toml.
readonly VERSION=0.20.2

if cargo deny --version >/dev/null 2>&1; then
    exit 0
fi
echo "Installing cargo-deny $VERSION with cargo; this takes 3 to 10 minutes on two cores."
if ! cargo install --quiet --locked --version "$VERSION" cargo-deny; then
    echo "ensure-deny: cargo-deny $VERSION could not be installed, so the dependencies cannot be audited;" \
        "reach a crates.io registry, or put cargo-deny into the PATH" >&2
    exit 1
fi
