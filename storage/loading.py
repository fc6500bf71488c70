"""History into the tables: lines of the exchange's archive, checked before, a hundred thousand in a transaction.

The rows are sent as a file (LOAD DATA LOCAL), which is several times faster than INSERTs; where the server forbids
that, INSERTs serve. LOCAL makes the server round and clip without an error, so only text that was checked may come
here.

Rows and bars are made before the symbol's row in `symbols` is locked, so that a capture of the symbol waits for the
bookkeeping alone. That is safe, because whoever makes a bar deletes it first, and inserts it in a later statement: of
two that make the same bar at once, the second waits for the first and sees its trades afterwards, or fails and repeats.
"""

import logging
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import mysql.connector

from model import candles as bars
from model.candles import FINE, MINUTE
from model.gaps import Span
from model.times import EPOCH, MILLISECOND
from storage.bars import WITHIN
from storage.errors import ContentionError, DatabaseError, guard
from storage.retention import refuse_in_files
from storage.runs import account_run, check_run, take_over
from storage.sealing import remake_statements
from storage.session import Connection, execute, select, sent
from storage.transaction import pull_down_fence, roll_back, transaction
from storage.values import check_symbol, naive, quoted, rows_max

log = logging.getLogger("database")

FORBIDDEN = (1148, 2068, 3948, 3950, 4166)
"""The server, or this driver's library, does not take files of the client."""
_TIME, _MAKER = 4, 5
_stamps = re.compile(rb",([0-9]{13})[0-9]*+,[TF]").findall


class Lines(NamedTuple):
    """Trades of a symbol as lines of the exchange's archive, of consecutive ids, which rise."""

    symbol: str
    first_trade_id: int
    last_trade_id: int
    text: bytes

    def at(self, trade_id: int) -> datetime:
        """The time of one of them, floored to the millisecond."""
        if trade_id == self.first_trade_id:
            line = self.text[: self.text.index(b"\n")]
        elif trade_id == self.last_trade_id:
            line = self.text[self.text.rfind(b"\n", 0, -1) + 1 :]
        else:
            line = self.text.split(b"\n")[trade_id - self.first_trade_id]
        return _when(line.split(b",")[_TIME])

    def times(self) -> tuple[datetime, datetime]:
        """The earliest and the latest: mostly those of the first and the last line, but times may run back."""
        stamps = _stamps(self.text)
        return _when(min(stamps)), _when(max(stamps))

    def within(self, first: int, last: int) -> "Lines":
        """Those of the ids `first` to `last`."""
        low, high = max(first, self.first_trade_id), min(last, self.last_trade_id)
        if (low, high) == (self.first_trade_id, self.last_trade_id):
            return self
        lines = self.text.splitlines(True)
        return Lines(
            self.symbol, low, high, b"".join(lines[low - self.first_trade_id : high + 1 - self.first_trade_id])
        )


@guard
def load(connection: Connection, lines: Lines, file: Path) -> int:
    """How many of `lines` were new; all are stored when it returns, with their gaps, and in the bars that are sealed.

    `file` is where they are put for the server to take. Raises ContentionError (somebody else was in the way: repeat),
    GoneError, RefusedError, RetainedError (some are of a day that is in a file), OtherHistoryError and the others of
    storage/errors.py.
    """
    symbol = lines.symbol
    check_symbol(symbol)
    times = lines.times()
    with transaction(connection, [symbol]) as work:
        refuse_in_files(connection, symbol, times)
        sealed_until = work.states[symbol].sealed_until
        ends = [(number, lines.at(number)) for number in (lines.first_trade_id, lines.last_trade_id)]
        check_run(connection, symbol, Span(*ends))
    try:
        execute(connection, "BEGIN")
        new = _insert(connection, lines, file)
        for statement in remake_statements(connection, symbol, list(_minutes(times, sealed_until)), sealed_until):
            execute(connection, statement)
    except BaseException:
        roll_back(connection)
        raise
    with transaction(connection, [symbol], begun=True) as work:
        state = work.states[symbol]
        if state.sealed_until != sealed_until:
            raise ContentionError("bars were sealed meanwhile")
        # Its rows were not there yet for who recorded the day as being in a file meanwhile.
        refuse_in_files(connection, symbol, times)
        take_over(connection, symbol)
        account_run(connection, symbol, (lines.first_trade_id, lines.last_trade_id), lines.at)
        pull_down_fence(connection, symbol, state, times[0])
    return new


def _minutes(times: tuple[datetime, datetime], sealed_until: datetime | None) -> Iterator[datetime]:
    """A time in each minute that may have a trade of them in, and in each second of one that is sealed in part."""
    at, end = bars.floor(times[0], MINUTE), times[1]
    partly = bars.floor(sealed_until, MINUTE) if sealed_until else None
    while at <= end:
        for second in range(0, MINUTE if at == partly else 1, FINE):
            yield at + timedelta(seconds=second)
        at += timedelta(seconds=MINUTE)


def _insert(connection: Connection, lines: Lines, file: Path) -> int:
    if connection.takes_files:
        try:
            return _load_file(connection, lines, file)
        except mysql.connector.Error as error:
            if error.errno not in FORBIDDEN:
                raise
            connection.takes_files = False
            log.warning(
                "the server takes no files (local_infile is off: %s): history is stored by INSERTs, which takes about"
                " twice as long",
                error.msg,
            )
    new = 0
    for statement in _inserts(lines, connection.manners.bytes_max):
        new += execute(connection, statement)[0]
        # Strict mode lets surplus decimals pass with a note.
        if select(connection, "SELECT @@warning_count") != [(0,)]:
            raise _changed(connection, lines)
    return new


def _load_file(connection: Connection, lines: Lines, file: Path) -> int:
    file.write_bytes(lines.text)
    try:
        sql = _LOAD.replace("{file}", sent(connection, "%s", [str(file)]))
        new = execute(connection, sql.replace("{symbol}", quoted(lines.symbol)))[0]
    finally:
        file.unlink(missing_ok=True)
    _check_all_taken(connection, lines, new)
    return new


# The text of a time, because MariaDB computes with floats where it gets a number: half of the milliseconds go wrong.
_LOAD = (
    "LOAD DATA LOCAL INFILE {file} IGNORE INTO TABLE trades CHARACTER SET latin1 FIELDS TERMINATED BY ','"
    " LINES TERMINATED BY '\\n' (trade_id, price, quantity, @quote, @time, @maker, @best) SET symbol = {symbol},"
    " timestamp = FROM_UNIXTIME(LEFT(@time, 10)) + INTERVAL SUBSTR(@time, 11, 3) * 1000 MICROSECOND,"
    " buyer_is_maker = (@maker = 'True')"
)


def _check_all_taken(connection: Connection, lines: Lines, new: int) -> None:
    """Raises DatabaseError if the server has changed a value, or passed over a row that is not there already."""
    known = lines.last_trade_id - lines.first_trade_id + 1 - new
    ((warnings,),) = select(connection, "SELECT @@warning_count")
    # There is one for each row that was there already.
    if warnings > known or (known and known != _known(connection, lines, new)):
        raise _changed(connection, lines)


def _changed(connection: Connection, lines: Lines) -> DatabaseError:
    said = select(connection, "SHOW WARNINGS LIMIT 1")
    run = f"{lines.symbol} {lines.first_trade_id} to {lines.last_trade_id}"
    return DatabaseError(f"the server did not take {run} as they are: {said}")


def _known(connection: Connection, lines: Lines, new: int) -> int:
    """How many of the lines were there already."""
    earliest, latest = lines.times()
    sql = f"SELECT COUNT(*) FROM trades WHERE {WITHIN} AND trade_id >= %s AND trade_id <= %s"
    values = naive([lines.symbol, earliest, latest + MILLISECOND, lines.first_trade_id, lines.last_trade_id])
    return int(select(connection, sql, values)[0][0]) - new


def _inserts(lines: Lines, bytes_max: int) -> Iterator[str]:
    name, rows = quoted(lines.symbol), lines.text.splitlines()
    size = rows_max(bytes_max)
    for start in range(0, len(rows), size):
        values = ",".join(_values(name, row.decode().split(",")) for row in rows[start : start + size])
        yield f"{_INSERT} VALUES {values} ON DUPLICATE KEY UPDATE trade_id = trades.trade_id"


_INSERT = "INSERT INTO trades (symbol, timestamp, trade_id, price, quantity, buyer_is_maker)"


def _values(name: str, row: list[str]) -> str:
    when, maker = row[_TIME], row[_MAKER] == "True"
    time = f"FROM_UNIXTIME({when[:10]}) + INTERVAL {when[10:13]}000 MICROSECOND"
    return f"({name},{time},{row[0]},{row[1]},{row[2]},{maker:d})"


def _when(stamp: bytes) -> datetime:
    return EPOCH + timedelta(milliseconds=int(stamp[:13]))
