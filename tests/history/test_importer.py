"""A checked file of the archive into the tables: only what is missing, a piece at a time, and it is remembered."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import config
import db
from binance.archive import Archived
from binance.archive_file import ArchiveFile
from history import importer
from history.importer import import_day
from tests.makers import BTC
from tests.support import archive_rows as archive_files
from tests.support.archive_rows import DAY, Row, rows, trades_of
from tests.support.tables import ask, check, runs, stored

MADE = rows(101, 100)
CSV = "BTCUSDT-trades-2025-03-01.csv"


@pytest.fixture
def loader(connection: db.Connection, settings: config.Settings, tmp_path: Path) -> Iterator[db.Connection]:
    """A second connection to the database, which may send files."""
    opened = db.connect(settings, files_from=tmp_path)
    yield opened
    db.close(opened)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The runs that were loaded, in pieces of 30 rows."""
    found: list[tuple[int, int]] = []
    load = db.load_history

    def noted(connection: db.Connection, lines: db.Lines, file: Path) -> int:
        new = load(connection, lines, file)
        found.append((lines.first_trade_id, lines.last_trade_id))
        return new

    monkeypatch.setattr(db, "load_history", noted)
    monkeypatch.setattr(importer, "PIECE_ROWS_MAX", 30)
    # One chunk of the file is a piece then: about 30 lines.
    monkeypatch.setattr("binance.archive_file.CHUNK_BYTES", 30 * len(archive_files.text(MADE[:1])))
    return found


def archived(folder: Path, made: Sequence[Row] = MADE, sha256: str = "a" * 64) -> Archived:
    """The file with these rows, as the archive gives it."""
    path = folder / "day.zip"
    path.write_bytes(archive_files.zipped(archive_files.text(made), CSV))
    file = ArchiveFile(path, CSV, DAY)
    return Archived(BTC, DAY, file, file.check(), sha256, "http://archive/day.zip")


def test_a_day(loader: db.Connection, tmp_path: Path, loaded: list[tuple[int, int]]) -> None:
    """All of it into an empty table, in pieces that follow one another; the file is remembered as it was."""
    progress: list[int] = []
    assert import_day(loader, archived(tmp_path), tmp_path, progress.append) == 100
    assert stored(loader) == trades_of(BTC, MADE)
    assert [first for first, _ in loaded] == [101, *(last + 1 for _, last in loaded[:-1])]
    assert len(loaded) >= 3
    assert sum(progress) == 100
    assert [path.name for path in tmp_path.iterdir()] == ["day.zip"]
    columns = "symbol, day, sha256, address, first_trade_id, last_trade_id"
    assert ask(loader, f"SELECT {columns} FROM archive_files") == [
        (BTC, DAY, "a" * 64, "http://archive/day.zip", 101, 200)
    ]


def test_only_what_is_missing_is_loaded(
    connection: db.Connection, loader: db.Connection, tmp_path: Path, loaded: list[tuple[int, int]]
) -> None:
    """A capture has the end of the day, and a run within it."""
    db.insert_trades(connection, trades_of(BTC, [*MADE[10:15], *MADE[90:]]))
    progress: list[int] = []
    assert import_day(loader, archived(tmp_path), tmp_path, progress.append) == 85
    known = {*range(111, 116), *range(191, 201)}
    assert not known & {number for first, last in loaded for number in range(first, last + 1)}
    assert sum(progress) == 100
    assert stored(loader) == trades_of(BTC, MADE)
    assert runs(loader) == []
    check(loader)


def test_it_continues_where_it_was_killed(
    loader: db.Connection, tmp_path: Path, loaded: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After two pieces: the file is not remembered yet; the next run loads the rest alone."""
    load, left = db.load_history, iter(range(2))

    def dying(*given: Any) -> int:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return load(*given)

    monkeypatch.setattr(db, "load_history", dying)
    with pytest.raises(KeyboardInterrupt):
        import_day(loader, archived(tmp_path), tmp_path, lambda _: None)
    done = len(stored(loader))
    assert 0 < done < 100
    assert ask(loader, "SELECT * FROM archive_files") == []
    monkeypatch.setattr(db, "load_history", load)
    progress: list[int] = []
    assert import_day(loader, archived(tmp_path), tmp_path, progress.append) == 100 - done
    assert progress[0] == done
    assert loaded[2][0] == loaded[1][1] + 1
    assert stored(loader) == trades_of(BTC, MADE)
    check(loader)


def test_a_file_that_was_published_again(loader: db.Connection, tmp_path: Path) -> None:
    """Is a second row, the same file is none; what is stored is not changed by it."""
    assert import_day(loader, archived(tmp_path), tmp_path, lambda _: None) == 100
    assert import_day(loader, archived(tmp_path), tmp_path, lambda _: None) == 0
    other = [*MADE[:-1], MADE[-1]._replace(price="1.00000000")]
    assert import_day(loader, archived(tmp_path, other, "b" * 64), tmp_path, lambda _: None) == 0
    assert sorted(ask(loader, "SELECT sha256 FROM archive_files")) == [("a" * 64,), ("b" * 64,)]
    assert stored(loader) == trades_of(BTC, MADE)


def test_others_in_the_way_are_waited_for(
    loader: db.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some times; what is always in the way ends it."""
    load, left, waits = db.load_history, iter(range(3)), list[float]()

    def contended(*given: Any) -> int:
        if next(left, None) is not None:
            raise db.ContentionError("Deadlock found when trying to get lock")
        return load(*given)

    monkeypatch.setattr(db, "load_history", contended)
    monkeypatch.setattr("time.sleep", waits.append)
    assert import_day(loader, archived(tmp_path), tmp_path, lambda _: None) == 100
    assert len(waits) == 3
    left = iter(range(100))
    ask(loader, "DELETE FROM trades")
    with pytest.raises(db.ContentionError):
        import_day(loader, archived(tmp_path), tmp_path, lambda _: None)
    assert len(waits) == 3 + importer.TRIES_MAX - 1
