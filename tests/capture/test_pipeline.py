"""What the capture says of itself: the line and the summary."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

import config
from capture import pipeline, rejects
from capture.shared import Shared
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
