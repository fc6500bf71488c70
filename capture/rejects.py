"""Rejected messages, kept verbatim in DATA_DIR/rejects.jsonl: bounded, rotating, written by a thread of its own.

One line is one rejected message: {"at": UTC, "reason": …, "bytes": its length, "frame": text} with the first 64 KiB of
the frame; if it is not UTF-8 it is under "frame_base64" instead.
"""

import base64
import json
import logging
import queue
import threading
from datetime import UTC, datetime
from pathlib import Path

log = logging.getLogger("rejects")

FRAME_BYTES_MAX = 65_536
FILE_BYTES_MAX = 32 * 2**20
"""The file is then renamed to rejects.jsonl.1, replacing the previous one: at most twice this is on the disk."""
QUEUED_BYTES_MAX = 16 * 2**20
"""What may wait for the disk; beyond that a rejected message is counted but not kept."""
ITEM_BYTES = 1_000
"""About what a waiting message costs beside its frame; without it a flood of empty frames would be unbounded."""
CLOSE_S_MAX = 5.0


class Rejects(threading.Thread):
    """Takes rejected messages from any thread without waiting. `counted`: all; `unkept`: those not in the file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(name="rejects", daemon=True)
        self.counted = 0
        self.unkept = 0
        self._path = folder / "rejects.jsonl"
        # The bound is QUEUED_BYTES_MAX, which put() keeps: the sizes differ too much for a number of items.
        self._queue: queue.SimpleQueue[tuple[datetime, str, bytes, int] | None] = queue.SimpleQueue()
        self._queued_bytes = 0
        self._lock = threading.Lock()

    def put(self, reason: str, frame: bytes | str) -> None:
        """Counts a rejected message and hands it to the thread; returns at once."""
        whole = frame.encode("utf-8", "surrogatepass") if isinstance(frame, str) else frame
        kept = bytes(whole[:FRAME_BYTES_MAX])
        with self._lock:
            self.counted += 1
            if self._queued_bytes + ITEM_BYTES + len(kept) > QUEUED_BYTES_MAX:
                self.unkept += 1
                return
            self._queued_bytes += ITEM_BYTES + len(kept)
        self._queue.put((datetime.now(UTC), reason, kept, len(whole)))

    def close(self) -> None:
        """Writes what waits and ends the thread."""
        self._queue.put(None)
        self.join(CLOSE_S_MAX)

    def run(self) -> None:
        while (item := self._queue.get()) is not None:
            at, reason, frame, length = item
            try:
                self._append(_line(at, reason, frame, length))
            except OSError as error:
                self.unkept += 1
                if self.unkept == 1:
                    log.error("a rejected frame could not be kept in %s: %s", self._path, error)
            with self._lock:
                self._queued_bytes -= ITEM_BYTES + len(frame)

    def _append(self, line: bytes) -> None:
        if self._path.exists() and self._path.stat().st_size + len(line) > FILE_BYTES_MAX:
            self._path.replace(self._path.with_name(self._path.name + ".1"))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            file.write(line)


def _line(at: datetime, reason: str, frame: bytes, length: int) -> bytes:
    record: dict[str, str | int] = {"at": at.isoformat(), "reason": reason, "bytes": length}
    try:
        record["frame"] = frame.decode("utf-8")
    except UnicodeDecodeError:
        record["frame_base64"] = base64.b64encode(frame).decode("ascii")
    return json.dumps(record).encode("ascii") + b"\n"
