"""How every command reads its arguments and ends: one line for a mistake, an exit code, no traceback."""

import argparse
import contextlib
import io
import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import date
from types import FrameType
from typing import Any, NoReturn, Protocol

from process import log

MISTAKE = 2
"""The exit code if the operator must fix something; the line on stderr says what."""
INTERRUPTED = 128 + signal.SIGINT
JOIN_STEP_S = 0.25
PORT_MAX = 65_535

_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and whose help any terminal or pipe can show."""

    def _print_message(self, message: str, file: Any = None) -> None:
        _show_any_character()
        super()._print_message(message, file)

    def error(self, message: str) -> NoReturn:
        self.exit(MISTAKE, f"{_name(self.prog)}: {one_line(message)} (see --help)\n")


def run(parser: argparse.ArgumentParser, body: Callable[[], int], mistakes: tuple[type[Exception], ...]) -> int:
    """The exit code: what `body` returns; 2 after one of `mistakes` or an OSError, which is printed as one line; 130
    after Ctrl-C."""
    _show_any_character()
    # As start.prepare() left it; no other thread could have set it.
    prepared = signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    try:
        if prepared:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = body()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader, such as `head`, has ended; the rest of the buffer must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except mistakes as error:
        return fail(parser, _words(error) if isinstance(error, OSError) else error)
    except OSError as error:
        # A full disk, a folder of another account: what only the operator can mend is no defect.
        return fail(parser, _words(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        # What remains at exit, such as stopping the private server, can be left to itself.
        if prepared:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def fail(parser: argparse.ArgumentParser, why: object) -> int:
    """Exit code 2, after printing one line on stderr, below everything that was logged."""
    line = f"{_name(parser.prog)}: {one_line(str(why))}"
    # Where nobody reads stderr, the file that stands for it has the line.
    log.last(line)
    log.write_out()
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr)
    return MISTAKE


def _words(error: OSError) -> str:
    """Why the system refuses, and what it is about."""
    what = f"{os.fspath(error.filename)!r}: " if isinstance(error.filename, str | os.PathLike) else ""
    words = f"{what}{error.strerror}" if error.strerror else str(error)
    if isinstance(error, PermissionError):
        words += "; does it belong to another account, as after a first run as root?"
    return words


def show(text: str) -> None:
    """Prints `text`, unless nobody can read it any more, as after the terminal was closed."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def stop_signals() -> tuple[signal.Signals, ...]:
    """Those that ask to stop: Ctrl-C, SIGTERM, and the end of the terminal unless `nohup` says to outlive it."""
    asked = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        asked.append(signal.SIGHUP)
    return tuple(asked)


def stop_on_signals(stop_asked: threading.Event) -> None:
    """Makes each of stop_signals() set `stop_asked`; a second one ends the process at once."""

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if stop_asked.is_set():
            os._exit(128 + number)
        stop_asked.set()

    # Only the main thread may set a handler; in another thread the caller must stop it.
    if threading.current_thread() is threading.main_thread():
        for number in stop_signals():
            signal.signal(number, on_signal)


class Joinable(Protocol):
    """A thread, to whoever waits for it."""

    def is_alive(self) -> bool: ...
    def join(self, timeout: float | None = None) -> None: ...


def join(thread: Joinable, seconds: float) -> None:
    """Waits for the end of a thread, at most so long; in the main thread, which runs the handlers of signals.

    In steps: a signal that comes just before the wait begins, or that the system gives to another thread, does not end
    the wait, and its handler runs after it.
    """
    end = time.monotonic() + seconds
    while thread.is_alive() and (left_s := end - time.monotonic()) > 0:
        thread.join(min(left_s, JOIN_STEP_S))


def one_line(text: str) -> str:
    """`text` with every run of white space as one space."""
    return " ".join(text.split())


def _name(prog: str) -> str:
    """The name at the start of a command's lines: query_examples.py, tools.api."""
    return prog.removeprefix("python -m ")


def _show_any_character() -> None:
    """Escapes characters that the terminal or pipe cannot show; some symbols are not ASCII."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


# ---- Types of arguments. argparse prints their messages, which name the value and what can be given.


def duration_s(text: str) -> float:
    """The seconds of a duration: 90, 0.5, 30s, 5m, 2h or 1d. Raises ArgumentTypeError."""
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?(?:e[0-9]{1,2})?)([smhd]?)", text)
    seconds = float(match[1]) * _UNITS_S[match[2] or "s"] if match else 0.0
    if not seconds:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration above 0; give seconds, or 30s, 5m, 2h, 1d")
    return seconds


def utc_day(text: str) -> date:
    """The day of YYYY-MM-DD. Raises ArgumentTypeError."""
    try:
        if len(text) != 10:
            raise ValueError(text)
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day; give it as YYYY-MM-DD") from None


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """The type of a whole number from `low` to `high`, both included."""
    bounds = f"of {low} or more" if high is None else f"from {low} to {high}"

    def parse(text: str) -> int:
        # int() raises for thousands of digits, and takes signs, spaces and other scripts.
        if not re.fullmatch(r"[0-9]{1,18}", text) or not low <= int(text) <= (math.inf if high is None else high):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {bounds}")
        return int(text)

    return parse


def number(low: float, high: float = math.inf, *, above: bool = False) -> Callable[[str], float]:
    """The type of a number from `low` (`above`: without it) to `high`."""
    bounds = (f"above {low:g}" if above else f"of {low:g} or more") + (f", at most {high:g}" if high < math.inf else "")

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (low < value if above else low <= value) or not value <= high or value == math.inf:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number {bounds}")
        return value

    return parse
