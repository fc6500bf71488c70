#!/bin/sh
# What the Makefile sets up, each only if missing. Each step says what it does and how long it usually takes; the output
# of pip and apt goes to .cache/setup.log, and its end is shown if they fail.
#   tools/setup.sh venv [PYTHON]    the virtual environment .venv, with Python 3.11 or later
#   tools/setup.sh packages FILE    the packages of requirements.txt and FILE
#   tools/setup.sh browser          Chromium, for the tests of the dashboard, which are skipped if it cannot be installed
#   tools/setup.sh server           a database server, unless MYSQL_HOST or MYSQL_UNIX_SOCKET names one
#   tools/setup.sh postgres         PostgreSQL, for the tests of the mirror, which are skipped if it cannot be installed
set -eu
cd "$(dirname "$0")/.."

die() {
    echo "$*" >&2
    exit 2
}

LOG=.cache/setup.log
LOG_LINES_SHOWN=5

# Runs a command with its output in the log; if it fails, shows the end of the log.
quietly() {
    mkdir -p .cache
    echo "\$ $*" >>"$LOG"
    "$@" >>"$LOG" 2>&1 && return
    tail -n "$LOG_LINES_SHOWN" "$LOG" >&2
    echo "(the rest is in $LOG)" >&2
    return 1
}

may_install() {
    command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || command -v sudo >/dev/null; }
}

# apt_install WORDS PACKAGE...: installs Debian or Ubuntu packages, as root or with sudo; it updates the package lists
# first, since a fresh machine may have none.
apt_install() {
    may_install || return 1
    words=$1
    shift
    [ "$(id -u)" = 0 ] && sudo= || sudo=sudo
    echo "Installing $words" >&2
    quietly $sudo apt-get -qq update || echo "apt-get update failed; continuing with the existing package lists" >&2
    quietly $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 --no-install-recommends install "$@"
}

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

make_venv() {
    for python in "$1" python3 python3.14 python3.13 python3.12 python3.11 none; do
        ! new_enough "$python" || break
    done
    [ "$python" != none ] || die "Python 3.11 or later is needed, and $1 is older or missing: install one, or run make PYTHON=/path/to/python3"
    # Debian has part of the module venv in a separate package.
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        apt_install "Python's venv module with apt (about 10 s) ..." "python$version-venv" ||
            die "$python cannot create a virtual environment: install its venv package (Debian, Ubuntu: apt-get install python$version-venv)"
    fi
    echo "Creating the virtual environment .venv (about 10 s) ..." >&2
    quietly "$python" -m venv --clear .venv || die "$python could not create .venv"
}

install_packages() {
    case "$1" in
    requirements.txt) cost="about 10 s, 70 MB" ;;
    requirements-demo.txt) cost="about 15 s, 100 MB" ;;
    requirements-dev.txt) cost="about 60 s, 780 MB" ;;
    *) cost="about 30 s" ;;
    esac
    echo "Installing the Python packages of $1 into .venv ($cost) ..." >&2
    quietly .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r "$1" ||
        die "pip could not install the packages of $1: is there a network?"
}

has_server() {
    folders=/usr/sbin:/usr/libexec:/usr/local/sbin:/usr/local/bin:/usr/local/mysql/bin:/usr/local/mariadb/bin
    brew=/opt/homebrew/bin:/opt/homebrew/opt/mariadb/bin:/opt/homebrew/opt/mysql/bin:/usr/local/opt/mariadb/bin:/usr/local/opt/mysql/bin
    (PATH="$PATH:$folders:$brew" && { command -v mariadbd || command -v mysqld; }) >/dev/null
}

other_server_is_named() {
    [ -n "${MYSQL_HOST:-}${MYSQL_UNIX_SOCKET:-}" ] || grep -Eqs '^ *(export +)?MYSQL_(HOST|UNIX_SOCKET) *= *[^ #]' .env
}

get_server() {
    if other_server_is_named || has_server; then
        return
    fi
    words="MariaDB's server, without a system service, with apt (about 10 s, 8 MB to download) ..."
    apt_install "$words" mariadb-server-core mariadb-client-core ||
        apt_install "$words" mariadb-server-core-10.6 mariadb-client-core-10.6 ||
        { command -v brew >/dev/null && brew install mariadb; } ||
        die "no MariaDB or MySQL server was found, and none could be installed. Three ways out: install one" \
            "(Debian, Ubuntu: apt-get install mariadb-server-core mariadb-client-core; macOS: brew install mariadb);" \
            "or start one with Docker and set MYSQL_HOST; or set MYSQL_HOST to a server that you have"
}

has_postgres() {
    for initdb in /usr/lib/postgresql/*/bin/initdb /opt/homebrew/opt/postgresql*/bin/initdb \
        /usr/local/opt/postgresql*/bin/initdb "$(command -v initdb)"; do
        [ ! -x "$initdb" ] || return 0
    done
    return 1
}

# Debian's package creates a database cluster and starts it as a service, which nobody asked for here.
without_cluster() {
    folder=/etc/postgresql-common/createcluster.d
    setting=$folder/tests-need-none.conf
    [ "$(id -u)" = 0 ] && sudo= || sudo=sudo
    $sudo sh -c "mkdir -p $folder && echo 'create_main_cluster = false' >$setting" || return 1
    status=0
    "$@" || status=$?
    $sudo sh -c "rm -f $setting; rmdir $folder 2>/dev/null || true"
    return $status
}

get_postgres() {
    has_postgres && return
    may_install && without_cluster apt_install "PostgreSQL, for the tests of the mirror (about 20 s, 20 MB to download) ..." postgresql || true
    has_postgres || echo "no PostgreSQL could be installed: the tests of the mirror are skipped" >&2
}

has_browser() {
    command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null ||
        [ -e "/Applications/Google Chrome.app" ]
}

get_browser() {
    has_browser || apt_install "Chromium, for the tests of the dashboard (about 30 s, 80 MB to download) ..." chromium ||
        echo "no Chromium: the tests of the dashboard are skipped" >&2
}

case "${1:-}" in
venv) make_venv "${2:-python3}" ;;
packages) install_packages "$2" ;;
server) get_server ;;
browser) get_browser ;;
postgres) get_postgres ;;
*) die "usage: tools/setup.sh venv [PYTHON] | packages FILE | server | postgres | browser" ;;
esac
