#!/bin/sh
# Unpacks a real MySQL server, with mysqldump and mysql, into .cache/mysql, for the tests, without installing anything: Debian's unstable suite has
# one (its stable suites have only MariaDB). Quick when it is there. Where it cannot be had, one line says why, the tests
# of MySQL are skipped with that line, and the exit code is still 0: the tests of MariaDB go on.
set -eu

cache=$(cd "$(dirname "$0")/.." && pwd)/.cache/mysql
mkdir -p "$cache"
cd "$cache"
SECONDS_MAX=300
CONNECTION_SECONDS_MAX=20

give_up() {
    echo "$1" | tee why >&2
    exit 0
}

# The URI of the system's Debian mirror: from the deb822 files, else from the one-line files.
mirror() {
    {
        sed -n 's/^URIs: *\([^ ]*\).*/\1/p' /etc/apt/sources.list.d/*.sources
        sed -n 's/^deb \(\[[^]]*\] *\)\{0,1\}\([^ ]*\) .*/\2/p' /etc/apt/sources.list /etc/apt/sources.list.d/*.list
    } 2>/dev/null | grep '/debian/\{0,1\}$' | head -n 1
}

# apt with a world of its own: its sources, lists, archives and the packages that it believes to be installed (none).
own_apt() {
    timeout "$SECONDS_MAX" apt-get -qq \
        -o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$cache/new/sources" \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
        -o "Dir::State=$cache/new/state" -o "Dir::State::Status=$cache/new/state/status" \
        -o "Dir::Cache=$cache/new/cache" -o APT::Sandbox::User= -o Debug::NoLocking=1 \
        -o APT::Install-Recommends=false -o APT::Update::Error-Mode=any \
        -o Acquire::Retries=1 -o "Acquire::http::Timeout=$CONNECTION_SECONDS_MAX" "$@"
}

if [ -x mysql ] && [ -x mysqldump ] && [ -x mysqld ] && ./mysqld --no-defaults --version >/dev/null 2>&1; then
    exit 0
fi
command -v mysqld >/dev/null && ! mysqld --no-defaults --version | grep -q MariaDB && exit 0
rm -rf new root mysqld mysqldump mysql why

command -v apt-get >/dev/null && command -v dpkg >/dev/null || give_up "MySQL can be fetched on Debian only"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -f "$keyring" ] || keyring=/usr/share/keyrings/debian-archive-keyring.pgp
[ -f "$keyring" ] || give_up "MySQL was not fetched: Debian's keys are not here (package debian-archive-keyring)"
uri=$(mirror)
[ -n "$uri" ] || give_up "MySQL was not fetched: apt knows no Debian mirror on this machine"

mkdir -p new/sources new/state/lists/partial new/cache/archives/partial new/root
: >new/state/status
printf 'Types: deb\nURIs: %s\nSuites: unstable\nComponents: main\nSigned-By: %s\n' "$uri" "$keyring" >new/sources/sid.sources

echo "Fetching a MySQL server for the tests into .cache/mysql (about 20 s, 70 MB to download) ..." >&2
own_apt update >new/log 2>&1 || give_up "MySQL was not fetched: $(grep -m 1 '^[EW]:' new/log || echo 'apt-get update failed')"
own_apt -y --download-only install mysql-server-core mysql-client-core >new/log 2>&1 ||
    give_up "MySQL was not fetched: $(grep -m 1 '^E:' new/log || echo 'apt-get install failed')"
for package in new/cache/archives/*.deb; do
    dpkg -x "$package" new/root
done
loader=$(cd new/root && find . -name 'ld-linux*.so.*' | head -n 1)
libraries=$(cd new/root && dirname "$(find . -name libc.so.6 | head -n 1)")
[ -n "$loader" ] && [ -x new/root/usr/sbin/mysqld ] || give_up "MySQL was not fetched: its packages are not as expected"
mv new/root root
rm -rf new

# They need a newer C library than the system's, so they run through the dynamic loader that came along.
through_loader() {
    printf '#!/bin/sh\nroot=%s\nexec "$root/%s" --library-path "$root/%s:$root/usr/lib/mysql/private" "$root/%s" "$@"%s\n' \
        "'$cache/root'" "$loader" "$libraries" "$2" "${3:-}" >"$1.new"
    chmod +x "$1.new"
    "./$1.new" --no-defaults --version >/dev/null 2>&1 || give_up "MySQL was fetched, but does not run on this machine"
    mv "$1.new" "$1"
}
through_loader mysql usr/bin/mysql
through_loader mysqldump usr/bin/mysqldump
through_loader mysqld usr/sbin/mysqld ' --lc-messages-dir="$root/usr/share/mysql" \
    --character-sets-dir="$root/usr/share/mysql/charsets" --plugin-dir="$root/usr/lib/mysql/plugin"'
