"""Creates the accounts of the recorder on a server of your own, each with the rights that it needs and no other.

`NAME_writer` is for the capture, back-fill and audit, `NAME_reader` for reports, API and exports, `NAME_migrator`
for `python -m tools.migrate`. Run it as an administrator (MYSQL_USER); it may be run again at any time.
"""

if __name__ == "__main__":
    from process import start

    start.prepare()

import argparse
import os
import re
import secrets
import sys
from contextlib import closing
from pathlib import Path

import config
import db
from process import command
from process.command import Parser
from storage import accounts
from storage.accounts import RIGHTS, Account

PASSWORD_BYTES = 24
NAME_CHARS_MAX = 20
"""The server's limit for the whole name is 32 (MySQL)."""


class AccountsError(Exception):
    """An operator's mistake; the message names the flag and the way out."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0, or 2 after one line on stderr."""
    parser = Parser(prog="python -m tools.users", description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("--name", default="binance", help="what the names of the accounts begin with (default %(default)s)")
    add("--host", default="localhost", help="from where they may log in; %%: from anywhere (default %(default)s)")
    add(
        "--passwords",
        type=Path,
        metavar="DIR",
        help="the folder of the files writer, reader and migrator with their passwords; one that is missing is made"
        " (default: passwords in DATA_DIR)",
    )
    arguments = parser.parse_args(argv)
    return command.run(parser, lambda: _main(arguments), (config.ConfigError, db.DatabaseError, AccountsError))


def _main(arguments: argparse.Namespace) -> int:
    settings = config.load()
    if settings.private:
        raise AccountsError("the private server lets in this account of the system alone; set MYSQL_HOST to another")
    if not re.fullmatch(rf"[A-Za-z0-9_]{{1,{NAME_CHARS_MAX}}}", arguments.name):
        raise AccountsError(f"--name={arguments.name!r}: give 1 to {NAME_CHARS_MAX} letters, digits and _")
    folder = arguments.passwords or settings.data_dir / "passwords"
    passwords = {role: _password(folder / role) for role in RIGHTS}
    # This also creates the tables, without which nobody can be given a right on them.
    with closing(db.connect(settings)) as connection:
        for role, rights in RIGHTS.items():
            account = Account(f"{arguments.name}_{role}", arguments.host, passwords[role])
            surplus = accounts.set_up(connection, account, settings.mysql_database, rights)
            print(f"{account.name}@{account.host}: {_words(rights)}; its password is in {folder / role}")
            for one in surplus:
                print(f"{account.name}@{account.host}: taken away: {one}")
    return 0


def _words(rights: accounts.Rights) -> str:
    if accounts.WHOLE in rights:
        return ", ".join(rights[accounts.WHOLE])
    return "; ".join(f"{table}: {', '.join(given)}" for table, given in rights.items())


def _password(path: Path) -> str:
    """The password in a file, which is made if it is missing, for this account of the system alone. Raises
    AccountsError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(PASSWORD_BYTES) + "\n")
    except FileExistsError:
        pass
    password = path.read_text(encoding="utf-8").strip()
    if not password:
        raise AccountsError(f"the file {path} is empty: write a password into it, or remove it and one is made")
    return password


if __name__ == "__main__":
    sys.exit(main())
