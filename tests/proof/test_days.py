"""The audit of a day beside a capture that goes on: no false alarm, whatever is stored while it is read."""

from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import db
from binance.archive import Archive
from binance.klines import Kline
from binance.limits import Cooldown
from binance.rest import Rest
from model.trade import Trade
from proof import days
from proof.days import AUTO, NONE, Auditor, Finding
from storage import canonical
from tests.makers import BTC, MIDNIGHT
from tests.support.servers import Server
from tests.support.tables import age, ask, plain_bars

DAY = MIDNIGHT.date()
MINUTE = timedelta(minutes=1)
NOON = MIDNIGHT + timedelta(hours=12)


def trades(first: int, last: int, start: datetime = MIDNIGHT) -> list[Trade]:
    """Trades with ids first to last (inclusive), a minute apart; number 1 is at `start`."""
    return [
        Trade(BTC, start + (n - 1) * MINUTE, n, Decimal(100 + n % 7), Decimal(1), n % 2 == 0)
        for n in range(first, last + 1)
    ]


class FakeRest(Rest):
    """The exchange's klines of these trades, up to a minute that is exclusive."""

    def __init__(self, known: list[Trade], until: datetime) -> None:
        super().__init__("http://127.0.0.1:9", Cooldown())
        self.known, self.until = known, until

    def fetch_klines(self, symbol: str, interval: str, start: datetime, limit: int = 1_000) -> list[Kline]:
        """A kline for each minute, also without a trade."""
        bars = {bar.timestamp: bar for bar in plain_bars(self.known, 60)}
        found = []
        for minute in (start + n * MINUTE for n in range(limit)):
            if minute < self.until and interval == "1m":
                bar = bars.get(minute)
                values = [getattr(bar, name) if bar else Decimal() for name in Kline._fields[1:-1]]
                found.append(Kline._make([minute, *values, bar.trades if bar else 0]))
        return found


class Case(NamedTuple):
    """A database, and what audits it at a time of this test's choice."""

    connection: db.Connection
    other: db.Connection
    auditor: Auditor
    rest: FakeRest

    def audit(self, against: str = NONE, day: date = DAY) -> tuple[str, str]:
        """Verdict and reason."""
        found = self.found(against, day)
        return found.proof.verdict, found.proof.reason

    def found(self, against: str = NONE, day: date = DAY) -> Finding:
        """What is found on a day."""
        return self.auditor.audit(BTC, day, against)


@pytest.fixture
def case(any_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    """An empty database, and somebody else who has it open."""
    name = f"test_days_{tmp_path.name[-30:]}".replace("-", "_")
    connection = db.connect(any_server.settings(name, tmp_path))
    other = db.connect(any_server.settings(name, tmp_path))
    rest = FakeRest([], NOON)
    yield Case(connection, other, Auditor(connection, Archive("http://127.0.0.1:9", tmp_path), rest, tmp_path), rest)
    ask(other, f"DROP DATABASE {name}")
    db.close(connection)
    db.close(other)
    rest.close()


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime], None]:
    """Sets the clock of the audit."""

    def set_clock(now: datetime) -> None:
        class Clock(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> "Clock":
                return cls.fromtimestamp(now.timestamp(), tz)

        monkeypatch.setattr(days, "datetime", Clock)

    return set_clock


@pytest.fixture
def while_read(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Does something each time after the trades of a day were read, before the gaps are."""

    def arrange(what: Callable[[], object]) -> None:
        real = canonical.ids_beside

        def disturbed(*args: Any) -> Any:
            what()
            return real(*args)

        monkeypatch.setattr(canonical, "ids_beside", disturbed)

    return arrange


def test_a_running_day_is_audited_up_to_what_is_sealed(case: Case, at: Callable[[datetime], None]) -> None:
    """It says up to when; what came later is not missing, and younger klines are not compared."""
    db.insert_trades(case.connection, trades(1, 720))
    db.seal(case.connection, [BTC], None, NOON - 10 * MINUTE)
    at(NOON)
    reason = "nothing earlier is stored than 00:00:00; the day is audited up to 11:50"
    found = case.found()
    assert (found.proof.verdict, found.proof.reason) == ("contiguous", reason)
    assert (found.proof.trades, found.proof.missing) == (710, 0)
    case.rest.known, case.rest.until = trades(1, 720), NOON
    assert case.audit(AUTO) == ("agrees", f"klines up to 11:50; {reason}")
    db.seal(case.connection, [BTC], NOON - 10 * MINUTE, NOON)
    assert case.audit(AUTO) == (
        "agrees",
        "klines up to 11:58; nothing earlier is stored than 00:00:00; the day is audited up to 12:00",
    )


def test_a_day_of_which_nothing_is_sealed_yet(case: Case, at: Callable[[datetime], None]) -> None:
    """Nothing can be said of it."""
    db.insert_trades(case.connection, trades(1, 5))
    at(NOON)
    assert case.audit(AUTO) == ("contiguous", "nothing of the day is sealed yet")


def test_klines_that_are_late_are_no_difference(case: Case, at: Callable[[datetime], None]) -> None:
    """What the exchange has no klines of is not known to be right, nor wrong."""
    db.insert_trades(case.connection, trades(1, 720))
    db.seal(case.connection, [BTC], None, NOON)
    at(NOON)
    case.rest.known, case.rest.until = trades(1, 720), NOON - 60 * MINUTE
    reason = "klines up to 11:00; nothing earlier is stored than 00:00:00; the day is audited up to 12:00"
    assert case.audit(AUTO) == ("contiguous", reason)
    case.rest.until = MIDNIGHT
    assert case.audit(AUTO)[0] == "contiguous"
    case.rest.until, case.rest.known = NOON - 60 * MINUTE, trades(1, 500)
    assert case.audit(AUTO)[0] == "different"


def test_a_gap_that_is_filled_while_the_day_is_read(
    case: Case, while_read: Callable[[Callable[[], object]], None]
) -> None:
    """The day is looked at again, and is whole then."""
    db.insert_trades(case.connection, [*trades(1, 40), *trades(50, 99)])
    while_read(lambda: db.insert_trades(case.other, trades(41, 49)))
    found = case.found()
    assert (found.proof.verdict, found.proof.reason) == ("contiguous", "nothing earlier is stored than 00:00:00")
    assert found.is_settled


def test_gaps_that_come_and_go_all_the_time(case: Case, while_read: Callable[[Callable[[], object]], None]) -> None:
    """One more piece of the day is filled during each look: ids are missing, but nothing is wrong."""
    db.insert_trades(case.connection, [*trades(1, 40), *trades(90, 99)])
    pieces = [trades(n, n + 4) for n in range(41, 80, 5)]
    while_read(lambda: db.insert_trades(case.other, pieces.pop(0)))
    found = case.found()
    assert found.proof.verdict == "gapped"
    assert len(pieces) == len(range(41, 80, 5)) - days.TRIES_MAX
    # A recheck could not tell later which of them the proof had.
    assert not found.is_settled
    assert found.proof.reason.endswith("trades of it are being stored: audit it again")


def test_a_gap_that_is_found_while_a_running_day_is_read(
    case: Case, at: Callable[[datetime], None], while_read: Callable[[Callable[[], object]], None]
) -> None:
    """Behind what is sealed; it belongs to what is not audited yet."""
    db.insert_trades(case.connection, trades(1, 100))
    db.seal(case.connection, [BTC], None, MIDNIGHT + 90 * MINUTE)
    at(NOON)
    newest = iter(range(200, 300, 10))
    while_read(lambda: db.insert_trades(case.other, trades(n := next(newest), n)))
    assert case.audit()[0] == "contiguous"


def test_ids_that_cross_midnight_are_not_missing(case: Case) -> None:
    """Where time runs back, an id of one day lies between those of the other: neither day lacks it, nor claims it."""
    end = MIDNIGHT + timedelta(days=1)
    second = timedelta(seconds=1)
    stamps = [MIDNIGHT - second, MIDNIGHT + second, MIDNIGHT - second / 2, MIDNIGHT + 2 * second, end - second]
    stamps += [end + second / 4, end - second / 2, end + second]
    db.insert_trades(
        case.connection, [Trade(BTC, when, 1 + n, Decimal(1), Decimal(1), False) for n, when in enumerate(stamps)]
    )
    found = case.found()
    assert (found.proof.verdict, found.proof.missing, found.problems) == ("contiguous", 0, [])
    assert (found.proof.first_trade_id, found.proof.last_trade_id, found.proof.trades) == (2, 7, 4)


def test_a_false_claim_is_still_found(case: Case, while_read: Callable[[Callable[[], object]], None]) -> None:
    """While other gaps are filled; the ids are named, and no others."""
    db.insert_trades(case.connection, [*trades(1, 40), *trades(50, 99)])
    ask(case.connection, "DELETE FROM trades WHERE trade_id IN (20, 21)")
    ask(case.connection, "UPDATE gaps SET first_trade_id = 39")
    fill = iter([trades(45, 46), trades(43, 43), trades(48, 48)])
    while_read(lambda: db.insert_trades(case.other, next(fill)))
    found = case.found()
    assert found.proof.verdict == "different"
    assert found.problems[:2] == [
        "ids 20 to 21 are absent, and no gap",
        "ids 39 to 40 are listed as a gap, and are not",
    ]


def test_an_id_that_is_stored_twice_is_named(case: Case) -> None:
    """Also where another is missing, so that the number is right."""
    db.insert_trades(case.connection, [*trades(1, 9), *trades(11, 20)])
    age(case.connection)
    sql = "INSERT INTO trades SELECT symbol, timestamp + INTERVAL 1 SECOND, trade_id, 1, 1, 0, NULL FROM trades"
    ask(case.connection, f"{sql} WHERE trade_id = 9")
    found = case.found()
    assert (found.proof.verdict, found.problems, found.proof.missing) == ("different", ["1 id is stored twice"], 1)


def test_a_late_trade_is_no_wrong_bar(case: Case, while_read: Callable[[Callable[[], object]], None]) -> None:
    """Its bars are made again in the transaction that stores it, and compared with its trades at one moment."""
    db.insert_trades(case.connection, [*trades(1, 40), *trades(50, 99)])
    db.seal_history(case.connection, BTC)
    while_read(lambda: db.insert_trades(case.other, trades(41, 49)))
    assert case.audit() == ("contiguous", "nothing earlier is stored than 00:00:00")
