"""The three questions on a table of 20 million trades of one symbol in 30 days.

LOAD DATA fills the table with made-up rows, a day at a time and in the order of the key; then the candles are sealed.
A read-only connection, as the reports use it, asks in turns: `SELECT 1`, the latest trade, the trades of a second;
min_max and the volume of almost 30 days, and min_max of an hour, all with ragged ends so that trades, minutes, hours
and days take part; and the scan, which must give the same answer. Times are those of whole calls, with their objects.
"""

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import config
import db
from storage import questions, sealing
from tools.bench import boards
from tools.bench.figures import Figure, at_least, at_most
from tools.bench.stage import Bench, say
from tools.lab.children import RigError

PART = "queries"
DATABASE = "bench_queries"
SYMBOL = "BTCUSDT"
BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
MINUTES_PER_DAY = 1_440
TEMPLATES = 32
"""The times, quantities and sides of a minute come from one of this many templates; the prices are its own."""
PRICE_CENTS = 6_000_000
STEP_CENTS = 2_000
VARIANTS = 16
"""How many ranges and seconds take turns; each was asked for once before times are taken."""
SEAL_S_MAX = 120
"""One statement makes the candles of some hours, which may take longer than a writer's time-out allows."""
SEAL_STEP = timedelta(hours=6)
SETTLE_S_MAX = 30.0
"""How long the server may take to write to disk what it still holds in memory after the table was built."""


class Sizes(NamedTuple):
    """The size of the table, how often each question is asked in a run, and the number of runs that count."""

    days: int
    trades_per_minute: int
    questions: int
    runs: int

    @property
    def rows(self) -> int:
        """The rows of the whole table."""
        return self.days * MINUTES_PER_DAY * self.trades_per_minute


FULL, QUICK = Sizes(30, 463, 200, 3), Sizes(2, 20, 5, 1)

Ask = Callable[[], object]


class Run(NamedTuple):
    """The medians of a run, in milliseconds."""

    nothing: float
    latest: float
    second: float
    long: float
    short: float
    volume: float
    scan: float


def run(bench: Bench) -> list[Figure]:
    """The times and their ratios, run by run."""
    sizes = sizes_of(bench.quick)
    if bench.has_database(DATABASE):
        return [*_ask(bench.settings(DATABASE), sizes), *_boards(bench, sizes)]
    with bench.database(DATABASE, keep=bench.keep) as settings:
        built = _build(bench, settings, sizes)
        return [*built, *_ask(settings, sizes), *_boards(bench, sizes)]


def _boards(bench: Bench, sizes: Sizes) -> list[Figure]:
    return boards.slowest(bench, PART, DATABASE, BEGIN + timedelta(days=sizes.days))


def sizes_of(quick: bool) -> Sizes:
    """The sizes to measure, or the tiny ones."""
    return QUICK if quick else FULL


# ---- The table.


def _build(bench: Bench, settings: config.Settings, sizes: Sizes) -> list[Figure]:
    """How fast the table was filled and its candles built, in rows per second."""
    begun_s = time.monotonic()
    _load(bench, sizes)
    loaded_s = time.monotonic()
    say(f"{PART}: {sizes.rows:,} rows loaded in {loaded_s - begun_s:.0f} s")
    connection = db.connect(settings, read_s_max=SEAL_S_MAX)
    sealing.seal_history(connection, SYMBOL, SEAL_STEP)
    db.close(connection)
    sealed_s = time.monotonic()
    say(f"{PART}: the candles sealed in {sealed_s - loaded_s:.0f} s")
    _settle(bench)
    return [
        Figure(PART, "building: LOAD DATA", "rows/s", [sizes.rows / (loaded_s - begun_s)]),
        Figure(PART, "building: sealing", "rows/s", [sizes.rows / (sealed_s - loaded_s)]),
    ]


def _load(bench: Bench, sizes: Sizes) -> None:
    maker, stored = Maker(sizes), 0
    connection = bench.server.connect_to(DATABASE)
    # While the server loads one day, the next one is written.
    with ThreadPoolExecutor(1) as writer, connection.cursor() as cursor:
        coming = writer.submit(maker.write_day, bench.folder / "day-0.tsv", 0)
        for day in range(sizes.days):
            path = coming.result()
            if day + 1 < sizes.days:
                coming = writer.submit(maker.write_day, bench.folder / f"day-{day + 1}.tsv", day + 1)
            cursor.execute(f"LOAD DATA LOCAL INFILE '{path}' INTO TABLE trades")
            stored += cursor.rowcount
            path.unlink()
    connection.close()
    if stored != sizes.rows:
        raise RigError(f"{stored} of {sizes.rows} rows were loaded")


class Maker:
    """Writes the rows day by day: the price is a random walk, the same each time."""

    def __init__(self, sizes: Sizes) -> None:
        self._random = random.Random(1)
        self._per_minute = sizes.trades_per_minute
        self._templates = [self._template() for _ in range(TEMPLATES)]
        self._cents = PRICE_CENTS

    def write_day(self, path: Path, day: int) -> Path:
        """Writes the rows of that day to `path`, and returns it; call it for the days in order."""
        with path.open("w") as file:
            for minute in range(MINUTES_PER_DAY):
                at = BEGIN + timedelta(days=day, minutes=minute)
                first_id = 1 + (day * MINUTES_PER_DAY + minute) * self._per_minute
                file.writelines(self._minute(at.isoformat(" ")[:17], first_id))
        return path

    def _minute(self, at: str, first_id: int) -> list[str]:
        self._cents = max(STEP_CENTS * 10, self._cents + self._random.randint(-STEP_CENTS, STEP_CENTS))
        base = self._cents
        template = self._random.choice(self._templates)
        prices = [divmod(base + cents, 100) for _, cents, _ in template]
        return [
            f"{SYMBOL}\t{at}{second}\t{trade_id}\t{whole}.{cents:02d}\t{rest}\t{at}{second}\n"
            for trade_id, (second, _, rest), (whole, cents) in zip(count(first_id), template, prices, strict=False)
        ]

    def _template(self) -> list[tuple[str, int, str]]:
        """For each trade of a minute: the seconds, the cents above the minute's base, the quantity and side."""
        draw = self._random
        # Two trades of three share their millisecond with another trade.
        times = sorted(draw.choices([draw.randrange(60_000) for _ in range(self._per_minute)], k=self._per_minute))
        return [
            (
                f"{at // 1_000:02d}.{at % 1_000:03d}",
                draw.randrange(1_000),
                f"0.{draw.randrange(1, 100_000):05d}\t{draw.random() < 0.5:d}",
            )
            for at in times
        ]


def _settle(bench: Bench) -> None:
    """Waits until the server has written the new table to disk, so that it does not do so during the questions."""
    until = time.monotonic() + SETTLE_S_MAX
    with bench.server.connect_to(DATABASE) as connection, connection.cursor() as cursor:
        cursor.execute("SET GLOBAL innodb_max_dirty_pages_pct = 0")
        while time.monotonic() < until:
            cursor.execute("SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_pages_dirty'")
            if int(cursor.fetchall()[0][1]) == 0:
                break
            time.sleep(0.1)
        cursor.execute("SET GLOBAL innodb_max_dirty_pages_pct = DEFAULT")


# ---- The questions.


def _ask(settings: config.Settings, sizes: Sizes) -> list[Figure]:
    connection = db.connect(settings, read_only=True)
    runs = [_run(connection, sizes, index) for index in range(sizes.runs)]
    # For information only, and it reads for ten seconds, so once is enough.
    plain = _plain_ms(connection, _long_ranges(sizes)[0])
    db.close(connection)

    def column(pick: Callable[[Run], float]) -> list[float]:
        return [pick(one) for one in runs]

    million = f"{sizes.rows / 1e6:.0f} M rows"
    return [
        Figure(PART, "SELECT 1", "ms", column(lambda one: one.nothing)),
        Figure(PART, f"latest, {million}", "ms", column(lambda one: one.latest)),
        Figure(PART, f"at-second, {million}", "ms", column(lambda one: one.second)),
        Figure(PART, f"min_max, {sizes.days} days", "ms", column(lambda one: one.long)),
        Figure(PART, "min_max, 1 hour", "ms", column(lambda one: one.short)),
        Figure(PART, f"VWAP, {sizes.days} days", "ms", column(lambda one: one.volume)),
        Figure(PART, f"scan for all of it, {sizes.days} days", "ms", column(lambda one: one.scan)),
        Figure(PART, f"SELECT MIN, MAX alone, {sizes.days} days", "ms", [plain]),
        Figure(PART, "latest / SELECT 1", "×", column(lambda one: one.latest / one.nothing), at_most(4, 2)),
        Figure(PART, "at-second / SELECT 1", "×", column(lambda one: one.second / one.nothing), at_most(4, 2)),
        Figure(PART, "scan / min_max", "×", column(lambda one: one.scan / one.long), at_least(5_000, 5_700)),
        Figure(PART, "scan / VWAP", "×", column(lambda one: one.scan / one.volume), at_least(5_000, 5_700)),
        Figure(PART, "VWAP / min_max", "×", column(lambda one: one.volume / one.long), at_most(2, 1)),
        Figure(PART, "SELECT MIN, MAX / min_max", "×", [plain / runs[0].long]),
        Figure(
            PART, f"min_max, {sizes.days} days / 1 hour", "×", column(lambda one: one.long / one.short), at_most(3, 1.5)
        ),
    ]


def _run(connection: db.Connection, sizes: Sizes, index: int) -> Run:
    seconds, long, short = _seconds(sizes), _long_ranges(sizes), _short_ranges(sizes)
    points = _medians_ms(
        [
            [lambda: _select(connection, "SELECT 1")],
            [lambda: db.latest(connection, SYMBOL)],
            [lambda at=at: db.trades_in_second(connection, SYMBOL, at) for at in seconds],  # type: ignore[misc]
        ],
        sizes.questions,
    )
    ranges = _medians_ms(
        [
            [lambda ends=ends, ask=ask: ask(connection, SYMBOL, *ends) for ends in ranges]  # type: ignore[misc]
            for ask, ranges in ((db.min_max, long), (db.min_max, short), (questions.volume, long))
        ],
        sizes.questions,
    )
    one = Run._make([*points, *ranges, _scan_ms(connection, long[index])])
    say(
        f"{PART}: run {index + 1}: " + ", ".join(f"{name} {value:.3g}" for name, value in one._asdict().items()) + " ms"
    )
    return one


def _medians_ms(questions: Sequence[Sequence[Ask]], times: int) -> list[float]:
    """The median time of each kind of question; the kinds take turns, and so do the variants within a kind."""
    for kind in questions:
        for ask in kind:
            ask()
    taken: list[list[float]] = [[] for _ in questions]
    for turn in range(times):
        for kind, found in zip(questions, taken, strict=True):
            ask = kind[turn % len(kind)]
            begun_ns = time.perf_counter_ns()
            ask()
            found.append((time.perf_counter_ns() - begun_ns) / 1e6)
    return [median(found) for found in taken]


def _scan_ms(connection: db.Connection, ends: tuple[datetime, datetime]) -> float:
    """The time of the scan that answers everything that min_max does. Raises RigError if the answers differ."""
    begun_s = time.perf_counter()
    scanned = db.min_max_by_scan(connection, SYMBOL, *ends)
    seconds = time.perf_counter() - begun_s
    found = db.min_max(connection, SYMBOL, *ends)
    if found is None or found != scanned:
        raise RigError(f"min_max says {found}, the scan {scanned}")
    return seconds * 1e3


def _plain_ms(connection: db.Connection, ends: tuple[datetime, datetime]) -> float:
    """The time of the plain statement, which answers less. Raises RigError if the answers differ."""
    within = " AND ".join(
        [f"symbol = '{SYMBOL}'", f"timestamp >= '{_text(ends[0])}'", f"timestamp < '{_text(ends[1])}'"]
    )
    begun_s = time.perf_counter()
    ((low, high),) = _select(connection, f"SELECT MIN(price), MAX(price) FROM trades WHERE {within}")
    seconds = time.perf_counter() - begun_s
    sums = _select(connection, f"SELECT COUNT(*), SUM(quantity), SUM(price * quantity) FROM trades WHERE {within}")
    traded = questions.volume(connection, SYMBOL, *ends)
    if sums != [(traded.count, traded.volume, traded.quote_volume)]:
        raise RigError(f"the volume is {traded}, the statement says {sums}")
    found = db.min_max(connection, SYMBOL, *ends)
    if found is None or (found.low.price, found.high.price) != (low, high):
        raise RigError(f"min_max says {found}, the statement {low} and {high}")
    return seconds * 1e3


def _select(connection: db.Connection, sql: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


def _text(when: datetime) -> str:
    return when.replace(tzinfo=None).isoformat(" ", "milliseconds")


def _seconds(sizes: Sizes) -> list[datetime]:
    """Seconds spread over the whole table."""
    step = timedelta(days=sizes.days) / VARIANTS
    return [(BEGIN + step * n + timedelta(seconds=977)).replace(microsecond=0) for n in range(VARIANTS)]


def _long_ranges(sizes: Sizes) -> list[tuple[datetime, datetime]]:
    """Ranges of the whole table except for a ragged piece at each end."""
    end = BEGIN + timedelta(days=sizes.days)
    ragged = timedelta(minutes=7, seconds=13, milliseconds=579)
    return [(BEGIN + ragged * (n + 1), end - ragged * (VARIANTS - n)) for n in range(VARIANTS)]


def _short_ranges(sizes: Sizes) -> list[tuple[datetime, datetime]]:
    """Ranges of an hour that start at odd times."""
    step = timedelta(days=sizes.days) / VARIANTS
    starts = [BEGIN + step * n + timedelta(minutes=17, seconds=31, milliseconds=337) for n in range(VARIANTS)]
    return [(start, start + timedelta(hours=1)) for start in starts]
