"""The last day of each symbol: read in turns, now and then, and not known where a file cannot be read."""

import time
from datetime import UTC, datetime
from typing import Any, cast

import pytest

import db
from storage import questions
from storage.errors import FileError
from tests.support.dashboard import trade
from tools.api import days


def test_turns(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Two symbols in a call, each again after ten seconds; what nobody looks at is forgotten; a symbol without a trade,
    or with a file that is damaged, has no day."""
    now, asked = [100.0], []

    def fail(_connection: Any, symbol: str, *_times: datetime) -> None:
        asked.append(symbol)
        raise FileError("it is damaged")

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(questions, "outside", fail)
    found = days.Days()
    newest = {symbol: trade(symbol, 1, datetime(2025, 3, 1, tzinfo=UTC), "5") for symbol in "ABC"}
    turns = []
    for now[0] in (100.0, 101.0, 102.0, 110.0, 111.0):
        found.look(cast(db.Connection, None), newest | {"D": None})
        turns.append("".join(asked))
        asked.clear()
    days_known = [found.of(symbol) for symbol in "ABCD"]
    found.look(cast(db.Connection, None), {})

    assert turns == ["AB", "C", "", "AB", "C"]
    assert days_known == [None] * 4
    # Said once of each.
    assert len(caplog.messages) == 3
    with pytest.raises(KeyError):
        found.of("A")
