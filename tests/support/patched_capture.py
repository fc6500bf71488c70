"""ws_client.py with other bounds, a clock that steps, or a death at a chosen statement: for tests of what takes long.

PATCHES is a JSON object: "package.module.NAME" sets a module's constant, "limits" gives fields of standby.Limits.
SIGUSR1 moves this machine's clock an hour ahead, SIGUSR2 an hour back.
DIE_AT="before|after N WORDS" ends the process with SIGKILL at the N-th call of the server that contains WORDS, or at
the N-th appending to the spool (WORDS "append"), removal of one of its segments (WORDS "unlink") or renaming of a file
(WORDS "replace"). AWAY_S: for so
many seconds from the first one on the database refuses every commit.
"""

import functools
import importlib
import itertools
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import db
import ws_client
from capture import pipeline, spool, standby

_CLOCKED = ("capture.socket_reader", "storage.gaps", "capture.rejects", "capture.gap_filler", "capture.sealer")
_STEP = timedelta(hours=1)


def set_constants(patches: dict[str, Any]) -> None:
    """Sets constants of modules, and limits, as PATCHES says."""
    limits = patches.pop("limits", None)
    if limits is not None:
        vars(pipeline)["Limits"] = functools.partial(standby.Limits, **limits)
    for name, value in patches.items():
        # The program reads these through their module (tests/test_architecture.py), so one place is enough.
        module_name, _, constant = name.rpartition(".")
        module = importlib.import_module(module_name)
        assert constant in vars(module), name
        setattr(module, constant, value)


class _OfDatetime(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, datetime)


class _Clock(metaclass=_OfDatetime):
    """Stands for the class datetime in a module: only the present time is another one."""

    offset = timedelta()
    fromtimestamp = datetime.fromtimestamp

    @staticmethod
    def now(zone: Any = None) -> datetime:
        return datetime.now(zone) + _Clock.offset


def _step_clock(number: int, _frame: FrameType | None) -> None:
    _Clock.offset += _STEP if number == signal.SIGUSR1 else -_STEP


def _let_clock_step() -> None:
    for name in _CLOCKED:
        names = vars(importlib.import_module(name))
        assert names["datetime"] is datetime, name
        names["datetime"] = _Clock
    signal.signal(signal.SIGUSR1, _step_clock)
    signal.signal(signal.SIGUSR2, _step_clock)


def _dying(do: Callable[..., Any], when: str, number: int, matches: Callable[..., bool]) -> Callable[..., Any]:
    """`do`, but the process ends at its `number`-th call that `matches`."""
    calls = itertools.count(1)

    @functools.wraps(do)
    def perhaps(*args: Any, **kwargs: Any) -> Any:
        # Several threads call: which one makes the fatal call must not change while it is under way.
        fatal = matches(*args) and next(calls) == number
        if fatal and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = do(*args, **kwargs)
        if fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return perhaps


def let_die(wish: str) -> None:
    """Ends the process as DIE_AT says."""
    when, number, words = wish.split(" ", 2)
    if words == "append":
        spool.Spool.append = _dying(spool.Spool.append, when, int(number), lambda *_: True)  # type: ignore[method-assign]
    elif words == "unlink":
        Path.unlink = _dying(Path.unlink, when, int(number), lambda path: path.suffix == ".spool")  # type: ignore[method-assign]
    elif words == "replace":
        Path.replace = _dying(Path.replace, when, int(number), lambda *_: True)  # type: ignore[method-assign]
    else:
        matches = functools.partial(_contains, words)
        db.Connection.cmd_query = _dying(db.Connection.cmd_query, when, int(number), matches)  # type: ignore[method-assign]


def _contains(words: str, _connection: object, sql: str | bytes, *_: object) -> bool:
    text = sql.decode() if isinstance(sql, bytes | bytearray) else sql
    return words in text


def _refuse_for(seconds: float) -> None:
    until = math.inf
    insert = db.insert_acceptable

    def insert_acceptable(*args: Any, **kwargs: Any) -> int:
        nonlocal until
        # From the first commit on, however long the start takes on a busy machine.
        until = min(until, time.monotonic() + seconds)
        if time.monotonic() < until:
            raise db.GoneError("away, as the test wants it")
        return insert(*args, **kwargs)

    vars(db)["insert_acceptable"] = insert_acceptable


def main() -> int:
    """Patches as the environment says, then captures."""
    set_constants(json.loads(os.environ.get("PATCHES", "{}")))
    _let_clock_step()
    if os.environ.get("DIE_AT"):
        let_die(os.environ["DIE_AT"])
    if os.environ.get("AWAY_S"):
        _refuse_for(float(os.environ["AWAY_S"]))
    return ws_client.main()


if __name__ == "__main__":
    sys.exit(main())
