"""What is known of each day: the chain of the proofs, and what they are still worth with what is stored now."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

import config
import db
from model.gaps import MISSED, Gap, missing_in_each
from model.proof import CHAIN_START, NO_TRADES
from storage import proofs
from storage.errors import ContentionError
from storage.proofs import AGREES, CONTIGUOUS, DIFFERENT, EQUAL, GAPPED, UNVERIFIABLE, DayCoverage, Proof
from tests.makers import BTC, MIDNIGHT, trade
from tests.support.tables import ask

DAY = timedelta(days=1)
FIRST = MIDNIGHT.date()
LATER = datetime(2025, 6, 1, 12, 30, 15, 123_456, tzinfo=UTC)
ARCHIVE = "https://data.binance.vision/BTCUSDT-trades-2025-03-01.zip"


def proof(day: date = FIRST, verdict: str = EQUAL, trades: int = 2, missing: int = 0, symbol: str = BTC) -> Proof:
    """A proof of which only these matter, of long after the day."""
    first, last = (11, 12) if trades else (None, None)
    found = Proof(0, symbol, day, verdict, "", first, last, trades, missing, NO_TRADES, NO_TRADES, ARCHIVE, "", LATER)
    return found._replace(source_sha256="ab" * 32)


def fill(connection: db.Connection, *ids: int, day: int = 0) -> None:
    """Stores trades with these ids, one a second from noon of a day on."""
    noon = MIDNIGHT + day * DAY + timedelta(hours=12)
    db.insert_trades(connection, [trade(number, noon + timedelta(seconds=number)) for number in ids])


# ---- The chain.


def test_each_proof_is_chained_to_the_one_before(connection: db.Connection) -> None:
    """Of whatever symbol and day that is; read again, each is what was added, and its hash is right."""
    one = proofs.add_proof(connection, proof()._replace(blocks="0 ab\n"))
    two = proofs.add_proof(connection, proof(trades=0, symbol="ETHUSDT")._replace(reason="no trade: naïve 币"))

    assert (one.number, one.previous, two.number, two.previous) == (1, CHAIN_START, 2, one.hash)
    assert list(proofs.proofs(connection)) == [one._replace(blocks=""), two]
    assert [found.right_hash() for found in proofs.proofs(connection)] == [one.hash, two.hash]
    assert list(proofs.proofs(connection, after=1)) == [two]
    assert proofs.newest_proof(connection, BTC, FIRST) == one
    assert proofs.newest_proof(connection, BTC, FIRST + DAY) is None


def test_the_hash_is_that_of_the_documented_text(connection: db.Connection) -> None:
    """The hash before and the columns but `blocks`, a line each, so that anybody can compute it."""
    added = proofs.add_proof(connection, proof())
    lines = [CHAIN_START, "1", BTC, "2025-03-01", "equal", "", "11", "12", "2", "0", NO_TRADES, NO_TRADES, ARCHIVE]
    lines += ["ab" * 32, "2025-06-01T12:30:15.123456Z"]

    assert added.hash == hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_the_hash_does_not_depend_on_the_time_zone() -> None:
    """The same moment is the same proof."""
    elsewhere = LATER.astimezone(timezone(timedelta(hours=9)))

    assert proof()._replace(proven_at=elsewhere).right_hash() == proof().right_hash()


@pytest.mark.parametrize(
    "change",
    [
        "verdict = 'equal'",
        "reason = 'none'",
        "first_trade_id = NULL",
        "trades = trades + 1",
        "missing = 0",
        "sha256 = REPEAT('0', 64)",
        "day = day - INTERVAL 1 DAY",
        "proven_at = proven_at + INTERVAL 1 MICROSECOND",
        "previous = REPEAT('0', 64)",
    ],
)
def test_a_changed_row_has_a_wrong_hash(connection: db.Connection, change: str) -> None:
    """Whichever column is changed afterwards; the rows before and after it are still right."""
    for verdict in (EQUAL, GAPPED, AGREES):
        proofs.add_proof(connection, proof(verdict=verdict, missing=7))
    ask(connection, f"UPDATE proofs SET {change} WHERE number = 2")
    connection.commit()

    assert [one.hash == one.right_hash() for one in proofs.proofs(connection)] == [True, False, True]


def test_two_writers_make_one_chain(connection: db.Connection, settings: config.Settings) -> None:
    """Whoever finds its number taken takes the next: no proof is lost, none is in the chain twice."""

    def write(symbol: str) -> list[int]:
        with closing(db.connect(settings)) as own:
            return [proofs.add_proof(own, proof(FIRST + number * DAY, symbol=symbol)).number for number in range(25)]

    with ThreadPoolExecutor(2) as pool:
        written = list(pool.map(write, [BTC, "ETHUSDT"]))
    chain = list(proofs.proofs(connection))

    assert sorted(number for numbers in written for number in numbers) == list(range(1, 51))
    assert [one.previous for one in chain] == [CHAIN_START, *(one.hash for one in chain[:-1])]
    assert all(one.hash == one.right_hash() for one in chain)


def test_who_is_never_quicker_gives_up(connection: db.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a bounded number of tries, with an error that the caller knows."""
    proofs.add_proof(connection, proof())
    monkeypatch.setattr(proofs, "select", lambda *_arguments: [])

    with pytest.raises(ContentionError, match="other audits"):
        proofs.add_proof(connection, proof())


def test_all_proofs_are_read_page_by_page(connection: db.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are; of each day the newest counts."""
    monkeypatch.setattr(proofs, "PROOFS_PER_STATEMENT", 2)
    for verdict in (GAPPED, AGREES, EQUAL):
        proofs.add_proof(connection, proof(verdict=verdict))
    proofs.add_proof(connection, proof(FIRST + DAY, DIFFERENT))
    proofs.add_proof(connection, proof(FIRST, DIFFERENT, symbol="ETHUSDT"))

    assert [one.number for one in proofs.proofs(connection)] == [1, 2, 3, 4, 5]
    newest = proofs.newest_proofs(connection, BTC, FIRST, FIRST + DAY)
    assert {day: (one.number, one.verdict) for day, one in newest.items()} == {
        FIRST: (3, EQUAL),
        FIRST + DAY: (4, DIFFERENT),
    }
    assert list(proofs.newest_proofs(connection, BTC, FIRST + DAY, FIRST + DAY)) == [FIRST + DAY]


# ---- What is known of the days.


def test_a_day_that_was_never_audited(connection: db.Connection) -> None:
    """Has no verdict, however complete it is; what is stored and missing is said all the same."""
    fill(connection, 11, 12)
    fill(connection, 13, day=2)

    assert proofs.coverage(connection, BTC) == [
        DayCoverage(FIRST, None, "", 2, 0, None, "", False),
        DayCoverage(FIRST + DAY, None, "", 0, 0, None, "", False),
        DayCoverage(FIRST + 2 * DAY, None, "", 1, 0, None, "", False),
    ]
    assert proofs.coverage(connection, "ETHUSDT") == []


def test_a_day_that_was_audited(connection: db.Connection) -> None:
    """Has the last verdict, with what it was compared with."""
    fill(connection, 11, 12)
    proofs.add_proof(connection, proof(verdict=CONTIGUOUS))
    proofs.add_proof(connection, proof(verdict=EQUAL))

    assert proofs.coverage(connection, BTC) == [DayCoverage(FIRST, EQUAL, "", 2, 0, LATER, ARCHIVE, True)]


@pytest.mark.parametrize(
    ("verdict", "now"),
    [(EQUAL, GAPPED), (AGREES, GAPPED), (UNVERIFIABLE, GAPPED), (DIFFERENT, DIFFERENT), (None, GAPPED)],
)
def test_a_gap_now_is_more_than_a_proof_of_before(connection: db.Connection, verdict: str | None, now: str) -> None:
    """A day with ids missing is never shown as good, whatever it was; and `different` is the worse of the two."""
    fill(connection, 11, 12)
    if verdict:
        proofs.add_proof(connection, proof(verdict=verdict))
    fill(connection, 16, day=1)

    found = proofs.whole_coverage(connection, BTC)

    assert [(day.verdict, day.trades, day.missing) for day in found.days] == [(now, 2, 3), (GAPPED, 1, 3)]
    # It is the same gap that reaches into both days.
    assert found.missing == 3


def test_what_was_missing_before_the_first_stored_trade(connection: db.Connection) -> None:
    """Is in no gap; the proof knows it, until more trades of the day are stored."""
    fill(connection, 11, 12)
    proofs.add_proof(connection, proof(verdict=GAPPED, missing=10))
    before = proofs.whole_coverage(connection, BTC)
    fill(connection, *range(1, 11))
    after = proofs.whole_coverage(connection, BTC)

    assert [(one.days[0].verdict, one.days[0].missing, one.missing) for one in (before, after)] == [
        (GAPPED, 10, 10),
        (GAPPED, 0, 0),
    ]
    assert after.days[0].reason == "trades stored since the audit: 10"


@pytest.mark.parametrize(
    ("verdict", "now"), [(EQUAL, CONTIGUOUS), (AGREES, CONTIGUOUS), (UNVERIFIABLE, UNVERIFIABLE), (DIFFERENT,) * 2]
)
def test_trades_that_were_stored_after_the_audit(connection: db.Connection, verdict: str, now: str) -> None:
    """Were compared with nothing, so that the day is not as good as its proof."""
    fill(connection, 11, 12)
    proofs.add_proof(connection, proof(verdict=verdict)._replace(reason="as it was"))
    fill(connection, 13)
    (day,) = proofs.coverage(connection, BTC)

    assert (day.verdict, day.trades) == (now, 3)
    assert day.reason == "as it was; trades stored since the audit: 1"


def test_trades_that_were_deleted_after_the_audit(connection: db.Connection) -> None:
    """Are missing, although there is no gap: somebody has deleted rows by hand."""
    fill(connection, *range(11, 2_011))
    proofs.add_proof(connection, proof(trades=2_000))
    ask(connection, "DELETE FROM trades WHERE trade_id BETWEEN 500 AND 1499")
    ask(connection, "DELETE FROM candles")
    ask(connection, "UPDATE symbols SET sealed_until = NULL")
    connection.commit()
    (day,) = proofs.coverage(connection, BTC)

    assert (day.verdict, day.trades, day.missing) == (GAPPED, 1_000, 1_000)
    assert day.reason == "trades deleted since the audit: 1,000 of 2,000"


def test_a_proof_of_a_day_that_was_not_over(connection: db.Connection) -> None:
    """Is marked as such; an audit at the very end of the day is one of a whole day."""
    fill(connection, 11, 12)
    fill(connection, 13, 14, day=1)
    evening = MIDNIGHT + DAY - timedelta(microseconds=1)
    proofs.add_proof(connection, proof(verdict=AGREES)._replace(proven_at=evening))
    proofs.add_proof(connection, proof(FIRST + DAY, AGREES)._replace(proven_at=MIDNIGHT + 2 * DAY))

    assert [(day.verdict, day.is_over) for day in proofs.coverage(connection, BTC)] == [(AGREES, False), (AGREES, True)]


def test_of_many_days_the_newest(connection: db.Connection) -> None:
    """At most 400, up to the last one that was asked for."""
    fill(connection, 11)
    fill(connection, 12, day=1_000)
    last = FIRST + 1_000 * DAY
    days = proofs.coverage(connection, BTC)
    older = proofs.coverage(connection, BTC, FIRST, last - DAY)
    few = proofs.coverage(connection, BTC, last - DAY)

    assert (len(days), days[0].day, days[-1].day) == (proofs.DAYS_MAX, last - 399 * DAY, last)
    assert (len(older), older[-1].day) == (proofs.DAYS_MAX, last - DAY)
    assert [day.day for day in few] == [last - DAY, last]
    assert proofs.coverage(connection, BTC, last, FIRST) == []


def test_the_days_cost_the_same_few_questions(connection: db.Connection) -> None:
    """However many days there are: no question for each of them."""
    fill(connection, 11)
    fill(connection, 5_000, day=300)
    connection.asked = []
    proofs.coverage(connection, BTC)

    assert len(connection.asked) < 10


@pytest.fixture
def version_2(settings: config.Settings) -> Iterator[db.Connection]:
    """A connection that only reads, to a database of the version before there were proofs."""
    with closing(db.connect(settings)) as opened:
        fill(opened, 11, 12)
        ask(opened, "DROP TABLE proofs")
        ask(opened, "DROP TABLE archive_files")
        ask(opened, "DELETE FROM schema_version")
        ask(opened, "INSERT INTO schema_version (version) VALUES (2)")
        opened.commit()
    with closing(db.connect(settings, read_only=True)) as reader:
        yield reader


def test_a_database_without_proofs(version_2: db.Connection) -> None:
    """One that is only read is not migrated: nothing was audited, and nothing fails."""
    assert proofs.coverage(version_2, BTC) == [DayCoverage(FIRST, None, "", 2, 0, None, "", False)]
    assert proofs.newest_proof(version_2, BTC, FIRST) is None
    assert list(proofs.proofs(version_2)) == []
    assert proofs.loaded_files(version_2, BTC, FIRST, FIRST) == []
    assert db.latest(version_2, BTC) is not None


def test_the_files_that_were_loaded(connection: db.Connection) -> None:
    """Each once, when it was loaded first; another hash is another revision of the day."""
    file = proofs.ArchivedFile(BTC, FIRST, "ab" * 32, ARCHIVE, 11, 12, LATER)
    again, other = file._replace(loaded_at=LATER + DAY), file._replace(sha256="cd" * 32, loaded_at=LATER + DAY)
    for one in (file, again, other):
        proofs.record_file(connection, one)

    assert proofs.loaded_files(connection, BTC, FIRST, FIRST) == [file, other]
    assert proofs.loaded_files(connection, BTC, FIRST + DAY, FIRST + DAY) == []


def test_what_is_missing_in_each_of_several_times() -> None:
    """A gap counts in each that it reaches into, its neighbours' times included at the start and not at the end."""

    def gap(first: int, last: int, before: timedelta, after: timedelta) -> Gap:
        times: tuple[Any, ...] = (MIDNIGHT, None, MIDNIGHT + before, MIDNIGHT + after)
        return Gap(BTC, first, last, MISSED, *times)

    gaps = [gap(5, 6, 0 * DAY, DAY / 2), gap(10, 19, DAY / 2, 2 * DAY), gap(30, 30, 3 * DAY, 4 * DAY)]
    starts = [MIDNIGHT + number * DAY for number in range(-1, 5)]

    assert missing_in_each(gaps, starts, DAY) == [0, 12, 10, 10, 1, 1]
    assert missing_in_each([], starts, DAY) == [0] * 6
