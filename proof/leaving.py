"""A day leaves the table for its Parquet file, and comes back: in steps that can be repeated, whatever is killed when.

The file is written and read back; its content must be that of the table, by its SHA-256, and that of its proof, which
is made if there is none. Then the day is recorded (table `retained`), unless a trade of it was stored meanwhile: from
then on the file is the day. A while later its rows are deleted, a piece at a time. To come back, they are stored again
from the file, and once they are what was recorded the table is the day again. The file stays.
"""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import config
import db
from model.times import midnight
from process import lock
from process.retry import insisted
from proof import record
from proof.days import DAY, NONE, Auditor
from storage import day_files, lines, retention
from storage.proofs import DIFFERENT, Proof
from storage.retained import GONE, LEAVING, RESTORED, RETURNING, Retained
from storage.retention import Content

T = TypeVar("T")

TRIES_MAX = 8
"""Of a step that another writer is in the way of: about a minute."""
READ_S_MAX = 300
"""For the server to make the bars of a large day once more."""
PAUSE_S_MAX = 1.0
"""After a piece its time is waited, up to this, so that a capture on the same server is not slowed."""


LOCK = "lock"
"""In the folder of the files: one process at a time moves days."""
LOCK_S_MAX = 1.0


class BusyError(Exception):
    """Another process moves days."""


class StaysError(Exception):
    """A day that stays in the table; the message says why. `needs_a_look`: waiting does not mend it."""

    def __init__(self, why: str, needs_a_look: bool) -> None:
        super().__init__(why)
        self.needs_a_look = needs_a_look


class Place(NamedTuple):
    """Where days leave from, and where they go."""

    settings: config.Settings
    connection: db.Connection

    def path(self, one: Retained) -> Path:
        """The file of a day."""
        return self.settings.retained_dir / one.path


@contextmanager
def alone(settings: config.Settings) -> Iterator[None]:
    """A block in which no other process on this machine moves days. Raises BusyError, OSError."""
    settings.retained_dir.mkdir(parents=True, exist_ok=True)
    path = settings.retained_dir / LOCK
    if not lock.AVAILABLE:
        yield
        return
    with lock.alone(path, LOCK_S_MAX) as ours:
        if not ours:
            raise BusyError(f"another tools.retain or tools.restore is at work ({path} is locked): wait until it ends")
        yield


def check(connection: db.Connection, symbol: str, day: date) -> int:
    """How many trades the bars of a day count, if it may leave. Raises StaysError, db.DatabaseError."""
    if not config.is_symbol(symbol):
        raise StaysError("its symbol is none of the exchange, and may be no name of a folder", True)
    if not retention.is_sealed(connection, symbol, day):
        raise StaysError("its bars are not sealed yet, which a capture does", False)
    if gaps := retention.fillable(connection, symbol, day):
        missing = sum(gap.missing for gap in gaps)
        ids = f"ids {gaps[0].first_trade_id} to {gaps[-1].last_trade_id}"
        raise StaysError(f"{missing:,} of its {ids} are missing, and may still be filled", False)
    found = retention.counted(connection, symbol, day)
    if not found or not retention.are_counted(found, found[0]):
        raise StaysError(f"its candles are not whole: {_reseal(symbol, day)}", True)
    return found[0]


def _reseal(symbol: str, day: date) -> str:
    times = f"--start {day}T00:00:00Z --end {day}T23:59:59Z"
    return f"python -m tools.reseal --symbol {symbol} {times} makes them again"


def leave(place: Place, auditor: Auditor, symbol: str, day: date) -> Retained:
    """Makes the file the day; its rows are to be deleted retention.wait_s() later. Raises StaysError, OSError,
    db.DatabaseError."""
    check(place.connection, symbol, day)
    path = day_files.path_of(symbol, day)
    rows = lines.lines(place.connection, symbol, midnight(day), midnight(day) + DAY, lines.PLAIN)
    with day_files.written(place.settings.retained_dir / path, symbol, rows) as part:
        content = _compared(place, part, symbol, day)
        _prove(place, auditor, symbol, day, content)
        hashed = day_files.hash_of(part)
        one = Retained(symbol, day, LEAVING, *_facts(content), path, hashed, datetime.now(UTC))
        if not _insisted(lambda: retention.record(place.connection, one, lambda: _put(place, part, one))):
            raise StaysError("trades of it were stored meanwhile", False)
    return one


def _put(place: Place, part: Path, one: Retained) -> None:
    """Gives the file of a day its name. Raises StaysError if there is another one that this database knows nothing of:
    it may be all that a database of the same name on another server has."""
    path = place.path(one)
    if path.exists():
        if day_files.hash_of(path) == one.file_sha256:
            # Of a run, or a try, that came no further than this.
            return
        if retention.recorded_day(place.connection, one.symbol, one.day) is None:
            raise StaysError(f"{path} is there already, and {_NOT_OURS}", True)
    day_files.put(part, path)


_NOT_OURS = (
    "this database has not recorded it: if one of the same name on another server has, give one of the two another"
    " DATA_DIR; if none has, move the file away"
)


def _compared(place: Place, path: Path, symbol: str, day: date) -> Content:
    """What the file, the table and the candles have alike. Raises StaysError."""
    written, content = retention.content_of_file(path, day), retention.content_of_table(place.connection, symbol, day)
    if written is None or content is None or written != content:
        raise StaysError("the file is not what the table has: were trades of it stored meanwhile?", False)
    found = retention.counted(place.connection, symbol, day)
    if not retention.are_counted(found, content.trades):
        raise StaysError(f"{content.trades:,} trades of it are stored, and its candles count {found}", True)
    return content


def _facts(content: Content) -> tuple[int, int, datetime, datetime, int, str]:
    ids = content.first_trade_id, content.last_trade_id
    return *ids, content.first_timestamp, content.last_timestamp, content.trades, content.sha256


def _prove(place: Place, auditor: Auditor, symbol: str, day: date, content: Content) -> None:
    """Sees that the newest proof of the day says what is stored; makes one if there is none of so many trades."""
    proof = db.newest_proof(place.connection, symbol, day)
    if proof is None or proof.trades < content.trades:
        found = auditor.audit(symbol, day, NONE)
        if not found.is_settled:
            raise StaysError("trades of it are being stored", False)
        proof = record.recorded(place.settings, place.connection, found.proof)
    if (proof.trades, proof.sha256) != (content.trades, content.sha256):
        raise StaysError(f"it is not what was proven on {proof.proven_at:%Y-%m-%d}: {_audit(symbol, day)}", True)
    if proof.verdict == DIFFERENT:
        raise StaysError(f"its proof says: different{_reason(proof)}: {_audit(symbol, day)}", True)


def _reason(proof: Proof) -> str:
    return f" ({proof.reason})" if proof.reason else ""


def _audit(symbol: str, day: date) -> str:
    return f"python audit.py --symbol {symbol} --day {day} shows what is wrong"


def delete(place: Place, one: Retained) -> None:
    """Deletes the rows of a day that is in its file. Raises StaysError if the file is not as it was recorded; OSError,
    db.DatabaseError."""
    check_file(place, one)
    # Each piece begins where the one before ended: the server still steps over rows that were deleted just now.
    start: datetime | None = one.start
    while start is not None:
        start = _paced(functools.partial(retention.delete_piece, place.connection, one, start))
    if not _insisted(lambda: retention.change_state(place.connection, one, [LEAVING], GONE)):
        raise StaysError("it was restored meanwhile", False)


def bring_back(place: Place, one: Retained) -> None:
    """Makes the table the day again. Raises StaysError if that cannot be: if the file is not as it was recorded,
    nothing has changed but that no more rows are deleted. Raises OSError, db.DatabaseError."""
    # First, so that nobody deletes rows that were looked at: the lock is this machine's alone.
    _insisted(lambda: retention.change_state(place.connection, one, [LEAVING], RETURNING))
    if not _is_in_table(place, one):
        check_file(place, one)
        _insisted(lambda: retention.change_state(place.connection, one, [GONE], RETURNING))
        rows = day_files.trades(place.path(one), one.symbol, one.start, one.end)
        while piece := list(islice(rows, retention.PIECE_ROWS)):
            _paced(functools.partial(retention.insert_piece, place.connection, piece))
        if not _is_in_table(place, one):
            raise StaysError("the table has rows of it that the file has not, or others: remove those by hand", True)
    if not _insisted(lambda: retention.change_state(place.connection, one, [GONE, RETURNING], RESTORED)):
        raise StaysError("it was restored, or left the table, meanwhile", False)


def _is_in_table(place: Place, one: Retained) -> bool:
    found = retention.content_of_table(place.connection, one.symbol, one.day)
    return found is not None and _facts(found) == one[3:9]


def _paced(piece: Callable[[], T]) -> T:
    """What `piece` returns, after as long a pause as it took."""
    begun_s = time.monotonic()
    done = _insisted(piece)
    time.sleep(min(PAUSE_S_MAX, time.monotonic() - begun_s))
    return done


def check_file(place: Place, one: Retained) -> None:
    """Raises StaysError if the file of a day is not there, or is not as it was recorded."""
    path = place.path(one)
    try:
        is_whole = day_files.hash_of(path) == one.file_sha256
    except FileNotFoundError:
        raise StaysError(f"its file {path} is not there: {_BACKUP}", True) from None
    if not is_whole:
        raise StaysError(f"its file {path} was changed since it was written: {_BACKUP}", True)


_BACKUP = "bring it back from a backup; the table `retained` has its SHA-256 (file_sha256)"


def _insisted(step: Callable[[], T]) -> T:
    return insisted(step, db.ContentionError, TRIES_MAX)
