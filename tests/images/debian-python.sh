#!/usr/bin/env bash
# Makes the image named by $1 (debian-python:3.11): Debian with its python3 and venv, for building deploy/Dockerfile on.
source "$(dirname "$0")/debian.sh"
image=${1:-debian-python:3.11}
ready_docker
if ! docker image inspect "$image" >/dev/null 2>&1; then
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    debian_tree "$root" python3,python3-venv,ca-certificates,tzdata
    tar -C "$root" -c . | docker import --change 'CMD ["python3"]' - "$image" >/dev/null
fi
echo "$image"
