#!/usr/bin/env bash
# Runs one test program for cargo: run-test.sh PROGRAM [ARGUMENT…]
set -euo pipefail

case ${1##*/} in
    # Its tests wait most of the time: for restarts, for probations, for engines that hang.
    rollout-*) export RUST_TEST_THREADS=${RUST_TEST_THREADS:-8} ;;
esac
exec "$@"
