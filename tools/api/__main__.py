"""Serves what was captured: REST API, stream of new trades, live dashboard, documentation (at /, /api and /docs)."""

if __name__ == "__main__":
    from process import start

    start.prepare()

import argparse
import asyncio
import errno
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

import config
import db
from process import child, command
from process import log as console
from process.command import PORT_MAX, Parser, duration_s, whole
from tools.api.app import create_app
from tools.api.connections import Connection
from tools.api.sessions import READ_S_MAX
from tools.api.settings import STALE_S, ApiSettings, load

BACKLOG = 512
NICENESS = 10
"""Where the machine is short of time, the capture comes first: what it misses is lost, an answer is only later."""
KEEP_ALIVE_S = 30
FINISH_S_MAX = 3
"""Answers that are under way when the server is stopped may take so long."""
UNREAD_MS_MAX = 20_000
"""A client that takes nothing off its connection for so long is cut off by the kernel, where it can."""


class Server(uvicorn.Server):
    """uvicorn, which ends the streams first, since they would never end by themselves."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Takes Ctrl-C and SIGTERM as the request to stop, which is a good end and no failure."""
        before = {number: signal.signal(number, self.handle_exit) for number in command.stop_signals()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop_soon(self) -> None:
        """Asks it to stop, from any thread."""
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops taking requests and waits for the answers that are under way."""
        self.config.app.state.context.hub.close()  # type: ignore[union-attr]
        await super().shutdown(sockets)


def main(argv: list[str] | None = None) -> int:
    """Serves until it is stopped; 0 then, 2 when only the operator can help."""
    parser = _parser()
    options = parser.parse_args(argv)
    console.set_up("info")
    return command.run(parser, lambda: _serve(options), (config.ConfigError, db.DatabaseError, OSError))


def _serve(options: argparse.Namespace) -> int:
    settings = load(options)
    _try_account(settings.settings)
    listening = listen(settings, options.or_any_port)
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    server = Server(_config(settings))
    if options.until_stdin_closes:
        child.when_stdin_closes(server.stop_soon)
    host, port = listening.getsockname()[:2]
    # What is there now stays: without this, every answer about many symbols makes Python look through all of it.
    gc.collect()
    gc.freeze()
    print(f"listening http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    asyncio.run(server.serve([listening]))
    return 0


def _try_account(settings: config.Settings) -> None:
    """Raises AccessError if the server knows the account and refuses it, which does not pass by waiting. A server or a
    database that is not there yet does."""
    try:
        db.close(db.connect(settings, read_only=True, read_s_max=READ_S_MAX))
    except db.AccessError:
        raise
    except db.DatabaseError as error:
        logging.getLogger("api").debug("the database cannot be read yet: %s", error)


def listen(settings: ApiSettings, or_any_port: bool = False) -> socket.socket:
    """The socket that requests come in by; `or_any_port`: another port if that one is taken. Raises OSError."""
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        if or_any_port and error.errno == errno.EADDRINUSE:
            return listen(settings._replace(port=0))
        raise OSError(f"cannot listen on {settings.host} port {settings.port}: {error.strerror}") from None
    # Connections inherit both. Without the first, the kernel holds back the body of an answer until the client has
    # acknowledged its head, which takes 40 ms; asyncio sets it only on sockets that say that they are TCP's.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS_MAX)
    return listening


def _config(settings: ApiSettings) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(settings),
        access_log=False,
        # What is logged goes where process/log.py sends it.
        log_config=None,
        log_level="warning",
        server_header=False,
        http=Connection,
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=FINISH_S_MAX,
        # Nobody stands between, unless the operator says so by other means.
        proxy_headers=False,
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m tools.api",
        description=__doc__,
        epilog="API_TOKEN (environment or .env) is the secret that clients must show; it is needed with any host that "
        "others can reach. The database's settings: README.md, Configuration.",
    )
    parser.add_argument("--host", help="address to listen on (default: API_HOST, or 127.0.0.1)")
    parser.add_argument(
        "--port", type=whole(0, PORT_MAX), help="port, 0 for any that is free (default: API_PORT, or 8000)"
    )
    parser.add_argument("--or-any-port", action="store_true", help="take a free port if that one is taken")
    parser.add_argument("--demo", action="store_true", help="read the demo's database")
    parser.add_argument("--cors-origins", metavar="LIST", help="web pages that may ask, such as https://example.org")
    parser.add_argument(
        "--stale-after",
        metavar="TIME",
        type=duration_s,
        default=STALE_S,
        help=f"health is bad when a captured symbol's newest trade is older (default {STALE_S:.0f})",
    )
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when the standard input does")
    return parser


if __name__ == "__main__":
    sys.exit(main())
