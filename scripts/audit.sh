#!/usr/bin/env bash
# Audits the dependencies against deny.toml: licences, sources, duplicates, and advisories of the RustSec database.
#
# The database is fetched. If that fails, the copy of the last fetch is used; its age is printed. Without a copy the audit fails, except on
# a machine that cannot reach the database's server at all: there it passes and says that advisories were not checked. LINESIDE_AUDIT=strict
# makes that an error too; set it before a release.
set -euo pipefail
cd "$(dirname "$0")/.."

# Time limit of each attempt to reach the server, in seconds. Without one, an attempt on a machine without a network takes minutes.
readonly PATIENCE=60
# Time limit of a fetch from a server that answers: on a slow line it takes minutes.
readonly FETCH_PATIENCE=900
readonly SERVER=https://github.com/RustSec/advisory-db
# Where cargo-deny keeps its copies, one folder for each server.
readonly COPIES=${CARGO_HOME:-$HOME/.cargo}/advisory-dbs

# Duplicates are warnings, printed as one number; `cargo deny check bans` names them.
cargo deny --log-level error check --hide-inclusion-graph bans licenses sources

# Prints how old the newest copy is, in whole days; fails if there is none.
age_days() {
    local newest=0 fetched copy
    for copy in "$COPIES"/advisory-db-*/; do
        fetched=$(git -C "$copy" log -1 --format=%ct 2>/dev/null) || continue
        ((fetched <= newest)) || newest=$fetched
    done
    ((newest > 0)) && echo $((($(date +%s) - newest) / 86400))
}

is_reached=
limit=$PATIENCE
if timeout "$PATIENCE" git ls-remote "$SERVER" HEAD >/dev/null 2>&1; then
    is_reached=yes
    limit=$FETCH_PATIENCE
fi
# It also succeeds without a network when there is a copy, so the age is what tells.
timeout "$limit" cargo deny --log-level error fetch db >/dev/null 2>&1 || true
if age=$(age_days); then
    echo "The newest entry of the advisory database is $age days old."
    # `--offline`: it is not fetched a second time.
    cargo deny --log-level error --offline check --hide-inclusion-graph advisories
elif [[ ${LINESIDE_AUDIT:-} != strict && -z $is_reached ]]; then
    echo "Advisories were NOT checked: $SERVER cannot be reached from this machine, and it has no copy of the database."
else
    echo "audit: the advisory database could not be fetched from $SERVER, and there is no copy in $COPIES;" \
        "run \`cargo deny fetch db\` to see why" >&2
    exit 1
fi
