#!/usr/bin/env bash
# Audits the dependencies against deny.toml: their licences, sources and duplicates, and known vulnerabilities when the
# database of advisories can be reached.
set -euo pipefail
cd "$(dirname "$0")/.."

# Duplicates are warnings: they are told as one number here; `cargo deny check bans` names them.
cargo deny --log-level error check --hide-inclusion-graph bans licenses sources

# How long fetching the advisories may take, in seconds; without a network it would be tried for minutes.
readonly PATIENCE=60
if timeout "$PATIENCE" cargo deny --log-level error fetch db >/dev/null 2>&1; then
    cargo deny --log-level error check --hide-inclusion-graph --disable-fetch advisories
else
    echo "The database of advisories cannot be reached from here: known vulnerabilities were NOT checked."
fi
