"""Contract 3 in the database: stored ids and open gaps are every id from the first stored to the last, always."""

import subprocess
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import mysql.connector
import pytest
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

import config
import db
from model import gaps
from model.trade import Trade
from mysqld import program
from storage import gaps as stored_gaps
from storage import sealing
from tests.support.servers import PrivateServer, Server
from tests.support.tables import COMPLETENESS, age, ask, check, ids_of, runs, stored_ids

MIDNIGHT = datetime(2025, 3, 1, tzinfo=UTC)
_fresh = (f"GAPS{number}" for number in count())


def at(trade_id: int) -> datetime:
    """A time stamp that rises with the id, give or take less than the second that db.py allows for."""
    return MIDNIGHT + timedelta(milliseconds=20 * trade_id + 7_919 * trade_id % 980)


def trade(trade_id: int, symbol: str = "BTCUSDT", streamed: bool = True) -> Trade:
    """A trade of which only the id matters; one that was not streamed was back-filled."""
    when = at(trade_id)
    return Trade(symbol, when, trade_id, Decimal(1 + trade_id % 7), Decimal("1"), False, when if streamed else None)


def trades(*ids: int, symbol: str = "BTCUSDT", streamed: bool = True) -> list[Trade]:
    """The trades of `ids`, in their order."""
    return [trade(number, symbol, streamed) for number in ids]


def test_the_first_trades_are_not_a_gap(connection: db.Connection) -> None:
    """What happened before the first stored trade is history."""
    assert db.insert_trades(connection, trades(1_000_000, 1_000_001)) == 2
    assert ask(connection, "SELECT * FROM gaps") == []


def test_a_jump_is_a_row_with_all_its_facts(connection: db.Connection) -> None:
    """Ids, reason, both clocks and the neighbours' time stamps; the caller learns of it as well."""
    opened: list[gaps.Gap] = []
    before = datetime.now(UTC)

    db.insert_trades(connection, trades(10, 11, 15), opened, "because")

    (gap,) = db.open_gaps(connection)
    assert gap == gaps.Gap("BTCUSDT", 12, 14, "because", gap.detected_at, None, at(11), at(15))
    assert before <= gap.detected_at <= datetime.now(UTC)
    assert [(found.symbol, *found[1:3], *found[6:]) for found in opened] == [("BTCUSDT", 12, 14, at(11), at(15))]


def test_a_repeated_trade_does_not_hide_a_jump(connection: db.Connection) -> None:
    """As many trades as ids are expected, but one of them twice: the hole between them is seen."""
    db.insert_trades(connection, trades(1))
    db.insert_trades(connection, trades(2, 4, 4))

    assert runs(connection) == [(3, 3)]


def test_the_time_away_is_a_gap(connection: db.Connection, settings: config.Settings) -> None:
    """A new process knows from the table which id comes next, for each of its symbols."""
    db.insert_trades(connection, [*trades(10), *trades(500, symbol="ETHUSDT")])
    again = db.connect(settings)

    db.insert_trades(again, [*trades(13), *trades(501, symbol="ETHUSDT")], reason=gaps.AWAY)

    assert [(gap.symbol, *gap[1:4]) for gap in db.open_gaps(again)] == [("BTCUSDT", 11, 12, gaps.AWAY)]
    assert db.open_gaps(again, "ETHUSDT") == []


def test_history_may_be_added(connection: db.Connection) -> None:
    """Trades below the first stored one move the begin; what lies between is missing then."""
    db.insert_trades(connection, trades(10, 12))
    db.insert_trades(connection, trades(5))

    assert runs(connection) == [(6, 9), (11, 11)]


def test_a_reordering_leaves_no_trace(connection: db.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A jump that the stream itself makes good at once is no gap and was none."""
    # However slow the machine is.
    monkeypatch.setattr(stored_gaps, "ABSORB_S", 3_600)
    for number in (1, 4, 3, 2, 6, 5):
        db.insert_trades(connection, trades(number))

    assert ask(connection, "SELECT * FROM gaps") == []


def test_a_gap_that_is_filled_page_by_page_is_one_row(connection: db.Connection) -> None:
    """Back-filling shrinks the open part, and what is filled stays as one row with the time of the last page."""
    db.insert_trades(connection, trades(1, 10))
    detected = db.open_gaps(connection)[0].detected_at

    db.insert_trades(connection, trades(2, 3, 4, streamed=False))
    assert (runs(connection), runs(connection, filled=True)) == ([(5, 9)], [(2, 4)])
    db.insert_trades(connection, trades(4, 5, 6, 7, streamed=False))
    assert (runs(connection), runs(connection, filled=True)) == ([(8, 9)], [(2, 7)])
    db.insert_trades(connection, trades(8, 9, 10, streamed=False))
    assert (runs(connection), runs(connection, filled=True)) == ([], [(2, 9)])

    ((symbol, first, last, reason, when, filled_at, _, _),) = ask(connection, "SELECT * FROM gaps")
    assert (symbol, first, last, reason) == ("BTCUSDT", 2, 9, gaps.MISSED)
    assert when.replace(tzinfo=UTC) == detected <= filled_at.replace(tzinfo=UTC) <= datetime.now(UTC)


def test_late_trades_split_an_old_gap(connection: db.Connection) -> None:
    """Trades in the middle leave two open parts, and say what was filled."""
    db.insert_trades(connection, trades(1, 10))
    age(connection)

    db.insert_trades(connection, trades(3, 4, 8))

    assert (runs(connection), runs(connection, filled=True)) == ([(2, 2), (5, 7), (9, 9)], [(3, 4), (8, 8)])
    check(connection)


def test_ids_that_are_not_to_be_had_stay_missing(connection: db.Connection) -> None:
    """What is given up stays open under its own reason, the rest keeps its own; a trade that turns up fills it."""
    db.insert_trades(connection, trades(1, 10))

    assert db.give_up(connection, "BTCUSDT", 4, 6, gaps.NOT_SERVED) == 3
    assert [gap[1:4] for gap in db.open_gaps(connection)] == [
        (2, 3, gaps.MISSED),
        (4, 6, gaps.NOT_SERVED),
        (7, 9, gaps.MISSED),
    ]
    assert db.give_up(connection, "BTCUSDT", 1, 3, gaps.NOT_SERVED) == 2
    assert db.give_up(connection, "BTCUSDT", 20, 30, gaps.NOT_SERVED) == 0
    db.insert_trades(connection, trades(5, streamed=False))

    assert runs(connection) == [(2, 3), (4, 4), (6, 6), (7, 9)]
    check(connection)


def test_a_refused_batch_opens_no_gap(connection: db.Connection) -> None:
    """Neither the table nor the caller hears of a gap whose transaction did not come to its end."""
    opened: list[gaps.Gap] = []
    db.insert_trades(connection, trades(1))

    with pytest.raises(db.RefusedError):
        db.insert_trades(connection, [*trades(5), trade(9)._replace(price=Decimal("NaN"))], opened)

    assert (opened, runs(connection)) == ([], [])
    db.insert_trades(connection, trades(2))
    assert runs(connection) == []


@pytest.mark.parametrize("size", [2, 20])
def test_a_commit_that_is_refused_is_not_remembered(
    connection: db.Connection, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """A cluster can refuse the commit itself: the connection lives on, and nothing of the batch counts, whether it is a
    few trades in one statement or many in a transaction."""
    db.insert_trades(connection, trades(1))
    send = db.Connection.cmd_query

    def refuse(opened: db.Connection, query: Any, **options: Any) -> Any:
        if not query.endswith("COMMIT") and not query.startswith("INSERT INTO trades"):
            return send(opened, query, **options)
        send(opened, "ROLLBACK")
        raise mysql.connector.errors.get_mysql_exception(1213, "Deadlock found", "40001")

    monkeypatch.setattr(db.Connection, "cmd_query", refuse)
    with pytest.raises(db.ContentionError):
        db.insert_trades(connection, trades(*range(2, 2 + size)))
    monkeypatch.undo()
    db.insert_trades(connection, trades(2 + size))

    assert (stored_ids(connection), runs(connection)) == ([1, 2 + size], [(2, 1 + size)])


def test_writers_that_alternate_see_each_other(settings: config.Settings) -> None:
    """What another connection stored, a gap it opened or one it gave up, is never taken for missing."""
    one, other = db.connect(settings), db.connect(settings)
    db.insert_trades(one, trades(1))
    db.insert_trades(other, trades(2, 3))
    db.insert_trades(one, trades(4))
    db.insert_trades(other, trades(5, 9))
    db.insert_trades(one, trades(9, 10))

    assert runs(one) == [(6, 8)]

    # Giving up makes `one` the last writer, but does not tell it what `other` has stored meanwhile.
    db.insert_trades(other, trades(11, 12, 13))
    db.give_up(one, "BTCUSDT", 6, 8, gaps.NOT_SERVED)
    db.insert_trades(one, trades(14))

    assert runs(one) == [(6, 8)]


def test_what_comes_next_takes_one_round_trip(settings: config.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked first, not even with several symbols; after another writer's trades all is looked up again."""
    one, other = db.connect(settings), db.connect(settings)
    db.insert_trades(one, [*trades(1), *trades(5, symbol="ETHUSDT")])
    asked: list[str] = []
    send = db.Connection.cmd_query

    def watch(opened: db.Connection, query: Any, **options: Any) -> Any:
        asked.append(query)
        return send(opened, query, **options)

    monkeypatch.setattr(db.Connection, "cmd_query", watch)
    assert db.insert_trades(one, [*trades(3, 2), *trades(6, symbol="ETHUSDT")]) == 3
    assert len(asked) == (1 if db.is_fast() else len(asked))
    monkeypatch.undo()

    db.insert_trades(other, trades(4, 9, symbol="ETHUSDT"))
    assert db.insert_trades(one, [*trades(4), *trades(7, symbol="ETHUSDT")]) == 2
    assert db.insert_trades(one, [*trades(5), *trades(10, symbol="ETHUSDT")]) == 2

    assert [gap[:3] for gap in db.open_gaps(one)] == [("ETHUSDT", 8, 8)]
    check(one)


@pytest.mark.parametrize("back_ms", [1, 500, 999])
def test_time_stamps_that_go_backwards_are_no_gap(settings: config.Settings, back_ms: int) -> None:
    """The newest time stamp is not that of the largest id, nor the oldest that of the smallest: nobody is misled."""
    early, late = MIDNIGHT, MIDNIGHT + timedelta(milliseconds=back_ms)
    hours = timedelta(hours=3)
    first = [trade(11)._replace(timestamp=early), trade(10)._replace(timestamp=late)]
    last = [trade(12)._replace(timestamp=late + hours), trade(13)._replace(timestamp=early + hours)]
    db.insert_trades(db.connect(settings), [*first, *last])
    again = db.connect(settings)

    db.insert_trades(again, [trade(14)._replace(timestamp=late + hours)])
    db.insert_trades(db.connect(settings), [trade(9)._replace(timestamp=early)])

    assert ask(again, "SELECT * FROM gaps") == []


def test_one_statement_proves_completeness(connection: db.Connection) -> None:
    """It holds for every symbol, and says so when a trade, a gap or a second copy is not accounted for."""
    db.insert_trades(connection, [*trades(5, 6, 9, 12), *trades(1, symbol="ETHUSDT")])
    sound = [("BTCUSDT", 4, 4, 1), ("ETHUSDT", 1, 0, 1)]
    assert ask(connection, COMPLETENESS) == sound

    spoiled = [
        ("DELETE FROM trades WHERE trade_id = 6", trades(6)),
        ("DELETE FROM gaps WHERE first_trade_id = 7", None),
        ("INSERT INTO trades SELECT symbol, timestamp + INTERVAL 1 HOUR, 5, 1, 1, 1, NULL FROM trades LIMIT 1", None),
    ]
    for sql, repair in spoiled:
        ask(connection, sql)
        assert ask(connection, COMPLETENESS)[0][3] == 0
        if repair:
            db.insert_trades(connection, repair)
            assert ask(connection, COMPLETENESS) == sound


def test_the_statement_can_be_pasted_into_the_client(connection: db.Connection, server: Server, database: str) -> None:
    """The mysql CLI takes it as it is."""
    db.insert_trades(connection, trades(5, 6, 9))
    try:
        client = program.find_client()
    except program.ServerError as error:
        pytest.skip(str(error))
    if not isinstance(server, PrivateServer):
        pytest.skip("the client would need the password of the server that MYSQL_* names")
    line = [str(client), "--no-defaults", f"--socket={server.socket_path}", "--user=root", "--batch", database]
    done = subprocess.run(line, input=COMPLETENESS, capture_output=True, text=True)

    assert (done.stdout, done.returncode) == (
        "symbol\ttrades_stored\tids_missing\taccounted_for\nBTCUSDT\t3\t2\t1\n",
        0,
    )


# ---- Any order, repetition and loss, from any connection.

IDS_MAX = 40
SYMBOLS = 2
CONNECTIONS = 3
_numbers = st.integers(1, IDS_MAX)
_symbol = st.integers(0, SYMBOLS - 1)
_which = st.integers(0, CONNECTIONS - 1)


class Tables(RuleBasedStateMachine):
    """Several writers do all that writers do; after each step the tables are what the model says."""

    def __init__(self, connect: Callable[[], db.Connection], pool: list[db.Connection]) -> None:
        super().__init__()
        self.connect = connect
        self.pool = pool
        self.symbols = [next(_fresh) for _ in range(SYMBOLS)]
        self.stored: dict[str, set[int]] = defaultdict(set)
        self.given_up: dict[str, set[int]] = defaultdict(set)
        self.old: dict[str, set[int]] = defaultdict(set)
        self.recorded: dict[str, set[int]] = defaultdict(set)

    def missing(self, symbol: str) -> set[int]:
        """What the model takes for missing."""
        stored = self.stored[symbol]
        return set(range(min(stored), max(stored) + 1)) - stored if stored else set()

    def store(self, which: int, batch: list[tuple[str, int]], streamed: bool) -> None:
        """Inserts a batch by one of the connections, and says in the model what must come of it."""
        expected = {pair for pair in batch if pair[1] not in self.stored[pair[0]]}
        for symbol, number in expected & {(name, lost) for name, _ in batch for lost in self.missing(name)}:
            if number in self.old[symbol] or not streamed:
                self.recorded[symbol].add(number)
        for symbol, number in batch:
            self.stored[symbol].add(number)
            self.given_up[symbol].discard(number)
            self.old[symbol].discard(number)

        rows = [trade(number, symbol, streamed) for symbol, number in batch]
        assert db.insert_trades(self.pool[which], rows) == len(expected)

    @rule(which=_which, batch=st.lists(st.tuples(_symbol, _numbers), min_size=1, max_size=8), streamed=st.booleans())
    def insert(self, which: int, batch: list[tuple[int, int]], streamed: bool) -> None:
        """Any trades in any order."""
        self.store(which, [(self.symbols[symbol], number) for symbol, number in batch], streamed)

    @rule(which=_which, symbol=_symbol, size=st.integers(1, 5), skip=st.sampled_from([0, 0, 0, 1, 3]))
    def stream(self, which: int, symbol: int, size: int, skip: int) -> None:
        """The next trades of a symbol, after some that were lost."""
        name = self.symbols[symbol]
        start = max(self.stored[name], default=0) + 1 + skip
        self.store(which, [(name, number) for number in range(start, start + size)], True)

    @rule(which=_which, symbol=_symbol, size=st.integers(1, 6))
    def fill(self, which: int, symbol: int, size: int) -> None:
        """A page of the back-fill: from the begin of the first open gap, and on into what is stored behind it."""
        name = self.symbols[symbol]
        start = min(self.missing(name), default=0)
        if start:
            self.store(which, [(name, number) for number in range(start, start + size)], False)

    @rule(which=_which, symbol=_symbol, first=_numbers, more=st.integers(0, 9))
    def give_up(self, which: int, symbol: int, first: int, more: int) -> None:
        """The exchange does not have these ids."""
        name = self.symbols[symbol]
        lost = self.missing(name) & set(range(first, first + more + 1))
        self.given_up[name] |= lost
        self.old[name] -= lost
        assert db.give_up(self.pool[which], name, first, first + more, gaps.NOT_SERVED) == len(lost)

    @rule(which=_which)
    def reconnect(self, which: int) -> None:
        """A writer is started again, and knows only what is in the tables."""
        db.close(self.pool[which])
        self.pool[which] = self.connect()

    @rule()
    def wait(self) -> None:
        """Time passes, so that every gap becomes more than a reordering."""
        age(self.pool[0])
        for symbol in self.symbols:
            self.old[symbol] = self.missing(symbol)

    @invariant()
    def tables_are_as_the_model_says(self) -> None:
        """Stored, missing with their reason, and filled: each exactly the ids of the model."""
        for symbol in self.symbols:
            connection = self.pool[0]
            found = db.open_gaps(connection, symbol)
            lost = [(number, gap.reason) for gap in found for number in range(gap[1], gap[2] + 1)]

            assert stored_ids(connection, symbol) == sorted(self.stored[symbol])
            assert lost == [
                (number, gaps.NOT_SERVED if number in self.given_up[symbol] else gaps.MISSED)
                for number in sorted(self.missing(symbol))
            ]
            assert sorted(ids_of(runs(connection, symbol, filled=True))) == sorted(self.recorded[symbol])

    def teardown(self) -> None:
        """The statement of the README agrees."""
        complete = {symbol: flag for symbol, _, _, flag in ask(self.pool[0], COMPLETENESS)}
        assert all(complete[symbol] == 1 for symbol in self.symbols if self.stored[symbol])


@pytest.mark.slow
def test_nothing_is_ever_unaccounted_for(settings: config.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any order, repetition and loss of ids, by writers that alternate, restart, fill and give up."""
    # Whether a gap is young must not depend on how quick the machine is.
    monkeypatch.setattr(stored_gaps, "ABSORB_S", 3_600)
    pool = [db.connect(settings) for _ in range(CONNECTIONS)]

    class Here(Tables):
        def __init__(self) -> None:
            super().__init__(lambda: db.connect(settings), pool)

    run_state_machine_as_test(Here, settings=examples(max_examples=40, stateful_step_count=15))
    for connection in pool:
        db.close(connection)


# What an exchange must never send, and what an operator may do.


def plain(trade_id: int, seconds: float, symbol: str = "BTCUSDT") -> Trade:
    """A trade so many seconds after midnight."""
    when = MIDNIGHT + timedelta(seconds=seconds)
    return Trade(symbol, when, trade_id, Decimal("1"), Decimal("1"), False, when)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(plain(7, 4_000.0), id="lower than all, and later"),
        pytest.param(plain(1_050, 4_000.0), id="within, and later"),
        pytest.param(plain(1_100, 4_000.0), id="the last again, and later"),
        pytest.param(plain(1_105, -3_600.0), id="higher than all, and before the first"),
    ],
)
def test_ids_that_begin_anew_are_another_history(connection: db.Connection, other: Trade) -> None:
    """Nothing is stored, and no gap of a million ids is opened; the line says what it is and names the way out."""
    db.insert_trades(connection, [plain(number, number - 1_000.0) for number in range(1_000, 1_101)])
    before = [ask(connection, f"SELECT * FROM {table}") for table in ("trades", "gaps")]

    with pytest.raises(db.OtherHistoryError, match=r"begun anew.*MYSQL_DATABASE"):
        db.insert_acceptable(connection, [other], lambda *_: None)

    assert [ask(connection, f"SELECT * FROM {table}") for table in ("trades", "gaps")] == before


@pytest.mark.parametrize("back_s", [0.5, 2.5, 40.0])
@pytest.mark.parametrize("is_sealed", [False, True])
def test_times_that_run_back_before_a_restart_hide_no_id(
    connection: db.Connection, settings: config.Settings, back_s: float, is_sealed: bool
) -> None:
    """The last ids stored are of a time before that of others: the next process knows them, whatever the distance."""
    late = [plain(number, 100.0 + number) for number in range(1, 51)]
    early = [plain(number, 150.0 - back_s + number / 1_000) for number in range(51, 61)]
    db.insert_trades(connection, late)
    db.insert_trades(connection, early)
    if is_sealed:
        sealing.seal_history(connection, "BTCUSDT")
        db.insert_trades(connection, [plain(61, 150.5)])
    db.close(connection)
    again = db.connect(settings)
    following = 62 if is_sealed else 61

    db.insert_trades(again, [plain(following, 151.0)])
    assert runs(again) == []
    db.insert_trades(again, [plain(following + 3, 152.0)])
    assert runs(again) == [(following + 1, following + 2)]


def test_a_symbol_whose_bars_are_all_sealed_knows_its_last_id(
    connection: db.Connection, settings: config.Settings
) -> None:
    """From days to hours to minutes to the trade, also where its time is not the last one."""
    days = [plain(number, number * 5_000.0) for number in range(1, 60)]
    db.insert_trades(connection, [*days, plain(60, 59 * 5_000.0 - 30.0), plain(61, 60 * 5_000.0)])
    sealing.seal_history(connection, "BTCUSDT")
    ask(connection, "DELETE FROM trades WHERE trade_id = 61")
    connection.commit()
    again = db.connect(settings)

    db.insert_trades(again, [plain(61, 60 * 5_000.0), plain(62, 60 * 5_000.0 + 1)])
    assert runs(again) == []


def test_only_what_lies_right_behind_the_stored_is_the_time_away(connection: db.Connection) -> None:
    """Each symbol for itself: what is missing within the first batch, or later, is missing in the stream."""
    db.insert_trades(connection, [plain(10, 1.0), plain(500, 1.0, "ETHUSDT")])

    db.insert_trades(connection, [plain(15, 2.0), plain(18, 3.0)], resumed={"BTCUSDT", "ETHUSDT"})
    db.insert_trades(connection, [plain(503, 2.0, "ETHUSDT")], resumed={"ETHUSDT"})
    db.insert_trades(connection, [plain(506, 3.0, "ETHUSDT")], resumed={"XRPUSDT"})

    assert [(gap.first_trade_id, gap.last_trade_id, gap.reason) for gap in db.open_gaps(connection)] == [
        (11, 14, gaps.AWAY),
        (16, 17, gaps.MISSED),
        (501, 502, gaps.AWAY),
        (504, 505, gaps.MISSED),
    ]


def test_what_lies_before_the_first_stored_trade_is_not_missing(
    connection: db.Connection, settings: config.Settings
) -> None:
    """Old rows were deleted, with a gap among them and one at their end: the list and the proof know only what is left;
    the capture removes the rows of such gaps, and older trades that are stored later open gaps of their own."""
    db.insert_trades(connection, [plain(number, number) for number in (1, 5, 100, 110, 200)])
    assert runs(connection) == [(2, 4), (6, 99), (101, 109), (111, 199)]

    ask(connection, "DELETE FROM trades WHERE trade_id < 110")
    connection.commit()

    assert [(gap.first_trade_id, gap.last_trade_id) for gap in db.open_gaps(connection)] == [(111, 199)]
    assert stored_gaps.count_open_gaps(connection) == {"BTCUSDT": stored_gaps.OpenGaps(1, 89)}
    assert [gap.first_trade_id for gap in stored_gaps.last_open_gaps(connection, "BTCUSDT", 9)] == [111]
    assert [(str(row[0]), int(row[2]), row[3]) for row in ask(connection, COMPLETENESS)] == [("BTCUSDT", 89, 1)]
    again = stored_gaps.forget_history(connection)
    assert (again, stored_gaps.forget_history(connection)) == (3, 0)
    db.insert_trades(db.connect(settings), [plain(50, 50.0)])
    assert [(gap.first_trade_id, gap.last_trade_id) for gap in db.open_gaps(connection)] == [(51, 109), (111, 199)]
    assert [(int(row[2]), row[3]) for row in ask(connection, COMPLETENESS)] == [(59 + 89, 1)]


def test_without_a_trade_nothing_is_known_to_be_missing(connection: db.Connection) -> None:
    """All rows were deleted: their gaps are of a time before the recorder."""
    db.insert_trades(connection, [plain(1, 1.0), plain(5, 5.0)])
    ask(connection, "DELETE FROM trades")
    connection.commit()

    assert db.open_gaps(connection) == []
    assert ask(connection, COMPLETENESS) == []


def test_the_longest_gaps_of_a_time(connection: db.Connection) -> None:
    """Those that reach into it, and how many ids they have; of too many the longest, in order."""
    db.insert_trades(connection, [plain(number, number) for number in (1, 5, 10, 30, 33, 40)])
    between = MIDNIGHT + timedelta(seconds=6), MIDNIGHT + timedelta(seconds=33)

    assert stored_gaps.count_gaps_in(connection, "BTCUSDT", *between) == stored_gaps.OpenGaps(3, 4 + 19 + 2)
    found = stored_gaps.gaps_in(connection, "BTCUSDT", *between, size=2)
    assert [(gap.first_trade_id, gap.last_trade_id) for gap in found] == [(6, 9), (11, 29)]
    assert stored_gaps.missing_in(connection, "BTCUSDT", *between, after_id=10) == 21
