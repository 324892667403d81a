#!/usr/bin/env bash
# Builds the Debian packages of both programs from the static binaries of `make build`: build-debs.sh [DIRECTORY OF THE BINARIES]
# They go to target/deb. The same binaries and the same commit give the same packages, byte for byte.
set -euo pipefail
cd "$(dirname "$0")/.."
binaries=${1:-target/x86_64-unknown-linux-gnu/dist}
readonly OUT=target/deb

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
case $(od -An -t u2 -j 18 -N 2 "$binaries/edge-agent" | tr -d ' ') in
62) architecture=amd64 ;;
183) architecture=arm64 ;;
40) architecture=armhf ;;
*)
    echo "build-debs: $binaries/edge-agent is for a machine that this script does not know" >&2
    exit 1
    ;;
esac
# The time of every file in a package.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)}
export SOURCE_DATE_EPOCH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# build PROGRAM SECTION RECOMMENDS SYNOPSIS DESCRIPTION
build() {
    local program=$1 section=$2 recommends=$3 synopsis=$4 description=$5
    local root=$work/$program
    install -D -m 755 "$binaries/$program" "$root/usr/bin/$program"
    install -d "$root/usr/lib/systemd/system"
    sed "s|^ExecStart=/usr/local/bin/|ExecStart=/usr/bin/|" "packaging/$program.service" \
        >"$root/usr/lib/systemd/system/$program.service"
    install -d "$root/usr/share/bash-completion/completions" "$root/usr/share/man/man1"
    "$binaries/$program" completions bash >"$root/usr/share/bash-completion/completions/$program"
    "$binaries/$program" man "$root/usr/share/man/man1" >/dev/null
    gzip --best --no-name "$root"/usr/share/man/man1/*
    install -D -m 644 LICENSE "$root/usr/share/doc/$program/copyright"
    install -d "$root/DEBIAN"
    install -m 755 "packaging/debian/$program"/* "$root/DEBIAN"
    cat >"$root/DEBIAN/control" <<CONTROL
Package: $program
Version: $version
Architecture: $architecture
Maintainer: Lineside <lineside@localhost>
Section: $section
Priority: optional
Installed-Size: $(du -k -s "$root/usr" | cut -f 1)
Depends: passwd
${recommends:+Recommends: $recommends
}Description: $synopsis
 $description
CONTROL
    chmod 644 "$root/usr/lib/systemd/system/$program.service" "$root/usr/share/bash-completion/completions/$program" \
        "$root"/usr/share/man/man1/* "$root/DEBIAN/control"
    find "$root" -type d -exec chmod 755 {} +
    find "$root" -newermt "@$SOURCE_DATE_EPOCH" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
    mkdir -p "$OUT"
    rm -f "$OUT/${program}"_*.deb
    dpkg-deb --root-owner-group -Zxz --build "$root" "$OUT/${program}_${version}_$architecture.deb" >/dev/null
    echo "$OUT/${program}_${version}_$architecture.deb ($(du -h "$OUT/${program}_${version}_$architecture.deb" | cut -f 1))"
}

build edge-agent net "docker.io | docker-ce" "gateway daemon for factory floors, a drop-in for Azure IoT Edge" \
    "Runs modules in containers, serves the leaf devices behind it by MQTT, and keeps their telemetry on disk while the line is down."
build central net "" "operators' server for gateways and devices, a drop-in for Azure IoT Central" \
    "Provisions, watches, groups and commands gateways and devices, assigns deployment manifests, and keeps telemetry."
