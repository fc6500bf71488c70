"""The demo: captures from the stand-in exchange (ws_client.py --demo), with the API and its dashboard beside it."""

import argparse
import subprocess
import sys
from pathlib import Path

import ws_client

ROOT = Path(__file__).resolve().parent.parent
STOP_S_MAX = 15.0


def main(argv: list[str] | None = None) -> int:
    """What `ws_client.py --demo` returns, with its flags; the API ends with it, however it ends."""
    _, arguments = _parser().parse_known_args(argv)
    api = _start_api()
    try:
        return ws_client.main(["--demo", *arguments])
    finally:
        assert api.stdin is not None
        api.stdin.close()
        try:
            api.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            api.kill()
            api.wait()


def _start_api() -> subprocess.Popen[str]:
    """The API as a child that ends with this process, however that ends; says where it is."""
    # Its standard input is a pipe of ours, which closes even if this process is killed; a session of its own keeps the
    # terminal's Ctrl-C from it until the capture has stored its last trade.
    api = subprocess.Popen(
        [sys.executable, "-m", "tools.api", "--demo", "--or-any-port", "--until-stdin-closes"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert api.stdout is not None
    address = api.stdout.readline().removeprefix("listening").strip()
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
