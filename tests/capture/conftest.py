"""Fixtures of these tests only."""

import pytest

from binance import rest


@pytest.fixture
def quick_filling(quick_filling: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As elsewhere, but an answer may take its time: the exchange of a busy machine pauses for a second, and who asks
    it by hand asks once."""
    monkeypatch.setattr(rest, "READ_S_MAX", 10.0)
