"""The sealing thread of the capture: what it seals when, and that it lets nobody wait and gives up for nothing."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import config
import db
from capture import sealer
from capture.sealer import Sealer, _Symbol
from model.gaps import Point
from storage.sealing import Sealable
from tests.makers import BTC, MIDNIGHT, trade
from tests.support.child import wait_until
from tests.support.tables import ask, due, sealed

SECOND, MINUTE, HOUR, DAY = (timedelta(seconds=length) for length in (1, 60, 3_600, 86_400))


# ---- What can be sealed.


@pytest.mark.parametrize(
    ("sealed_until", "newest", "quiet_s", "clock", "goal"),
    [
        # Nothing is sealed yet: up to the minute of the newest trade, and its margin.
        (None, MIDNIGHT + 90 * SECOND, 0, MIDNIGHT, MIDNIGHT + MINUTE),
        (None, MIDNIGHT + MINUTE + SECOND / 2, 0, MIDNIGHT, MIDNIGHT),
        # The minute goes on.
        (MIDNIGHT + MINUTE, MIDNIGHT + 90 * SECOND, 0, MIDNIGHT, None),
        (MIDNIGHT + MINUTE, MIDNIGHT + 121 * SECOND, 0, MIDNIGHT, MIDNIGHT + 2 * MINUTE),
        # Quiet, but by this machine's clock the minute is not over for long enough.
        (MIDNIGHT, MIDNIGHT + 30 * SECOND, 61, MIDNIGHT + 100 * SECOND, None),
        (MIDNIGHT, MIDNIGHT + 30 * SECOND, 59, MIDNIGHT + DAY, None),
        (MIDNIGHT, MIDNIGHT + 30 * SECOND, 61, MIDNIGHT + 121 * SECOND, MIDNIGHT + MINUTE),
        # Later the hour, and with it the day.
        (MIDNIGHT + MINUTE, MIDNIGHT + 30 * SECOND, 61, MIDNIGHT + 61 * MINUTE, MIDNIGHT + HOUR),
        (MIDNIGHT + HOUR, MIDNIGHT + 30 * SECOND, 61, MIDNIGHT + DAY + 30 * SECOND, MIDNIGHT + 23 * HOUR),
        (MIDNIGHT + HOUR, MIDNIGHT + 30 * SECOND, 61, MIDNIGHT + DAY + 60 * SECOND, MIDNIGHT + DAY),
        # A clock that is behind the exchange's.
        (MIDNIGHT, MIDNIGHT + 30 * SECOND, 999, MIDNIGHT - DAY, None),
    ],
)
def test_up_to_when_a_symbol_can_be_sealed(
    sealed_until: datetime | None, newest: datetime, quiet_s: float, clock: datetime, goal: datetime | None
) -> None:
    """By the times of its trades, or by this machine's clock when there have been none for a while."""
    one = _Symbol(Sealable(sealed_until, None), 1_000.0)
    one.see((7, newest), 2_000.0)

    assert one.goal(2_000.0 + quiet_s, clock) == goal


def test_a_busy_symbol_is_sealed_within_the_minute() -> None:
    """By the second, once there are enough trades for it to be worth it; a symbol without trades never."""
    one = _Symbol(Sealable(MIDNIGHT, None), 0.0)
    assert one.goal(99.0, MIDNIGHT) is None
    one.see((0, MIDNIGHT), 1.0)
    one.see((sealer.FINE_TRADES_MIN - 1, MIDNIGHT + 10.5 * SECOND), 1.0)
    assert one.goal(1.0, MIDNIGHT) is None
    one.see((sealer.FINE_TRADES_MIN, MIDNIGHT + 10.5 * SECOND), 1.0)
    assert one.goal(1.0, MIDNIGHT) == MIDNIGHT + 9 * SECOND


# ---- The thread.


@contextmanager
def sealing(settings: config.Settings, newest: dict[str, Point]) -> Iterator[Sealer]:
    """A thread that seals until the block ends."""
    thread = Sealer(settings, lambda: dict(newest))
    thread.start()
    try:
        yield thread
    finally:
        thread.stop()
        thread.join(10)
    assert not thread.is_alive()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits."""
    monkeypatch.setattr(sealer, "LOOK_S", 0.01)
    monkeypatch.setattr(sealer, "QUIET", SECOND / 10)


def until_of(connection: db.Connection, symbol: str = BTC) -> datetime | None:
    """Up to when a symbol is sealed."""
    found = db.sealable(connection).get(symbol)
    return found.sealed_until if found else None


def other_trades(connection: db.Connection, when: datetime) -> None:
    """Stores a trade of another symbol, so that it is known that nothing came until then."""
    db.insert_trades(connection, [trade(1, when, symbol="SOLUSDT")])


@pytest.mark.usefixtures("quick")
def test_a_quiet_symbol_is_sealed_up_to_the_newest_trade_of_another(
    connection: db.Connection, settings: config.Settings
) -> None:
    """However far ahead this machine's clock is: what the quiet one has traded since may wait on the disk."""
    newest: dict[str, Point] = {}
    db.insert_trades(connection, [trade(1, MIDNIGHT)])
    with sealing(settings, newest):
        for number in (2, 5, 6):
            when = MIDNIGHT + number * HOUR + MINUTE
            db.insert_trades(connection, [trade(number, when, symbol="SOLUSDT")])
            newest["SOLUSDT"] = number, when
            wait_until(lambda goal=MIDNIGHT + number * HOUR: until_of(connection) == goal)  # type: ignore[misc]
    assert sealed(connection, BTC) == due(connection, BTC)


@pytest.mark.usefixtures("quick")
def test_what_was_not_sealed_while_it_was_away(connection: db.Connection, settings: config.Settings) -> None:
    """Years of a symbol that nobody captures any more, with long pauses, piece by piece, its last day too."""
    times = [MIDNIGHT + days * DAY + hours * HOUR for days in (0, 1, 2, 40, 400) for hours in range(0, 24, 5)]
    db.insert_trades(connection, [trade(number, when) for number, when in enumerate(times, 1)])
    other_trades(connection, times[-1] + DAY)
    ask(connection, "INSERT INTO symbols (symbol, token) VALUES ('EMPTY', 0)")

    with sealing(settings, {}):
        wait_until(lambda: (until_of(connection) or MIDNIGHT) > times[-1] + 3 * HOUR)
    assert sealed(connection, BTC) == due(connection, BTC)
    assert [bar.timestamp for bar in sealed(connection, BTC)][-1] == MIDNIGHT + 400 * DAY
    assert until_of(connection, "EMPTY") is None


@pytest.mark.usefixtures("quick")
def test_history_is_sealed_in_pieces_that_fit(
    connection: db.Connection, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece that takes too long is followed by a shorter one, so that no statement comes near its time-out."""
    db.insert_trades(connection, [trade(number, MIDNIGHT + number * 10 * MINUTE) for number in range(1, 40)])
    other_trades(connection, MIDNIGHT + DAY)
    monkeypatch.setattr(sealer, "STEP_S_MAX", -1.0)
    steps: list[timedelta] = []
    seal = db.seal

    def noted(opened: Any, symbols: Any, since: datetime | None, until: datetime) -> bool:
        if until < MIDNIGHT + 400 * MINUTE:
            steps.append(until - (since or MIDNIGHT))
        return seal(opened, symbols, since, until)

    monkeypatch.setattr(db, "seal", noted)
    with sealing(settings, {}):
        wait_until(lambda: (until_of(connection) or MIDNIGHT) >= MIDNIGHT + 391 * MINUTE)
    assert len(steps) > 10
    assert max(steps[8:]) < 20 * MINUTE
    assert sealed(connection, BTC) == due(connection, BTC)


@pytest.mark.usefixtures("quick")
def test_it_follows_the_trades(
    connection: db.Connection, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Minute by minute while several symbols trade; each at its own time."""
    # A busy machine may pause between two trades: no symbol is quiet meanwhile.
    monkeypatch.setattr(sealer, "QUIET", DAY)
    newest: dict[str, Point] = {}
    start = datetime.now(UTC).replace(second=0, microsecond=0) - 10 * MINUTE
    with sealing(settings, newest):
        for number in range(1, 60):
            for symbol in (BTC, "ETHUSDT"):
                when = start + number * (7 if symbol == BTC else 3) * SECOND
                db.insert_trades(connection, [trade(number, when, str(number), symbol)])
                newest[symbol] = number, when
        wait_until(lambda: until_of(connection) == start + 6 * MINUTE)
        wait_until(lambda: until_of(connection, "ETHUSDT") == start + 2 * MINUTE)
    for symbol, minutes in ((BTC, 6), ("ETHUSDT", 2)):
        assert sealed(connection, symbol) == due(connection, symbol)
        assert sum(bar.resolution == 60 for bar in sealed(connection, symbol)) == minutes


@pytest.mark.usefixtures("quick")
def test_a_start_waits_for_the_stream(connection: db.Connection, settings: config.Settings) -> None:
    """What was stored last may be old by this machine's clock, and the next trade about to come all the same: sealed
    up to now, each would have to make its bars again."""
    db.insert_trades(connection, [trade(1, MIDNIGHT), trade(2, MIDNIGHT + 2 * MINUTE)])
    newest: dict[str, Point] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealer, "QUIET", 60 * SECOND)
        with sealing(settings, newest):
            wait_until(lambda: until_of(connection) == MIDNIGHT + MINUTE)
            for number in range(3, 9):
                newest[BTC] = number, MIDNIGHT + number * MINUTE
                db.insert_trades(connection, [trade(number, MIDNIGHT + number * MINUTE)])
            wait_until(lambda: until_of(connection) == MIDNIGHT + 7 * MINUTE)


@pytest.mark.usefixtures("quick")
def test_it_seals_what_others_disturb_all_the_time(
    connection: db.Connection, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A back-fill that stores late trades without a pause stops it again and again; then it takes the lock."""
    db.insert_trades(connection, [trade(1, MIDNIGHT), trade(10_000, MIDNIGHT + HOUR)])
    other_trades(connection, MIDNIGHT + 2 * DAY)
    monkeypatch.setattr(db, "seal", lambda *_: False)
    with sealing(settings, {}):
        wait_until(lambda: (until_of(connection) or MIDNIGHT) > MIDNIGHT + DAY)
    assert sealed(connection, BTC) == due(connection, BTC)
    assert len(sealed(connection, BTC)) == 5


@pytest.mark.usefixtures("quick")
def test_one_that_is_disturbed_does_not_hold_up_the_others(
    connection: db.Connection, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Symbols that are sealed together and then, since one of them cannot be, each for itself."""
    newest: dict[str, Point] = {}
    names = [BTC, "ETHUSDT", "BNBUSDT"]
    start = datetime.now(UTC).replace(second=0, microsecond=0) - 4 * MINUTE
    for symbol in names:
        db.insert_trades(connection, [trade(1, start, symbol=symbol), trade(2, start + MINUTE, symbol=symbol)])
        assert db.seal(connection, [symbol], None, start + MINUTE)
        db.insert_trades(connection, [trade(3, start + 2 * MINUTE, symbol=symbol)])
        newest[symbol] = 3, start + 2 * MINUTE
    other_trades(connection, start + 4 * MINUTE)
    seal, many = db.seal, list[int]()

    def disturbed(opened: Any, symbols: Any, since: datetime | None, until: datetime) -> bool:
        many.append(len(symbols))
        return BTC not in symbols and seal(opened, symbols, since, until)

    monkeypatch.setattr(db, "seal", disturbed)
    monkeypatch.setattr(db, "seal_locked", lambda *_: False)
    with sealing(settings, newest):
        wait_until(lambda: all((until_of(connection, name) or start) > start + MINUTE for name in names[1:]))
    assert max(many) == 3
    assert until_of(connection) == start + MINUTE


@pytest.mark.usefixtures("quick")
def test_it_comes_back_after_the_database(
    connection: db.Connection, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is cut, and a server that cannot be reached for a while."""
    monkeypatch.setattr("process.retry.BACKOFF_S_MIN", 0.01)
    db.insert_trades(connection, [trade(1, MIDNIGHT), trade(2, MIDNIGHT + MINUTE)])
    other_trades(connection, MIDNIGHT + 3 * DAY)
    connect, tries = db.connect, iter(range(3))

    def away(given: config.Settings) -> db.Connection:
        for _ in tries:
            raise db.GoneError("away")
        return connect(given)

    monkeypatch.setattr(db, "connect", away)
    with sealing(settings, {}) as thread:
        wait_until(lambda: until_of(connection) == MIDNIGHT + DAY or (until_of(connection) or MIDNIGHT) > MIDNIGHT)
        opened = thread._connection
        assert opened is not None
        ask(connection, f"KILL {opened.connection_id}")
        later = until_of(connection) or MIDNIGHT
        db.insert_trades(connection, [trade(3, later + MINUTE)])
        thread._symbols[BTC].see((3, later + MINUTE), 0.0)
        wait_until(lambda: (until_of(connection) or later) > later)
    assert sealed(connection, BTC) == due(connection, BTC)


@pytest.mark.usefixtures("quick")
def test_what_waiting_cannot_mend_is_said_once(
    connection: db.Connection, settings: config.Settings, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """A missing right ends the sealing, not the capture, with one line."""

    def refuse(*_: object) -> bool:
        raise db.FatalError("DELETE command denied")

    db.insert_trades(connection, [trade(1, MIDNIGHT)])
    monkeypatch.setattr(db, "seal", refuse)
    thread = Sealer(settings, dict)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert [record.levelname for record in caplog.records if record.name == "sealer"] == ["ERROR"]
    assert threading.active_count() >= 1


@pytest.mark.usefixtures("quick")
def test_hundreds_of_new_symbols_are_sealed_together(
    connection: db.Connection, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether nothing of them is sealed yet or they were quiet for hours: one by one would take longer than the minute
    in which the next is due."""
    names = [f"S{number:03}USDT" for number in range(200)]
    monkeypatch.setattr(sealer, "QUIET", DAY)
    batches: list[int] = []
    seal = db.seal

    def noted(opened: Any, symbols: Any, since: datetime | None, until: datetime) -> bool:
        batches.append(len(symbols))
        return seal(opened, symbols, since, until)

    monkeypatch.setattr(db, "seal", noted)
    for number, minutes in enumerate((0, 200), 1):
        when = MIDNIGHT + minutes * MINUTE + 30 * SECOND
        db.insert_trades(connection, [trade(number, when, symbol=name) for name in names])
        # The next trade is about to be stored, so that the minute of this one is over.
        newest = {name: (number + 1, when + MINUTE) for name in names}
        until = MIDNIGHT + (minutes + 1) * MINUTE
        with sealing(settings, newest):
            wait_until(lambda goal=until: all(until_of(connection, name) == goal for name in names[::20]))  # type: ignore[misc]
    assert sum(batches) == 2 * len(names)
    assert len(batches) == 2 * len(names) // sealer.SYMBOLS_PER_STATEMENT_MAX
    assert sealed(connection, names[7]) == due(connection, names[7])
