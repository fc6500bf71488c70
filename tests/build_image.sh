#!/bin/sh
# Builds the image of deploy/Dockerfile for the tests, without a registry: its base is made of Debian's packages, as the
# machine's apt has them, and its wheels are fetched by pip of .venv. Needs Debian and root, for podman and buildah. Where
# it cannot be done, one line says why, and the tests of the image are skipped. What was made stays in .cache/containers
# and in podman's store, so the next time is quick.
set -eu
cd "$(dirname "$0")/.."

cache=$PWD/.cache/containers
image=localhost/binance-recorder-test
mkdir -p "$cache/wheels"
rm -f "$cache/why"
SECONDS_MAX=900

give_up() {
    echo "the tests of the image are skipped: $1" | tee "$cache/why" >&2
    exit 0
}

run() {
    timeout "$SECONDS_MAX" "$@" >"$cache/log" 2>&1
}

[ "$(id -u)" = 0 ] || give_up "podman is run as root here"
. /etc/os-release
[ "${VERSION_CODENAME:-}" = bookworm ] || give_up "the base image is made on Debian 12 only"
missing=
for one in podman buildah runc mmdebstrap; do
    command -v $one >/dev/null || missing="$missing $one"
done
if [ -n "$missing" ]; then
    echo "Installing podman and buildah for the tests of the image (about 1 min) ..." >&2
    install="env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 --no-install-recommends install$missing"
    run $install || { run apt-get -q update && run $install; } ||
        give_up "podman could not be installed: $(grep -m 1 '^E:' "$cache/log" || echo "see $cache/log")"
fi

if ! podman image exists debian:bookworm-slim; then
    if [ ! -e "$cache/debian.tar" ]; then
        echo "Making the base image of Debian's packages (about 1 min) ..." >&2
        mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | head -n 1)
        [ -n "$mirror" ] || give_up "apt names no mirror of Debian"
        run mmdebstrap --variant=minbase bookworm "$cache/debian.new.tar" "$mirror" ||
            give_up "the base image could not be made: $(grep -m 1 '^E:' "$cache/log" || echo "see $cache/log")"
        mv "$cache/debian.new.tar" "$cache/debian.tar"
    fi
    run podman import "$cache/debian.tar" debian:bookworm-slim || give_up "podman does not work here: $(tail -n 1 "$cache/log")"
fi

echo "Building the image (about 2 min, seconds if it was built before) ..." >&2
run .venv/bin/python -m pip download --only-binary :all: --python-version 3.11 -d "$cache/wheels" \
    -r requirements.txt -r requirements-demo.txt || give_up "pip could not fetch the packages: $(tail -n 1 "$cache/log")"
printf '[global]\nno-index = true\nfind-links = /wheels\n' >"$cache/pip.conf"
# A recipe that fails is a failure, not a reason to skip.
timeout "$SECONDS_MAX" buildah bud --format docker --pull-never --isolation chroot --layers \
    --volume "$cache/wheels:/wheels:ro" --volume "$cache/pip.conf:/etc/pip.conf:ro" \
    --tag "$image" --file deploy/Dockerfile . >"$cache/log" 2>&1 || { tail -n 20 "$cache/log" >&2; exit 1; }
