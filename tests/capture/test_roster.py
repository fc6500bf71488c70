"""Which symbols are captured where SYMBOLS has patterns: what the exchange trades now, asked again and remembered."""

import math
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import config
from binance.limits import Cooldown
from binance.rest import RestError
from capture import roster
from capture.roster import Roster, RosterError
from process import retry
from tests.support.stand_in import StandIn

pytestmark = [pytest.mark.slow]
SYMBOLS = "BTCUSDT,ETHUSDT,ETHBTC,SOLUSDT"
DEAD = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "BACKOFF_S_MIN", 0.01)


class Clock:
    """Seconds, which only a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def roster_of(
    wishes: str, folder: Path, url: str, clock: Clock | None = None, cooldown: Cooldown | None = None
) -> Roster:
    """A roster of SYMBOLS=wishes."""
    symbols = config.parse_wishes("SYMBOLS", wishes)
    settings = config.Settings(symbols=symbols, rest_url=url, data_dir=folder)
    return Roster(settings, cooldown or Cooldown(), clock or Clock())


@pytest.mark.parametrize(
    ("wishes", "found"),
    [
        ("*USDT", ("BTCUSDT", "ETHUSDT", "SOLUSDT")),
        ("ALL", ("BTCUSDT", "ETHBTC", "ETHUSDT", "SOLUSDT")),
        ("SOLUSDT,ETH*", ("SOLUSDT", "ETHBTC", "ETHUSDT")),
        ("NEWUSDT,*BTC", ("NEWUSDT", "ETHBTC")),
        ("BTCUSDT", ("BTCUSDT",)),
    ],
)
def test_patterns_stand_for_what_the_exchange_trades(wishes: str, found: tuple[str, ...], tmp_path: Path) -> None:
    """Names come as they are, in their order; then what matches, in the order of the names."""
    with StandIn("--port", "0", "--symbols", SYMBOLS) as exchange:
        subject = roster_of(wishes, tmp_path, exchange.http)
        subject.fill(threading.Event())
    assert subject.symbols == found


def test_a_pattern_that_matches_nothing_is_a_mistake(tmp_path: Path) -> None:
    """Nothing would ever come; the message names the setting."""
    with StandIn("--port", "0", "--symbols", SYMBOLS) as exchange, pytest.raises(RosterError, match=r"SYMBOLS='\*EUR'"):
        roster_of("*EUR", tmp_path, exchange.http).fill(threading.Event())


def test_symbols_come_and_go(tmp_path: Path) -> None:
    """A new one at the next look; one that is halted only after a day, and then it may come back."""
    clock, found = Clock(), list[tuple[str, ...]]()
    with StandIn("--port", "0", "--symbols", SYMBOLS) as exchange:
        exchange.fault("rest_symbol", symbol="SOLUSDT")
        subject = roster_of("*USDT", tmp_path, exchange.http, clock)
        subject.fill(threading.Event())
        found.append(subject.symbols)
        exchange.clear()
        subject.look()
        found.append(subject.symbols)
        exchange.fault("rest_symbol", symbol="SOLUSDT")
        for seconds in (roster.LEAVE_S - 1, 1):
            clock.now += seconds
            subject.look()
            found.append(subject.symbols)
    two, three = ("BTCUSDT", "ETHUSDT"), ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    assert found == [two, three, three, two]


def test_without_an_answer_those_of_the_last_run_are_captured(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The streams may be up while REST is not; what is remembered is not more than SYMBOLS wants now."""
    with StandIn("--port", "0", "--symbols", SYMBOLS) as exchange:
        roster_of("ALL", tmp_path, exchange.http).fill(threading.Event())
    subject = roster_of("ETH*", tmp_path, DEAD)
    subject.fill(threading.Event())
    assert subject.symbols == ("ETHBTC", "ETHUSDT")
    assert "what is known is captured until it answers: 2 symbols, ETHBTC, ETHUSDT" in caplog.text


def test_without_an_answer_names_are_captured(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They need no answer; what the pattern beside them stands for joins when it comes."""
    subject = roster_of("BTCUSDT,*EUR", tmp_path, DEAD)
    subject.fill(threading.Event())
    assert subject.symbols == ("BTCUSDT",)
    assert "what is known is captured until it answers: 1 symbol, BTCUSDT" in caplog.text


@pytest.mark.parametrize("kept", [None, "[]", "{}", "[1, 2]", '["btc"]', "{", "\xff"])
def test_without_an_answer_and_a_memory_it_waits(kept: str | None, tmp_path: Path) -> None:
    """Whatever is in the file; until it is told to stop."""
    if kept is not None:
        (tmp_path / "symbols.json").write_text(kept, encoding="latin-1")
    subject, stop = roster_of("*USDT", tmp_path, DEAD), threading.Event()
    waiting = threading.Thread(target=subject.fill, args=(stop,))
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    stop.set()
    waiting.join(10)
    assert not waiting.is_alive()
    assert subject.symbols == ()


def test_an_answer_that_cannot_be_had_later_changes_nothing(tmp_path: Path) -> None:
    """The symbols stay as they are."""
    with StandIn("--port", "0", "--symbols", SYMBOLS) as exchange:
        subject = roster_of("*USDT", tmp_path, exchange.http)
        subject.fill(threading.Event())
    with pytest.raises(RestError):
        subject.look()
    assert subject.symbols == ("BTCUSDT", "ETHUSDT", "SOLUSDT")


def test_an_exchange_that_trades_nothing_for_days_does_not_empty_the_capture(tmp_path: Path) -> None:
    """As in a long maintenance: what was captured stays wanted, and is there when the exchange is back."""
    clock = Clock()
    with StandIn("--port", "0", "--symbols", SYMBOLS) as exchange:
        subject = roster_of("*USDT", tmp_path, exchange.http, clock)
        subject.fill(threading.Event())
        for symbol in SYMBOLS.split(","):
            exchange.fault("rest_symbol", symbol=symbol)
        clock.now += 2 * roster.LEAVE_S
        subject.look()
    assert subject.symbols == ("BTCUSDT", "ETHUSDT", "SOLUSDT")


def test_after_a_failure_it_does_not_wait_for_the_next_hour(tmp_path: Path) -> None:
    """With the symbols of the last run the exchange is asked again soon, as the line in the log says; then as usual."""
    with StandIn("--port", "0", "--symbols", SYMBOLS) as exchange:
        first = roster_of("*USDT", tmp_path, exchange.http)
        first.fill(threading.Event())
        assert first.wait_s() == roster.LOOK_S
    second = roster_of("*USDT", tmp_path, DEAD)
    second.fill(threading.Event())
    assert roster.AGAIN_S <= second.wait_s() <= roster.AGAIN_S_MAX


def test_the_end_of_the_capture_ends_the_waiting_too(tmp_path: Path) -> None:
    """`--duration` holds while the exchange does not answer; that nothing is traded is not said, for nobody knows."""
    subject = roster_of("*USDT", tmp_path, DEAD)
    subject.fill(threading.Event(), time.monotonic() + 0.2)
    assert subject.symbols == ()


def test_an_end_that_comes_before_the_first_question_is_no_mistake_in_symbols(tmp_path: Path) -> None:
    """As with a short `--duration` and a database that takes long to start: nobody knows what is traded."""
    subject = roster_of("*USDT", tmp_path, DEAD)
    subject.fill(threading.Event(), time.monotonic() - 1.0)
    assert subject.symbols == ()


@pytest.mark.parametrize("is_stopped", [True, False], ids=["a signal", "--duration"])
def test_the_end_of_the_capture_ends_the_exchange_s_ban_too(is_stopped: bool, tmp_path: Path) -> None:
    """A ban may last for days: neither a signal nor `--duration` waits for it, and later the thread waits for it."""
    cooldown, stop = Cooldown(), threading.Event()
    cooldown.order(3_600.0)
    asked = threading.Event()
    subject = roster_of("*USDT", tmp_path, DEAD, cooldown=cooldown)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cooldown, "left_s", lambda: asked.set() or 3_600.0)  # type: ignore[func-returns-value]
        # The end comes after the first question, however long the thread takes to its start.
        begun_s = time.monotonic()
        clock = SimpleNamespace(monotonic=lambda: time.monotonic() if asked.is_set() else begun_s)
        patch.setattr(roster, "time", clock)
        end = math.inf if is_stopped else begun_s + 0.2
        waiting = threading.Thread(target=subject.fill, args=(stop, end), daemon=True)
        waiting.start()
        assert asked.wait(10)
        if is_stopped:
            stop.set()
        waiting.join(10)
        assert not waiting.is_alive()
    assert subject.symbols == ()
    subject.start()
    subject.stop()
    subject.join(10)
    assert not subject.is_alive()
