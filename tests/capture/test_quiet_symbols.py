"""silence.py and listing.py together through a day of quiet symbols, with an exchange and a clock of the tests."""

import random
from collections.abc import Sequence
from contextlib import suppress

import pytest

import config
from binance.limits import Cooldown
from binance.rest import TRADING, RestError
from capture import listing
from capture.listing import Listing
from capture.silence import LATE_S, Dead, Silence

STEP_S = 4.0
"""The streams bring a trade one step after the exchange has it, which they may."""
HOURS = 12
SYMBOLS = tuple(f"S{number:02}USDT" for number in range(60))
INTERVAL_S_MIN, INTERVAL_S_MAX = 10.0, 3 * 3_600.0
REFUSED = 5
"""Each so many calls one is refused."""


class Market:
    """The trades of all symbols, and in the place of Rest what the exchange tells of them."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        growth = INTERVAL_S_MAX / INTERVAL_S_MIN
        self._interval_s = {symbol: INTERVAL_S_MIN * growth ** self._random.random() for symbol in SYMBOLS}
        self._next_at = {symbol: self._wait_s(symbol) for symbol in SYMBOLS}
        self.ids = {symbol: self._random.randrange(1, 10**9) for symbol in SYMBOLS}
        self.calls = 0

    def _wait_s(self, symbol: str) -> float:
        return self._random.expovariate(1 / self._interval_s[symbol])

    def trade(self, now: float) -> set[str]:
        """The symbols with trades until `now`."""
        traded = {symbol for symbol in SYMBOLS if self._next_at[symbol] <= now}
        for symbol in traded:
            while self._next_at[symbol] <= now:
                self.ids[symbol] += 1
                self._next_at[symbol] += self._wait_s(symbol)
        return traded

    def fetch_statuses(self, symbols: Sequence[str]) -> dict[str, str | None]:
        return dict.fromkeys(symbols, TRADING)

    def fetch_newest_id(self, symbol: str) -> int:
        self.calls += 1
        if not self.calls % REFUSED:
            raise RestError("HTTP 503")
        return self.ids[symbol]


class Day:
    """A capture in two groups, of which only what the streams brought is known."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
        self.market = Market(seed)
        self.newest: dict[str, int] = {}
        self.silence = Silence(SYMBOLS, 0.0)
        self.listing = Listing(config.Settings(symbols=()), Cooldown())
        self.became_silent = 0
        self.dead: list[tuple[float, Dead]] = []
        monkeypatch.setattr(self.listing, "_rest", self.market)

    def run(self, dead: frozenset[str], outages: Sequence[tuple[float, float]]) -> None:
        """The streams bring nothing of `dead`, and in `outages` nothing of the second half of the symbols."""
        look_at, brought = 0.0, dict[str, int]()
        for now in (step * STEP_S for step in range(1, int(HOURS * 3_600 / STEP_S))):
            self.newest.update(brought)
            unread = SYMBOLS[len(SYMBOLS) // 2 :] if any(start <= now < end for start, end in outages) else ()
            brought = {one: self.market.ids[one] for one in self.market.trade(now) if one not in dead | set(unread)}
            self.became_silent += len(self.silence.look(self.newest, now, unread)[0])
            self.listing.ask_again(self.silence.to_ask(now))
            if self.listing._wanted and now >= look_at:
                look_at = now + listing.PAUSE_S
                with suppress(RestError):
                    self.listing.look()
            self.silence.hear(self.listing.answers(), now)
            self.dead += [(now, one) for one in self.silence.dead(now)]


@pytest.mark.parametrize("seed", [1, 2])
def test_quiet_symbols_raise_no_alarm(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Many become silent, and trades are missed while a group has no connection: no stream is dead."""
    assert STEP_S < LATE_S
    day = Day(monkeypatch, seed)
    day.run(frozenset(), [(7_000.0, 9_000.0), (20_000.0, 20_600.0)])
    assert day.became_silent > len(SYMBOLS) / 2
    assert day.market.calls > day.became_silent
    assert day.dead == []


def test_among_quiet_symbols_a_dead_stream_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each symbol of it that trades, and of no other, though nothing ever came of it."""
    day = Day(monkeypatch, 3)
    wanted = frozenset(sorted(SYMBOLS, key=day.market._interval_s.__getitem__)[10:20])
    day.run(wanted, [(7_000.0, 9_000.0)])
    assert {one.symbol for _at, one in day.dead} == wanted
    assert min(at for at, _one in day.dead) < 3_600
