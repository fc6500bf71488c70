"""Captures from the stand-in exchange while everything around the capture fails, then compares every trade.

A seeded schedule of faults (schedule.py) hits the streams, REST, the database and the capture itself; then all faults
end, and the tables must become exactly what was traded. Exit code: 0 if they do, 1 if not, 2 if it could not run.
"""

if __name__ == "__main__":
    from process import start

    start.prepare()

import os
import random
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import mysql.connector

from mysqld import program
from process import command
from process.command import Parser, number, whole
from tools.lab.children import Capture, Exchange, Process, RigError, broken_identities, wait_for
from tools.lab.proxy import NAME, Proxy
from tools.lab.servers import PrivateServer, find_server, short_folder
from tools.lab.verdict import Comparison, compare, fetch_truth
from tools.soak.schedule import Strike, schedule

SYMBOLS = ("BTCUSDT", "ETHUSDT")
DATABASE = "soak"
SETTLE_S_MAX = 180.0
"""How long it may take until everything is stored after the faults: several of the longest back-offs."""
BACKFILL_S_MAX = 300.0
UNSEALED_S_MAX = 120.0
"""A minute that goes on, and how long the sealing may wait for a database that was away."""
RSS_MB_MAX = 150.0
"""The capture's memory bound, whatever happens around it."""
SECONDS_MAX = 86_400
LOCK_S_MAX = 2
DEFAULTS: dict[str, object] = {"sql_select_limit": 100, "max_join_size": 100, "completion_type": "CHAIN"}
"""Of the server's sessions, each of which would cut answers, stop questions, or leave transactions open."""
TICK_S = 0.05
LOOK_S = 0.5


class Options(NamedTuple):
    """The options of a run. `rest_off`: the exchange's REST side refuses all calls until the end."""

    seconds: float
    seed: int
    family: str
    rate: float
    rest_off: bool


class Result(NamedTuple):
    """The result: a comparison per symbol, and with `rest_off` also those from before backfill.py filled the gaps."""

    compared: list[Comparison]
    before: list[Comparison]
    struck: Counter[str]
    starts: int
    peak_rss_mb: float
    complaints: list[str]

    @property
    def exact(self) -> bool:
        """Whether everything is as it must be."""
        right = all(one.exact for one in self.compared) and all(one.consistent for one in self.before)
        return right and not self.complaints


class Soak:
    """One run: the processes, the faults at their times, and the verdict."""

    def __init__(self, options: Options, server: PrivateServer, folder: Path, stack: ExitStack) -> None:
        self._options = options
        self._server = server
        self._folder = folder
        self._done: Counter[str] = Counter()
        self._lock: Any = None
        self._defaults: dict[str, object] = {}
        self._down = False
        # If this process is killed, the children end by themselves some time later.
        longest = f"{options.seconds + SETTLE_S_MAX + BACKFILL_S_MAX:.0f}"
        flags = ["--rate", str(options.rate), "--seed", str(options.seed), "--connect-limit", "0"]
        flags += ["--ping-interval", "2", "--pong-timeout", "8", "--duration", longest, "--after-end", "exit"]
        self._exchange = stack.enter_context(Exchange(folder, *flags))
        # By another name, since what is on this machine is not reached through a proxy.
        self._proxy = stack.enter_context(Proxy())
        there = {name: url.replace("127.0.0.1", NAME) for name, url in self._exchange.environ.items()}
        self._environ = server.environ | there | {"http_proxy": self._proxy.url}
        self._environ |= {"MYSQL_DATABASE": DATABASE, "DATA_DIR": str(folder / "data"), "SYMBOLS": ",".join(SYMBOLS)}
        capture_environ = self._environ
        if options.rest_off:
            nobody = stack.enter_context(socket.socket())
            nobody.bind(("127.0.0.1", 0))
            capture_environ = self._environ | {"BINANCE_REST_URL": f"http://127.0.0.1:{nobody.getsockname()[1]}"}
        command = ("ws_client.py", "--duration", longest)
        self._capture = stack.enter_context(Capture(capture_environ, folder, command))

    def run(self) -> Result:
        """Runs the faults, waits until everything is stored, and compares. Raises RigError if a process gives up."""
        wait_for("the first trades are stored", self._has_begun, SETTLE_S_MAX)
        without = frozenset({"rest"}) if self._options.rest_off else frozenset[str]()
        self._strike_all(schedule(self._options.seed, self._options.seconds, without))
        complaints = self._settle()
        self._capture.stop()
        before: list[Comparison] = []
        if self._options.rest_off:
            before = self._compared()
            self._backfill_by_hand()
        self._done.update(self._exchange.state()["faults"]["struck"])
        complaints += broken_identities(self._folder)
        if self._capture.peak_rss_mb > RSS_MB_MAX:
            complaints.append(f"the capture had more than {RSS_MB_MAX:.0f} MB resident")
        compared = self._compared()
        for one in compared:
            if one.unsealed_s is None or one.unsealed_s > UNSEALED_S_MAX:
                complaints.append(f"the candles of {one.symbol} are not sealed as they should be: {one}")
        return Result(compared, before, self._done, self._capture.starts, self._capture.peak_rss_mb, complaints)

    # The faults

    def _strike_all(self, strikes: list[Strike]) -> None:
        began_s = time.monotonic()
        steps = [(strike.at_s, self._begin, strike) for strike in strikes]
        steps += [(strike.at_s + strike.seconds, self._end, strike) for strike in strikes if not strike.wishes]
        for at_s, do, strike in sorted(steps, key=lambda step: step[0]):
            while time.monotonic() < began_s + at_s:
                self._check()
                time.sleep(TICK_S)
            do(strike)

    def _check(self) -> None:
        if not self._capture.running() and not self._down:
            code = self._capture.process.exit_code
            raise RigError(f"the capture ended on its own (exit code {code})\n{self._capture.process.last_words()}")

    def _begin(self, strike: Strike) -> None:
        if strike.wishes:
            self._exchange.faults(strike.wishes)
            return
        self._done[strike.kind] += 1
        begins: dict[str, Callable[[], object]] = {
            "database killed": self._server.kill,
            "database suspended": self._server.suspend,
            "database restarted": self._server.stop,
            "database connections killed": self._kill_connections,
            "lock held": self._hold_lock,
            "session defaults": lambda: self._set_defaults(DEFAULTS),
            "proxy down": self._proxy.stop,
            "proxy cuts": self._proxy.cut,
            **{f"proxy {status}": partial(self._spoil_proxy, status) for status in (407, 502, 503)},
            "proxy hangs": lambda: self._spoil_proxy(0),
            "capture killed": self._kill_capture,
            "capture stopped": self._ask_capture_to_stop,
            "capture suspended": lambda: self._capture.process.send(signal.SIGSTOP),
        }
        begins[strike.kind]()

    def _end(self, strike: Strike) -> None:
        ends: dict[str, Callable[[], object]] = {
            "database killed": self._server.start,
            "database suspended": self._server.resume,
            "database restarted": self._server.start,
            "lock held": self._release_lock,
            "session defaults": lambda: self._set_defaults(self._defaults),
            "proxy down": self._proxy.start,
            **{f"proxy {status}": lambda: self._spoil_proxy(None) for status in (407, 502, 503)},
            "proxy hangs": lambda: self._spoil_proxy(None),
            "capture killed": self._start_capture,
            "capture stopped": self._start_capture,
            "capture suspended": lambda: self._capture.process.send(signal.SIGCONT),
        }
        ends.get(strike.kind, lambda: None)()

    def _kill_connections(self) -> None:
        with self._server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT id FROM information_schema.processlist WHERE db = %s", (DATABASE,))
            for (number,) in cursor.fetchall():
                # The connection may have ended meanwhile.
                with suppress(mysql.connector.Error):
                    cursor.execute(f"KILL {number:d}")

    def _set_defaults(self, values: Mapping[str, object]) -> None:
        """What new sessions begin with, and new sessions for the capture."""
        with self._server.connect() as connection, connection.cursor() as cursor:
            for name, value in values.items():
                cursor.execute(f"SELECT @@GLOBAL.{name}")
                before = cursor.fetchall()[0][0]
                self._defaults.setdefault(name, before)
                cursor.execute(f"SET GLOBAL {name} = %s", (value,))
        self._kill_connections()

    def _spoil_proxy(self, answers: int | None) -> None:
        self._proxy.answers = answers
        self._proxy.cut()

    def _hold_lock(self) -> None:
        self._lock = self._server.connect()
        with self._lock.cursor() as cursor:
            # A suspended capture may hold the lock itself, and nobody resumes it while this waits.
            cursor.execute(f"SET innodb_lock_wait_timeout = {LOCK_S_MAX}")
            with suppress(mysql.connector.Error):
                cursor.execute(f"SELECT * FROM {DATABASE}.symbols FOR UPDATE")
                cursor.fetchall()

    def _release_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _kill_capture(self) -> None:
        self._down = True
        self._capture.kill()

    def _ask_capture_to_stop(self) -> None:
        self._down = True
        self._capture.process.send(signal.SIGTERM)

    def _start_capture(self) -> None:
        code = self._capture.process.wait()
        # Before its first line of log it does not handle SIGTERM yet, and has nothing to lose.
        too_early = code == -signal.SIGTERM and not self._capture.process.last_words()
        if code not in (0, -signal.SIGKILL) and not too_early:
            raise RigError(f"the capture stopped with exit code {code}\n{self._capture.process.last_words()}")
        self._capture.start()
        self._down = False

    # The end

    def _has_begun(self) -> bool:
        self._check()
        return all(self._newest_stored().values())

    def _settle(self) -> list[str]:
        """Waits until everything emitted so far is stored. Returns the complaints if it is not."""
        self._exchange.clear()
        newest = self._exchange.newest()

        def settled() -> bool:
            self._check()
            time.sleep(LOOK_S)
            stored = self._newest_stored()
            return all(stored[symbol] >= newest[symbol] for symbol in SYMBOLS) and (
                self._options.rest_off or not self._open_gaps()
            )

        try:
            wait_for("everything is stored after the faults", settled, SETTLE_S_MAX)
        except RigError as error:
            # The comparison tells more, but it does not look beyond the last stored trade.
            return [f"{error}; at the end the capture said:\n{self._capture.process.last_words()}"]
        return []

    def _newest_stored(self) -> dict[str, int]:
        sql = f"SELECT COALESCE(MAX(trade_id), 0) FROM {DATABASE}.trades WHERE symbol = %s"
        try:
            return {symbol: self._number(sql, symbol) for symbol in SYMBOLS}
        except mysql.connector.Error:
            # There is no such table yet.
            return dict.fromkeys(SYMBOLS, 0)

    def _open_gaps(self) -> int:
        return self._number(f"SELECT COUNT(*) FROM {DATABASE}.gaps WHERE filled_at IS NULL")

    def _number(self, sql: str, *values: str) -> int:
        with self._server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(sql, values)
            return int(cursor.fetchall()[0][0])

    def _backfill_by_hand(self) -> None:
        process = Process(["backfill.py"], self._environ, self._folder / "backfill.log")
        try:
            code = process.wait(BACKFILL_S_MAX)
        finally:
            process.kill()
        if code != 0:
            raise RigError(f"backfill.py ended with exit code {code}\n{process.last_words()}")

    def _compared(self) -> list[Comparison]:
        with self._server.connect() as connection:
            return [
                compare(connection, DATABASE, symbol, fetch_truth(self._exchange.http, symbol)) for symbol in SYMBOLS
            ]


def report(options: Options, result: Result) -> str:
    """The result as text."""
    struck = ", ".join(f"{name} {count}" for name, count in sorted(result.struck.items()))
    lines = [f"faults: {struck}", f"the capture was started {result.starts} times"]
    lines.append(f"its peak memory was {result.peak_rss_mb:.0f} MB")
    for one in result.before:
        lines.append(f"without REST  {'consistent' if one.consistent else 'WRONG'}  {one}")
    for one in result.compared:
        lines.append(f"{'exact' if one.exact else 'WRONG'}  {one}")
    lines += [f"WRONG  {complaint}" for complaint in result.complaints]
    again = f"--seconds {options.seconds:g} --seed {options.seed} --family {options.family}"
    lines.append(f"{'exact' if result.exact else 'NOT EXACT'}: {again}{' --rest-off' if options.rest_off else ''}")
    return "\n".join(lines)


def soak(options: Options, folder: Path) -> Result:
    """Runs the soak in `folder`, where the logs go. Raises RigError, program.ServerError."""
    binary = find_server(options.family)
    if isinstance(binary, str):
        raise program.ServerError(binary)
    with ExitStack() as stack:
        # A server's socket needs a short path.
        home = stack.enter_context(short_folder())
        program.initialise(binary, home / "template")
        server = PrivateServer(binary, home / "template", home)
        stack.callback(server.kill)
        server.start()
        return Soak(options, server, folder, stack).run()


def main(argv: list[str] | None = None) -> int:
    """Runs the soak; the module's docstring explains the exit code."""
    parser = _parser()
    given = parser.parse_args(argv)
    seed = given.seed if given.seed is not None else random.randrange(1_000_000)
    options = Options(given.seconds, seed, given.family, given.rate, given.rest_off)
    known = (program.ServerError, mysql.connector.Error, OSError)
    return command.run(parser, lambda: _soak(parser, options), known)


def _soak(parser: Parser, options: Options) -> int:
    print(f"soak of {options.seconds:g} s, seed {options.seed}, {options.family}", flush=True)
    # Ignore the user's settings: an empty value counts as not set, and overrides `.env`.
    os.environ.update({name: "" for name in os.environ if re.match("MYSQL_|BINANCE_|(?i:https?|all|no)_proxy$", name)})
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        result = soak(options, folder)
    except RigError as error:
        command.fail(parser, f"{error}\nthe logs are in {folder}")
        return 1
    print(report(options, result))
    if not result.exact:
        print(f"the logs are in {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


def _parser() -> Parser:
    parser = Parser(prog="python -m tools.soak", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--seconds", type=number(0, SECONDS_MAX, above=True), default=60.0, help="how long faults strike (default 60)")
    add("--seed", type=whole(0), help="seed of the trades and the faults (default: random, and printed)")
    add("--family", choices=("mariadb", "mysql"), default="mariadb", help="(default %(default)s)")
    add("--rate", type=number(0, above=True), default=400.0, help="trades per second (default %(default)g)")
    add("--rest-off", action="store_true", help="REST refuses all calls until the end, when backfill.py fills the gaps")
    return parser


if __name__ == "__main__":
    sys.exit(main())
