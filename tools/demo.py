"""The demo: captures from the stand-in exchange (ws_client.py --demo), with the API and its dashboard beside it."""

import argparse
import subprocess
import sys

import ws_client
from process import child

STOP_S_MAX = 15.0


def main(argv: list[str] | None = None) -> int:
    """What `ws_client.py --demo` returns, with its flags; the API ends with it, however it ends."""
    _, arguments = _parser().parse_known_args(argv)
    api = _start_api()
    try:
        return ws_client.main(["--demo", *arguments])
    finally:
        child.end(api, "the API", STOP_S_MAX)


def _start_api() -> subprocess.Popen[str]:
    """The API as a child, which ends with this process; says where it is."""
    api = child.start(["-m", "tools.api", "--demo", "--or-any-port", "--until-stdin-closes"])
    address = child.first_line(api).removeprefix("listening").strip()
    if address:
        print(f"The dashboard is at {address}/ and the API at {address}/docs", flush=True)
    else:
        print("The API did not start, the capture goes on without it.", file=sys.stderr)
    return api


def _parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog="python -m tools.demo",
        description=__doc__,
        epilog="All flags of ws_client.py can be given, such as --duration SECONDS. The API's settings: tools.api.",
        allow_abbrev=False,
    )


if __name__ == "__main__":
    sys.exit(main())
