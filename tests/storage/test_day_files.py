"""The Parquet file of a day: what is read back is what was stored, to the last digit."""

import hashlib
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

import db
from model.trade import Trade
from storage import canonical, day_files, lines
from storage.errors import FatalError
from tests.makers import BTC, MIDNIGHT
from tests.support.moved import write

DAY = timedelta(days=1)
MS = timedelta(milliseconds=1)
COIN = "币安人生"


def day_of(symbol: str) -> list[Trade]:
    """Trades of all kinds: 12 and 8 digits, both makers, with and without received_at, several in a millisecond, both
    ends of the day."""
    amounts = [Decimal("999999999999.99999999"), Decimal("0.00000001"), Decimal("1.50000000"), Decimal("10.00000000")]
    times = [MIDNIGHT + n * DAY / 499 for n in range(499)] + [MIDNIGHT + DAY - MS]
    return [
        Trade(
            symbol,
            datetime.fromtimestamp(int(when.timestamp() * 1000) / 1000, UTC).replace(
                microsecond=when.microsecond // 1000 * 1000
            ),
            1 + n,
            amounts[n % 4],
            amounts[(n + 1) % 4],
            n % 3 == 0,
            None if n % 5 else when + timedelta(microseconds=123_457),
        )
        for n, when in enumerate([*times, times[-1]])
    ]


@pytest.mark.parametrize("symbol", [BTC, COIN])
def test_what_is_read_back_is_what_was_stored(
    connection: db.Connection, tmp_path: Path, symbol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As trades and as canonical lines, of the day and of a part, from several row groups; the hash is the file's."""
    monkeypatch.setattr("storage.parquet.ROW_GROUP_ROWS", 50)
    trades = day_of(symbol)
    db.insert_trades(connection, trades)
    path = tmp_path / day_files.path_of(symbol, MIDNIGHT.date())
    digest = write(path, symbol, lines.lines(connection, symbol, MIDNIGHT, MIDNIGHT + DAY, lines.PLAIN))
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [one.name for one in path.parent.iterdir()] == ["trades.parquet"]
    assert list(day_files.trades(path, symbol, MIDNIGHT, MIDNIGHT + DAY)) == trades
    assert [str(one.price) for one in day_files.trades(path, symbol, MIDNIGHT, MIDNIGHT + DAY)][:2] == [
        "999999999999.99999999",
        "1E-8",
    ]
    low, high = trades[100].timestamp, trades[350].timestamp
    assert list(day_files.trades(path, symbol, low, high)) == trades[100:350]
    assert list(day_files.trades(path, symbol, MIDNIGHT + DAY, MIDNIGHT + 2 * DAY)) == []
    text = b"".join(block.lines for block in canonical.blocks(connection, symbol, MIDNIGHT, MIDNIGHT + DAY))
    assert b"".join(chunk.text for chunk in day_files.canonical(path, MIDNIGHT, MIDNIGHT + DAY)) == text


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """One that is not there, and one that is none."""
    path = tmp_path / "trades.parquet"
    for content in (None, b"PAR1 but no more", b""):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(FatalError, match=f"{path} cannot be read.*backup"):
            list(day_files.trades(path, BTC, MIDNIGHT, MIDNIGHT + DAY))
