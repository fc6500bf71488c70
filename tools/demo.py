"""The demo: captures from the stand-in exchange, with three days of history, the API and the dashboard beside it."""

if __name__ == "__main__":
    from process import start

    start.prepare()

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import ws_client
from process import child, command
from process.command import Parser

STOP_S_MAX = 15.0
HISTORY_DAYS = 3
"""Without --since, so many days that are over, and today."""


def main(argv: list[str] | None = None) -> int:
    """What `ws_client.py --demo` returns, with its flags; the API ends with it, however it ends."""
    parser = _parser()
    _, arguments = parser.parse_known_args(argv)
    # A wrong flag ends it before anything is started.
    if ws_client.parser_of(parser.prog).parse_args(arguments).since is None:
        arguments += ["--since", str(datetime.now(UTC).date() - timedelta(days=HISTORY_DAYS))]
    return command.run(parser, lambda: _main(arguments, parser.prog), (OSError,))


def _main(arguments: list[str], prog: str) -> int:
    api = _start_api()
    try:
        return ws_client.main(["--demo", *arguments], prog)
    finally:
        child.end(api, "the API", STOP_S_MAX)


def _start_api() -> subprocess.Popen[str]:
    """The API as a child, which ends with this process; says where it is."""
    api = child.start(["-m", "tools.api", "--demo", "--or-any-port", "--until-stdin-closes"])
    address = child.first_line(api).removeprefix("listening").strip()
    if address:
        print(f"The dashboard is at {address}/ and the API at {address}/docs", flush=True)
    else:
        print("The API did not start; the capture continues without it.", file=sys.stderr)
    return api


def _parser() -> Parser:
    return Parser(
        prog="python -m tools.demo",
        description=__doc__,
        epilog="All flags of ws_client.py can be given, such as --duration 5m. The API's settings: tools.api.",
        allow_abbrev=False,
    )


if __name__ == "__main__":
    sys.exit(main())
