"""A day of the exchange's archive into the tables: what of it is missing there, a piece at a time.

Each piece is a transaction with its gaps and bars (db.load_history), so this can be killed anywhere; what is stored is
not loaded again. Nothing is loaded before the whole file was checked.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import db
from binance.archive import Archived
from binance.archive_file import Rows
from process.retry import insisted

PIECE_ROWS_MAX = 100_000
"""About 8 MB of text. A longer transaction is hardly quicker, and takes longer to be undone."""
TRIES_MAX = 8
"""Of a piece that another writer is in the way of: about a minute."""

Progress = Callable[[int], object]


def import_day(connection: db.Connection, archived: Archived, folder: Path, progress: Progress) -> int:
    """How many trades were new; all trades of the file are stored when it returns, and the file is remembered.

    `progress` is called with the number of ids that are settled, in all as many as the file has. Raises
    db.DatabaseError, Defect.
    """
    symbol, content = archived.symbol, archived.content
    wanted = db.missing_runs(connection, symbol, content.first_trade_id, content.last_trade_id)
    missing = sum(last - first + 1 for first, last in wanted)
    progress(content.trades - missing)
    new = 0
    for piece in _pieces(symbol, archived.file.rows()) if wanted else ():
        for first, last in wanted:
            if first <= piece.last_trade_id and last >= piece.first_trade_id:
                part = piece.within(first, last)
                new += _load(connection, part, folder / f"{symbol}.csv")
                progress(part.last_trade_id - part.first_trade_id + 1)
    db.record_file(
        connection,
        db.ArchivedFile(
            symbol,
            archived.day,
            archived.sha256,
            archived.url,
            content.first_trade_id,
            content.last_trade_id,
            datetime.now(UTC),
        ),
    )
    return new


def _pieces(symbol: str, rows: Iterator[Rows]) -> Iterator[db.Lines]:
    """The lines in pieces of about PIECE_ROWS_MAX."""
    parts: list[Rows] = []
    for one in rows:
        parts.append(one)
        if one.last_trade_id - parts[0].first_trade_id + 1 >= PIECE_ROWS_MAX:
            yield _joined(symbol, parts)
            parts = []
    if parts:
        yield _joined(symbol, parts)


def _joined(symbol: str, parts: list[Rows]) -> db.Lines:
    text = b"".join(part.text for part in parts)
    return db.Lines(symbol, parts[0].first_trade_id, parts[-1].last_trade_id, text)


def _load(connection: db.Connection, lines: db.Lines, file: Path) -> int:
    """How many were new; tried again while others are in the way."""
    return insisted(lambda: db.load_history(connection, lines, file), db.ContentionError, TRIES_MAX)
