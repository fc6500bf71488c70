"""rejects.py: what was refused is kept verbatim, within its bounds, and nobody waits for it."""

import base64
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from capture import rejects
from capture.rejects import Rejects
from tests.support.child import wait_until


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end waits until all is written, however slow the disk of a busy machine is."""
    monkeypatch.setattr(rejects, "CLOSE_S_MAX", 60.0)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Rejects]:
    """A thread that keeps refusals in tmp_path."""
    thread = Rejects(tmp_path)
    thread.start()
    yield thread
    thread.close()
    assert not thread.is_alive()


def lines(folder: Path, name: str = "rejects.jsonl") -> list[dict[str, Any]]:
    """The records of the file."""
    return [json.loads(line) for line in (folder / name).read_text("ascii").splitlines()]


def frame_of(record: dict[str, Any]) -> bytes:
    """The bytes that were kept."""
    if "frame" in record:
        return str(record["frame"]).encode("utf-8", "surrogatepass")
    return base64.b64decode(record["frame_base64"])


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b'{"e":"trade"',
        b"\xff\xfe\x00",
        "币安人生USDT".encode(),
        b"line\nbreaks\r\n and \x00 \x1b[31m",
        b"\xed\xa0\x80",
        bytes(range(256)),
        b'"' * 1_000,
    ],
)
def test_a_frame_is_kept_byte_for_byte(tmp_path: Path, running: Rejects, frame: bytes) -> None:
    """One line of ASCII, from which the very bytes come back, with reason, length and a UTC time."""
    running.put("because", frame)
    running.close()
    (record,) = lines(tmp_path)
    assert frame_of(record) == frame
    assert (record["reason"], record["bytes"]) == ("because", len(frame))
    assert timedelta() <= datetime.now(UTC) - datetime.fromisoformat(record["at"]) < timedelta(minutes=1)
    assert (running.counted, running.unkept) == (1, 0)


@pytest.mark.parametrize("text", ["plain", "币安", "\ud800"])
def test_a_text_frame_is_kept_too(tmp_path: Path, running: Rejects, text: str) -> None:
    """As the bytes of its UTF-8, and its length is in bytes as well; lone surrogates survive."""
    running.put("because", text)
    running.close()
    (record,) = lines(tmp_path)
    raw = text.encode("utf-8", "surrogatepass")
    assert (frame_of(record), record["bytes"]) == (raw, len(raw))


@pytest.mark.parametrize("frame", [b"x" * 10_000_000, "ä" * 5_000_000])
def test_of_a_large_frame_the_first_64_kib_are_kept(tmp_path: Path, running: Rejects, frame: bytes | str) -> None:
    """With its true length in bytes."""
    running.put("too large", frame)
    running.close()
    (record,) = lines(tmp_path)
    raw = frame.encode() if isinstance(frame, str) else frame
    assert frame_of(record) == raw[: rejects.FRAME_BYTES_MAX]
    assert record["bytes"] == 10_000_000


def test_the_file_rotates_and_never_exceeds_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files at most, each within the bound, with the newest refusals in order."""
    monkeypatch.setattr(rejects, "FILE_BYTES_MAX", 2_000)
    thread = Rejects(tmp_path)
    thread.start()
    for n in range(200):
        thread.put(f"reason {n}", b"x" * 50)
    thread.close()
    kept = lines(tmp_path, "rejects.jsonl.1") + lines(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"rejects.jsonl", "rejects.jsonl.1"}
    assert all(path.stat().st_size <= 2_000 for path in tmp_path.iterdir())
    assert [record["reason"] for record in kept] == [f"reason {n}" for n in range(200 - len(kept), 200)]
    assert len(kept) > 10


def test_a_later_run_appends(tmp_path: Path) -> None:
    """What an earlier run refused stays."""
    for reason in ("first", "second"):
        thread = Rejects(tmp_path)
        thread.start()
        thread.put(reason, b"")
        thread.close()
    assert [record["reason"] for record in lines(tmp_path)] == ["first", "second"]


def test_what_waits_for_the_disk_is_bounded(tmp_path: Path) -> None:
    """While the disk hangs, memory holds QUEUED_BYTES_MAX at most; the rest is counted and not kept."""
    thread = Rejects(tmp_path)
    size = rejects.FRAME_BYTES_MAX
    fitting = rejects.QUEUED_BYTES_MAX // (size + rejects.ITEM_BYTES)
    for _ in range(fitting + 10):
        thread.put("flood", b"x" * size)
    assert (thread.counted, thread.unkept) == (fitting + 10, 10)
    thread.start()
    thread.close()
    assert len(lines(tmp_path)) == fitting
    assert (thread.counted, thread.unkept) == (fitting + 10, 10)


def test_there_is_room_again_after_writing(tmp_path: Path, running: Rejects, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is on what waits and not on what ever came."""
    monkeypatch.setattr(rejects, "QUEUED_BYTES_MAX", rejects.ITEM_BYTES + 100)
    for n in range(20):
        running.put(str(n), b"x" * 60)
        wait_until(lambda: not running._queued_bytes)
    running.close()
    assert (len(lines(tmp_path)), running.unkept) == (20, 0)


def test_empty_frames_are_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of empty frames has no bytes of its own, but the queue must not grow without end."""
    monkeypatch.setattr(rejects, "QUEUED_BYTES_MAX", 100_000)
    thread = Rejects(tmp_path)
    for _ in range(10_000):
        thread.put("empty", b"")
    assert thread._queue.qsize() < 10_000
    assert thread.counted == 10_000
    thread.start()
    thread.close()


def test_a_folder_that_does_not_exist_is_made(tmp_path: Path) -> None:
    """As when python backfill.py refuses a row before any capture ran."""
    thread = Rejects(tmp_path / "data" / "demo")
    thread.start()
    thread.put("because", b"x")
    thread.close()
    assert [record["reason"] for record in lines(tmp_path / "data" / "demo")] == ["because"]


def test_a_disk_that_takes_nothing_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every refusal is counted, one line is logged, and the thread goes on; when the disk is well again it writes."""
    (tmp_path / "rejects.jsonl").mkdir()
    thread = Rejects(tmp_path)
    thread.start()
    for _ in range(5):
        thread.put("because", b"x")
    wait_until(lambda: not thread._queued_bytes)
    (tmp_path / "rejects.jsonl").rmdir()
    thread.put("again", b"x")
    thread.close()
    assert [record["reason"] for record in lines(tmp_path)] == ["again"]
    assert (thread.counted, thread.unkept) == (6, 5)
    assert len(caplog.records) == 1


def test_many_threads_lose_nothing(tmp_path: Path, running: Rejects) -> None:
    """Eight threads with 500 refusals each."""

    def put_many() -> None:
        for _ in range(500):
            running.put("because", b"x")

    threads = [threading.Thread(target=put_many) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    running.close()
    assert running.counted == len(lines(tmp_path)) == 4_000
