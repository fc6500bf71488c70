"""An exchange with whole days of history in its archive, and the tables compared with what it has traded."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

from model.times import EPOCH, MILLISECOND, midnight
from tests.support.child import WAIT_S_MAX, wait_until
from tests.support.history import LONG_S
from tests.support.stand_in import StandIn
from tests.support.tables import check, due, ids_of, runs, sealed, stored

DAYS, DAY_TRADES = 33, 1_500
"""So far back that the month before this one has some."""
FLAGS: tuple[str, ...] = (
    "--days",
    str(DAYS),
    "--day-trades",
    str(DAY_TRADES),
    "--wait-clients",
    "1",
    "--rest-lag",
    "0",
)
FLAGS += ("--weight-limit", "1000000")
"""Of an exchange whose tape waits for a client: nothing changes, except that time goes on."""
ONE_DAY = timedelta(days=1)
DAY_BEGIN, DAY_END = timedelta(seconds=5), timedelta(seconds=45)
"""Longer than the archive takes to publish a day, and than a test takes that speaks of today and of yesterday."""


@contextmanager
def of_today(flags: Callable[[], Sequence[str]]) -> Iterator[Callable[[], StandIn]]:
    """Yields what gives an exchange with these flags, at the beginning of each test: one that was started on this UTC
    day, since of a day that ended while it ran it has a part only; and not in the first or last moments of one."""
    started: dict[date, StandIn] = {}
    with ExitStack() as stack:

        def exchange() -> StandIn:
            between = (DAY_BEGIN + DAY_END).total_seconds()
            wait_until(lambda: DAY_BEGIN <= _time_of_day() < ONE_DAY - DAY_END, between + WAIT_S_MAX)
            if day_before(0) not in started:
                stack.close()
                started.clear()
                started[day_before(0)] = stack.enter_context(StandIn(*flags()))
            return started[day_before(0)]

        yield exchange


def _time_of_day() -> timedelta:
    now = datetime.now(UTC)
    return now - midnight(now.date())


def day_before(days: int) -> date:
    """The UTC day so many days ago."""
    return datetime.now(UTC).date() - days * ONE_DAY


def last_month() -> date:
    """The last day of the month before this one, of which there is a monthly file too."""
    return datetime.now(UTC).date().replace(day=1) - ONE_DAY


def daily(day: date, symbol: str = "BTCUSDT") -> str:
    """A part of the addresses of its daily file, for a fault."""
    return f"/daily/trades/{symbol}/{symbol}-trades-{day}"


def monthly(symbol: str = "BTCUSDT") -> str:
    """A part of the addresses of the monthly files, for a fault."""
    return f"/monthly/trades/{symbol}/"


def not_published(exchange: StandIn, day: date) -> None:
    """The archive has no file of a day, nor one of its month, which there is as soon as the month is over."""
    for path in (f"-trades-{day}", f"-trades-{day:%Y-%m}."):
        exchange.fault("archive_missing", path=path, seconds=LONG_S)


def true_rows(exchange: StandIn, days: Sequence[date], symbol: str = "BTCUSDT") -> list[tuple[Any, ...]]:
    """What was traded on these days: id, milliseconds, price, quantity, whether the buyer is the maker."""
    found = []
    for day in sorted(days):
        for trade in exchange.day(symbol, str(day)):
            text = f"{trade['price']} {trade['quantity']}"
            found.append((trade["id"], trade["time_us"] // 1000, text, trade["maker"]))
    return found


def rows_of(connection: Any, symbol: str = "BTCUSDT") -> list[tuple[Any, ...]]:
    """The rows of the table, in the same shape, by rising id."""
    return sorted(
        (
            trade.trade_id,
            (trade.timestamp - EPOCH) // MILLISECOND,
            f"{trade.price:.8f} {trade.quantity:.8f}",
            trade.buyer_is_maker,
        )
        for trade in stored(connection, symbol)
    )


def assert_sound(connection: Any, exchange: StandIn, days: Sequence[date], symbol: str = "BTCUSDT") -> None:
    """Each row is one that was traded, what is absent is in open gaps, and the bars equal their trades."""
    truth, rows = true_rows(exchange, days, symbol), rows_of(connection, symbol)
    assert sorted(set(rows) - set(truth)) == []
    assert len(rows) == len(set(rows))
    check(connection, symbol)
    assert sealed(connection, symbol) == due(connection, symbol)


def assert_whole(connection: Any, exchange: StandIn, days: Sequence[date], symbol: str = "BTCUSDT") -> None:
    """The table is what was traded on these days, row by row, no gap is open, and the bars equal their trades."""
    assert rows_of(connection, symbol) == true_rows(exchange, days, symbol)
    assert ids_of(runs(connection, symbol)) == []
    check(connection, symbol)
    assert sealed(connection, symbol) == due(connection, symbol)
