#!/bin/sh
# What the Makefile sets up, each only if missing. Each step says what it does and how long it usually takes; the output
# of pip and apt goes to .cache/setup.log, and its errors are shown if they fail.
#   tools/setup.sh venv [PYTHON]    the virtual environment .venv, with Python 3.11 or later
#   tools/setup.sh packages FILE    the packages of requirements.txt and FILE
#   tools/setup.sh browser          Chromium, for the tests of the dashboard, which are skipped without it
#   tools/setup.sh server           a database server, unless MYSQL_HOST or MYSQL_UNIX_SOCKET names one
#   tools/setup.sh postgres         PostgreSQL, for the tests of the mirror, which are skipped without it
set -eu
cd "$(dirname "$0")/.."

die() {
    echo "$*" >&2
    exit 2
}

LOG=.cache/setup.log
LOCK=.cache/setup.lock
LOG_LINES_SHOWN=3
LINE_CHARS_SHOWN=300

# Of two terminals that set up at the same time, the second waits, and then finds it done. A process that is gone holds
# no lock.
take_lock() {
    [ "$(readlink "$LOCK")" != "pid:$$" ] || return 0
    mkdir -p .cache
    waiting="Waiting for the set-up that is under way in this folder ..."
    until ln -s "pid:$$" "$LOCK" 2>/dev/null; do
        owner=$(readlink "$LOCK") || continue
        kill -0 "${owner#pid:}" 2>/dev/null || { rm -f "$LOCK"; continue; }
        [ -z "$waiting" ] || echo "$waiting" >&2
        waiting=
        sleep 0.2
    done
    trap 'rm -f "$LOCK"' EXIT
    trap 'exit 130' HUP INT TERM
}

# step WORDS COMMAND...: says the words, then runs the command with its output in the log. If it fails, its first errors
# are shown, since later ones follow from them, or else its last lines.
step() {
    take_lock
    echo "$1 ..." >&2
    shift
    "$@" >"$LOG" 2>&1 </dev/null && return
    errors=$(grep -iE '^(error|e|w): ' "$LOG" | awk '!seen[$0]++' | head -n "$LOG_LINES_SHOWN")
    echo "${errors:-$(tail -n "$LOG_LINES_SHOWN" "$LOG")}" | cut -c "1-$LINE_CHARS_SHOWN" | sed 's/^/    /' >&2
    echo "    (the rest is in $LOG)" >&2
    return 1
}

[ "$(id -u)" = 0 ] && sudo= || sudo=sudo
apt="${sudo:+sudo }apt-get"

may_install() {
    command -v apt-get >/dev/null && { [ -z "$sudo" ] || command -v sudo >/dev/null; }
}

try_apt() {
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 \
        --no-install-recommends install "$@"
}

# Installs Debian or Ubuntu packages. If that fails, the package lists are missing, as on a fresh machine, or too old.
apt_install() {
    try_apt "$@" || { $sudo apt-get -q update || true; try_apt "$@"; }
}

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

create_venv() {
    # Another terminal may have created it in the meantime. Half of one would be taken for a whole one.
    .venv/bin/python -m pip --version || "$1" -m venv --clear .venv || { rm -rf .venv; return 1; }
}

make_venv() {
    for python in "$1" python3 python3.14 python3.13 python3.12 python3.11 none; do
        ! new_enough "$python" || break
    done
    [ "$python" != none ] ||
        die "Python 3.11 or later is needed, and $1 is older or missing:" \
            "install one, or run make PYTHON=/path/to/python3"
    # Debian has part of the module venv in a separate package.
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        { may_install && step "Installing $package with $apt (about 15 s, 4 MB to download)" apt_install "$package"; } ||
            die "$python cannot create a virtual environment: install its venv package" \
                "(Debian, Ubuntu: apt-get install $package)"
    fi
    step "Creating the virtual environment .venv (about 5 s)" create_venv "$python" ||
        die "$python could not create .venv; another one is named with make PYTHON=/path/to/python3"
}

install_packages() {
    case "$1" in
    requirements.txt) cost="10 s, 70 MB" ;;
    requirements-demo.txt) cost="15 s, 100 MB" ;;
    requirements-tools.txt) cost="40 s, 460 MB" ;;
    *) cost="1 min, 780 MB" ;;
    esac
    step "Installing the Python packages of $1 into .venv (about $cost)" \
        .venv/bin/python -m pip install --no-input --disable-pip-version-check -r requirements.txt -r "$1" ||
        die "pip could not install the packages of $1. Is there a network? PIP_INDEX_URL names a mirror of PyPI," \
            "HTTPS_PROXY a proxy. Then run make again"
}

has_server() {
    folders=/usr/sbin:/usr/libexec:/usr/local/sbin:/usr/local/bin:/usr/local/mysql/bin:/usr/local/mariadb/bin
    brew=/opt/homebrew/bin:/opt/homebrew/opt/mariadb/bin:/opt/homebrew/opt/mysql/bin:/usr/local/opt/mariadb/bin:/usr/local/opt/mysql/bin
    (PATH="$PATH:$folders:$brew" && { command -v mariadbd || command -v mysqld; }) >/dev/null
}

# Read as the program itself reads it, so that a mark at the beginning of the file, quotes or spaces mean the same.
other_server_is_named() {
    [ -z "${MYSQL_HOST:-}${MYSQL_UNIX_SOCKET:-}" ] || return 0
    [ -e .env ] || return 1
    status=0
    .venv/bin/python -c 'import sys, config
try:
    sys.exit(3 if config.load().private else 0)
except config.ConfigError as error:
    sys.exit(str(error))' || status=$?
    [ "$status" != 1 ] || exit 2
    return "$status"
}

install_mariadb() {
    # Ubuntu 22.04 has the version in the names.
    apt_install mariadb-server-core mariadb-client-core || try_apt mariadb-server-core-10.6 mariadb-client-core-10.6
}

get_server() {
    if other_server_is_named || has_server; then
        return
    elif may_install; then
        step "Installing MariaDB's server, without a system service, with $apt (about 15 s, 9 MB to download)" \
            install_mariadb && return
    elif command -v brew >/dev/null; then
        step "Installing MariaDB with Homebrew (a few minutes)" brew install mariadb && return
    fi
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
    $sudo sh -c "mkdir -p $folder && echo 'create_main_cluster = false' >$setting" || return 1
    status=0
    "$@" || status=$?
    $sudo sh -c "rm -f $setting; rmdir $folder 2>/dev/null || true"
    return $status
}

get_postgres() {
    { has_postgres && { [ -x /usr/sbin/pgbouncer ] || ! may_install; }; } || {
        may_install &&
            step "Installing PostgreSQL, for the tests of the mirror, with $apt (about 30 s, 63 MB to download)" \
                without_cluster apt_install postgresql pgbouncer
    } || echo "no PostgreSQL could be installed: the tests of the mirror are skipped" >&2
}

has_browser() {
    command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null ||
        [ -e "/Applications/Google Chrome.app" ]
}

get_browser() {
    has_browser || {
        may_install &&
            step "Installing Chromium, for the tests of the dashboard, with $apt (about 1 min, 190 MB to download)" \
                apt_install chromium
    } || echo "no Chromium could be installed: the tests of the dashboard are skipped" >&2
}

case "${1:-}" in
venv) make_venv "${2:-python3}" ;;
packages) install_packages "$2" ;;
server) get_server ;;
browser) get_browser ;;
postgres) get_postgres ;;
*) die "usage: tools/setup.sh venv [PYTHON] | packages FILE | server | postgres | browser" ;;
esac
