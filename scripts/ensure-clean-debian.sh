#!/usr/bin/env bash
# Makes the root file system of a clean Debian machine, for tests that install packages: .cache/clean-debian.tar of this tree.
# It has what a minimal installation has, and an MQTT client and curl. Does nothing when it is there.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly ARCHIVE=.cache/clean-debian.tar

if [[ -e $ARCHIVE ]]; then
    exit 0
fi
scripts/ensure-packages.sh debootstrap
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
# Where this machine gets Debian's packages from.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | sed -n 1p)
echo "Making a clean Debian ($suite) in $ARCHIVE with debootstrap."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
if ! debootstrap --variant=minbase --include=curl,mosquitto-clients "$suite" "$dir/root" "${mirror:-http://deb.debian.org/debian}" \
    >"$dir/log" 2>&1; then
    tail -n 20 "$dir/log" >&2
    echo "ensure-clean-debian: debootstrap failed; its last lines are above" >&2
    exit 1
fi
rm -rf "$dir/root/var/cache/apt" "$dir/root/var/lib/apt/lists"
mkdir -p .cache
tar -C "$dir/root" -cf "$dir/archive.tar" .
mv "$dir/archive.tar" "$ARCHIVE"
