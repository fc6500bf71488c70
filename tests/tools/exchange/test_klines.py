"""Klines and the 24-hour ticker of the stand-in exchange, compared with bars made from its truth."""

import itertools
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from tests.support.child import wait_until
from tests.support.stand_in import StandIn
from tools.exchange import bars, ledger
from tools.exchange.clock import DAY_US, day_named
from tools.exchange.tape import Trade

pytestmark = pytest.mark.slow

MINUTE = 60_000_000
DAYS = ["2024-12-30", "2024-12-31", "2025-01-01"]
BEGIN = day_named(DAYS[0]) * DAY_US
ADDRESS = "/api/v3/klines?symbol=BTCUSDT"
CUT = Decimal("1e-8")


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    """Two quiet days of history, in which some minutes have no trade, and an hour and more of tape."""
    flags = ["--clock", "virtual", "--speed", "full", "--rate", "0.2", "--trades", "900", "--symbols", "BTCUSDT"]
    with StandIn(*flags, "--days", "2", "--day-trades", "2000", "--rest-lag", "0") as running:
        wait_until(lambda: bool(running.state()["tape"] == "ended"))
        yield running


@pytest.fixture(scope="module")
def lines(server: StandIn) -> list[dict[str, Any]]:
    """Every true trade."""
    return [line for day in DAYS for line in server.day("BTCUSDT", day)]


def cut(value: Decimal) -> str:
    return f"{value.quantize(CUT, 'ROUND_DOWN'):f}"


def rows_of(lines: list[dict[str, Any]], unit: int) -> list[list[Any]]:
    """The klines of these trades, in microseconds, made the simple way."""
    periods: dict[int, list[dict[str, Any]]] = {}
    for line in lines:
        periods.setdefault(line["time_us"] // unit, []).append(line)
    rows, close = list[list[Any]](), ""
    for number in range(min(periods), max(periods) + 1):
        trades = periods.get(number, [])
        prices = [Decimal(line["price"]) for line in trades] or [Decimal(close)]
        sizes = [(Decimal(line["price"]), Decimal(line["quantity"]), line["maker"]) for line in trades]
        close = cut(prices[-1])
        sums = [
            sum((size for _, size, _ in sizes), Decimal(0)),
            sum((price * size for price, size, _ in sizes), Decimal(0)),
            sum((size for _, size, maker in sizes if not maker), Decimal(0)),
            sum((price * size for price, size, maker in sizes if not maker), Decimal(0)),
        ]
        base, quote, taken, paid = map(cut, sums)
        row = [number * unit, cut(prices[0]), cut(max(prices)), cut(min(prices)), close, base, (number + 1) * unit - 1]
        rows.append([*row, quote, len(trades), taken, paid, "0"])
    return rows


def paged(server: StandIn, interval: str) -> list[list[Any]]:
    """All klines there are, page by page from 1970 on."""
    rows: list[list[Any]] = []
    while True:
        start = rows[-1][6] + 1 if rows else 0
        page = server.json(f"{ADDRESS}&interval={interval}&limit=1000&startTime={start}", micro=True)
        if not page:
            return rows
        rows += page


@pytest.mark.parametrize(
    ("interval", "unit"),
    [("1m", MINUTE), ("5m", 5 * MINUTE), ("1h", 60 * MINUTE), ("4h", 240 * MINUTE), ("1d", DAY_US)],
)
def test_klines_are_the_bars_of_the_true_trades(
    server: StandIn, lines: list[dict[str, Any]], interval: str, unit: int
) -> None:
    """All of them: history and tape, minutes without a trade, exact sums, up to the running one."""
    rows = paged(server, interval)
    assert rows == rows_of(lines, unit)
    if interval == "1m":
        assert any(row[8] == 0 for row in rows)
        assert all(row[1] == row[4] == before[4] for before, row in itertools.pairwise(rows) if row[8] == 0)


def test_klines_of_a_second_are_the_bars_of_the_true_trades(server: StandIn, lines: list[dict[str, Any]]) -> None:
    """Over midnight, where the history ends and the tape begins; the first one repeats an earlier close."""
    midnight = day_named("2025-01-01") * DAY_US
    begin, end = midnight - 400_000_000, midnight + 400_000_000
    expected = [row for row in rows_of(lines, 1_000_000) if begin <= row[0] <= end]
    found = server.json(f"{ADDRESS}&interval=1s&limit=1000&startTime={begin}&endTime={end}", micro=True)
    assert found == expected
    assert len(found) == 801


def test_times_are_in_milliseconds_unless_microseconds_are_asked_for(server: StandIn) -> None:
    """Open and close time; parameters may be in both."""
    start = (BEGIN + 7 * MINUTE) // 1000
    milli = server.json(f"{ADDRESS}&interval=1m&limit=2&startTime={start}")
    micro = server.json(f"{ADDRESS}&interval=1m&limit=2&startTime={start * 1000}", micro=True)
    assert [(row[0], row[6]) for row in milli] == [(start, start + 59_999), (start + 60_000, start + 119_999)]
    assert [(row[0], row[6]) for row in micro] == [(row[0] * 1000, row[6] * 1000 + 999) for row in milli]
    assert [row[1:6] + row[7:] for row in micro] == [row[1:6] + row[7:] for row in milli]


def test_which_klines_are_given(server: StandIn) -> None:
    """The newest without times, the first from a start, the last until an end; both ends are open times, included."""
    every = paged(server, "1m")

    def opened(query: str) -> list[int]:
        return [row[0] for row in server.json(f"{ADDRESS}&interval=1m{query}", micro=True)]

    opens = [row[0] for row in every]
    assert opened("") == opens[-500:]
    assert opened("&limit=3") == opens[-3:]
    assert opened(f"&limit=3&startTime={opens[100] + 1}") == opens[101:104]
    assert opened(f"&limit=3&endTime={opens[100]}") == opens[98:101]
    assert opened(f"&startTime={opens[100]}&endTime={opens[105]}") == opens[100:106]
    assert opened(f"&startTime={opens[-1] + 1}") == []
    assert opened(f"&endTime={opens[0] - 1}") == []
    assert opened("&limit=1&startTime=0") == opens[:1]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("&interval=7m", -1120),
        ("&interval=", -1120),
        ("", -1102),
        ("&interval=1m&limit=1001", -1130),
        ("&interval=1m&fromId=1", -1104),
    ],
)
def test_a_wrong_call_is_refused(server: StandIn, query: str, code: int) -> None:
    """With Binance's code."""
    answer = server.get(ADDRESS + query)
    assert (answer.status, answer.body["code"]) == (400, code)


def test_klines_and_ticker_cost_two(server: StandIn) -> None:
    """Each call adds two to the used weight."""
    calls = ("klines?symbol=BTCUSDT&interval=1m", "ticker/24hr?symbol=BTCUSDT") * 2
    used = [int(server.get(f"/api/v3/{call}").headers["x-mbx-used-weight-1m"]) for call in calls]
    assert 2 in {after - before for before, after in itertools.pairwise(used)}


def test_the_ticker_counts_the_last_24_hours(server: StandIn, lines: list[dict[str, Any]]) -> None:
    """First and last id, their difference, extremes and sums of the trades since this time yesterday."""
    ticker = server.json("/api/v3/ticker/24hr?symbol=BTCUSDT", micro=True)
    mine = [line for line in lines if line["time_us"] >= ticker["openTime"]]
    assert ticker["closeTime"] - ticker["openTime"] == DAY_US
    assert ticker["closeTime"] == lines[-1]["time_us"]
    assert (ticker["firstId"], ticker["lastId"]) == (mine[0]["id"], mine[-1]["id"])
    assert ticker["count"] == len(mine) == ticker["lastId"] - ticker["firstId"] + 1
    prices = [Decimal(line["price"]) for line in mine]
    assert (ticker["highPrice"], ticker["lowPrice"]) == (cut(max(prices)), cut(min(prices)))
    assert (ticker["openPrice"], ticker["lastPrice"]) == (cut(prices[0]), cut(prices[-1]))
    sizes = [Decimal(line["quantity"]) for line in mine]
    assert ticker["volume"] == cut(sum(sizes, Decimal(0)))
    worth = sum((price * size for price, size in zip(prices, sizes, strict=True)), Decimal(0))
    assert ticker["quoteVolume"] == cut(worth)


def test_one_kline_may_be_wrong(server: StandIn) -> None:
    """The middle one of one answer has another close; other calls are not meant."""
    address = f"{ADDRESS}&interval=1m&limit=5&startTime=0"
    good = server.json(address)
    server.fault("kline_wrong")
    server.json("/api/v3/ping")
    wrong = server.json(address)
    assert [row != other for row, other in zip(good, wrong, strict=True)] == [False, False, True, False, False]
    assert [n for n, value in enumerate(good[2]) if value != wrong[2][n]] == [4]
    assert server.json(address) == good


def test_klines_are_late_as_the_database_is() -> None:
    """With a lag they know what historicalTrades knows, and end with its minute."""
    with StandIn("--rest-lag", "600", "--rate", "300", "--symbols", "BTCUSDT", "--days", "1") as running:
        wait_until(lambda: len(running.truth("BTCUSDT")) > 50)
        row = running.json(f"{ADDRESS}&interval=1m&limit=1")[0]
        newest = running.json("/api/v3/historicalTrades?symbol=BTCUSDT&limit=1")[0]
        assert newest["id"] < running.truth("BTCUSDT")[0]["id"]
        assert row[4] == newest["price"] or row[8] == 0
        assert running.json("/api/v3/ticker/24hr?symbol=BTCUSDT")["lastId"] == newest["id"]


def test_the_running_minute_is_included_without_a_trade() -> None:
    """On the machine's clock the last kline is that of now, empty if nothing has traded; the minutes grow."""
    flags = ["--rest-lag", "0", "--rate", "300", "--symbols", "BTCUSDT", "--trades", "20", "--speed", "full"]
    with StandIn(*flags) as running:
        wait_until(lambda: bool(running.state()["tape"] == "ended"))
        began_s = time.time()
        rows = running.json(f"{ADDRESS}&interval=1s&limit=1000")
        assert began_s - 3 < rows[-1][0] / 1000 < time.time() + 3
        assert sum(row[8] for row in running.json(f"{ADDRESS}&interval=1m&limit=1000")) <= 5020
        time.sleep(1.1)
        empty = running.json(f"{ADDRESS}&interval=1s&limit=1")[0]
        assert (empty[8], empty[5], empty[1]) == (0, "0.00000000", running.truth("BTCUSDT")[-1]["price"])


def test_a_thousand_minutes_of_large_days_are_quick() -> None:
    """The second time well below a second, as the minutes of a day are kept."""
    flags = ["--days", "3", "--day-trades", "100000", "--symbols", "BTCUSDT"]
    with StandIn(*flags) as running:
        address = f"{ADDRESS}&interval=1m&limit=1000&startTime=0"
        first = running.json(address)
        began_s = time.monotonic()
        assert running.json(address) == first
        assert time.monotonic() - began_s < 1
        assert len(first) == 1000


def test_a_tape_out_of_order_gives_the_same_minutes() -> None:
    """A trade that comes late, as on recorded tapes, is in its minute all the same; forgotten ones stay counted."""
    trades = [Trade("BTCUSDT", n, 100 + n, 1, BEGIN + n * MINUTE // 3, n % 2 == 0) for n in range(1, 30)]
    straight, late = ledger.Ledger("BTCUSDT"), ledger.Ledger("BTCUSDT")
    for trade in trades:
        straight.add(trade, 0.0)
    found = bars.Bars(late)
    ask = bars.Ask(MINUTE, None, None, 1000)
    for trade in [*trades[10:], *trades[:10]]:
        late.add(trade, 0.0)
        found.klines(ask, len(late.ids), 0)
    assert found.klines(ask, 29, 0) == bars.Bars(straight).klines(ask, 29, 0)
