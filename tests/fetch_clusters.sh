#!/bin/sh
# Unpacks what the tests of clusters need beside MariaDB, without installing anything: Galera's library into
# .cache/galera, Spider's plug-in, of MariaDB's very version, into .cache/spider. (MySQL's group replication comes with
# the MySQL that fetch_mysql.sh unpacks.) Quick when they are there. Where one cannot be had, a line says why, the tests
# of it are skipped with that line, and the exit code is still 0.
set -eu

cache=$(cd "$(dirname "$0")/.." && pwd)/.cache
SECONDS_MAX=120

# fetch FOLDER FILE PACKAGE [VERSION]: FILE of the Debian package into .cache/FOLDER; `why` there says why not.
fetch() {
    folder=$cache/$1 file=$2 package=$3${4:+=$4}
    mkdir -p "$folder"
    cd "$folder"
    [ -f "$file" ] && return
    rm -rf new why
    if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
        echo "$package can be fetched on Debian only" | tee why >&2
        return
    fi
    mkdir new
    if ! download "$package" >new/log 2>&1; then
        echo "$package was not fetched: $(grep -m 1 '^E:' new/log || echo 'apt-get download failed')" | tee why >&2
        return
    fi
    dpkg -x new/*.deb new/root
    found=$(find new/root -name "$file" | head -n 1)
    if [ -z "$found" ]; then
        echo "$package was not fetched: it has no $file" | tee why >&2
        return
    fi
    mv "$found" "$file"
    rm -rf new
}

download() {
    (cd new && timeout "$SECONDS_MAX" apt-get -qq -o Acquire::Retries=1 -o APT::Sandbox::User= download "$1") && return
    # A machine whose lists are old, or not there at all.
    [ "$(id -u)" = 0 ] && timeout "$SECONDS_MAX" apt-get -qq update &&
        (cd new && timeout "$SECONDS_MAX" apt-get -qq -o APT::Sandbox::User= download "$1")
}

version=$(dpkg-query -W -f '${Version}' mariadb-server-core 2>/dev/null || true)
fetch galera libgalera_smm.so galera-4
if [ -n "$version" ]; then
    fetch spider ha_spider.so mariadb-plugin-spider "$version"
else
    mkdir -p "$cache/spider"
    echo "Spider's plug-in fits one version of MariaDB, and none is installed as a Debian package" >"$cache/spider/why"
fi
