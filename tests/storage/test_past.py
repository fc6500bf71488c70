"""Days in files: each question has the same answer before and after they leave the table; per family."""

import re
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import db
from model.times import midnight
from model.trade import Trade
from storage import canonical, follow, gaps, lines, pages, past, questions, ranges, retained, series, trades
from storage.errors import FileError
from storage.follow import Copied
from storage.past import EARLIEST, LATEST
from storage.retained import LEAVING, RESTORED
from storage.stored_lines import stored_lines
from tests.makers import BTC
from tests.support.many import with_time
from tests.support.moved import days, fill, moments, move, tape
from tests.support.tables import ask

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

Times = tuple[Any, Any]
ETH, BNB = "ETHUSDT", "BNBUSDT"
MS = timedelta(milliseconds=1)
WHICH = [days(1, 2), days(0, 1, 2, 3), days(0, 1, 2, 3, 4)]


@pytest.fixture
def whole(connection: db.Connection) -> list[Trade]:
    """The trades of a tape in the table, and those of two other symbols."""
    found = tape()
    fill(connection, found)
    fill(connection, tape(ETH, seed=2))
    fill(connection, tape(BNB, seed=3)[:50])
    return found


def same(connection: db.Connection, leave: Sequence[date], answers: Callable[[], object]) -> None:
    """The answers before `leave` leave the table, while their rows are still there, and after."""
    before = answers()
    for day in leave:
        move(connection, day, state=LEAVING, keep_rows=True)
    assert answers() == before
    for day in leave:
        move(connection, day)
    assert answers() == before


@pytest.mark.parametrize("leave", WHICH)
def test_prices_of_moments(connection: db.Connection, whole: list[Trade], leave: list[date]) -> None:
    """In a second, as of a moment, of many moments at once; the newest, of one symbol and of all; the symbols."""
    times = moments(whole, 60)
    asked = [(symbol, when) for when in times for symbol in (BTC, ETH)]

    def answers() -> object:
        return (
            [trades.trades_in_second(connection, BTC, when) for when in times],
            [trades.price_as_of(connection, BTC, when) for when in times],
            trades.prices_as_of(connection, asked),
            trades.latest(connection, BTC),
            [trades.latest_of_all(connection, *more) for more in ((), ("BTB", 1), ("", 2), (BTC, 5), (BNB, 1))],
            trades.symbols(connection),
            trades.time_spans(connection),
        )

    same(connection, leave, answers)


def test_symbols_that_are_in_files_alone_are_found_by_a_few_statements(
    connection: db.Connection, whole: list[Trade], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many they are: also where the server goes through all symbols at once."""
    names = [f"COIN{n:02}USDT" for n in range(30)]
    newest = {}
    for name in names:
        coin = [one._replace(symbol=name) for one in whole[:300:20]]
        db.insert_trades(connection, coin)
        newest[name] = max(coin, key=lambda one: (one.timestamp, one.trade_id))
        move(connection, days(0)[0], name)
        if name == names[3]:
            # Some of its rows are there still.
            ask(
                connection,
                "INSERT INTO trades SELECT %s, t.timestamp, t.trade_id, 1, 1, 0, NULL FROM trades AS t"
                " WHERE symbol = %s ORDER BY t.timestamp LIMIT 1",
                name,
                BTC,
            )
    connection.retained = None
    # On a busy machine the time of the question would be up, and each symbol be asked for; and the days be asked again.
    monkeypatch.setattr(trades, "_NEWEST", with_time(trades._NEWEST, 60.0))
    monkeypatch.setattr(retained, "KNOWN_S_MAX", 3_600.0)
    assert [one for one in trades.latest_of_all(connection) if one.symbol in names] == list(newest.values())
    assert set(trades.symbols(connection)) == {BNB, BTC, ETH, *names}
    assert trades.time_spans(connection)[names[0]][1] == newest[names[0]].timestamp
    statements: list[str] = []
    for module in (past, trades, retained):

        def counted(*args: Any, real: Callable[..., Any] = module.select) -> Any:
            statements.append(args[1])
            return real(*args)

        monkeypatch.setattr(module, "select", counted)
    trades.latest_of_all(connection)
    assert len(statements) <= 2 * trades.FEW_SYMBOLS + 4


def test_a_file_that_is_gone_is_an_error_that_names_it(connection: db.Connection, whole: list[Trade]) -> None:
    """Never an answer without its trades."""
    path = move(connection, days(1)[0])
    when = midnight(days(1)[0]) + timedelta(hours=7)
    path.unlink()
    for question in (trades.price_as_of, trades.trades_in_second):
        with pytest.raises(FileError, match=str(path)):
            question(connection, BTC, when)
    assert trades.latest(connection, BTC) == max(whole, key=lambda one: (one.timestamp, one.trade_id))


def test_the_newest_trade_of_a_day_that_was_restored(connection: db.Connection, whole: list[Trade]) -> None:
    """It is in the table again, behind days that are in files: of one symbol and of all."""
    before = trades.latest_of_all(connection), trades.latest(connection, BTC)
    for day in days(0, 1, 2, 3):
        move(connection, day)
    move(connection, days(4)[0], state=RESTORED, keep_rows=True)
    assert (trades.latest_of_all(connection), trades.latest(connection, BTC)) == before


def test_what_is_missing_at_the_newest_trade(connection: db.Connection, whole: list[Trade]) -> None:
    """Also of a symbol that is not traded any more: all its days are in files, or all but one that was restored."""
    coin = [one._replace(symbol="OLDUSDT") for one in whole if one.timestamp < midnight(days(3)[0])]
    last = max(coin, key=lambda one: (one.timestamp, one.trade_id))
    fill(connection, [*coin, last._replace(trade_id=last.trade_id + 50)])

    def answers() -> object:
        found = questions.latest_prices(connection, LATEST)
        assert found == [questions.latest_price(connection, one.trade.symbol, LATEST) for one in found]
        return gaps.missing_at_newest(connection)

    before = gaps.missing_at_newest(connection)
    assert before["OLDUSDT"] >= 49
    for day in days(0, 1, 2):
        move(connection, day, "OLDUSDT")
    assert answers() == before
    ask(
        connection,
        "INSERT INTO trades SELECT 'OLDUSDT', t.timestamp, t.trade_id, 1, 1, 0, NULL FROM trades AS t WHERE symbol = %s"
        " ORDER BY t.timestamp LIMIT 1",
        BTC,
    )
    ask(connection, "UPDATE retained SET state = %s WHERE day = %s AND symbol = 'OLDUSDT'", RESTORED, days(0)[0])
    assert answers() == before


def test_without_pyarrow_the_error_says_where_the_trades_are(
    connection: db.Connection, whole: list[Trade], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And which package reads them."""
    path = move(connection, days(1)[0])
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(FileError, match=f"BTCUSDT of 2025-03-02 are in {path}: .*pip install -r requirements-tools"):
        trades.price_as_of(connection, BTC, midnight(days(1)[0]) + timedelta(hours=7))


def test_an_answer_says_that_a_file_was_read(connection: db.Connection, whole: list[Trade], tmp_path: Path) -> None:
    """Among its statements, which do not show how it was found."""
    path = move(connection, days(1)[0])
    connection.asked = []
    trades.trades_in_second(connection, BTC, midnight(days(1)[0]) + timedelta(hours=7))
    assert connection.asked == [f"-- the trades of BTCUSDT of 2025-03-02 are in {path}"]


@pytest.mark.parametrize("leave", WHICH)
def test_pages(connection: db.Connection, whole: list[Trade], leave: list[date]) -> None:
    """Of any size, from any place on, in both directions, across the border of a file and the table."""
    times = moments(whole, 40)
    places = [pages.place_of(one) for one in whole[::97]]
    spans = [(EARLIEST, LATEST), *zip(times, reversed(times), strict=True)]

    def answers() -> object:
        return (
            [pages.page(connection, BTC, after, span, 300) for after in (None, *places[::4]) for span in spans[::5]],
            [pages.page(connection, BTC, place, (EARLIEST, LATEST), size) for place in places for size in (1, 700)],
            [pages.page(connection, BTC, None, span, 5_000) for span in spans],
            [pages.newest(connection, BTC, size) for size in (1, 100, 500, 5_000)],
            [pages.newest_until(connection, BTC, place, size) for place in places for size in (1, 3, 600)],
            [pages.newer(connection, {BTC: place, ETH: place}, 20) for place in places[::3]],
            pages.newer(
                connection, {one.symbol: pages.place_of(one) for one in (tape()[-5], tape(ETH, seed=2)[-9])}, 9
            ),
            [pages.ends(connection, symbol) for symbol in (BTC, ETH, "XRPUSDT")],
            pages.newest_and_missing(connection, BTC, 500),
            [pages.last_candles(connection, BTC, 3_600, when, 30) for when in times[::4]],
        )

    same(connection, leave, answers)


@pytest.mark.parametrize("leave", WHICH[:1])
def test_trades_by_id(connection: db.Connection, whole: list[Trade], leave: list[date]) -> None:
    """Those that are stored, that are missing, and beyond both ends; around midnight, where ids run back in time."""
    numbers = [
        *range(990, 1_010),
        *range(1_390, 1_410),
        *range(1_790, 1_812),
        *range(2_195, 2_206),
        *range(1_600, 1_640),
    ]
    numbers += [2_990, *range(2_999, 3_005)]
    runs = [(first, first + length) for first in numbers[::6] for length in (0, 30, 900)]

    def answers() -> object:
        return (
            [pages.find(connection, BTC, number) for number in numbers],
            [pages.with_ids(connection, BTC, *run, size) for run in runs for size in (7, 2_000)],
            [pages.by_id(connection, BTC, run, 50) for run in runs],
            [pages.page_and_missing(connection, BTC, (EARLIEST, LATEST), number, 20) for number in numbers[::3]],
        )

    same(connection, leave, answers)


def test_ids_of_days_that_are_all_in_files(connection: db.Connection, whole: list[Trade]) -> None:
    """What the table alone does not tell: the symbol's first and last id are in files."""
    found = pages.by_id(connection, BTC, (1, 10_000), 5_000).trades
    assert [one.trade_id for one in found] == [one.trade_id for one in whole]
    for day in days(0, 1, 2, 3, 4):
        move(connection, day)
    assert pages.with_ids(connection, BTC, 1, 10_000, 5_000) == found
    assert pages.by_id(connection, BTC, (1, 10_000), 5_000).trades == found


@pytest.mark.parametrize("leave", WHICH)
def test_ranges(connection: db.Connection, whole: list[Trade], leave: list[date]) -> None:
    """Low and high with their trades, sums, candles of every resolution: of times that begin and end anywhere."""
    times = moments(whole, 36)
    spans = [tuple(sorted(pair)) for pair in zip(times[::2], times[1::2], strict=False)]
    spans += [
        (when, when + length) for when in times[::5] for length in (MS, timedelta(seconds=90), timedelta(hours=30))
    ]

    def answers() -> object:
        return (
            [ranges.min_max(connection, BTC, *span) for span in spans],
            [ranges.min_max_by_scan(connection, BTC, *span) for span in spans],
            [ranges.totals(connection, BTC, *span) for span in spans],
            [ranges.candles(connection, BTC, size, *span) for span in spans[::4] for size in (1, 90, 60, 300, 86_400)],
            [ranges.growing(connection, BTC, when) for when in times[::6]],
            [questions.range_and_volume(connection, BTC, *span) for span in spans[::3]],
        )

    same(connection, leave, answers)
    for span in spans:
        assert ranges.min_max(connection, BTC, *span) == ranges.min_max_by_scan(connection, BTC, *span)


def test_candles_alone_answer_without_the_files(connection: db.Connection, whole: list[Trade]) -> None:
    """Whole minutes, hours and days stay in the table, so that nothing is lost with a file."""
    start, end = midnight(days(1)[0]), midnight(days(3)[0])
    expected = ranges.candles(connection, BTC, 300, start, end), ranges.totals(connection, BTC, start, end)
    for day in days(1, 2):
        move(connection, day).unlink()
    assert (ranges.candles(connection, BTC, 300, start, end), ranges.totals(connection, BTC, start, end)) == expected
    with pytest.raises(FileError):
        ranges.candles(connection, BTC, 1, start, end)
    with pytest.raises(FileError):
        ranges.min_max(connection, BTC, start, end)


LAYOUTS = (lines.PLAIN, lines.BINANCE, lines.INFLUX, lines.INFLUX_TEXT, lines.CANONICAL)


@pytest.mark.parametrize("leave", WHICH)
def test_lines_are_the_same_byte_for_byte(connection: db.Connection, whole: list[Trade], leave: list[date]) -> None:
    """Of each layout, for whole days and parts of them, whatever the server rounds, cuts or pads."""
    times = moments(whole, 8)
    spans = [(midnight(days(-2)[0]), midnight(days(7)[0])), *zip(times[::2], times[1::2], strict=False)]

    def answers() -> object:
        return [
            (b"".join(chunk.text for chunk in found), sum(chunk.rows for chunk in found))
            for layout in LAYOUTS
            for span in spans
            for found in [list(stored_lines(connection, BTC, *span, layout))]
        ]

    same(connection, leave, answers)


def test_lines_of_before_2025_have_milliseconds(connection: db.Connection) -> None:
    """As the exchange's archive has; and the quote quantity is cut, not rounded."""
    when = midnight(date(2024, 12, 31)) + timedelta(hours=23, minutes=59)
    one = Trade(BTC, when, 7, Decimal("0.003127"), Decimal("4.708"), False)
    fill(connection, [one, one._replace(trade_id=8, timestamp=when + timedelta(minutes=2))])
    span = when.replace(hour=0, minute=0), when + timedelta(hours=1)
    before = b"".join(chunk.text for chunk in stored_lines(connection, BTC, *span, lines.BINANCE))
    move(connection, when.date())
    found = b"".join(chunk.text for chunk in stored_lines(connection, BTC, *span, lines.BINANCE))
    assert found == before
    assert found.startswith(b"7,0.00312700,4.70800000,0.01472191,1735689540000,False,True\n8,")


@pytest.mark.parametrize("leave", WHICH[:2])
def test_canonical_blocks_and_bars(
    connection: db.Connection, whole: list[Trade], leave: list[date], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an audit reads of each day, by time and by id; a bar that is wrong is found in a day in a file too."""
    monkeypatch.setattr("storage.stored_lines.SORTED_IDS", 150)
    spans = [(midnight(day), midnight(day) + timedelta(days=1)) for day in days(0, 1, 2, 3)]
    coin = "NEOUSDT"
    fill(connection, sorted_by_time([one._replace(symbol=coin) for one in whole]))
    for day in leave:
        move(connection, day, coin)
    ask(connection, "UPDATE candles SET low = low - 1 WHERE symbol = %s AND resolution = 60 AND trades = 4", BTC)

    def answers() -> object:
        return [
            (
                list(canonical.stored_blocks(connection, BTC, *span, by_id=True)),
                sorted(one.timestamp for one in canonical.wrong_bars(connection, BTC, *span)),
                canonical.ids_beside(connection, BTC, *span),
                canonical.ids_around(connection, BTC, *span, (1_300, 1_900)),
                canonical.surplus(connection, BTC, *span, (1_390, 1_410)),
            )
            for span in spans
        ]

    same(connection, leave, answers)
    assert len(canonical.wrong_bars(connection, BTC, *spans[1])) > 10
    for span in spans:
        assert canonical.wrong_bars(connection, coin, *span) == []
        by_time = list(canonical.stored_blocks(connection, coin, *span))
        assert by_time == list(canonical.stored_blocks(connection, coin, *span, by_id=True))
        assert sum(block.lines.count(b"\n") for block in by_time) > 300
    with pytest.raises(canonical.OutOfOrderError):
        list(canonical.stored_blocks(connection, BTC, *spans[1]))


def sorted_by_time(trades: list[Trade]) -> list[Trade]:
    """Trades whose ids rise with time."""
    ids = sorted(one.trade_id for one in trades)
    placed = sorted(trades, key=lambda one: one.timestamp)
    return [one._replace(trade_id=trade_id) for one, trade_id in zip(placed, ids, strict=True)]


@pytest.mark.parametrize("leave", WHICH)
@pytest.mark.parametrize("sampled", [False, True])
def test_the_points_of_a_chart(
    connection: db.Connection, whole: list[Trade], leave: list[date], sampled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Price, trades and lag of each step, also of one with midnight in the middle."""
    monkeypatch.setattr("storage.series.SCAN_TRADES_MAX", 0 if sampled else 10_000)
    noons = [midnight(day) + timedelta(hours=12) for day in days(0, 1, 2, 3)]
    spans = [(noons[0], noons[3]), *([] if sampled else pairwise(noons))]

    def answers() -> object:
        return [series.series(connection, BTC, start, end, 1) for start, end in spans]

    same(connection, leave, answers)


@pytest.mark.parametrize("leave", WHICH[:1])
def test_a_copy_is_told_the_same(connection: db.Connection, whole: list[Trade], leave: list[date]) -> None:
    """From its start, from any place on, and of holes that were filled."""
    midway = follow.grown(Copied(BTC), [one for one in whole[:1_100] if one.trade_id % 50])

    def answers() -> object:
        copied, steps = Copied(BTC), []
        for _ in range(12):
            found = follow.beyond(connection, copied, set(), 300)
            steps.append(found)
            copied = follow.grown(copied, found.trades) if found.trades else copied
        return steps, copied, follow.beyond(connection, midway, set(), 2_000), follow.looks(connection)

    # When a hole was found is not what this is about.
    same(connection, leave, lambda: re.sub(r"detected_at=.*?utc\)", "", repr(answers())))
