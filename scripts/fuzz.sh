#!/usr/bin/env bash
# Runs every fuzz target, or those that are named, for a time each: scripts/fuzz.sh SECONDS [TARGET...]
# What is new and interesting stays in .cache/fuzz; a crash is left there too, and ends this with a failure.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly SECONDS_EACH="${1:?seconds for each target}"
shift
readonly TARGET=x86_64-unknown-linux-gnu
scripts/ensure-packages.sh g++

# libFuzzer is C++ and comes with its crate; its coverage is rustc's own, on the stable toolchain.
RUSTC_WRAPPER="$PWD/scripts/fuzz-rustc.sh" \
    cargo build --quiet --release --target "$TARGET" --manifest-path fuzz/driver/Cargo.toml --target-dir target/fuzz

targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    for corpus in fuzz/corpus/*/; do targets+=("$(basename "$corpus")"); done
fi
for name in "${targets[@]}"; do
    found=".cache/fuzz/$name"
    mkdir -p "$found"
    echo "fuzz: $name for $SECONDS_EACH s"
    if ! LINESIDE_FUZZ_TARGET="$name" "target/fuzz/$TARGET/release/fuzz-driver" "$found" "fuzz/corpus/$name" \
        -artifact_prefix=".cache/fuzz/crash-$name-" -max_total_time="$SECONDS_EACH" -timeout=10 -rss_limit_mb=1024 \
        -max_len=4096 -print_final_stats=1 >".cache/fuzz/$name.log" 2>&1; then
        tail -40 ".cache/fuzz/$name.log"
        echo "fuzz: $name broke a promise; make the file a test with a name, and a file of fuzz/corpus/$name"
        exit 1
    fi
    grep -E "stat::number_of_executed_units|Done" ".cache/fuzz/$name.log" || true
done
