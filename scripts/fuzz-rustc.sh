#!/usr/bin/env bash
# rustc for scripts/fuzz.sh: instruments the crates that read what others wrote, and no others. Every counter is looked at
# after every input, so those of TLS, HTTP and the runtime, which no target enters, would only make it slow.
set -euo pipefail

rustc="$1"
shift
name=""
target=""
previous=""
for argument in "$@"; do
    case "$previous" in
    --crate-name) name="$argument" ;;
    --target) target="$argument" ;;
    esac
    previous="$argument"
done
# Without a target it is for a build script or a macro, which run where nothing counts.
case "${target:+$name}" in
schemas | edge_core | amqp | mqtt | fuzz | fuzz_driver | serde_json | percent_encoding | base64 | bytes)
    # All of it is stable: LLVM's pass, and its options. No sanitizer, because nothing here is unsafe.
    exec "$rustc" "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
*) exec "$rustc" "$@" ;;
esac
