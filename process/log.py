"""The log on stderr: coloured on a terminal, plain in a pipe; a thread of its own writes it."""

import atexit
import contextlib
import logging
import logging.handlers
import queue
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TextIO

RECORDS_MAX = 10_000
"""Log records that may wait while the terminal accepts none."""

_COLOURS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31;1m"}
_DIM, _RESET = "\x1b[2m", "\x1b[0m"
_listeners: list[logging.handlers.QueueListener] = []


class _Formatter(logging.Formatter):
    """UTC time, level unless it is INFO, message; a traceback only for a defect."""

    def __init__(self, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        text = f"{level}{record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        if not self._colour:
            return f"{at} {text}"
        colour = _COLOURS.get(record.levelno, "")
        return f"{_DIM}{at}{_RESET} {colour}{text}{_RESET if colour else ''}"


class _NeverWaiting(logging.handlers.QueueHandler):
    """Hands a record to the writing thread; without room for it, the record is dropped instead of waiting."""

    def enqueue(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(queue.Full):
            self.queue.put_nowait(record)


def set_up(level: str, stream: TextIO | None = None) -> logging.handlers.QueueListener:
    """Sends the log to `stream` (default: stderr), through a thread of its own, which is returned.

    Otherwise a stopped terminal (Ctrl-S) or a full pipe would block every thread that logs, and so the capture.
    """
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Formatter(stream.isatty()))
    records: queue.Queue[logging.LogRecord] = queue.Queue(RECORDS_MAX)
    listener = logging.handlers.QueueListener(records, handler)
    sender = _NeverWaiting(records)
    sender.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[sender], force=True)
    listener.start()
    _listeners[:] = [listener]
    atexit.register(write_out, listener)
    # The library logs at ERROR what this program already reports in better words.
    logging.getLogger("websocket").setLevel(logging.CRITICAL + 1)
    return listener


def write_out(listener: logging.handlers.QueueListener | None = None) -> None:
    """Writes the waiting records and ends the thread, so that what is printed next comes last. A second call does
    nothing.

    `listener`: that of the last set_up() if None.
    """
    for one in [listener] if listener else _listeners[-1:]:
        if one._thread is not None:
            one.stop()


def counters_text(counters: Sequence[tuple[str, int]]) -> str:
    """`queue 0, committed 12, …`"""
    return ", ".join(f"{name} {number}" for name, number in counters)
