"""Storing afterwards: the back-fill from REST and the replay of the spool, against LOAD DATA of the same rows.

They take turns, each with the empty tables of a new database. The back-fill is `python backfill.py`, which closes a gap
of as many ids as there are rows, from the feeder's REST; the time of the gap is sealed, as it is beside a capture, so
bars are made again with every transaction. The replay is `python ws_client.py`, started on a spool that
an earlier run left. Both are child processes; the rate is measured from the first rows that another connection sees to
the last, so it does not include the start of the interpreter. LOAD DATA LOCAL reads a finished file, without candles or
gaps.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import NamedTuple

import db
from capture import spool
from model.times import EPOCH
from tools.bench import feed as bench_feed
from tools.bench.figures import Figure, at_least
from tools.bench.stage import Bench, Feed, Watcher, say, sql_time, stop_lossless
from tools.exchange import tape
from tools.lab.children import Process, RigError

PART = "backfill"
SYMBOL = "BTCUSDT"
BATCH_TRADES = 1_000
"""How many trades the writer gives to the spool at a time."""
LOAD_TABLE = "loaded_trades"
END_S_MAX = 60.0


class Sizes(NamedTuple):
    """The rows of a run, and the number of runs that count."""

    rows: int
    runs: int


FULL, QUICK = Sizes(150_000, 3), Sizes(40_000, 1)


class Round(NamedTuple):
    """Rows per second."""

    load: float
    backfill: float
    replay: float


def run(bench: Bench) -> list[Figure]:
    """The rates and their ratios, round by round."""
    sizes = QUICK if bench.quick else FULL
    trades = tape_of(sizes.rows)
    rounds = []
    for index in range(sizes.runs + 1):
        rounds.append(Round(_load(bench, trades), _backfill(bench, trades), _replay(bench, trades)))
        rates = ", ".join(f"{name} {rate:,.0f}" for name, rate in rounds[-1]._asdict().items())
        say(f"{PART}: {'warm-up' if not index else f'round {index}'}: {rates} rows/s")

    def column(pick: Callable[[Round], float]) -> list[float]:
        return [pick(one) for one in rounds[1:]]

    return [
        Figure(PART, "LOAD DATA LOCAL", "rows/s", column(lambda one: one.load)),
        Figure(PART, "back-fill from REST", "rows/s", column(lambda one: one.backfill)),
        Figure(PART, "replay of the spool", "rows/s", column(lambda one: one.replay)),
        Figure(PART, "back-fill / LOAD DATA", "×", column(lambda one: one.backfill / one.load), at_least(0.35, 0.5)),
        Figure(PART, "replay / LOAD DATA", "×", column(lambda one: one.replay / one.load), at_least(0.25, 0.5)),
    ]


def _load(bench: Bench, trades: Sequence[tape.Trade]) -> float:
    name = "bench_load"
    with bench.database(name):
        connection = bench.server.connect_to(name)
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE TABLE {LOAD_TABLE} LIKE trades")
        connection.close()
        return len(trades) / fill(bench, name, LOAD_TABLE, trades)


def fill(bench: Bench, database: str, table: str, trades: Sequence[tape.Trade]) -> float:
    """The seconds that LOAD DATA took to load `trades` into `table`. Raises RigError if the number of rows is wrong."""
    path = bench.folder / "rows.tsv"
    path.write_text("".join(map(_tsv, trades)))
    connection = bench.server.connect_to(database)
    with connection.cursor() as cursor:
        begun_s = time.monotonic()
        cursor.execute(f"LOAD DATA LOCAL INFILE '{path}' INTO TABLE {table}")
        seconds = time.monotonic() - begun_s
        stored = cursor.rowcount
    connection.close()
    path.unlink()
    if stored != len(trades):
        raise RigError(f"LOAD DATA stored {stored} of {len(trades)} rows")
    return seconds


def _backfill(bench: Bench, trades: Sequence[tape.Trade]) -> float:
    name = "bench_backfill"
    with Feed(SYMBOL) as feed, bench.database(name) as settings:
        feed.order("prepare", trades=len(trades), rest=True)
        connection = db.connect(settings)
        ends = [as_streamed(trades[0]), as_streamed(trades[-1])]
        db.insert_trades(connection, ends)
        db.seal(connection, [SYMBOL], None, ends[-1].timestamp.replace(microsecond=0))
        db.close(connection)
        environ = bench.child_environ(name, feed)
        process = Process(["backfill.py"], environ, bench.log(name))
        try:
            # The trade above the gap is already stored, so only older ones are watched.
            rate = _rate(bench, name, trades[:-1], process)
            code = process.wait(END_S_MAX)
        finally:
            process.kill()
    if code != 0:
        raise RigError(f"backfill.py ended with exit code {code}\n{process.last_words()}")
    return rate


def _replay(bench: Bench, trades: Sequence[tape.Trade]) -> float:
    name = "bench_replay"
    with Feed(SYMBOL) as feed, bench.database(name) as settings:
        left = spool.Spool(settings.capture_dir / "spool")
        for start in range(0, len(trades), BATCH_TRADES):
            left.append([as_streamed(trade) for trade in trades[start : start + BATCH_TRADES]])
        left.close()
        with bench.capture(name, feed) as capture:
            rate = _rate(bench, name, trades, capture.process)
            stop_lossless(capture)
    return rate


def _rate(bench: Bench, name: str, trades: Sequence[tape.Trade], process: Process) -> float:
    """Rows per second that a child stores, in order, from the first rows seen to the last."""
    watcher = Watcher(bench.server, name, SYMBOL, before_ms=trades[-1].time_us // 1_000 + 1)
    first = watcher.wait_for(watcher.newest_id() + 1, process)
    last = watcher.wait_for(trades[-1].trade_id, process)
    watcher.close()
    return (last.newest - first.newest) / (last.ns - first.ns) * 1e9


def tape_of(rows: int) -> list[tape.Trade]:
    """At least `rows` trades; no other trade shares the millisecond of the last one."""
    source = bench_feed.trades((SYMBOL,))
    trades = list(itertools.islice(source, rows))
    while trades[-1].time_us // 1_000 == trades[-2].time_us // 1_000:
        trades.append(next(source))
    return trades


def as_streamed(trade: tape.Trade) -> db.Trade:
    """The trade as if it had arrived on the stream."""
    return db.Trade(
        trade.symbol,
        EPOCH + timedelta(milliseconds=trade.time_us // 1_000),
        trade.trade_id,
        Decimal(tape.from_e8(trade.price_e8)),
        Decimal(tape.from_e8(trade.quantity_e8)),
        trade.buyer_is_maker,
        EPOCH + timedelta(microseconds=trade.time_us),
    )


def _tsv(trade: tape.Trade) -> str:
    """The same trade as a line for LOAD DATA."""
    milliseconds, micros = divmod(trade.time_us, 1_000)
    at = sql_time(milliseconds)
    price, quantity = tape.from_e8(trade.price_e8), tape.from_e8(trade.quantity_e8)
    return f"{trade.symbol}\t{at}\t{trade.trade_id}\t{price}\t{quantity}\t{trade.buyer_is_maker:d}\t{at}{micros:03d}\n"
