# Everything one does with Lineside. Each target installs what it lacks and says so.
SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
TARGET := x86_64-unknown-linux-gnu
BIN := target/$(TARGET)/dist
# Relative relocations in packed form: half a megabyte less in each program, on disk and in memory.
STATIC := RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs"

# Only root can install packages, start a Docker Engine, mount file systems and make network namespaces.
IS_ROOT := $(filter 0,$(shell id -u))
TEST_PACKAGES := busybox-static docker-registry chromium eatmydata e2fsprogs fonts-dejavu-core iproute2 curl libfaketime microsocks mosquitto mosquitto-clients prometheus tinyproxy

.PHONY: compiler build web images deb demo test attack faults fuzz check lint bench clean

compiler: ## what Rust needs beside itself: a linker, and a C compiler for SQLite and TLS
	scripts/ensure-packages.sh gcc libc6-dev

web: ## the console's files in central/web/dist, which central embeds
	scripts/build-console.sh

build: compiler ## static release binaries of every program
	$(STATIC) cargo build --profile dist --target $(TARGET) --workspace --bins

images: build ## module images from those binaries
	scripts/ensure-docker.sh
	scripts/build-images.sh

deb: build ## Debian packages of both programs in target/deb
	scripts/build-debs.sh

demo: images ## central, one gateway, its modules and leaf devices; ONCE=1 proves each step and ends
	LINESIDE_BIN_DIR=$(BIN) $(BIN)/demo $(if $(ONCE),--once)

test: $(if $(IS_ROOT),images) ## every test, on real parts; an ordinary user's are those that need none, with a list of the others
	$(if $(IS_ROOT),scripts/ensure-packages.sh --no-services $(TEST_PACKAGES))
	$(if $(IS_ROOT),scripts/ensure-clients.sh)
	$(if $(IS_ROOT),scripts/ensure-clean-debian.sh)
	scripts/test.sh $(CURDIR)/$(BIN)

faults: images ## the long form of the tests that break things: as root, about three quarters of an hour
	scripts/ensure-packages.sh eatmydata e2fsprogs iproute2 libfaketime mosquitto
	export LINESIDE_FAULTS=1
	cargo test -p edge-buffer --lib -- --nocapture every_step power damage faults
	cargo test -p edge-agent --lib -- --nocapture state
	cargo test -p edge-agent --test disk -- --nocapture --test-threads=1
	LINESIDE_BIN_DIR=$(CURDIR)/$(BIN) cargo test -p site-tests --test storms --test audit --test full_disk --test failing_disk --test line \
	    -- --nocapture --test-threads=1
	LINESIDE_BIN_DIR=$(CURDIR)/$(BIN) cargo test -p site-tests --test upstreams -- --nocapture --test-threads=1 kills
	LINESIDE_OVERLOAD_SECS=60 LINESIDE_BIN_DIR=$(CURDIR)/$(BIN) \
	    cargo test -p site-tests --test overload -- --nocapture --test-threads=1

attack: images ## the long form of the attacks on a running site, on loopback; those that do not hold yet fail
	LINESIDE_ATTACK=1 LINESIDE_BIN_DIR=$(CURDIR)/$(BIN) \
	    cargo test --no-fail-fast -p site-tests --test attack -- --nocapture --test-threads=1 --include-ignored

fuzz: compiler ## every parser with libFuzzer, SECONDS_EACH (600); TARGETS="packets sas" for some only
	scripts/fuzz.sh $(or $(SECONDS_EACH),600) $(TARGETS)

check: compiler ## format, lints and dependency audit; the console's types, tests, and that its committed files are of its sources
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	scripts/build-console.sh --check
	scripts/ensure-deny.sh
	scripts/audit.sh

lint: check

bench: images ## benchmarks with their peers in the same run; ONLY="free idle" runs some of them
	scripts/ensure-packages.sh busybox-static mosquitto iproute2
	LINESIDE_BIN_DIR=$(BIN) $(BIN)/bench $(ONLY)
	$(if $(ONLY),exit 0)
	$(STATIC) cargo run --profile dist --target $(TARGET) -p edge-buffer --example append_rate -- target 3 2048
	$(STATIC) cargo run --profile dist --target $(TARGET) -p central --example series_bench

clean:
	cargo clean
