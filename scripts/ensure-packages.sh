#!/usr/bin/env bash
# Installs those of the named Debian packages that are missing, and says so: ensure-packages.sh PACKAGE…
set -euo pipefail

if ! command -v dpkg-query >/dev/null; then
    echo "ensure-packages: this is no Debian; install by hand what is missing of: $*" >&2
    exit 0
fi

missing=()
for package in "$@"; do
    status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [[ $status == installed ]] || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
    exit 0
fi
if ((EUID != 0)); then
    echo "ensure-packages: ${missing[*]} missing; run this as root, or: apt-get install ${missing[*]}" >&2
    exit 1
fi

echo "Installing ${missing[*]} with apt-get."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() {
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >"$log" 2>&1 </dev/null
}
# The package lists of a fresh machine may be absent or too old: then they are fetched, and once more.
if ! install && ! { apt-get update >"$log" 2>&1 && install; }; then
    tail -n 20 "$log" >&2
    echo "ensure-packages: apt-get could not install ${missing[*]}; its last words are above" >&2
    exit 1
fi
