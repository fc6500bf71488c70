"""How a command ends, and what its arguments can be."""

import argparse
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from process import command
from process.child import ROOT
from process.command import Parser, duration_s, number, run, whole

PARSER = Parser(prog="python -m tools.thing")


class MistakeError(Exception):
    """The operator's."""


def raising(error: BaseException) -> int:
    """A body that fails."""
    raise error


def test_what_the_body_returns_is_the_exit_code() -> None:
    """Whatever it is."""
    assert [run(PARSER, partial(int, code), ()) for code in (0, 1, 7)] == [0, 1, 7]


def test_a_mistake_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    """Its name, its words, and no line feed within."""
    assert run(PARSER, lambda: raising(MistakeError("first\n  second")), (MistakeError,)) == 2
    assert capsys.readouterr() == ("", "tools.thing: first second\n")


def test_a_defect_is_not_hidden() -> None:
    """What is not among the mistakes keeps its traceback."""
    with pytest.raises(ZeroDivisionError):
        run(PARSER, lambda: raising(ZeroDivisionError()), (MistakeError,))


def test_ctrl_c_is_130_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    """As a shell reports it."""
    assert run(PARSER, lambda: raising(KeyboardInterrupt()), (MistakeError,)) == 130
    assert capsys.readouterr() == ("", "")


def test_ctrl_c_is_taken_over_from_the_start_and_given_back() -> None:
    """During the imports it ends the script at once; while the body runs it raises KeyboardInterrupt."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        assert run(PARSER, lambda: int(signal.getsignal(signal.SIGINT) is signal.default_int_handler), ()) == 1
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_wrong_flag_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """It names the flag and points to the help."""
    with pytest.raises(SystemExit) as ended:
        PARSER.parse_args(["--nothing"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "tools.thing: unrecognized arguments: --nothing (see --help)\n"


def test_the_first_signal_asks_to_stop() -> None:
    """The second would end the process."""
    before = {one: signal.getsignal(one) for one in command.stop_signals()}
    stop_asked = threading.Event()
    try:
        command.stop_on_signals(stop_asked)
        signal.raise_signal(signal.SIGTERM)
        assert stop_asked.is_set()
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


WAITS = """
import signal, threading, time
from process import command
asked = threading.Event()
asked.set()
command.stop_on_signals(asked)
thread = threading.Thread(target=time.sleep, args=(60,), daemon=True)
thread.start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("waits", flush=True)
command.join(thread, 60)
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals cannot be blocked here")
def test_a_signal_that_does_not_wake_the_main_thread_is_obeyed() -> None:
    """It blocks them, so that the system gives the second one to the other thread."""
    with subprocess.Popen([sys.executable, "-c", WAITS], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"waits\n"
        process.terminate()
        try:
            assert process.wait(30) == 128 + signal.SIGTERM
        finally:
            process.kill()


@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_a_thread_is_not_waited_for_longer_than_allowed(seconds: float) -> None:
    """Nor after it has ended."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait, daemon=True)
    thread.start()
    began_s = time.monotonic()
    command.join(thread, seconds)
    assert thread.is_alive()
    assert time.monotonic() - began_s >= seconds
    over.set()
    command.join(thread, 60.0)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("0.5", 0.5),
        ("30s", 30.0),
        ("5m", 300.0),
        ("2h", 7_200.0),
        ("1d", 86_400.0),
        ("1.5h", 5_400.0),
        ("1e12", 1e12),
    ],
)
def test_a_duration_is_seconds_or_has_a_unit(text: str, seconds: float) -> None:
    """As `--last` takes them."""
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-1", "5x", "m", "1e", "nan", "inf", "1 m", "٣m", "9" * 30])
def test_a_wrong_duration_names_the_value_and_the_way_out(text: str) -> None:
    """Not `invalid _seconds value`."""
    with pytest.raises(argparse.ArgumentTypeError, match="30s, 5m, 2h, 1d") as refused:
        duration_s(text)
    assert repr(text) in str(refused.value)


@pytest.mark.parametrize("text", ["", "-1", "5", "1.0", "+1", "1_0", "٣", "9" * 5_000])
def test_a_whole_number_has_bounds(text: str) -> None:
    """Both are named; nothing that only looks like a number is taken."""
    assert [whole(0, 4)("0"), whole(0, 4)("4"), whole(1)("123")] == [0, 4, 123]
    with pytest.raises(argparse.ArgumentTypeError, match="is not a whole number from 0 to 4"):
        whole(0, 4)(text)


@pytest.mark.parametrize("text", ["", "x", "0", "-0.1", "10.5", "nan", "inf", "-inf"])
def test_a_number_has_bounds(text: str) -> None:
    """Infinity is no number either."""
    assert [number(0)("0"), number(0, 10, above=True)("10"), number(0)("1e3")] == [0.0, 10.0, 1_000.0]
    with pytest.raises(argparse.ArgumentTypeError, match="is not a number above 0, at most 10"):
        number(0, 10, above=True)(text)


@pytest.mark.skipif(not hasattr(sys.stdout, "reconfigure"), reason="pytest has replaced the standard output")
def test_any_character_can_be_printed() -> None:
    """A terminal that cannot show a symbol shows its escape."""
    run(PARSER, lambda: 0, ())
    assert sys.stdout.errors == "backslashreplace"
