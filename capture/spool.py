"""Trades on disk while the database is away: DATA_DIR/spool/, segments of checksummed lines, replayed first to last.

A line is eight hex digits of CRC-32, a space, and the trade as a JSON array. A batch is on the disk (fsync) when append
returns. A segment is removed only after its trades were committed; since inserting is idempotent, a segment that was
half replayed before a crash is simply replayed again.
"""

import errno
import logging
import os
import zlib
from collections import deque
from pathlib import Path
from typing import IO, NamedTuple

import msgspec

from model.trade import Trade
from process.disk import sync_folder

log = logging.getLogger("spool")

SEGMENT_BYTES_MAX = 16 * 2**20
SPOOL_BYTES_MAX = 16 * 2**30
"""About 130 million trades. At the bound append raises, as it does if the disk is full."""
REPLAY_BYTES_MAX = 1024 * 2**10
"""What one read returns: about 8,000 trades, one transaction."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Trade).decode


class Chunk(NamedTuple):
    """What one read returned: trades, corrupt lines, and whether an earlier run of the program wrote them."""

    trades: list[Trade]
    corrupt: list[bytes]
    earlier: bool


class Spool:
    """The segments of one folder, for one thread. `waiting`: the trades of this run that are still on the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        found = sorted(folder.glob("[0-9]" * 12 + ".spool"))
        self._segments = deque((path, True) for path in found)
        self._number = int(found[-1].stem) if found else 0
        self._bytes = sum(path.stat().st_size for path in found)
        self._tail: IO[bytes] | None = None
        self._tail_bytes = 0
        self._head: IO[bytes] | None = None
        self._read: Chunk | None = None
        self.waiting = 0

    @property
    def empty(self) -> bool:
        """Whether nothing waits for the database."""
        return not self._segments

    def append(self, trades: list[Trade]) -> None:
        """Writes `trades` to the disk. Raises OSError (disk full, bound reached), and then keeps none of them."""
        lines = b"".join(_line(trade) for trade in trades)
        if self._bytes + len(lines) > SPOOL_BYTES_MAX:
            raise OSError(f"the spool has reached its bound of {SPOOL_BYTES_MAX} bytes")
        if self._tail is None or self._tail_bytes >= SEGMENT_BYTES_MAX:
            self._open_segment()
        assert self._tail is not None
        try:
            if self._tail.write(lines) != len(lines):
                raise OSError(errno.ENOSPC, "only a part of the batch fitted on the disk")
            os.fsync(self._tail.fileno())
        except OSError:
            # Whole lines only: the replay would take the remains of a failed write for corruption.
            os.ftruncate(self._tail.fileno(), self._tail_bytes)
            self._tail.seek(self._tail_bytes)
            raise
        self._tail_bytes += len(lines)
        self._bytes += len(lines)
        self.waiting += len(trades)

    def read(self) -> Chunk:
        """The next trades, oldest segment first; the same ones until `done` is called. The spool must not be empty."""
        if self._read is None:
            path, earlier = self._segments[0]
            if self._head is None:
                self._head = path.open("rb")
            self._read = _chunk(self._head.readlines(REPLAY_BYTES_MAX), earlier, path)
        return self._read

    def done(self) -> None:
        """Moves on behind the trades that `read` returned, now committed; removes a finished segment."""
        assert self._read is not None
        assert self._head is not None
        if not self._read.earlier:
            self.waiting -= len(self._read.trades) + len(self._read.corrupt)
        self._read = None
        path, _ = self._segments[0]
        size = path.stat().st_size
        if self._head.tell() < size:
            return
        self._head.close()
        self._head = None
        if len(self._segments) == 1:
            self._close_tail()
        path.unlink()
        self._segments.popleft()
        self._bytes -= size

    def close(self) -> None:
        """Closes the files; what waits stays on the disk for the next run."""
        self._close_tail()
        if self._head is not None:
            self._head.close()

    def _open_segment(self) -> None:
        self._close_tail()
        path = self._folder / f"{self._number + 1:012d}.spool"
        # Unbuffered, so that a failed write leaves nothing behind in memory that close() would write later.
        self._tail = path.open("xb", buffering=0)
        self._tail_bytes = 0
        self._number += 1
        self._segments.append((path, False))
        sync_folder(self._folder)

    def _close_tail(self) -> None:
        if self._tail is not None:
            self._tail.close()
            self._tail = None


def _line(trade: Trade) -> bytes:
    text = _encode(trade)
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _chunk(lines: list[bytes], earlier: bool, path: Path) -> Chunk:
    trades: list[Trade] = []
    corrupt: list[bytes] = []
    for line in lines:
        try:
            trades.append(_parse_line(line))
        except (ValueError, msgspec.MsgspecError):
            if line.endswith(b"\n"):
                corrupt.append(line)
            else:
                log.info("%s ends in a torn line, as a crash leaves it; what it held was never acknowledged", path)
    return Chunk(trades, corrupt, earlier)


def _parse_line(line: bytes) -> Trade:
    """The trade of a line. Raises ValueError, msgspec.MsgspecError."""
    text = line[9:-1]
    if line[8:9] != b" " or line[-1:] != b"\n" or int(line[:8], 16) != zlib.crc32(text):
        raise ValueError("not a line of the spool, or not as it was written")
    return _decode(text)
