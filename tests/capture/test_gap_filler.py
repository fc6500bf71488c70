"""Gaps are filled from REST, exactly, once, and never asked for without end."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import config
import db
from binance import answers, rest
from binance.limits import Cooldown
from binance.rest import LastingError, Rest, RestError
from capture import gap_filler
from capture import pages as gap_pages
from capture.gap_filler import Backfill, Filler, is_due, missing_in
from capture.rejects import Rejects
from model.gaps import INVALID, MISSED, NOT_SERVED, REFUSED, Gap
from tests.support.child import wait_until
from tests.support.history import HISTORICAL, HISTORY, LONG_S, NEWEST, OLDEST, RUN_S_MAX, calls, fetch, leave_gap
from tests.support.scripted_rest import Reply, ScriptedRest, row, rows
from tests.support.servers import Server
from tests.support.stand_in import StandIn
from tests.support.tables import ask, check, due, runs, sealed, stored_ids

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_filling")]


@pytest.fixture
def one_family(server: Server, settings: config.Settings) -> config.Settings:
    """The settings for what is the same with every server, so that once is enough."""
    if server.family == "mysql":
        pytest.skip("once is enough, and MariaDB had its turn")
    return settings


@pytest.fixture
def rejects(tmp_path: Path) -> Iterator[Rejects]:
    """The rejects of a run."""
    thread = Rejects(tmp_path)
    thread.start()
    yield thread
    thread.close()


def filler_of(exchange: StandIn | ScriptedRest, rejects: Rejects) -> Filler:
    """A filler by hand."""
    return Filler(Rest(exchange.http if isinstance(exchange, StandIn) else exchange.url, Cooldown()), rejects)


def first_gap(connection: db.Connection) -> Gap:
    """The first open gap."""
    return db.open_gaps(connection)[0]


def page(exchange: StandIn, first: int, count: int) -> list[Any]:
    """The rows of the exchange, by another client."""
    found: list[Any] = []
    while len(found) < count:
        limit = min(1000, count - len(found))
        found += exchange.json(f"/api/v3/historicalTrades?symbol=BTCUSDT&fromId={first + len(found)}&limit={limit}")
    return found


def table(connection: db.Connection) -> list[Any]:
    """The rows of BTCUSDT in the form of the exchange's."""
    sql = "SELECT trade_id, price, quantity, timestamp, buyer_is_maker FROM trades WHERE symbol = 'BTCUSDT' ORDER BY 1"
    epoch = datetime(1970, 1, 1)  # noqa: DTZ001
    return [
        (n, str(p), str(q), (at - epoch) // timedelta(milliseconds=1), bool(m))
        for n, p, q, at, m in ask(connection, sql)
    ]


# One page after the other.


def test_a_gap_is_filled_page_by_page_with_the_exchanges_rows(
    connection: db.Connection, exchange: StandIn, rejects: Rejects
) -> None:
    """Four pages for 3,998 ids; each row is the exchange's, field by field; the gap is closed."""
    leave_gap(connection, exchange, OLDEST, NEWEST)
    filler = filler_of(exchange, rejects)
    settled = []
    while db.open_gaps(connection):
        settled.append(filler.fill_pages(connection, first_gap(connection)))
        check(connection)
    assert settled == [1000, 1000, 1000, 998]
    assert (filler.filled, filler.given_up) == (3_998, 0)
    expected = [(r["id"], r["price"], r["qty"], r["time"], r["isBuyerMaker"]) for r in page(exchange, OLDEST, HISTORY)]
    assert table(connection) == expected
    assert runs(connection, filled=True) == [(OLDEST + 1, NEWEST - 1)]
    assert ask(connection, "SELECT COUNT(*) FROM trades WHERE received_at IS NOT NULL") == [(0,)]


@pytest.mark.parametrize("pages", [2, 3, 16])
def test_pages_of_a_long_gap_are_stored_together(
    connection: db.Connection, exchange: StandIn, rejects: Rejects, monkeypatch: pytest.MonkeyPatch, pages: int
) -> None:
    """In one transaction, while the next ones are fetched: as many calls as one by one, and all are in sealed bars."""
    monkeypatch.setattr(gap_pages, "PAGES_MAX", pages)
    leave_gap(connection, exchange, OLDEST, NEWEST)
    (last,) = [found.newest for found in db.sealable(connection).values()]
    assert last is not None
    assert db.seal(connection, ["BTCUSDT"], None, last[1].replace(microsecond=0) + timedelta(seconds=1))
    filler = filler_of(exchange, rejects)
    before, found = calls(exchange), list[int]()
    while db.open_gaps(connection):
        found.append(filler.fill_pages(connection, first_gap(connection)))
        check(connection)
        assert sealed(connection, "BTCUSDT") == due(connection, "BTCUSDT")
    assert found == {2: [2_000, 1_998], 3: [3_000, 998], 16: [3_998]}[pages]
    assert (filler.filled, filler.given_up, calls(exchange) - before) == (3_998, 0, 4)


def test_pages_that_end_early_are_stored_and_asked_for_again(
    connection: db.Connection, rejects: Rejects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal, a jump and a malformed row in the middle of a long gap: what came is stored, and nothing is given up
    too soon."""
    monkeypatch.setattr(gap_pages, "PAGES_MAX", 16)
    script = iter(["good", "refuse", "good", "jump", "bad row", "good", "good", "good", "good", "good"])

    def answer(_symbol: str, query: dict[str, str]) -> Reply:
        first, limit = int(query["fromId"]), int(query["limit"])
        what = next(script)
        if what == "refuse":
            return Reply(b"{}", status=500)
        if what == "jump":
            return rows(first + 3, limit)
        if what == "bad row":
            return Reply(json.dumps([*(row(n) for n in range(first, first + limit - 1)), {"id": 1}]).encode())
        return rows(first, limit)

    with ScriptedRest(answer) as server:
        db.insert_trades(connection, rest.parse_rows("BTCUSDT", json.dumps([row(1), row(5_000)]).encode()).trades)
        filler = filler_of(server, rejects)
        steps: list[object] = []
        while gaps := db.open_gaps(connection):
            try:
                steps.append(filler.fill_pages(connection, gaps[0]))
            except RestError:
                steps.append("error")
            check(connection)
    assert steps[0] == 1_000
    assert filler.given_up == 0
    assert stored_ids(connection) == list(range(1, 5_001))


def test_a_page_fills_the_small_gaps_that_it_covers(
    connection: db.Connection, exchange: StandIn, rejects: Rejects
) -> None:
    """Fifty gaps of one id each within a thousand ids are one call."""
    leave_gap(connection, exchange, *range(OLDEST, OLDEST + 40, 2))
    filler = filler_of(exchange, rejects)
    before = calls(exchange)
    first, *later = db.open_gaps(connection)
    filler.fill_pages(connection, first, later)
    assert calls(exchange) == before + 1
    assert db.open_gaps(connection) == []
    assert stored_ids(connection) == list(range(OLDEST, OLDEST + 39))
    assert filler.filled == 19


def test_a_trade_that_the_stream_brought_meanwhile_is_one_row(
    connection: db.Connection, exchange: StandIn, rejects: Rejects
) -> None:
    """The same trade from both, in either order."""
    leave_gap(connection, exchange, OLDEST, OLDEST + 10)
    gap = first_gap(connection)
    late = fetch(exchange, [OLDEST + 4])
    db.insert_trades(connection, [late[0]._replace(received_at=datetime.now(UTC))])
    filler = filler_of(exchange, rejects)
    assert filler.fill_pages(connection, gap) == 9
    assert filler.filled == 8
    check(connection)
    assert stored_ids(connection) == list(range(OLDEST, OLDEST + 11))


def test_a_fill_that_was_cut_off_goes_on(
    connection: db.Connection, settings: config.Settings, exchange: StandIn, rejects: Rejects
) -> None:
    """After two of four pages another process, with nothing in memory, does the rest."""
    leave_gap(connection, exchange, OLDEST, NEWEST)
    filler = filler_of(exchange, rejects)
    for _ in range(2):
        filler.fill_pages(connection, first_gap(connection))
    other = db.connect(settings)
    check(other)
    assert runs(other) == [(OLDEST + 2_001, NEWEST - 1)]
    again = filler_of(exchange, rejects)
    while db.open_gaps(other):
        again.fill_pages(other, first_gap(other))
    assert filler.filled + again.filled == 3_998
    check(other)
    db.close(other)


# What the exchange does not have.


def test_a_hole_is_believed_the_third_time_and_stays_open_with_its_reason(
    connection: db.Connection, exchange: StandIn, rejects: Rejects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A jump over 100 ids: they are given up, and the rest is filled."""
    monkeypatch.setattr(gap_filler, "CONFIRM_S", 0.0)
    leave_gap(connection, exchange, OLDEST, NEWEST)
    exchange.fault("rest_hole", symbol="BTCUSDT", first=OLDEST + 1_500, last=OLDEST + 1_599, seconds=LONG_S)
    filler = filler_of(exchange, rejects)
    settled = []
    for _ in range(20):
        due = [gap for gap in db.open_gaps(connection) if gap.reason == MISSED]
        if not due:
            break
        settled.append(filler.fill_pages(connection, due[0]))
        check(connection)
    assert settled[:4] == [1_000, 499, 0, 0]
    assert settled[4] == 100
    assert (filler.filled, filler.given_up) == (3_898, 100)
    ((gap,),) = [db.open_gaps(connection)]
    assert (gap.first_trade_id, gap.last_trade_id, gap.reason) == (OLDEST + 1_500, OLDEST + 1_599, NOT_SERVED)
    assert runs(connection, filled=True) == [(OLDEST + 1, OLDEST + 1_499), (OLDEST + 1_600, NEWEST - 1)]


def test_a_hole_is_believed_only_after_hours(
    connection: db.Connection, exchange: StandIn, rejects: Rejects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is asked before: the ids keep their reason, and the waits in between double, up to a day."""
    for name, seconds in (("AGAIN_S", 1.0), ("AGAIN_S_MAX", 86_400.0), ("CONFIRM_S", 7_200.0)):
        monkeypatch.setattr(gap_filler, name, seconds)
    monkeypatch.setattr(gap_filler, "jittered", lambda seconds: seconds)
    leave_gap(connection, exchange, OLDEST, OLDEST + 100)
    exchange.fault("rest_hole", symbol="BTCUSDT", first=OLDEST + 1, last=OLDEST + 50, seconds=LONG_S)
    now = [0.0]
    filler = Filler(Rest(exchange.http, Cooldown()), rejects, lambda: now[0])
    waits: list[float] = []
    for _ in range(22):
        filler.fill_pages(connection, first_gap(connection))
        since, gap = now[0], first_gap(connection)
        while not filler.is_due(gap):
            now[0] += 1.0 if now[0] - since < 3_600 else 100.0
        waits.append(now[0] - since)
        assert (filler.given_up == 50) == (since >= 7_200.0) == (gap.reason == NOT_SERVED)
    assert waits[:12] == [2.0**n for n in range(12)]
    assert waits[-1] == pytest.approx(86_400.0, abs=100)
    exchange.clear()
    filler.fill_pages(connection, first_gap(connection))
    assert db.open_gaps(connection) == []


def test_a_jump_that_goes_away_is_filled(connection: db.Connection, exchange: StandIn, rejects: Rejects) -> None:
    """Passed over twice, then served after all: nothing is given up."""
    leave_gap(connection, exchange, OLDEST, OLDEST + 100)
    exchange.fault("rest_hole", symbol="BTCUSDT", first=OLDEST, last=OLDEST + 50, seconds=LONG_S)
    filler = filler_of(exchange, rejects)
    assert [filler.fill_pages(connection, first_gap(connection)) for _ in range(2)] == [0, 0]
    exchange.clear()
    filler.fill_pages(connection, first_gap(connection))
    assert (filler.given_up, db.open_gaps(connection)) == (0, [])


def test_a_gap_that_is_older_than_anything_served_is_given_up_whole(
    connection: db.Connection, rejects: Rejects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer starts beyond its end: no id outside the gap is touched."""
    monkeypatch.setattr(gap_filler, "CONFIRM_S", 0.0)
    with ScriptedRest(lambda _symbol, query: rows(max(int(query["fromId"]), 500), int(query["limit"]))) as server:
        trades = rest.parse_rows("BTCUSDT", json.dumps([row(10), row(20), row(600)]).encode()).trades
        db.insert_trades(connection, trades)
        filler = filler_of(server, rejects)
        assert [filler.fill_pages(connection, first_gap(connection)) for _ in range(3)] == [0, 0, 9]
        reasons = [(gap.first_trade_id, gap.last_trade_id, gap.reason) for gap in db.open_gaps(connection)]
        assert reasons == [(11, 19, NOT_SERVED), (21, 599, MISSED)]
        assert stored_ids(connection) == [10, 20, 600]
        check(connection)


def test_a_lag_is_no_reason_to_give_up(connection: db.Connection, exchange: StandIn, rejects: Rejects) -> None:
    """Where the exchange has nothing yet, it is asked again, however often."""
    leave_gap(connection, exchange, OLDEST, NEWEST)
    exchange.fault("rest_empty", seconds=LONG_S, **HISTORICAL)
    filler = filler_of(exchange, rejects)
    assert [filler.fill_pages(connection, first_gap(connection)) for _ in range(10)] == [0] * 10
    assert filler.given_up == 0
    exchange.clear()
    assert filler.fill_pages(connection, first_gap(connection)) == 1_000


def test_answers_before_the_id_asked_for_do_no_harm(connection: db.Connection, rejects: Rejects) -> None:
    """An exchange that gives other ids than those asked for: nothing outside the gap is stored, nothing given up."""
    with ScriptedRest(lambda _symbol, _query: rows(1, 5)) as server:
        trades = rest.parse_rows("BTCUSDT", json.dumps([row(10), row(20)]).encode()).trades
        db.insert_trades(connection, trades)
        filler = filler_of(server, rejects)
        assert [filler.fill_pages(connection, first_gap(connection)) for _ in range(5)] == [0] * 5
    assert stored_ids(connection) == [10, 20]
    assert filler.given_up == 0


def test_rows_out_of_order_and_repeated_are_one_row_each(connection: db.Connection, rejects: Rejects) -> None:
    """What counts is which ids came."""
    shuffled = [row(n) for n in (13, 11, 11, 12, 15, 25, 9)]
    with ScriptedRest(lambda _symbol, _query: Reply(json.dumps(shuffled).encode())) as server:
        db.insert_trades(connection, rest.parse_rows("BTCUSDT", json.dumps([row(10), row(20)]).encode()).trades)
        filler = filler_of(server, rejects)
        assert filler.fill_pages(connection, first_gap(connection)) == 3
    assert stored_ids(connection) == [10, 11, 12, 13, 15, 20]
    assert runs(connection) == [(14, 14), (16, 19)]
    assert filler.filled == 4
    check(connection)


@pytest.mark.parametrize("bad", [(11,), (19,), (15,), (11, 12, 13), tuple(range(11, 20))])
def test_rows_that_are_no_trades_are_kept_and_not_asked_for_without_end(
    connection: db.Connection, rejects: Rejects, tmp_path: Path, bad: tuple[int, ...]
) -> None:
    """At the begin, at the end, in the middle, all of them: the others are stored, and their ids stay missing."""

    def spoiled(_symbol: str, query: dict[str, str]) -> Reply:
        first, limit = int(query["fromId"]), int(query["limit"])
        found = [row(n, price="NaN") if n in bad else row(n) for n in range(first, first + limit)]
        return Reply(json.dumps(found).encode())

    with ScriptedRest(spoiled) as server:
        db.insert_trades(connection, rest.parse_rows("BTCUSDT", json.dumps([row(10), row(20)]).encode()).trades)
        filler = filler_of(server, rejects)
        for _ in range(60):
            due = [gap for gap in db.open_gaps(connection) if gap.reason == MISSED]
            if not due:
                break
            filler.fill_pages(connection, due[0])
            check(connection)
        assert {gap.reason for gap in db.open_gaps(connection)} <= {NOT_SERVED, INVALID}
    assert stored_ids(connection) == [n for n in range(10, 21) if n not in bad]
    rejects.close()
    kept = (tmp_path / "rejects.jsonl").read_text()
    assert all(f'\\"id\\": {n},' in kept for n in bad)


def test_a_row_that_the_database_refuses_stays_missing_with_that_reason(
    connection: db.Connection, exchange: StandIn, rejects: Rejects, server: Server, tmp_path: Path
) -> None:
    """It goes to the rejects with the server's words; the rest of the page is stored; it is not asked for again."""
    leave_gap(connection, exchange, OLDEST, OLDEST + 50)
    ask(connection, f"ALTER TABLE trades ADD CONSTRAINT unlucky CHECK (trade_id <> {OLDEST + 13})")
    filler = filler_of(exchange, rejects)
    assert filler.fill_pages(connection, first_gap(connection)) == 49
    (gap,) = db.open_gaps(connection)
    assert (gap.first_trade_id, gap.last_trade_id, gap.reason) == (OLDEST + 13, OLDEST + 13, REFUSED)
    assert not filler.is_due(gap)
    assert filler.fill_pages(connection, gap) == 0
    assert (filler.filled, filler.given_up) == (48, 1)
    check(connection)
    rejects.close()
    assert "unlucky" in (tmp_path / "rejects.jsonl").read_text()


def test_a_gap_is_due_after_its_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Young ones are left to the streams; a clock that was set back delays nothing."""
    monkeypatch.setattr(gap_filler, "GRACE_S", 1.5)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    gap = Gap("BTCUSDT", 1, 2, MISSED, now, None, now, now)
    ages = {0.0: False, 1.0: False, 1.5: True, 3_600.0: True, -0.001: True, -3_600.0: True}
    assert {age: is_due(gap, now + timedelta(seconds=age)) for age in ages} == ages


class Running:
    """The thread, until the block ends."""

    def __init__(self, settings: config.Settings, url: str, rejects: Rejects, cooldown: Cooldown | None = None) -> None:
        self.thread = Backfill(settings._replace(rest_url=url), cooldown or Cooldown(), rejects)

    def __enter__(self) -> Backfill:
        self.thread.start()
        return self.thread

    def __exit__(self, *_error: object) -> None:
        self.thread.stop()
        self.thread.join(RUN_S_MAX)
        assert not self.thread.is_alive()


def struck(exchange: StandIn, fault: str) -> int:
    """How often a fault has struck so far."""
    return int(exchange.state()["faults"]["struck"].get(fault, 0))


FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("rest_status", {"status": 500, "count": 3}),
    ("rest_status", {"status": 503, "count": 3}),
    ("rest_status", {"status": 451, "count": 3}),
    ("rest_reset", {"count": 3}),
    ("rest_truncated", {"count": 3}),
    ("rest_not_json", {"count": 3}),
    ("rest_empty", {"count": 3}),
    ("rest_error", {"count": 3}),
    ("rest_hang", {"count": 1, "delay": 3.0}),
    ("rest_slow", {"count": 2, "delay": 0.3}),
    ("rest_down", {"seconds": LONG_S}),
    ("rest_bad_row", {"count": 1, **HISTORICAL}),
]


@pytest.mark.parametrize("fault", FAULTS, ids=[f"{name}-{fields.get('status', '')}" for name, fields in FAULTS])
def test_a_fault_of_the_exchange_delays_and_loses_nothing(
    one_family: config.Settings,
    connection: db.Connection,
    exchange: StandIn,
    rejects: Rejects,
    fault: tuple[str, dict[str, Any]],
) -> None:
    """Whatever the answer is, it is asked again with a pause, and in the end everything is there."""
    name, fields = fault
    leave_gap(connection, exchange, OLDEST, OLDEST + 1_500)
    before = struck(exchange, name)
    exchange.fault(name, **fields)
    with pytest.MonkeyPatch.context() as patch:
        # An exchange that hangs is given up soon, by a thread that asks again.
        patch.setattr(rest, "READ_S_MAX", 0.5)
        running = Running(one_family, exchange.http, rejects)
    with running as thread:
        wait_until(lambda: struck(exchange, name) > before, RUN_S_MAX)
        if "seconds" in fields:
            # It lasts until it has struck, however long the thread takes to its first question.
            exchange.clear()
        wait_until(lambda: not db.open_gaps(connection), RUN_S_MAX)
    assert (thread.filler.filled, thread.filler.given_up) == (1_499, 0)
    check(connection)


def test_the_thread_counts_what_is_open_and_missing(
    settings: config.Settings, connection: db.Connection, exchange: StandIn, rejects: Rejects
) -> None:
    """Also what was given up, and what belongs to symbols that are not captured, which it leaves alone."""
    leave_gap(connection, exchange, OLDEST, OLDEST + 11)
    leave_gap(connection, exchange, OLDEST, OLDEST + 6, symbol="ETHUSDT")
    exchange.fault("rest_hole", symbol="BTCUSDT", first=OLDEST + 3, last=OLDEST + 4, seconds=LONG_S)
    with Running(settings._replace(symbols=("BTCUSDT",)), exchange.http, rejects) as thread:
        wait_until(lambda: (thread.open, thread.missing, thread.filler.given_up) == (2, 7, 2), RUN_S_MAX)
    assert (runs(connection), runs(connection, "ETHUSDT")) == ([(OLDEST + 3, OLDEST + 4)], [(OLDEST + 1, OLDEST + 5)])


def test_what_was_given_up_is_filled_once_the_exchange_has_it(
    settings: config.Settings, connection: db.Connection, exchange: StandIn, rejects: Rejects
) -> None:
    """By the thread itself, which asks for it again and again."""
    leave_gap(connection, exchange, OLDEST, OLDEST + 11)
    exchange.fault("rest_hole", symbol="BTCUSDT", first=OLDEST + 3, last=OLDEST + 4, seconds=LONG_S)
    with Running(settings, exchange.http, rejects) as thread:
        wait_until(lambda: thread.filler.given_up == 2, RUN_S_MAX)
        exchange.clear()
        wait_until(lambda: not db.open_gaps(connection), RUN_S_MAX)
    check(connection)


def test_a_symbol_that_is_refused_does_not_stop_the_others(
    settings: config.Settings, connection: db.Connection, rejects: Rejects
) -> None:
    """As after a delisting: the first symbols of the alphabet always fail, the last is filled all the same."""

    def delisted(symbol: str, query: dict[str, str]) -> Reply:
        if symbol != "ETHUSDT":
            return Reply(b'{"code":-1121,"msg":"Invalid symbol."}', 400)
        return rows(int(query["fromId"]), int(query["limit"]))

    symbols = ("AAVEUSDT", "BTCUSDT", "ETHUSDT", "XRPUSDT")
    for symbol in symbols:
        db.insert_trades(connection, rest.parse_rows(symbol, json.dumps([row(10), row(2_500)]).encode()).trades)
    with (
        ScriptedRest(delisted) as server,
        Running(settings._replace(symbols=symbols), server.url, rejects) as thread,
    ):
        wait_until(lambda: thread.filler.filled == 2_489, RUN_S_MAX)
        wait_until(lambda: {call["symbol"] for call in server.calls} == set(symbols), RUN_S_MAX)
    assert len(stored_ids(connection, "ETHUSDT")) == 2_491
    assert runs(connection, "BTCUSDT") == [(11, 2_499)]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a refusal it waits for hours, and counts often."""
    monkeypatch.setattr(gap_filler, "wait_after", lambda *_: 3_600.0)
    monkeypatch.setattr(gap_filler, "COUNT_S", 0.05)


def leave_scripted_gap(connection: db.Connection, symbol: str, first: int = 10) -> None:
    """A gap of nine ids, in the trades of a scripted exchange."""
    trades = rest.parse_rows(symbol, json.dumps([row(first), row(first + 10)]).encode()).trades
    db.insert_trades(connection, trades)


REFUSALS = [Reply(b'{"code":-1121,"msg":"Invalid symbol."}', 400), Reply(b'{"code":-1100,"msg":"Illegal."}', 400)]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("refusal", REFUSALS, ids=["unknown", "illegal"])
def test_a_gap_that_is_found_after_a_refusal_of_another_symbol_is_filled_soon(
    one_family: config.Settings,
    connection: db.Connection,
    rejects: Rejects,
    monkeypatch: pytest.MonkeyPatch,
    refusal: Reply,
) -> None:
    """Whoever is refused waits alone, and all that is missing is counted meanwhile."""
    monkeypatch.setattr(gap_filler, "AGAIN_S", 3_600.0)
    monkeypatch.setattr(gap_filler, "AGAIN_S_MAX", 3_600.0)

    def delisted(symbol: str, query: dict[str, str]) -> Reply:
        return refusal if symbol == "BTCUSDT" else rows(int(query["fromId"]), int(query["limit"]))

    leave_scripted_gap(connection, "BTCUSDT")
    leave_scripted_gap(connection, "BTCUSDT", 30)
    with ScriptedRest(delisted) as server, Running(one_family, server.url, rejects) as thread:
        wait_until(lambda: len(server.calls) == 1, RUN_S_MAX)
        leave_scripted_gap(connection, "ETHUSDT")
        wait_until(lambda: (thread.filler.filled, thread.open, thread.missing) == (9, 3, 27), RUN_S_MAX)
        leave_scripted_gap(connection, "ETHUSDT", 40)
        wait_until(lambda: thread.filler.filled == 9 + 19 + 9, RUN_S_MAX)
    assert [call["symbol"] for call in server.calls].count("BTCUSDT") == 1


@pytest.mark.usefixtures("patient")
def test_a_refusal_of_all_that_is_asked_is_not_provoked_and_gaps_are_counted(
    one_family: config.Settings, connection: db.Connection, rejects: Rejects
) -> None:
    """As with HTTP 451 or 403: each symbol is asked for once, at a pace, and the rest of the wait holds for all."""
    symbols = ("BTCUSDT", "ETHUSDT", "XRPUSDT")
    for symbol in symbols:
        leave_scripted_gap(connection, symbol)
    with (
        ScriptedRest(lambda *_: Reply(b"{}", 451)) as server,
        Running(one_family._replace(symbols=symbols), server.url, rejects) as thread,
    ):
        wait_until(lambda: len(server.calls) == len(symbols), RUN_S_MAX)
        for first in (30, 50):
            leave_scripted_gap(connection, "BTCUSDT", first)
            wait_until(lambda: thread.missing == missing_in(db.open_gaps(connection)), RUN_S_MAX)
    assert thread.open == 7
    assert sorted(call["symbol"] for call in server.calls) == list(symbols)


def test_a_refusal_is_no_answer_that_passes_over_an_id(rejects: Rejects) -> None:
    """However often a symbol is refused, nothing is given up for that, and its first answer ends the waits."""
    now = [0.0]
    with ScriptedRest(lambda _symbol, query: rows(int(query["fromId"]), 0)) as server:
        filler = Filler(Rest(server.url, Cooldown()), rejects, lambda: now[0])
        gap = Gap("BTCUSDT", 1, 2, MISSED, datetime.now(UTC), None, datetime.now(UTC), datetime.now(UTC))
        assert [filler.refuse("BTCUSDT", 100.0) for _ in range(3)] == [1, 2, 3]
        assert not filler.is_due(gap)
        assert filler.is_due(gap._replace(symbol="ETHUSDT"))
        filler.fill_pages(None, gap)  # type: ignore[arg-type]
    assert filler._asked[("BTCUSDT", 1)].times == 1
    assert not filler.is_refused("BTCUSDT")


def test_the_pause_that_the_exchange_orders_is_everybodys(
    settings: config.Settings, connection: db.Connection, exchange: StandIn, rejects: Rejects
) -> None:
    """After a 429 nothing is sent, the streams know of it, and the end of the program does not wait for it."""
    leave_gap(connection, exchange, OLDEST, NEWEST)
    cooldown = Cooldown()
    exchange.fault("rest_status", status=429, retry_after=600, count=1)
    with Running(settings, exchange.http, rejects, cooldown):
        wait_until(lambda: cooldown.left_s() > 0, RUN_S_MAX)
        assert 590 < cooldown.left_s() <= 600
        before = calls(exchange)
        threading.Event().wait(0.3)
    assert calls(exchange) == before
    assert runs(connection) == [(OLDEST + 1, NEWEST - 1)]


def test_a_database_that_comes_back_is_gone_on_with(
    settings: config.Settings, connection: db.Connection, exchange: StandIn, rejects: Rejects, server: Server
) -> None:
    """Its connections are killed while it fills: nothing is lost or doubled."""
    leave_gap(connection, exchange, OLDEST, NEWEST)
    exchange.fault("rest_slow", delay=0.05, seconds=LONG_S)
    mine = ask(connection, "SELECT CONNECTION_ID()")[0][0]
    with Running(settings, exchange.http, rejects) as thread:
        for n in range(1, 4):
            wait_until(lambda n=n: thread.filler.filled >= 1_000 * n - 2 or not db.open_gaps(connection), RUN_S_MAX)  # type: ignore[misc]
            sql = "SELECT id FROM information_schema.processlist WHERE db = %s AND id <> %s"
            for (number,) in ask(connection, sql, settings.mysql_database, mine):
                ask(connection, f"KILL CONNECTION {number}")
        wait_until(lambda: not db.open_gaps(connection), RUN_S_MAX)
    check(connection)
    assert len(stored_ids(connection)) == HISTORY


def test_a_defect_does_not_end_the_thread(
    settings: config.Settings,
    connection: db.Connection,
    exchange: StandIn,
    rejects: Rejects,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is logged, and the thread goes on."""
    leave_gap(connection, exchange, OLDEST, OLDEST + 9)
    left = [3]
    real = Filler.fill_pages

    def defect(self: Filler, *arguments: Any) -> int:
        left[0] -= 1
        if left[0] >= 0:
            raise ZeroDivisionError
        return real(self, *arguments)

    monkeypatch.setattr(Filler, "fill_pages", defect)
    with Running(settings, exchange.http, rejects):
        wait_until(lambda: not db.open_gaps(connection), RUN_S_MAX)


def test_a_rest_error_is_told_by_hand(rejects: Rejects) -> None:
    """fill_pages raises it; what to do is the caller's."""
    with ScriptedRest(lambda _symbol, _query: Reply(status=500)) as server:
        filler = filler_of(server, rejects)
        gap = Gap("BTCUSDT", 1, 2, MISSED, datetime.now(UTC), None, datetime.now(UTC), datetime.now(UTC))
        with pytest.raises(RestError):
            filler.fill_pages(None, gap)  # type: ignore[arg-type]


def test_months_of_refusals_keep_their_pace(rejects: Rejects) -> None:
    """The wait between two tries stays within its bound, jitter included."""
    thread = Backfill(config.Settings(), Cooldown(), rejects)
    waits = [thread._step_back(LastingError("an API key is wanted")) for _ in range(2_000)]
    assert answers.LASTING_S_MAX <= waits[-1] <= answers.LASTING_S_MAX * 1.25


def test_gaps_that_are_found_while_it_waits_for_the_exchange_are_counted(
    one_family: config.Settings,
    connection: db.Connection,
    exchange: StandIn,
    rejects: Rejects,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The wait for the next minute of the exchange's weight may be long, and the log's line must not be outdated."""
    monkeypatch.setattr(gap_filler, "COUNT_S", 0.05)
    cooldown = Cooldown()
    cooldown.order(RUN_S_MAX)
    leave_gap(connection, exchange, OLDEST, OLDEST + 500)
    with Running(one_family, exchange.http, rejects, cooldown) as thread:
        wait_until(lambda: thread.open == 1, RUN_S_MAX)
        leave_gap(connection, exchange, OLDEST + 600, OLDEST + 700)
        wait_until(lambda: thread.open == 3, RUN_S_MAX)
        assert thread.missing == missing_in(db.open_gaps(connection))
