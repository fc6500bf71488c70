#!/bin/sh
# fetch_debian.sh FILE PACKAGE...: unpacks packages of the system's own Debian into .cache/PACKAGE (the first one's name),
# for the tests, without installing anything: a package could start a service. Quick when FILE is there. Where they
# cannot be had, one line says why, the tests that need them are skipped, and the exit code is still 0.
set -eu

file=$1
shift
cache=$(cd "$(dirname "$0")/.." && pwd)/.cache/$1
mkdir -p "$cache"
cd "$cache"
SECONDS_MAX=300

give_up() {
    echo "$1" | tee why >&2
    exit 0
}

download() {
    timeout "$SECONDS_MAX" apt-get -qq -o Acquire::Retries=1 -o APT::Sandbox::User= download "$@"
}

[ ! -x "$file" ] || exit 0
rm -f why ./*.deb
command -v apt-get >/dev/null && command -v dpkg >/dev/null || give_up "$1 can be fetched on Debian only"
echo "Fetching $1 for the tests into .cache/$1 (some seconds) ..." >&2
download "$@" >log 2>&1 ||
    # A machine whose lists are old, or not there at all.
    { timeout "$SECONDS_MAX" apt-get -qq update && download "$@"; } >log 2>&1 ||
    give_up "$1 was not fetched: $(grep -m 1 '^E:' log || echo 'apt-get download failed')"
for package in ./*.deb; do
    dpkg -x "$package" . || give_up "$1 was not fetched: its package cannot be unpacked"
done
rm -f ./*.deb
[ -x "$file" ] || give_up "$1 was not fetched: it has no $file"
