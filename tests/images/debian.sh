# shellcheck shell=bash
# Sourced by the scripts beside it: makes Docker images of Debian packages where no registry of images can be reached.
# Needs root and Debian; installs docker.io and debootstrap where they are missing.
set -euo pipefail

release=${DEBIAN_RELEASE:-bookworm}

# Docker with a daemon that answers; one that had to be started goes on, its process id is in $DOCKERD_PID_FILE.
ready_docker() {
    local missing=()
    command -v dockerd >/dev/null || missing+=(docker.io)
    command -v debootstrap >/dev/null || missing+=(debootstrap)
    if ((${#missing[@]})); then
        apt-get update -q >/dev/null
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
    fi
    if ! docker info >/dev/null 2>&1; then
        setsid dockerd >/dev/null 2>&1 </dev/null &
        echo $! >"${DOCKERD_PID_FILE:-/run/syncline-dockerd.pid}"
        for _ in $(seq 60); do
            docker info >/dev/null 2>&1 && return
            sleep 0.5
        done
        echo "dockerd does not come up" >&2
        return 1
    fi
}

# debian_tree FOLDER PACKAGE,PACKAGE: a minimal Debian with these packages, from the first mirror apt knows.
debian_tree() {
    local mirror
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 2>/dev/null | grep -m 1 '/debian/*$' || true)
    # shellcheck disable=SC2086 # where apt names none, debootstrap knows one itself
    debootstrap --variant=minbase --include="$2" "$release" "$1" $mirror >/dev/null
    rm -rf "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/*
}
