"""What is stored and what is read back, row by row, on each family of servers."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

import config
import db
from model.trade import Trade
from storage.values import ROWS_PER_STATEMENT_MAX
from tests.makers import BTC, MIDNIGHT, RECEIVED, trade
from tests.support.tables import ask, sealed, stored

MS = timedelta(milliseconds=1)
LAST_MS = MIDNIGHT - MS
"""The last millisecond of a day and of a month."""
TABLES = ("trades", "candles", "gaps", "symbols")
_fresh = (f"FRESH{number}" for number in count())


EXACT = [
    Trade(BTC, LAST_MS, 1, Decimal("999999999999.99999999"), Decimal("1E-8"), True, RECEIVED),
    Trade(BTC, MIDNIGHT, 2, Decimal("0.00000001"), Decimal("999999999999.99999999"), False, None),
    Trade(BTC, MIDNIGHT, 3, Decimal("123456789012.12345678"), Decimal("1E+11"), True, RECEIVED),
    Trade(BTC, MIDNIGHT, 4, Decimal("97000"), Decimal("0.1"), False, datetime(2025, 3, 1, 0, 0, 1, tzinfo=UTC)),
    Trade(BTC, MIDNIGHT + MS, 5, Decimal("97000.10"), Decimal("10.0"), True, None),
]


def test_a_row_comes_back_as_it_went_in(connection: db.Connection) -> None:
    """Every field of every row is exact: 20 digits, 1E-8, the last millisecond of a day, both clocks, NULL."""
    assert db.insert_trades(connection, EXACT) == 5

    assert stored(connection) == EXACT
    assert [db.price_as_of(connection, BTC, EXACT[0].timestamp)] == EXACT[:1]
    assert db.trades_in_second(connection, BTC, MIDNIGHT) == EXACT[1:]
    assert db.latest(connection, BTC) == EXACT[-1]


def test_the_prices_are_digits_in_the_table(connection: db.Connection) -> None:
    """The server itself shows the same digits, so nothing went through a float on the way."""
    db.insert_trades(connection, EXACT)

    assert ask(connection, "SELECT CAST(price AS CHAR), CAST(quantity AS CHAR) FROM trades ORDER BY trade_id") == [
        ("999999999999.99999999", "0.00000001"),
        ("0.00000001", "999999999999.99999999"),
        ("123456789012.12345678", "100000000000.00000000"),
        ("97000.00000000", "0.10000000"),
        ("97000.10000000", "10.00000000"),
    ]


def test_no_trades_are_no_transaction(connection: db.Connection) -> None:
    """An empty batch inserts nothing."""
    assert db.insert_trades(connection, []) == 0
    assert ask(connection, "SELECT * FROM symbols") == []


def test_a_millisecond_holds_any_number_of_trades(connection: db.Connection) -> None:
    """Trades that share their time stamp are all kept; more rows than a statement takes make no difference."""
    many = [trade(number) for number in range(1, ROWS_PER_STATEMENT_MAX + 2)]

    assert db.insert_trades(connection, many) == len(many)
    assert stored(connection) == many


def test_a_second_time_changes_nothing(connection: db.Connection) -> None:
    """Repeats count as nothing, and the first copy of a trade is the one that stays."""
    db.insert_trades(connection, EXACT)
    before = [ask(connection, f"SELECT * FROM {table}") for table in TABLES]

    again = [made._replace(received_at=None, price=Decimal("1")) for made in EXACT[1:2]]

    assert db.insert_trades(connection, EXACT) == 0
    assert [ask(connection, f"SELECT * FROM {table}") for table in TABLES] == before
    assert db.insert_trades(connection, again) == 0
    assert stored(connection) == EXACT


def test_repeats_within_a_batch_count_once(connection: db.Connection) -> None:
    """A batch may contain a trade several times, next to new and to stored ones."""
    db.insert_trades(connection, EXACT[:2])

    assert db.insert_trades(connection, [*EXACT, *EXACT[2:]]) == 3
    assert stored(connection) == EXACT


@examples(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(range(1, 10)), st.integers(1, 9), st.integers(0, 9))
def test_any_order_leaves_the_same_tables(connection: db.Connection, order: list[int], size: int, twice: int) -> None:
    """The same trades in any order, in any batches, some of them twice: the same trades, candles and no gap."""
    symbol, straight = next(_fresh), next(_fresh)
    made = {
        name: [
            trade(number, MIDNIGHT + timedelta(seconds=17 * number), str(1 + number % 4), name)
            for number in range(1, 10)
        ]
        for name in (symbol, straight)
    }
    shuffled = [made[symbol][number - 1] for number in order + order[:twice]]

    inserted = sum(db.insert_trades(connection, shuffled[at : at + size]) for at in range(0, len(shuffled), size))
    db.insert_trades(connection, made[straight])

    assert inserted == 9
    assert stored(connection, symbol) == made[symbol]
    assert db.open_gaps(connection, symbol) == []
    assert db.seal(connection, sorted([symbol, straight]), None, MIDNIGHT + timedelta(hours=1))
    assert [bar[1:] for bar in sealed(connection, symbol)] == [bar[1:] for bar in sealed(connection, straight)]


def test_below_a_millisecond_is_cut_off(connection: db.Connection) -> None:
    """A time stamp is floored, never rounded up: in the trade, in its candle and beside a gap."""
    almost = MIDNIGHT - timedelta(microseconds=1)

    db.insert_trades(connection, [trade(1, almost), trade(5, almost)])

    assert [made.timestamp for made in stored(connection)] == [LAST_MS, LAST_MS]
    assert db.seal(connection, [BTC], None, MIDNIGHT)
    assert [bar.timestamp for bar in sealed(connection, BTC)] == [
        MIDNIGHT - timedelta(seconds=length) for length in (60, 3_600, 86_400)
    ]
    (gap,) = db.open_gaps(connection)
    assert (gap.timestamp_before, gap.timestamp_after) == (LAST_MS, LAST_MS)


@examples(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.datetimes(timezones=st.just(UTC)))
def test_any_moment_comes_back(connection: db.Connection, when: datetime) -> None:
    """Whatever the year is, the time stamp is stored to the millisecond and the receipt to the microsecond."""
    symbol = next(_fresh)
    made = trade(1, when, symbol=symbol)._replace(received_at=when)

    db.insert_trades(connection, [made])

    assert stored(connection, symbol) == [
        made._replace(timestamp=when - timedelta(microseconds=when.microsecond % 1000))
    ]


# ---- What is read.

BARS = [
    trade(1, MIDNIGHT - 2 * MS, "5"),
    trade(2, LAST_MS, "3"),
    trade(3, MIDNIGHT, "4"),
    trade(4, MIDNIGHT, "9"),
    trade(5, MIDNIGHT + 999 * MS, "3"),
    trade(6, MIDNIGHT + 1000 * MS, "9"),
    trade(7, MIDNIGHT + 5000 * MS, "6"),
]


@pytest.fixture
def filled(connection: db.Connection) -> db.Connection:
    """A connection to a database that has BARS, and one trade of another symbol after them."""
    db.insert_trades(connection, [*BARS, trade(1, MIDNIGHT + 9000 * MS, "1", "ETHUSDT")])
    return connection


def test_an_empty_table_has_no_answers(connection: db.Connection) -> None:
    """Without trades every answer is None or empty."""
    assert db.symbols(connection) == []
    assert db.latest(connection, BTC) is None
    assert db.trades_in_second(connection, BTC, MIDNIGHT) == []
    assert db.price_as_of(connection, BTC, MIDNIGHT) is None
    assert db.min_max(connection, BTC, MIDNIGHT, MIDNIGHT + timedelta(days=1)) is None
    assert db.open_gaps(connection) == []


def test_the_latest_is_of_its_symbol(filled: db.Connection) -> None:
    """The newest trade of the symbol that was asked for; within a millisecond the one with the largest id."""
    assert db.symbols(filled) == [BTC, "ETHUSDT"]
    assert db.latest(filled, BTC) == BARS[-1]

    db.insert_trades(filled, [trade(9, BARS[-1].timestamp), trade(8, BARS[-1].timestamp)])

    assert db.latest(filled, BTC) == trade(9, BARS[-1].timestamp)


@pytest.mark.parametrize("inside", [timedelta(), MS / 2, 999 * MS, timedelta(microseconds=999_999)])
def test_a_second_is_half_open(filled: db.Connection, inside: timedelta) -> None:
    """Its first millisecond is in, the next second's first one is out, wherever in the second one asks."""
    assert db.trades_in_second(filled, BTC, MIDNIGHT + inside) == BARS[2:5]


def test_seconds_around_midnight(filled: db.Connection) -> None:
    """The second before has the last milliseconds of the day; one without a trade is empty."""
    assert db.trades_in_second(filled, BTC, LAST_MS) == BARS[:2]
    assert db.trades_in_second(filled, BTC, MIDNIGHT + timedelta(seconds=2)) == []


@pytest.mark.parametrize(
    ("when", "trade_id"),
    [
        (MIDNIGHT - 3 * MS, None),
        (MIDNIGHT - 2 * MS, 1),
        (LAST_MS, 2),
        (MIDNIGHT - timedelta(microseconds=1), 2),
        (MIDNIGHT, 4),
        (MIDNIGHT + 998 * MS, 4),
        (MIDNIGHT + timedelta(microseconds=999_999), 5),
        (MIDNIGHT + timedelta(days=1), 7),
    ],
)
def test_the_price_as_of_a_time(filled: db.Connection, when: datetime, trade_id: int | None) -> None:
    """The last trade up to and including that millisecond, and none before the first."""
    found = db.price_as_of(filled, BTC, when)

    assert found == (None if trade_id is None else BARS[trade_id - 1])


def test_extremes_name_the_first_trade_at_each(filled: db.Connection) -> None:
    """The low and the high of the price, each with the earliest trade at it; first and last price, and the count."""
    end = MIDNIGHT + timedelta(seconds=1)

    assert db.min_max(filled, BTC, MIDNIGHT - 2 * MS, end) == db.MinMax(
        symbol=BTC,
        start=MIDNIGHT - 2 * MS,
        end=end,
        trades=5,
        first=BARS[0],
        last=BARS[4],
        low=BARS[1],
        high=BARS[3],
    )
    assert db.min_max(filled, BTC, MIDNIGHT, MIDNIGHT) is None
    assert db.min_max(filled, BTC, end, MIDNIGHT) is None


TRADES = st.lists(
    st.tuples(st.integers(0, 130_000), st.integers(1, 5)), min_size=1, max_size=25, unique_by=lambda pair: pair[0]
)


BOUND_US = st.one_of(st.integers(-2_000, 131_000_000), st.integers(0, 131).map(lambda second: second * 1_000_000))


@examples(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TRADES, st.lists(st.tuples(BOUND_US, BOUND_US), min_size=1, max_size=5))
def test_extremes_of_any_range_are_those_of_the_scan(
    connection: db.Connection, made: list[tuple[int, int]], ranges: list[tuple[int, int]]
) -> None:
    """Any half-open range, also with bounds below a millisecond, gives what a look at every trade gives."""
    symbol = next(_fresh)
    rows = [trade(number, MIDNIGHT + ms * MS, str(price), symbol) for number, (ms, price) in enumerate(sorted(made), 1)]
    db.insert_trades(connection, rows)
    for bounds in ranges:
        start, end = (MIDNIGHT + timedelta(microseconds=bound) for bound in bounds)

        assert db.min_max(connection, symbol, start, end) == scanned(rows, start, end)


def scanned(rows: Sequence[Trade], start: datetime, end: datetime) -> db.MinMax | None:
    """The extremes by the plain definition; `rows` are in order of time and id."""
    inside = [row for row in rows if start <= row.timestamp < end]
    if not inside:
        return None
    low, high = min(inside, key=lambda row: row.price), max(inside, key=lambda row: row.price)
    # Stored times are whole milliseconds, so the answer is about those from the first one in the range.
    start, end = (MIDNIGHT - (MIDNIGHT - bound) // MS * MS for bound in (start, end))
    return db.MinMax(rows[0].symbol, start, end, len(inside), inside[0], inside[-1], low, high)


def test_other_time_zones_are_converted(filled: db.Connection) -> None:
    """An aware time of any zone means the same moment."""
    kathmandu = MIDNIGHT.astimezone(ZoneInfo("Asia/Kathmandu"))

    assert db.trades_in_second(filled, BTC, kathmandu) == BARS[2:5]
    assert db.price_as_of(filled, BTC, kathmandu) == BARS[3]
    found = db.min_max(filled, BTC, kathmandu, kathmandu + MS)
    assert found
    assert (found.first, found.last) == (BARS[2], BARS[3])


def test_a_time_without_a_zone_is_refused(filled: db.Connection) -> None:
    """It would be taken for this machine's time, and the answer would be of another moment."""
    naive = datetime(2025, 3, 1)  # noqa: DTZ001 - what it is about
    questions: list[Callable[[], object]] = [
        lambda: db.trades_in_second(filled, BTC, naive),
        lambda: db.price_as_of(filled, BTC, naive),
        lambda: db.min_max(filled, BTC, naive, MIDNIGHT),
        lambda: db.min_max(filled, BTC, MIDNIGHT, naive),
    ]
    for question in questions:
        with pytest.raises(db.RefusedError, match="time zone"):
            question()


def test_the_statements_can_be_pasted(filled: db.Connection) -> None:
    """What `asked` collects is whole SQL with its values: asked again as it is, it gives the same rows."""
    filled.asked = []
    second = db.trades_in_second(filled, BTC, MIDNIGHT)
    (sql,) = filled.asked

    assert "'BTCUSDT'" in sql
    assert "'2025-03-01 00:00:00'" in sql
    assert [row[2] for row in ask(filled, sql.replace("%", "%%"))] == [made.trade_id for made in second]


def test_the_view_is_the_plain_table_that_people_expect(filled: db.Connection) -> None:
    """The statement of the README works on the view `prices`."""
    sql = "SELECT * FROM prices WHERE symbol='BTCUSDT' ORDER BY timestamp DESC LIMIT 1"

    assert ask(filled, sql) == [(BARS[-1].timestamp.replace(tzinfo=None), BTC, Decimal("6"))]


ROWS_READ_MAX = 60
"""Of 6,000 trades: a lookup by the index reads a few rows, a scan thousands."""


def test_no_lookup_reads_the_table(connection: db.Connection, settings: config.Settings) -> None:
    """The server's own count of rows read stays small for each question, and for the first insert of a new process."""
    db.insert_trades(connection, [trade(number, MIDNIGHT + number * 100 * MS) for number in range(1, 6_001)])
    end = MIDNIGHT + timedelta(seconds=600)
    other = db.connect(settings)
    lookups: list[Callable[[], object]] = [
        lambda: db.symbols(other),
        lambda: db.latest(other, BTC),
        lambda: db.price_as_of(other, BTC, MIDNIGHT + timedelta(seconds=300)),
        lambda: db.trades_in_second(other, BTC, MIDNIGHT + timedelta(seconds=300)),
        lambda: db.open_gaps(other),
        lambda: db.insert_trades(other, [trade(6_001, end + MS)]),
        lambda: db.insert_trades(other, [trade(6_005, end + 2 * MS)]),
        lambda: db.insert_trades(other, [trade(6_003, end + 2 * MS)]),
    ]
    # MySQL counts what it reads of the definition of a table that is used for the first time.
    ask(other, "SELECT COUNT(*) FROM proofs")
    for lookup in lookups:
        ask(other, "FLUSH STATUS")
        lookup()
        reads = ask(other, "SHOW SESSION STATUS LIKE 'Handler_read%'")
        assert sum(int(value) for _, value in reads) <= ROWS_READ_MAX
    db.close(other)
