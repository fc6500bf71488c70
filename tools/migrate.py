"""Brings the database to the version of this program: creates the tables, or changes those of an earlier version.

Every program that may do so does it by itself. This is for a server on which the account of the capture may not:
run it with MYSQL_USER and MYSQL_PASSWORD of the migrator (`python -m tools.users`) before the capture is started.
A table that is new is granted to nobody by that: `python -m tools.users`, run again, does both.
"""

if __name__ == "__main__":
    from process import start

    start.prepare()

import sys
from contextlib import closing

import config
import db
from process import command
from process.command import Parser
from process.log import set_up as log_set_up
from storage.schema import SCHEMA_VERSION


def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0, or 2 after one line on stderr."""
    parser = Parser(prog="python -m tools.migrate", description=(__doc__ or "").split("\n\n")[0])
    parser.parse_args(argv)
    log_set_up("info")
    return command.run(parser, _main, (config.ConfigError, db.DatabaseError))


def _main() -> int:
    given = {name for name, value in config.environment().items() if value.strip()}
    if "MYSQL_USER" in given and not given & {"MYSQL_HOST", "MYSQL_UNIX_SOCKET"}:
        # Otherwise a private server would be changed, and success reported.
        raise config.ConfigError("MYSQL_USER is set, but no server: set MYSQL_HOST or MYSQL_UNIX_SOCKET too")
    settings = config.load()
    with closing(db.connect(settings)):
        print(f"database {settings.place} has schema version {SCHEMA_VERSION}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
