#!/usr/bin/env bash
# Installs those of the named Debian packages that are missing, and says so: ensure-packages.sh [--no-services] PACKAGE…
# With --no-services, services of the packages that it installs are neither started now nor at the next boot.
set -euo pipefail

services=yes
if [[ ${1:-} == --no-services ]]; then
    services=no
    shift
fi

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
# Debian's invoke-rc.d asks this file before it starts a service; 101 forbids it. Images of containers have one already.
readonly POLICY=/usr/sbin/policy-rc.d
if [[ $services == no && ! -e $POLICY ]]; then
    trap 'rm -f "$log" "$POLICY"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod 755 "$POLICY"
else
    trap 'rm -f "$log"' EXIT
fi
# Another apt-get, such as that of the machine's own updates, is waited for; a mirror that answers slowly is tried again.
readonly PATIENT=(-o DPkg::Lock::Timeout=600 -o Acquire::Retries=5)
install() {
    DEBIAN_FRONTEND=noninteractive apt-get "${PATIENT[@]}" install -y --no-install-recommends "${missing[@]}" \
        >"$log" 2>&1 </dev/null
}
# The package lists of a fresh machine may be absent or too old: then they are fetched, and once more.
if ! install && ! { apt-get "${PATIENT[@]}" update >"$log" 2>&1 && install; }; then
    tail -n 20 "$log" >&2
    echo "ensure-packages: apt-get could not install ${missing[*]}; its last words are above" >&2
    exit 1
fi
if [[ $services == no ]] && command -v systemctl >/dev/null; then
    for package in "${missing[@]}"; do
        dpkg-query --listfiles "$package" | sed -n 's|.*/systemd/system/\([^/@]*\.service\)$|\1|p' |
            xargs --no-run-if-empty systemctl disable --quiet 2>>"$log" || true
    done
fi
