"""What the capture says of itself: the line and the summary."""

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

import config
from capture import pipeline, rejects
from capture.shared import Shared
from capture.silence import LATE_S, SILENT_S, Silence
from capture.standby import Totals, Watched


def unconnected(name: str, shared: Shared) -> Watched:
    """No connection is asked for by these tests."""
    raise NotImplementedError(name, shared)


def said(capture: pipeline.Capture) -> Sequence[str]:
    """The line and the summary of `capture`."""
    return capture._line(10.0), capture.summary()


def test_rejected_frames_that_are_not_in_the_file_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the line and in the summary, beside the rejected ones; without any, neither has a word of it."""
    monkeypatch.setattr(rejects, "QUEUED_BYTES_MAX", rejects.ITEM_BYTES)
    capture = pipeline.Capture(config.load({"DATA_DIR": str(tmp_path)}), unconnected, 1)
    monkeypatch.setattr(capture, "_shards", SimpleNamespace(closed=0, groups=1, totals=Totals))

    capture._rejects.put("empty", b"")
    assert all("rejected 1, reconnects" in text for text in said(capture))

    capture._rejects.put("no room", b"1")
    capture._rejects.put("no room", b"2")
    assert all("rejected 3, not kept 2, reconnects" in text for text in said(capture))


class Group:
    """In the place of all groups: what was brought, what nobody reads, and which symbols were renewed."""

    def __init__(self) -> None:
        self.brought = {"BTCUSDT": 7}
        self.renewed: list[list[str]] = []
        self.since: list[float] = []

    def newest(self) -> dict[str, int]:
        return self.brought

    def unread(self, since: float) -> frozenset[str]:
        self.since.append(since)
        return frozenset({"FARUSDT"})

    def renew(self, symbols: list[str], _now: float) -> list[str]:
        self.renewed.append(symbols)
        return symbols


def test_only_a_symbol_that_trades_without_the_streams_has_its_group_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once; not one of which nothing was known before; about one that no connection reads nobody is asked."""
    capture = pipeline.Capture(config.load({"DATA_DIR": str(tmp_path)}), unconnected, 1)
    group, silence = Group(), Silence(("BTCUSDT", "RAREUSDT", "FARUSDT"), 0.0)
    monkeypatch.setattr(capture, "_shards", group)
    capture._listen(silence, 1.0)
    capture._listen(silence, 1.0 + SILENT_S)
    assert sorted(symbol for symbol, is_silent in capture._listing._wanted.items() if is_silent) == [
        "BTCUSDT",
        "RAREUSDT",
    ]
    monkeypatch.setattr(capture._listing, "_answers", {"BTCUSDT": 8, "RAREUSDT": 5})
    for second in range(3):
        capture._listen(silence, 2.0 + SILENT_S + second * LATE_S)

    assert group.since[:3] == [-math.inf, 1.0, 1.0 + SILENT_S]
    assert group.renewed == [["BTCUSDT"]]
    assert caplog.text.count("but the streams bring nothing of it after id") == 1
    assert "BTCUSDT trades (its newest id is 8), but the streams bring nothing of it after id 7" in caplog.text
