"""The tables `proofs` and `archive_files`: what was audited when, with what result, and what is known of each day.

Proofs are only ever added, each chained to the one before (model/proof.py), so that a proof that was changed or removed
afterwards shows.
"""

import random
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import mysql.connector
from mysql.connector import errorcode

from model.candles import DAY
from model.gaps import missing_in_each
from model.proof import CHAIN_START, chained
from model.times import midnight
from process.retry import doubled
from storage import pages, ranges
from storage.errors import ContentionError, guard
from storage.gaps import gaps_in
from storage.session import Connection, run, select
from storage.transaction import in_snapshot
from storage.values import aware, marks, naive

EQUAL, AGREES, CONTIGUOUS = "equal", "agrees", "contiguous"
GAPPED, DIFFERENT, UNVERIFIABLE = "gapped", "different", "unverifiable"
VERDICTS = (EQUAL, AGREES, CONTIGUOUS, GAPPED, DIFFERENT, UNVERIFIABLE)
"""From the best to the worst, but for the last, which says nothing about the trades that are stored."""
TRIES_MAX = 16
WAIT_S, WAIT_S_MAX = 0.005, 0.5
"""Who has lost the race for a place in the chain waits for up to so long."""
PROOFS_PER_STATEMENT = 500
EARLIER_MAX = 16
"""Proofs of a day that are looked at again beside the newest."""
ADDRESS_CHARS_MAX = 500
"""Of the columns `address` and `compared_with`."""
DAYS_MAX = 400
"""Days that are told of at once."""
_DAY = timedelta(seconds=DAY)


class Proof(NamedTuple):
    """A row of `proofs`; see schema.sql. `blocks` is left empty where many are read."""

    number: int
    symbol: str
    day: date
    verdict: str
    reason: str
    first_trade_id: int | None
    last_trade_id: int | None
    trades: int
    missing: int
    sha256: str
    merkle_root: str
    compared_with: str
    source_sha256: str
    proven_at: datetime
    previous: str = ""
    hash: str = ""
    blocks: str = ""

    def chained_to(self, number: int, previous: str) -> "Proof":
        """The same with its place in the chain."""
        placed = self._replace(number=number, previous=previous)
        return placed._replace(hash=placed.right_hash())

    def right_hash(self) -> str:
        """What `hash` must be."""
        fields = self._replace(proven_at=self.proven_at.astimezone(UTC)).as_text()
        return chained(self.previous, [fields[name] for name in _HASHED])

    def as_text(self) -> dict[str, str]:
        """Each column as text; a time as ISO 8601 with six decimals and a Z, a value that is not there as nothing."""
        texts = {name: "" if value is None else str(value) for name, value in self._asdict().items()}
        return texts | {"proven_at": f"{self.proven_at:%Y-%m-%dT%H:%M:%S.%f}Z"}


_COLUMNS = tuple(name for name in Proof._fields if name != "blocks")
_HASHED = tuple(name for name in _COLUMNS if name not in ("previous", "hash"))


@guard
def add_proof(connection: Connection, proof: Proof) -> Proof:
    """The proof as it was added to the end of the chain. Raises ContentionError if others are always quicker."""
    proof = proof._replace(compared_with=proof.compared_with[:ADDRESS_CHARS_MAX])
    for attempt in range(TRIES_MAX):
        rows = select(connection, "SELECT number, hash FROM proofs ORDER BY number DESC LIMIT 1")
        number, previous = rows[0] if rows else (0, CHAIN_START)
        placed = proof.chained_to(number + 1, previous)
        sql = f"INSERT INTO proofs ({', '.join(Proof._fields)}) VALUES ({marks(placed)})"
        try:
            run(connection, sql, naive(placed))
            return placed
        except mysql.connector.IntegrityError as error:
            if error.errno != errorcode.ER_DUP_ENTRY:
                raise
        time.sleep(random.random() * doubled(WAIT_S, attempt, WAIT_S_MAX))
    raise ContentionError("other audits add their proofs all the time")


@guard
def proofs(connection: Connection, after: int = 0) -> Iterator[Proof]:
    """All proofs behind number `after` in the order of the chain, without their blocks."""
    sql = f"SELECT {', '.join(_COLUMNS)} FROM proofs WHERE number > %s ORDER BY number LIMIT {PROOFS_PER_STATEMENT}"
    while rows := _rows(connection, sql, (after,)):
        yield from (_proof(row) for row in rows)
        after = rows[-1][0]


@guard
def newest_proof(connection: Connection, symbol: str, day: date) -> Proof | None:
    """The last proof of a day, with its blocks."""
    sql = f"SELECT {', '.join(Proof._fields)} FROM proofs WHERE symbol = %s AND day = %s ORDER BY number DESC LIMIT 1"
    return next((_proof(row) for row in _rows(connection, sql, (symbol, day))), None)


@guard
def earlier_proofs(connection: Connection, proof: Proof) -> list[Proof]:
    """The proofs of the same day before `proof` that had other trades, which were not found wrong; with their blocks,
    newest first, at most EARLIER_MAX."""
    sql = f"SELECT {', '.join(Proof._fields)} FROM proofs WHERE symbol = %s AND day = %s AND number < %s"
    sql += f" AND sha256 <> %s AND verdict <> '{DIFFERENT}' ORDER BY number DESC LIMIT {EARLIER_MAX}"
    return [_proof(row) for row in _rows(connection, sql, (proof.symbol, proof.day, proof.number, proof.sha256))]


@guard
def newest_proofs(connection: Connection, symbol: str, first: date, last: date) -> dict[date, Proof]:
    """The last proof of each day from `first` to `last` (inclusive) that has one, without its blocks."""
    of_day = "SELECT MAX(number) AS newest FROM proofs WHERE symbol = %s AND day >= %s AND day <= %s GROUP BY day"
    sql = f"SELECT {', '.join(_COLUMNS)} FROM proofs JOIN ({of_day}) AS of_day ON number = newest"
    return {proof.day: proof for proof in map(_proof, _rows(connection, sql, (symbol, first, last)))}


@guard
def count_verdicts(connection: Connection) -> dict[str, int]:
    """How many days of all symbols have each verdict by their last proof."""
    newest = "SELECT MAX(number) AS newest FROM proofs GROUP BY symbol, day"
    sql = f"SELECT verdict, COUNT(*) FROM proofs JOIN ({newest}) AS of_day ON number = newest GROUP BY verdict"
    return {verdict: int(days) for verdict, days in _rows(connection, sql, ())}


def _rows(connection: Connection, sql: str, values: Sequence[Any]) -> list[Any]:
    """The rows of a query; none if the database is of a version that has no proofs yet, as one that is only read."""
    try:
        return select(connection, sql, values)
    except mysql.connector.ProgrammingError as error:
        if error.errno != errorcode.ER_NO_SUCH_TABLE:
            raise
        return []


def _proof(row: Sequence[Any]) -> Proof:
    return Proof(*map(aware, row))


class ArchivedFile(NamedTuple):
    """A row of `archive_files`; see schema.sql."""

    symbol: str
    day: date
    sha256: str
    address: str
    first_trade_id: int
    last_trade_id: int
    loaded_at: datetime


@guard
def record_file(connection: Connection, file: ArchivedFile) -> None:
    """Remembers a file of which all trades are stored; of one that was loaded before, when it was first."""
    # A long one is cut: it must not undo what was loaded, and the hash tells the file.
    file = file._replace(address=file.address[:ADDRESS_CHARS_MAX])
    sql = f"INSERT INTO archive_files ({', '.join(file._fields)}) VALUES ({marks(file)})"
    run(connection, f"{sql} ON DUPLICATE KEY UPDATE symbol = archive_files.symbol", naive(file))


@guard
def loaded_files(connection: Connection, symbol: str, first: date, last: date) -> list[ArchivedFile]:
    """The files that were loaded of the days from `first` to `last` (inclusive), by day and time."""
    sql = f"SELECT {', '.join(ArchivedFile._fields)} FROM archive_files WHERE symbol = %s AND day >= %s AND day <= %s"
    rows = _rows(connection, f"{sql} ORDER BY day, loaded_at", (symbol, first, last))
    return [ArchivedFile(*map(aware, row)) for row in rows]


class DayCoverage(NamedTuple):
    """What is known of a UTC day of a symbol: the last proof of it, and what is stored and missing now.

    `verdict` is None if the day was never audited. It is the proof's unless more is known now: `gapped` if ids are
    missing now, `contiguous` at best if trades of a day that is over were stored after the audit, which nothing was
    compared with. `missing` counts each id of a gap that reaches into the day. `is_over`: whether the day was over when
    it was audited.
    """

    day: date
    verdict: str | None
    reason: str
    trades: int
    missing: int
    proven_at: datetime | None
    compared_with: str
    is_over: bool


class Coverage(NamedTuple):
    """What is known of days of a symbol, oldest first. `missing`: as that of the days, but a gap that reaches into
    several of them counts once."""

    symbol: str
    days: list[DayCoverage]
    missing: int


def coverage(
    connection: Connection, symbol: str, first: date | None = None, last: date | None = None
) -> list[DayCoverage]:
    """Each UTC day from `first` to `last` (inclusive; default: of the first and the last stored trade), oldest first.

    Of more than DAYS_MAX days the newest. Empty if no trade of `symbol` is stored.
    """
    return whole_coverage(connection, symbol, first, last).days


@in_snapshot
def whole_coverage(
    connection: Connection, symbol: str, first: date | None = None, last: date | None = None
) -> Coverage:
    """The same, and how much is missing in all."""
    ends = pages.ends(connection, symbol)
    if ends is None:
        return Coverage(symbol, [], 0)
    last = last or ends[1].date()
    first = max(first or ends[0].date(), last - timedelta(days=DAYS_MAX - 1))
    if first > last:
        return Coverage(symbol, [], 0)
    starts = [midnight(first) + number * _DAY for number in range((last - first).days + 1)]
    bars = ranges.candles(connection, symbol, DAY, starts[0], starts[-1] + _DAY)
    trades = {bar.timestamp: bar.trades for bar in bars}
    gaps = gaps_in(connection, symbol, starts[0], starts[-1] + _DAY)
    in_gaps = missing_in_each(gaps, starts, _DAY)
    proven = newest_proofs(connection, symbol, first, last)
    days = [
        _covered(start, trades.get(start, 0), missing, proven.get(start.date()))
        for start, missing in zip(starts, in_gaps, strict=True)
    ]
    outside = sum(day.missing - missing for day, missing in zip(days, in_gaps, strict=True))
    return Coverage(symbol, days, sum(gap.missing for gap in gaps) + outside)


def _covered(start: datetime, trades: int, in_gaps: int, proof: Proof | None) -> DayCoverage:
    day = start.date()
    if proof is None:
        return DayCoverage(day, GAPPED if in_gaps else None, "", trades, in_gaps, None, "", False)
    lost = max(0, proof.trades - trades)
    # What the proof knew to be missing before the first stored trade is in no gap, nor are rows that were deleted. Of
    # what was missing nobody knows how much was filled, once there are more trades.
    known = proof.missing + lost if trades <= proof.trades else 0
    # A day that is not over grows all the time: of it the audit tells as far as it went.
    has_grown = trades > proof.trades and datetime.now(UTC) >= start + _DAY
    verdict = _verdict_now(proof, lost + in_gaps, has_grown)
    is_over = proof.proven_at >= start + _DAY
    missing = max(in_gaps, known)
    reason = "; ".join(part for part in (proof.reason, _changed(proof.trades, trades)) if part)
    return DayCoverage(day, verdict, reason, trades, missing, proof.proven_at, proof.compared_with, is_over)


def _verdict_now(proof: Proof, missing: int, has_grown: bool) -> str:
    if missing and proof.verdict != DIFFERENT:
        return GAPPED
    return CONTIGUOUS if has_grown and proof.verdict in (EQUAL, AGREES) else proof.verdict


def _changed(proven: int, stored: int) -> str:
    """How the number of a day's trades has changed since its audit; empty: it has not."""
    if stored < proven:
        return f"trades deleted since the audit: {proven - stored:,} of {proven:,}"
    return f"trades stored since the audit: {stored - proven:,}" if stored > proven else ""
