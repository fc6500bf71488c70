"""The log on stderr: coloured on a terminal, plain in a pipe; a thread of its own writes it."""

import atexit
import contextlib
import logging
import logging.handlers
import os
import queue
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

RECORDS_MAX = 10_000
"""Log records that may wait while the terminal accepts none."""
FILE_BYTES_MAX = 8 * 2**20
"""Of the file that stands for a closed stderr; it and the one before it are kept."""
FILE = "ws_client.log"

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


def set_up(
    level: str, stream: TextIO | None = None, folder: Callable[[], Path] | None = None
) -> logging.handlers.QueueListener:
    """Sends the log to `stream` (default: stderr), through a thread of its own, which is returned.

    Otherwise a stopped terminal (Ctrl-S) or a full pipe would block every thread that logs, and so the capture. If
    stderr was closed (`2>&-`, a service on Windows), the log goes to FILE in `folder()` instead, which is made.
    """
    stream = stream or sys.stderr
    handler = _file_handler(folder) if folder and is_closed(stream) else None
    if handler is None:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(_Formatter(bool(stream) and stream.isatty()))
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


def is_closed(stream: TextIO | None) -> bool:
    """Whether `stream` was closed when Python started; process/start.py then puts the null device in its place."""
    return stream is None or getattr(stream, "name", None) == os.devnull


def _file_handler(folder: Callable[[], Path]) -> logging.StreamHandler[Any] | None:
    try:
        place = folder()
        place.mkdir(parents=True, exist_ok=True)
        handler = logging.handlers.RotatingFileHandler(place / FILE, maxBytes=FILE_BYTES_MAX, backupCount=1)
    except Exception:
        # Nobody could be told, and what is wrong with the settings ends the program in a moment.
        return None
    handler.setFormatter(_Formatter(colour=False))
    return handler


def last(line: str) -> None:
    """The line with which a command ends, into the file that stands for a closed stderr, if there is one."""
    for listener in _listeners[-1:]:
        if isinstance(listener.handlers[0], logging.FileHandler):
            logging.getLogger("command").error("%s", line)


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
