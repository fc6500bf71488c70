"""The private server's command: its status, stopping it, and the mysql client on it.

The server itself is in mysqld/.
"""

if __name__ == "__main__":
    from process import start

    start.prepare()

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import config
from mysqld import shared
from mysqld.program import FAMILIES, ServerError, fetch_version, find_client
from mysqld.shared import is_running
from process import command, lock
from process.command import Parser


def main(argv: list[str] | None = None) -> int:
    """Look after the private server of DATA_DIR; 1 if it does not run (status) or is in use (stop), 2 for a mistake."""
    parser = Parser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("status", help="whether it runs, where, and who uses it; exit code 1 if it does not run")
    stop = actions.add_parser("stop", help="stop it, unless a script uses it")
    stop.add_argument("--force", action="store_true", help="even then; a running capture starts it again")
    client = actions.add_parser("cli", help="open the mysql client on it; further arguments are the client's")
    client.add_argument("--demo", action="store_true", help="on the database of the demo")
    arguments, rest = parser.parse_known_args(argv)
    if rest and arguments.action != "cli":
        parser.error(f"unknown arguments: {' '.join(rest)}")
    return command.run(parser, lambda: _main(arguments, rest), (config.ConfigError, ServerError, OSError))


def _main(arguments: argparse.Namespace, rest: list[str]) -> int:
    settings = config.load()
    if arguments.action == "cli":
        return run_client(config.demo_of(settings) if arguments.demo else settings, rest)
    home = shared.prepare_home(settings.data_dir, create=False)
    return show_status(home) if arguments.action == "status" else stop_server(home, arguments.force)


def show_status(home: Path) -> int:
    """Print what is known of the server of `home`; 0 if it runs, otherwise 1."""
    family, version = shared.recorded(home)
    if not is_running(home):
        print("not running")
        print(f"data:    {home}, of {FAMILIES[family]} {version}" if family else f"data:    none yet; {home}")
        return 1
    print(f"running: {fetch_version(shared.socket_of(home)) or 'it does not answer: it starts, stops or hangs'}")
    with contextlib.suppress(ServerError):
        print(f"pid:     {shared.server_pid(home)}")
    print(f"socket:  {shared.socket_of(home)}\ndata:    {home}\nlog:     {shared.log_of(home)}")
    for user in shared.users_of(home) or ["nobody that this system tells of"]:
        print(f"used by: {user}")
    return 0


def stop_server(home: Path, force: bool) -> int:
    """Stop the server of `home` unless it is in use and not `force`; 0 if it is stopped, 1 if it is in use."""
    if not is_running(home):
        print("not running")
        return 0
    shared.require_owner(home)
    held = lock.open_lock(home / "users.lock")
    try:
        with shared.deciding(home):
            if not lock.try_alone(held) and not force:
                names = "; ".join(shared.users_of(home)) or "another process"
                print(f"in use by {names}: end that first, or `stop --force`", file=sys.stderr)
                return 1
            shared.stop(home, None)
    finally:
        os.close(held)
    print("stopped")
    return 0


def run_client(settings: config.Settings, arguments: list[str]) -> int:
    """Open the mysql client on the private server, which runs meanwhile; the client's exit code."""
    if not settings.private:
        host = settings.mysql_host or settings.mysql_unix_socket
        raise ServerError(f"the settings name another server ({host}): open it with `mysql`, or unset MYSQL_HOST")
    socket_path, home = shared.use(settings.data_dir), shared.home_of(settings.data_dir)
    line = [str(find_client(shared.recorded(home)[0])), "--no-defaults", f"--socket={socket_path}", "--user=root"]
    line += ["--default-character-set=utf8mb4", "--init-command=SET time_zone = '+00:00'"]
    if (home / "data" / settings.mysql_database).is_dir():
        line.append(f"--database={settings.mysql_database}")
    else:
        print(f"there is no database {settings.mysql_database} yet: nothing was captured", file=sys.stderr)
    # Ctrl-C ends a query of the client, and must not end this process before it.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        return subprocess.run(line + arguments).returncode
    finally:
        signal.signal(signal.SIGINT, before)
        shared.leave(settings.data_dir)


if __name__ == "__main__":
    sys.exit(main())
