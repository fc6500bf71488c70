"""History that is loaded from lines of the archive: rows, gaps and bars are as if each trade had been stored alone."""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

import config
import db
from model import gaps
from model.gaps import Gap
from model.trade import Trade
from storage import loading, sealing
from storage.loading import Lines
from tests.makers import BTC, MIDNIGHT
from tests.support.archive_files import START_MS, line
from tests.support.child import wait_until
from tests.support.servers import PrivateServer, Server
from tests.support.tables import ask, check, due, ids_of, runs, sealed, stored, stored_ids

MINUTE = timedelta(minutes=1)
MS = timedelta(milliseconds=1)
WAIT_S_MAX = 30.0
_fresh = (f"LOAD{number}" for number in itertools.count())


def at_ms(number: int) -> int:
    """Milliseconds after MIDNIGHT: they rise with the id, give or take less than a second, as is allowed for."""
    return 400 * number + 7_919 * number % 980


def at(number: int) -> datetime:
    """The time of a trade."""
    return MIDNIGHT + at_ms(number) * MS


def trade(number: int, symbol: str = BTC) -> Trade:
    """A trade as it is stored when it was loaded."""
    price, quantity = Decimal(1 + number % 7), Decimal(number).scaleb(-8)
    return Trade(symbol, at(number), number, price, quantity, number % 3 == 0, None)


def trades(first: int, last: int, symbol: str = BTC) -> list[Trade]:
    """Those with the ids `first` to `last` (inclusive)."""
    return [trade(number, symbol) for number in range(first, last + 1)]


def lines(first: int, last: int, symbol: str = BTC) -> Lines:
    """The same trades as lines of the archive, every second one in microseconds."""

    def one(row: Trade) -> str:
        ms = START_MS + at_ms(row.trade_id)
        time = f"{ms}{row.trade_id % 1_000:03}" if row.trade_id % 2 else f"{ms}"
        return line(row.trade_id, price=row.price, qty=f"{row.quantity:.8f}", time=time, maker=row.buyer_is_maker)

    return Lines(symbol, first, last, "".join(map(one, trades(first, last))).encode())


class Loader:
    """A connection that may send files of `folder`, or only INSERTs."""

    def __init__(self, settings: config.Settings, folder: Path, by_file: bool) -> None:
        self.connection = db.connect(settings, files_from=folder)
        self.connection.takes_files = by_file
        self.file = folder / "its lines.csv"

    def load(self, some: Lines) -> int:
        """How many were new; nothing of the file is left."""
        new = db.load_history(self.connection, some, self.file)
        assert not self.file.exists()
        return new


@pytest.fixture(params=["by file", "by inserts"])
def loader(request: pytest.FixtureRequest, settings: config.Settings, tmp_path: Path) -> Iterator[Loader]:
    """One of each kind in turn, for an empty database with the schema."""
    folder = tmp_path / "it's \\ a folder"
    folder.mkdir()
    made = Loader(settings, folder, request.param == "by file")
    yield made
    db.close(made.connection)


@pytest.fixture
def other(settings: config.Settings) -> Iterator[db.Connection]:
    """A connection of somebody else, as of a capture."""
    made = db.connect(settings)
    yield made
    db.close(made)


def by_id(rows: Sequence[Trade]) -> list[Trade]:
    """Rows in the order of their ids."""
    return sorted(rows, key=lambda row: row.trade_id)


def seal(connection: db.Connection, until: datetime, symbol: str = BTC) -> bool:
    """Seals from where it is sealed."""
    return db.seal(connection, [symbol], db.sealable(connection)[symbol].sealed_until, until)


def check_all(connection: db.Connection, symbol: str = BTC) -> None:
    """Every id from the first to the last is stored or in an open gap; sealed bars are those of the trades."""
    check(connection, symbol)
    assert sealed(connection, symbol) == due(connection, symbol)


# ---- Rows.


def test_rows_of_another_history_are_refused(loader: Loader, other: db.Connection) -> None:
    """Ids that began anew, as on a test network: lower ids with later times, and the other way round."""
    db.insert_trades(other, trades(1_000, 1_010))
    earlier, later = (
        Lines(BTC, number, number, line(number, time=str(START_MS + ms)).encode())
        for number, ms in ((1_020, -10 * 60_000), (900, 60 * 60_000))
    )
    for wrong in (earlier, later):
        with pytest.raises(db.OtherHistoryError, match=f"trade {wrong.first_trade_id} of {BTC}"):
            loader.load(wrong)
    assert by_id(stored(other)) == trades(1_000, 1_010)
    assert runs(other) == []


@pytest.mark.parametrize("symbol", [BTC, "币安人生USDT", "A'B\\"])
def test_into_an_empty_database(loader: Loader, symbol: str) -> None:
    """Whole rows; a repeat changes nothing; nothing is missing."""
    assert loader.load(lines(500, 530, symbol)) == 31

    assert by_id(stored(loader.connection, symbol)) == trades(500, 530, symbol)
    assert loader.load(lines(500, 530, symbol)) == 0
    assert loader.load(lines(510, 512, symbol)) == 0
    assert by_id(stored(loader.connection, symbol)) == trades(500, 530, symbol)
    assert ask(loader.connection, "SELECT * FROM gaps") == []
    assert ask(loader.connection, "SELECT symbol, sealed_until FROM symbols") == [(symbol, None)]


@pytest.mark.parametrize("decimals", ["", "000", "999"])
def test_each_of_the_thousand_milliseconds(loader: Loader, decimals: str) -> None:
    """Is stored as it is, in either unit, in the years of the exchange; microseconds are cut off."""
    starts = [MIDNIGHT, datetime(2017, 7, 14, 4, 0, tzinfo=UTC), datetime(2037, 12, 31, 23, 59, 59, tzinfo=UTC)]
    for start, symbol in zip(starts, ("A", "B", "C"), strict=True):
        begin = int(start.timestamp()) * 1_000
        text = "".join(line(1 + number, time=f"{begin + number}{decimals}") for number in range(1_000))

        assert loader.load(Lines(symbol, 1, 1_000, text.encode())) == 1_000

        times = [(row.trade_id, row.timestamp) for row in stored(loader.connection, symbol)]
        assert times == [(1 + number, start + number * MS) for number in range(1_000)]


def test_amounts_of_any_length(loader: Loader) -> None:
    """The largest, the smallest, few decimals, zeros before the number."""
    amounts = ["999999999999.99999999", "0.00000001", "1", "007.50", "123456789012.1234567"]
    text = "".join(line(number, price=one, qty=one) for number, one in enumerate(amounts, 1))

    assert loader.load(Lines(BTC, 1, 5, text.encode())) == 5

    found = [(row.price, row.quantity) for row in stored(loader.connection)]
    assert found == [(Decimal(one), Decimal(one)) for one in amounts]


def test_more_than_a_statement_takes(loader: Loader) -> None:
    """Thousands of rows are one transaction, whatever the way."""
    assert loader.load(lines(1, 5_001)) == 5_001
    assert by_id(stored(loader.connection)) == trades(1, 5_001)
    assert loader.load(lines(4_000, 9_000)) == 3_999
    check_all(loader.connection)


def test_what_is_stored_already_is_kept(loader: Loader) -> None:
    """The row of the stream, with its time of receipt; also if the archive has another price."""
    own = trade(2)._replace(price=Decimal(9), received_at=at(3))
    db.insert_trades(loader.connection, [own])

    assert loader.load(lines(1, 3)) == 2
    assert by_id(stored(loader.connection)) == [trade(1), own, trade(3)]


@pytest.mark.parametrize(
    "changed",
    [
        {"price": "1234567890123"},
        {"qty": "0.123456789"},
        {"price": "-1000000000000"},
        {"price": "one"},
        {"qty": ""},
        {"id": "99999999999999999999"},
        {"time": "1740787200abc"},
    ],
    ids=str,
)
def test_a_row_that_the_server_would_change(loader: Loader, changed: dict[str, str]) -> None:
    """Is an error, and nothing of the piece is stored: it must not come here, and must not be rounded or clipped."""
    text = line(1) + line(2, **changed) + line(3)

    with pytest.raises(db.DatabaseError):
        loader.load(Lines(BTC, 1, 3, text.encode()))

    assert stored(loader.connection) == []
    assert not loader.file.exists()
    assert loader.load(lines(1, 3)) == 3


def test_rows_that_are_there_do_not_hide_one_that_is_changed(loader: Loader) -> None:
    """Each has its warning too."""
    loader.load(lines(1, 9))
    text = lines(1, 9).text + line(10, at_ms(10), qty="0.123456789").encode()

    with pytest.raises(db.DatabaseError):
        loader.load(Lines(BTC, 1, 10, text))
    assert stored_ids(loader.connection) == list(range(1, 10))


def test_parts_of_lines() -> None:
    """Those within a run of ids, and the time of each."""
    some = lines(5, 9)
    assert [some.within(first, last) for first, last in ((1, 99), (5, 9), (6, 7), (8, 99), (1, 5))] == [
        some,
        some,
        lines(6, 7),
        lines(8, 9),
        lines(5, 5),
    ]
    assert [some.at(number) for number in range(5, 10)] == [at(number) for number in range(5, 10)]


# ---- Gaps.


def gap(first: int, last: int, reason: str) -> tuple[Any, ...]:
    """What an open gap must have."""
    return (BTC, first, last, reason, None, at(first - 1), at(last + 1))


def open_gaps(connection: db.Connection) -> list[tuple[Any, ...]]:
    """The open gaps, without when they were detected."""
    return [(*one[:4], *one[5:]) for one in db.open_gaps(connection)]


def test_below_and_above_what_is_stored(loader: Loader) -> None:
    """What lies between is history that is not fetched yet."""
    db.insert_trades(loader.connection, trades(100, 110))

    loader.load(lines(50, 60))
    loader.load(lines(150, 160))

    assert open_gaps(loader.connection) == [gap(61, 99, gaps.HISTORY), gap(111, 149, gaps.HISTORY)]
    loader.load(lines(61, 99))
    loader.load(lines(111, 149))
    assert open_gaps(loader.connection) == []
    assert by_id(stored(loader.connection)) == trades(50, 160)


def test_right_below_and_right_above(loader: Loader) -> None:
    """Nothing is missing in between."""
    db.insert_trades(loader.connection, trades(100, 110))
    loader.load(lines(90, 99))
    loader.load(lines(111, 120))
    assert ask(loader.connection, "SELECT * FROM gaps") == []


def test_inside_of_a_gap(loader: Loader) -> None:
    """Its two ends stay open with its reason and its age, the rest is filled, and says when."""
    db.insert_trades(loader.connection, [trade(10), trade(30)], reason="because")
    (was,) = db.open_gaps(loader.connection)
    before = datetime.now(UTC)

    loader.load(lines(15, 20))

    below = was._replace(last_trade_id=14, timestamp_after=at(15))
    above = was._replace(first_trade_id=21, timestamp_before=at(20))
    assert db.open_gaps(loader.connection) == [below, above]
    ((first, last, reason, since, filled, *times),) = ask(
        loader.connection,
        "SELECT first_trade_id, last_trade_id, reason, detected_at, filled_at, timestamp_before, timestamp_after"
        " FROM gaps WHERE filled_at IS NOT NULL",
    )
    assert (first, last, reason, since.replace(tzinfo=UTC)) == (15, 20, "because", was.detected_at)
    assert before - timedelta(seconds=1) <= filled.replace(tzinfo=UTC) <= datetime.now(UTC)
    assert [one.replace(tzinfo=UTC) for one in times] == [at(15), at(20)]
    loader.load(lines(11, 29))
    assert open_gaps(loader.connection) == []
    assert ids_of(runs(loader.connection, filled=True)) == list(range(11, 30))


def test_overlapping_what_is_stored(loader: Loader) -> None:
    """Over several gaps and the runs between them, and out at both ends."""
    for first, last in ((10, 12), (20, 22), (30, 32), (50, 52)):
        db.insert_trades(loader.connection, trades(first, last), reason="because")

    loader.load(lines(5, 40))

    assert [one[:4] for one in open_gaps(loader.connection)] == [(BTC, 41, 49, "because")]
    assert runs(loader.connection, filled=True) == [(13, 19), (23, 29), (33, 40)]
    check_all(loader.connection)


def test_gaps_that_deleted_rows_have_left(loader: Loader) -> None:
    """What is loaded below the first row that is still there begins anew: only what lies between is missing."""
    for first in (10, 20, 30, 40):
        db.insert_trades(loader.connection, trades(first, first + 2))
    ask(loader.connection, "DELETE FROM trades WHERE trade_id < 30")

    loader.load(lines(15, 17))

    assert runs(loader.connection) == [(18, 29), (33, 39)]
    check_all(loader.connection)


def test_times_that_run_back(loader: Loader) -> None:
    """The first trade of a piece is not its earliest, and the last not its latest: the gaps beside it are known."""
    moments = {40: 1_000, 41: 300, 42: 5_000, 43: 9_900, 44: 9_100}
    text = "".join(line(number, 60_000 + ms) for number, ms in moments.items()).encode()
    db.insert_trades(loader.connection, [*trades(10, 12), *trades(300, 302)])
    ask(loader.connection, "DELETE FROM gaps")

    loader.load(Lines(BTC, 40, 44, text))

    assert runs(loader.connection) == [(13, 39), (45, 299)]
    assert loader.load(Lines(BTC, 40, 44, text)) == 0


# ---- Bars.


def test_bars_that_are_sealed(loader: Loader) -> None:
    """Minutes, hours and the seconds of the minute that goes on have what is loaded, before it returns."""
    last = 9_000 + 80
    db.insert_trades(loader.connection, [trade(1), trade(last + 60)])
    assert seal(loader.connection, MIDNIGHT + timedelta(seconds=at_ms(last) // 1_000 + 1))
    assert {bar.resolution for bar in sealed(loader.connection, BTC)} == {60, 3_600}

    loader.load(lines(2, 4_000))
    assert sealed(loader.connection, BTC) == due(loader.connection, BTC)
    loader.load(lines(8_000, last + 20))
    assert sealed(loader.connection, BTC) == due(loader.connection, BTC)
    assert {bar.resolution for bar in sealed(loader.connection, BTC)} == {1, 60, 3_600}


def test_bars_of_times_that_run_back(loader: Loader) -> None:
    """A piece whose first trade is in a later minute than its last, and one with a later minute in its middle."""
    db.insert_trades(loader.connection, [trade(1), trade(3_000)])
    assert seal(loader.connection, MIDNIGHT + 10 * MINUTE)

    for first, moments in (
        (10, (60_100, 59_900)),
        (20, (179_800, 180_300, 179_900)),
        (30, (240_000, 239_950, 240_100)),
    ):
        text = "".join(line(first + number, ms) for number, ms in enumerate(moments)).encode()
        loader.load(Lines(BTC, first, first + len(moments) - 1, text))
        assert sealed(loader.connection, BTC) == due(loader.connection, BTC)


# ---- Others meanwhile.


def before_rows(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Does `act` once, before the rows are sent."""
    insert, acts = loading._insert, iter([act])

    def inserted(*arguments: Any) -> int:
        for one in acts:
            one()
        return insert(*arguments)

    monkeypatch.setattr(loading, "_insert", inserted)


def before_lock(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Does `act` once, after rows and bars were made, and before the row of the symbol is locked."""
    monkeypatch.setattr(loading, "remake_statements", then(sealing.remake_statements, act))


def then(make: Callable[..., Iterator[str]], act: Callable[[], object]) -> Callable[..., Iterator[str]]:
    """`make`, which does `act` once, after its statements were sent."""
    acts = iter([act])

    def made(*arguments: Any) -> Iterator[str]:
        yield from make(*arguments)
        for one in acts:
            one()

    return made


@pytest.mark.parametrize("when", [before_rows, before_lock])
def test_a_sealing_meanwhile(
    loader: Loader, other: db.Connection, monkeypatch: pytest.MonkeyPatch, when: Callable[..., None]
) -> None:
    """Its bars are without these trades: nothing is stored, and it must be tried again."""
    db.insert_trades(other, [trade(1), trade(900)])
    when(monkeypatch, lambda: seal(other, MIDNIGHT + 2 * MINUTE))

    with pytest.raises(db.ContentionError, match="sealed meanwhile"):
        loader.load(lines(50, 250))

    assert stored_ids(loader.connection) == [1, 900]
    assert runs(loader.connection) == [(2, 899)]
    assert loader.load(lines(50, 250)) == 201
    check_all(loader.connection)


@pytest.mark.parametrize("moments", [(59_000, 59_500), (60_499, 59_900)])
def test_a_load_while_a_sealing_is_under_way(
    loader: Loader, other: db.Connection, monkeypatch: pytest.MonkeyPatch, moments: tuple[int, int]
) -> None:
    """Whose bars are made already: it is not kept, also if the first of the trades is behind its fence."""
    db.insert_trades(other, [trade(1), trade(900)])
    text = "".join(line(50 + number, ms) for number, ms in enumerate(moments)).encode()
    some = Lines(BTC, 50, 51, text)
    monkeypatch.setattr(sealing, "_bars_statements", then(sealing._bars_statements, lambda: loader.load(some)))
    monkeypatch.setattr(sealing, "FENCE_US_MAX", 1)

    assert not seal(other, MIDNIGHT + MINUTE)
    assert seal(other, MIDNIGHT + MINUTE)
    assert sealed(other, BTC) == due(other, BTC)
    assert [bar.trades for bar in sealed(other, BTC)] == [1 + sum(ms < 60_000 for ms in moments)]


@pytest.mark.parametrize("number", [45, 255, 1_200])
def test_a_trade_of_a_capture_meanwhile(
    loader: Loader, other: db.Connection, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Stored while the rows are in, but not yet accounted for: below, above, and behind all; it waits for nothing."""
    db.insert_trades(other, trades(1, 10))
    before_lock(monkeypatch, lambda: db.insert_trades(other, [trade(number)]))

    assert loader.load(lines(50, 250)) == 201

    check_all(loader.connection)
    db.insert_trades(other, [trade(1_300)])
    check_all(loader.connection)


@pytest.mark.parametrize("number", [40, 100, 140])
def test_a_trade_into_the_same_bars_meanwhile(
    loader: Loader, other: db.Connection, connection: db.Connection, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Whoever stands in the other's way tries again, and in the end the bars have both; one of the same trades too."""
    db.insert_trades(other, [trade(1), trade(900)])
    assert seal(other, MIDNIGHT + 2 * MINUTE)
    thread = threading.Thread(target=until_it_works, args=(lambda: db.insert_trades(other, [trade(number)]),))
    look = "SELECT symbol FROM symbols FOR UPDATE SKIP LOCKED"

    def late() -> None:
        thread.start()
        wait_until(lambda: ask(connection, look) == [], WAIT_S_MAX)

    before_lock(monkeypatch, late)
    until_it_works(lambda: loader.load(lines(50, 120)))
    thread.join(WAIT_S_MAX)

    assert not thread.is_alive()
    assert stored_ids(connection) == sorted({1, 900, number, *range(50, 121)})
    check_all(connection)


def until_it_works(act: Callable[[], object]) -> None:
    """Does it again while somebody is in the way."""
    while True:
        with contextlib.suppress(db.ContentionError):
            act()
            return


def test_an_error_on_the_way_leaves_nothing(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the rows, before the lock and behind it; the connection can go on."""
    db.insert_trades(loader.connection, [trade(1), trade(900)])
    assert seal(loader.connection, MIDNIGHT + 2 * MINUTE)

    def fail(*_: object) -> int:
        raise ZeroDivisionError

    for name in ("_insert", "remake_statements", "take_over", "account_run", "pull_down_fence"):
        with monkeypatch.context() as patch:
            patch.setattr(loading, name, fail)
            with pytest.raises(ZeroDivisionError):
                loader.load(lines(50, 250))
        assert stored_ids(loader.connection) == [1, 900]
        check_all(loader.connection)
    assert loader.load(lines(50, 250)) == 201
    check_all(loader.connection)


def test_a_capture_that_remembers_where_it_is(loader: Loader, other: db.Connection) -> None:
    """After an import its next trades, which would have been stored without a look, are stored with their gaps."""
    db.insert_trades(other, trades(100, 110))
    assert other.spans[BTC].last[0] == 110

    for some, next_ones, missing in (
        (lines(50, 60), trades(111, 112), [(61, 99)]),
        (lines(120, 130), trades(113, 114), [(61, 99), (115, 119)]),
        (lines(200, 210), trades(115, 119), [(61, 99), (131, 199)]),
        (lines(61, 99), [trade(215)], [(131, 199), (211, 214)]),
    ):
        loader.load(some)
        db.insert_trades(other, next_ones)
        assert runs(other) == missing
        check_all(other)
    # And the connection that has loaded stores rightly too.
    db.insert_trades(loader.connection, [trade(220)])
    assert runs(other) == [(131, 199), (211, 214), (216, 219)]


def test_a_server_that_takes_no_files(
    server: Server, settings: config.Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """INSERTs make the same tables; it is said once, with what to do."""
    if not isinstance(server, PrivateServer):
        pytest.skip("a setting of all sessions is not changed on the server that MYSQL_* names")
    loader, admin = Loader(settings, tmp_path, by_file=True), server.connect()
    loader.load(lines(5, 40, "FILES"))
    loader.load(lines(30, 60, "FILES"))
    ask(admin, "SET GLOBAL local_infile = 0")
    try:
        assert loader.load(lines(5, 40)) == 36
        assert loader.load(lines(30, 60)) == 20
    finally:
        ask(admin, "SET GLOBAL local_infile = 1")
        admin.close()

    found = [row._replace(symbol="FILES") for row in stored(loader.connection)]
    assert found == stored(loader.connection, "FILES")
    assert len(found) == 56
    assert [record.message[:33] for record in caplog.records] == ["the server takes no files (local_"]
    assert "history is stored by INSERTs" in caplog.text
    db.close(loader.connection)


# ---- Anything.

IDS = st.integers(1, 300)
RUN = st.tuples(IDS, st.integers(0, 60)).map(lambda run: (run[0], min(300, run[0] + run[1])))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("load"), RUN, st.booleans()),
        st.tuples(st.just("store"), st.lists(IDS, min_size=1, max_size=6), st.booleans()),
        st.tuples(st.just("before rows"), RUN, st.lists(IDS, min_size=1, max_size=4)),
        st.tuples(st.just("before lock"), RUN, st.lists(IDS, min_size=1, max_size=4)),
        st.tuples(st.just("seal"), st.integers(1, 130), st.none()),
    ),
    min_size=1,
    max_size=10,
)


class Machine:
    """Two writers and a loader of one symbol, and the ids that must be stored."""

    def __init__(self, loader: Loader, writers: tuple[db.Connection, db.Connection]) -> None:
        self.loader = loader
        self.writers = writers
        self.symbol = next(_fresh)
        self.ids: set[int] = set()
        self.is_sealed = False

    def store(self, ids: Sequence[int], other: bool = False) -> None:
        """Stores single trades, in their order."""
        db.insert_trades(self.writers[other], [trade(number, self.symbol) for number in ids])
        self.ids |= set(ids)

    def load(self, run: tuple[int, int]) -> None:
        """Loads a run; as many are new as were not there."""
        whole = set(range(run[0], run[1] + 1))
        new = self.loader.load(lines(*run, self.symbol))
        assert new == len(whole - self.ids)
        self.ids |= whole

    def load_while(
        self, when: Callable[[pytest.MonkeyPatch, Callable[[], object]], None], run: tuple[int, int], ids: list[int]
    ) -> None:
        """Loads a run; meanwhile the other writer stores trades, of those that it need not wait for."""
        if when is before_lock:
            # Who wants what the other has made waits, and here there is only one thread.
            ids = [] if self.is_sealed else [number for number in ids if not run[0] <= number <= run[1]]
        with pytest.MonkeyPatch.context() as patch:
            if ids:
                when(patch, lambda: self.store(ids, True))
            self.load(run)

    def seal(self, second: int) -> None:
        """Seals up to a second, if that is further."""
        found = db.sealable(self.writers[0], [self.symbol]).get(self.symbol)
        until = MIDNIGHT + timedelta(seconds=second)
        if found and (found.sealed_until is None or found.sealed_until < until):
            self.is_sealed = db.seal(self.writers[0], [self.symbol], found.sealed_until, until)

    def step(self, name: str, what: Any, how: Any) -> None:
        """One of STEPS."""
        if name == "load":
            self.load(what)
        elif name == "store":
            self.store(what, how)
        elif name == "seal":
            self.seal(what)
        else:
            self.load_while(before_rows if name == "before rows" else before_lock, what, how)

    def check(self) -> None:
        """What is stored, what is missing and what is sealed are what they must be."""
        connection = self.loader.connection
        if self.ids:
            missing = set(range(min(self.ids), max(self.ids))) - self.ids
            assert stored_ids(connection, self.symbol) == sorted(self.ids)
            assert ids_of(runs(connection, self.symbol)) == sorted(missing)
            assert ids_of([one[1:3] for one in db.open_gaps(connection, self.symbol)]) == sorted(missing)
            assert all(isinstance(one, Gap) for one in db.open_gaps(connection, self.symbol))
        check_all(connection, self.symbol)


@examples(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_stored_and_missing_are_all_whatever_happens(
    loader: Loader, connection: db.Connection, other: db.Connection, steps: list[tuple[str, Any, Any]]
) -> None:
    """Runs are loaded and trades stored in any order, one during the other, and bars are sealed in between."""
    machine = Machine(loader, (connection, other))
    for step in steps:
        machine.step(*step)
        machine.check()
