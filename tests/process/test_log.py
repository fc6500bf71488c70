"""How the log looks: in a pipe, on a terminal, with a traceback."""

import io
import logging
import re
import threading
from collections.abc import Iterator

import pytest

from process import log as console


@pytest.fixture
def _root_logger() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    library = logging.getLogger("websocket").level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    logging.getLogger("websocket").setLevel(library)


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("_root_logger")
def test_a_pipe_gets_plain_text() -> None:
    """UTC time, a level only where it is not ordinary, no colour."""
    stream = io.StringIO()
    listener = console.set_up("info", stream)
    logging.getLogger("x").info("%d trades", 5)
    logging.getLogger("x").warning("away")
    logging.getLogger("x").debug("not shown")
    listener.stop()
    lines = stream.getvalue().splitlines()
    assert [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ ", "", line) for line in lines] == ["5 trades", "warning: away"]


class Slow(io.StringIO):
    """A stream that takes a line only when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()

    def write(self, text: str) -> int:
        """Waits first."""
        self.may.wait(10.0)
        return super().write(text)


@pytest.mark.usefixtures("_root_logger")
def test_what_was_logged_stands_before_what_is_printed_next() -> None:
    """A program's last line, which says what to do, comes last, however slow the terminal; twice is no error."""
    stream = Slow()
    listener = console.set_up("info", stream)
    logging.getLogger("x").warning("away")
    threading.Timer(0.05, stream.may.set).start()
    console.write_out(listener)
    assert stream.getvalue().endswith("warning: away\n")
    console.write_out(listener)


@pytest.mark.usefixtures("_root_logger")
def test_a_terminal_gets_colour() -> None:
    """Yellow for warnings, red for errors, and the end of the colour behind each."""
    stream = Terminal()
    listener = console.set_up("info", stream)
    logging.getLogger("x").warning("away")
    logging.getLogger("x").error("gone")
    logging.getLogger("x").info("fine")
    listener.stop()
    away, gone, fine = stream.getvalue().splitlines()
    assert "\x1b[33mwarning: away\x1b[0m" in away
    assert "\x1b[31merror: gone\x1b[0m" in gone
    assert fine.endswith("\x1b[0m fine")


@pytest.mark.usefixtures("_root_logger")
def test_a_defect_is_shown_with_its_traceback() -> None:
    """And the library's own log, which repeats ours, is not shown."""
    stream = io.StringIO()
    listener = console.set_up("info", stream)
    try:
        raise KeyError("x")
    except KeyError:
        logging.getLogger("x").exception("the writer fails")
    logging.getLogger("websocket").error("goodbye")
    listener.stop()
    assert "error: the writer fails\nTraceback" in stream.getvalue()
    assert "goodbye" not in stream.getvalue()
