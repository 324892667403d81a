#!/usr/bin/env bash
# Every test, as root: on real parts, and a missing part is an error. An ordinary user cannot mount disks, make network namespaces or
# install packages: then every test that needs none of that, and at the end a list of what was left out and why.
# test.sh BIN_DIR, where the static binaries and the module images of them are.
set -euo pipefail
cd "$(dirname "$0")/.."

skipped=$(mktemp)
trap 'rm -f "$skipped"' EXIT
export LINESIDE_SKIPPED=$skipped

if ! command -v cc >/dev/null; then
    echo "test: no C compiler, which Rust links with; as root: apt-get install gcc libc6-dev" >&2
    exit 1
fi

# The same cases of property tests each time, so that a change is judged by what it changes; `make faults` draws new ones.
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-20260101}

failed=0
cargo test --no-fail-fast --workspace --exclude site-tests --config "target.'cfg(all())'.runner='scripts/run-test.sh'" || failed=1
if ((EUID == 0)); then
    LINESIDE_BIN_DIR=$1 cargo test --no-fail-fast -p site-tests -- --test-threads=1 --nocapture || failed=1
else
    echo "all tests of a whole site (tests/tests): they need root" >>"$skipped"
fi

if [[ -s $skipped ]]; then
    echo
    echo "Left out, and why:"
    sort -u "$skipped" | sed 's/^/  /'
    ((EUID == 0)) || echo "As root, \`make test\` installs what is missing and runs all of it."
fi
exit $failed
