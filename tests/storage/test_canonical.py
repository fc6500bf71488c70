"""The canonical lines of stored trades against an independent computation, and the bars that are wrong; per family."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

import db
from model.candles import Candle
from model.proof import BLOCK_IDS
from model.trade import Trade
from storage import canonical, lines
from storage.canonical import Block, OutOfOrderError
from tests.makers import BTC, MIDNIGHT, stream, trade
from tests.support.tables import ask

DAY = timedelta(days=1)
MS = timedelta(milliseconds=1)
COIN = "币安人生"
EDGE = 7 * BLOCK_IDS
INSERT = "INSERT INTO trades (symbol, timestamp, trade_id, price, quantity, buyer_is_maker) VALUES (%s,%s,%s,%s,%s,%s)"


def line(one: Trade) -> str:
    """The canonical line of a trade, made without the database."""
    ms = (one.timestamp - datetime(1970, 1, 1, tzinfo=UTC)) // MS
    return f"{one.trade_id},{one.price:.8f},{one.quantity:.8f},{ms},{int(one.buyer_is_maker)}\n"


def text(trades: Sequence[Trade]) -> bytes:
    """The canonical text of trades, by rising id."""
    return "".join(map(line, sorted(trades, key=lambda one: one.trade_id))).encode()


def blocks(connection: db.Connection, symbol: str = BTC, by_id: bool = False) -> list[Block]:
    """All blocks of the day that begins at MIDNIGHT."""
    return list(canonical.blocks(connection, symbol, MIDNIGHT, MIDNIGHT + DAY, by_id))


@pytest.mark.parametrize("symbol", [BTC, COIN])
@pytest.mark.parametrize("by_id", [False, True])
def test_the_lines_are_those_of_the_rows(connection: db.Connection, symbol: str, by_id: bool) -> None:
    """Each of the 1000 milliseconds, 12 and 8 digits, both makers, both borders of the day, a name that is not ASCII;
    received_at and other symbols are left out."""
    trades = [
        Trade(symbol, MIDNIGHT + 61 * n * MS, 1 + n, Decimal(n + 1).scaleb(-8), Decimal(n).scaleb(-3) + 1, n % 2 == 0)
        for n in range(1_000)
    ]
    amounts = [("999999999999.99999999", "0.00000001"), ("0.00000001", "999999999999.99999999"), ("1", "10")]
    trades += [
        Trade(symbol, MIDNIGHT + DAY - MS, 1_001 + n, Decimal(price), Decimal(size), n == 1)
        for n, (price, size) in enumerate(amounts)
    ]
    others = [trade(1_004, MIDNIGHT + DAY, symbol=symbol), trade(7, MIDNIGHT, symbol="ETHUSDT")]
    before = Trade(symbol, MIDNIGHT - MS, 0, Decimal(1), Decimal(1), False)
    db.insert_trades(connection, [*trades, *others])
    ask(connection, INSERT, symbol, before.timestamp.replace(tzinfo=None), 0, 1, 1, 0)
    assert {one.timestamp.microsecond for one in trades} == set(range(0, 1_000_000, 1_000))
    assert [Block(0, text(trades), [])] == blocks(connection, symbol, by_id)


def test_blocks_are_cut_at_multiples_of_their_size(connection: db.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also inside of a chunk that the server sends, and where a chunk ends."""
    monkeypatch.setattr(lines, "CHUNK_ROWS", 5)
    trades = [trade(EDGE - 8 + n, MIDNIGHT + n * MS) for n in range(10)]
    trades += [trade(EDGE + BLOCK_IDS + n, MIDNIGHT + DAY - MS) for n in range(5)]
    db.insert_trades(connection, trades)
    assert blocks(connection) == [
        Block(6, text(trades[:8]), []),
        Block(7, text(trades[8:10]), []),
        Block(8, text(trades[10:]), [(EDGE + 2, EDGE + BLOCK_IDS - 1)]),
    ]


@pytest.mark.parametrize("by_id", [False, True])
def test_runs_of_ids_that_are_absent(connection: db.Connection, monkeypatch: pytest.MonkeyPatch, by_id: bool) -> None:
    """Between the first and the last line: inside of a chunk, between two, and over the border of a block."""
    monkeypatch.setattr(lines, "CHUNK_ROWS", 3)
    ids = [EDGE - 20, EDGE - 18, EDGE - 17, EDGE - 10, EDGE - 9, EDGE - 8, EDGE + 5, EDGE + 6]
    db.insert_trades(connection, [trade(one, MIDNIGHT + n * MS) for n, one in enumerate(ids)])
    found = blocks(connection, by_id=by_id)
    assert [block.number for block in found] == [6, 7]
    assert [block.absent for block in found] == [
        [(EDGE - 19, EDGE - 19), (EDGE - 16, EDGE - 11)],
        [(EDGE - 7, EDGE + 4)],
    ]


def test_a_day_without_a_trade_has_no_block(connection: db.Connection) -> None:
    """Whatever lies around it."""
    db.insert_trades(connection, [trade(1, MIDNIGHT - MS), trade(2, MIDNIGHT + DAY)])
    assert blocks(connection) == []


@pytest.mark.parametrize("chunk", [2, 3, 100])
def test_ids_that_do_not_rise_with_time_are_sorted(
    connection: db.Connection, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    """An error says that they must be; then the lines are by id all the same, wherever the chunks end."""
    monkeypatch.setattr(lines, "CHUNK_ROWS", chunk)
    trades = [trade(one, MIDNIGHT + n * MS) for n, one in enumerate([1, 2, 4, 3, 5])]
    db.insert_trades(connection, trades)
    with pytest.raises(OutOfOrderError, match=r"ids of BTCUSDT from [0-9]+ on do not rise with time"):
        blocks(connection)
    assert blocks(connection, by_id=True) == [Block(0, text(trades), [])]


@pytest.mark.parametrize("chunk", [2, 100])
def test_an_id_that_is_stored_twice_has_two_lines(
    connection: db.Connection, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    """Under two times; it does not stand for the one that is absent."""
    monkeypatch.setattr(lines, "CHUNK_ROWS", chunk)
    ask(connection, INSERT, BTC, "2025-03-01 00:00:00.001", 1, 1, 1, 0)
    for ms in (2, 3):
        ask(connection, INSERT, BTC, f"2025-03-01 00:00:00.00{ms}", 2, 1, 1, 0)
    ask(connection, INSERT, BTC, "2025-03-01 00:00:00.004", 4, 1, 1, 0)
    (block,) = blocks(connection, by_id=True)
    assert [row.split(b",")[0] for row in block.lines.splitlines()] == [b"1", b"2", b"2", b"4"]
    assert block.absent == [(3, 3)]


# ---- Bars.


@pytest.fixture
def bars(connection: db.Connection) -> db.Connection:
    """Two days of trades, sealed."""
    trades = [trade(1 + n, MIDNIGHT + n * timedelta(minutes=31), price=f"{100 + n}.5") for n in range(93)]
    db.insert_trades(connection, trades)
    db.seal_history(connection, BTC)
    return connection


def wrong(connection: db.Connection) -> list[Candle]:
    """The wrong bars of the first day."""
    return canonical.wrong_bars(connection, BTC, MIDNIGHT, MIDNIGHT + DAY)


def of_day(connection: db.Connection, resolution: int) -> Any:
    """The stored bars of the first day that have a resolution."""
    return canonical._stored(connection, BTC, resolution, MIDNIGHT, MIDNIGHT + DAY)


@pytest.mark.parametrize(
    "column", [name for name in Candle._fields if name not in ("symbol", "resolution", "timestamp")]
)
@pytest.mark.parametrize("resolution", [60, 3_600, 86_400])
def test_a_bar_with_a_wrong_column_is_found(bars: db.Connection, column: str, resolution: int) -> None:
    """Beside the right one; and the coarser bars, which are not made of it any more."""
    assert wrong(bars) == []
    right = of_day(bars, resolution)[0]
    ask(
        bars,
        f"UPDATE candles SET `{column}` = `{column}` + 1 WHERE resolution = {resolution} ORDER BY timestamp LIMIT 1",
    )
    changed = right._replace(**{column: getattr(right, column) + 1})
    assert [bar for bar in wrong(bars) if bar.resolution == resolution] in ([right, changed], [changed, right])


def test_a_bar_that_is_not_there_and_one_too_many_are_found(bars: db.Connection) -> None:
    """Of minutes; a wrong minute makes its hour and its day wrong too."""
    first, second = of_day(bars, 60)[:2]
    ask(bars, "DELETE FROM candles WHERE resolution = 60 AND timestamp = '2025-03-01 00:00:00'")
    assert [bar for bar in wrong(bars) if bar.resolution == 60] == [first]
    moved = first._replace(timestamp=MIDNIGHT + timedelta(minutes=3))
    sql = f"INSERT INTO candles ({', '.join(Candle._fields)}) VALUES ({', '.join(['%s'] * len(Candle._fields))})"
    ask(bars, sql, *(value.replace(tzinfo=None) if isinstance(value, datetime) else value for value in moved))
    assert [bar for bar in wrong(bars) if bar.resolution == 60] == [first, moved]
    assert second not in wrong(bars)


def test_a_trade_that_was_changed_makes_its_minute_wrong(bars: db.Connection) -> None:
    """Bars are not remade by who writes with SQL."""
    ask(bars, "UPDATE trades SET price = price + 1 WHERE trade_id = 3")
    found = wrong(bars)
    assert {bar.timestamp for bar in found} == {MIDNIGHT + timedelta(minutes=62)}
    assert {bar.resolution for bar in found} == {60}


# ---- Around a day.


def test_the_ids_beside_a_day(connection: db.Connection) -> None:
    """Of the last trade before it, and of the first at its end or later."""
    span = MIDNIGHT, MIDNIGHT + DAY
    assert canonical.ids_beside(connection, BTC, *span) == (None, None)
    db.insert_trades(connection, [trade(5, MIDNIGHT)])
    assert canonical.ids_beside(connection, BTC, *span) == (None, None)
    db.insert_trades(connection, [trade(3, MIDNIGHT - DAY), trade(4, MIDNIGHT - MS), trade(6, MIDNIGHT + DAY)])
    assert canonical.ids_beside(connection, BTC, *span) == (4, 6)


def test_ids_that_lie_on_the_other_side_of_midnight(connection: db.Connection) -> None:
    """At most a minute away, and only those that are asked for."""
    minute = timedelta(minutes=1)
    places = [(MIDNIGHT - minute - MS, 11), (MIDNIGHT - minute, 12), (MIDNIGHT - MS, 13), (MIDNIGHT, 14)]
    places += [(MIDNIGHT + DAY - MS, 15), (MIDNIGHT + DAY, 16), (MIDNIGHT + DAY + minute, 18)]
    db.insert_trades(connection, [trade(one, when) for when, one in places])
    assert canonical.ids_around(connection, BTC, MIDNIGHT, MIDNIGHT + DAY, (1, 99)) == [12, 13, 16]
    assert canonical.ids_around(connection, BTC, MIDNIGHT, MIDNIGHT + DAY, (13, 15)) == [13]


def test_each_id_is_stored_or_in_an_open_gap(connection: db.Connection) -> None:
    """Surplus ids are both, lacking ones neither."""
    db.insert_trades(connection, [*stream(1, 3), *stream(8, 3)])
    span = MIDNIGHT, MIDNIGHT + DAY
    assert canonical.surplus(connection, BTC, *span, (1, 10)) == 0
    ask(connection, "DELETE FROM trades WHERE trade_id IN (2, 9)")
    assert canonical.surplus(connection, BTC, *span, (1, 10)) == -2
    assert canonical.surplus(connection, BTC, *span, (4, 7)) == 0
    ask(connection, "UPDATE gaps SET first_trade_id = 3, last_trade_id = 9")
    assert canonical.surplus(connection, BTC, *span, (2, 9)) == 1
