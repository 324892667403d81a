#!/usr/bin/env bash
# Makes a container image of a test module without any registry: the interpreter of this machine with the shared libraries
# that it needs, the unmodified Azure SDK of .cache/clients, and the script. build-module-image.sh python|node IMAGE
# An image that was made of the same parts is left as it is.
set -euo pipefail
cd "$(dirname "$0")/../.."
kind=$1 image=$2
case $kind in
python)
    program=/usr/bin/python3
    script=tests/clients/python/azure_client.py
    requirements=tests/clients/python/requirements-azure.txt
    ;;
node)
    program=$(command -v node)
    script=tests/clients/node/azure_client.js
    requirements=tests/clients/node/package-lock.json
    ;;
*)
    echo "build-module-image: $kind is neither python nor node" >&2
    exit 1
    ;;
esac

source=$(cat "$0" "$script" "$requirements" <("$program" --version) | sha256sum | cut -d ' ' -f 1)
present=$(docker image inspect --format '{{index .Config.Labels "lineside.source"}}' "$image" 2>/dev/null || true)
[[ $present == "$source" ]] && exit 0

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
# A file of this machine at the same place in the image; what a link means is copied, not the link.
take() {
    local file
    for file in "$@"; do
        mkdir -p "$root$(dirname "$file")"
        cp --dereference "$file" "$root$file"
    done
}
# The shared libraries that some programs and libraries name, and the loader.
libraries_of() {
    ldd "$@" 2>/dev/null | grep -o '/[^ :()]*' | sort -u | grep -v ':$' || true
}

binary=$(readlink -f "$program")
take "$binary"
mkdir -p "$root/tmp" "$root/etc"
# Names are looked up in the files that Docker mounts, and then by DNS.
echo "hosts: files dns" >"$root/etc/nsswitch.conf"
needed=("$binary")
case $kind in
python)
    library=$("$program" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
    mkdir -p "$root$library"
    tar -C "$library" --exclude test --exclude '__pycache__' --exclude 'idlelib' --exclude 'lib2to3' \
        --exclude 'ensurepip' --exclude 'config-*' -c . | tar -C "$root$library" -x
    mapfile -t extensions < <(find "$library/lib-dynload" -name '*.so')
    needed+=("${extensions[@]}")
    mkdir -p "$root/app"
    packages=$(.cache/clients/azure/bin/python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    tar -C "$packages" --exclude '__pycache__' --exclude pip --exclude setuptools -c . | tar -C "$root/app" -x
    cp "$script" "$root/app/client"
    run='["'$binary'", "-B", "/app/client", "module"]'
    environment='PYTHONPATH=/app'
    ;;
node)
    mkdir -p "$root/app"
    tar -C .cache/clients/node -c node_modules | tar -C "$root/app" -x
    cp "$script" "$root/app/client.js"
    run='["'$binary'", "/app/client.js", "module"]'
    environment='NODE_PATH=/app/node_modules'
    ;;
esac
mapfile -t libraries < <(libraries_of "${needed[@]}")
take "${libraries[@]}"
# What the C library opens by name to look up hosts.
for file in /lib/x86_64-linux-gnu/libnss_{files,dns}.so.2; do
    [[ ! -e $file ]] || take "$file"
done

tar -C "$root" -c . | docker import --change "ENTRYPOINT $run" --change "ENV $environment" \
    --change "LABEL lineside.source=$source" - "$image" >/dev/null
echo "Image $image made ($(docker image inspect --format '{{.Size}}' "$image" | numfmt --to=iec) of $("$program" --version))."
