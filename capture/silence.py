"""Which symbols have brought no trade for too long: pure, the caller has the clock.

Most symbols are quiet at times, and only they know how long: one that was silent and came back may be silent for twice
as long before that is said again.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

SILENT_S = 60.0
"""A symbol without a trade for so long is said to be silent, once."""
SILENT_S_MAX = 86_400.0
MANY, SILENT_OF_MANY_S = 20, 900.0
"""Of more symbols than that most are quiet at times: they are said to be silent after this only."""


class Change(NamedTuple):
    """A symbol that is silent, or was until now, and for how many seconds."""

    symbol: str
    seconds: float


class _Symbol:
    def __init__(self, now: float, limit_s: float) -> None:
        self.newest = 0
        self.since = now
        self.limit_s = limit_s
        self.silent = False


class Silence:
    """What is known of each symbol. `silent`: how many are."""

    def __init__(self, symbols: Sequence[str], now: float) -> None:
        self._symbols: dict[str, _Symbol] = {}
        self._open_since = now
        self.silent = 0
        self.follow(symbols, now)

    def follow(self, symbols: Sequence[str], now: float) -> None:
        """From now on it is about these symbols; what is known of one of them stays known."""
        limit_s = SILENT_S if len(symbols) <= MANY else SILENT_OF_MANY_S
        known = self._symbols
        self._symbols = {symbol: known.get(symbol) or _Symbol(now, limit_s) for symbol in symbols}
        self.silent = sum(one.silent for one in self._symbols.values())

    def look(self, newest: Mapping[str, int], now: float, is_open: bool) -> tuple[list[Change], list[Change]]:
        """Those that are silent from now on, and those that are back; `newest`: the highest id that came of each.

        While no connection `is_open`, which is said elsewhere, nobody becomes silent.
        """
        if not is_open:
            self._open_since = now
        silent: list[Change] = []
        back: list[Change] = []
        for symbol, one in self._symbols.items():
            seconds = now - one.since
            if newest.get(symbol, 0) != one.newest:
                if one.silent:
                    back.append(Change(symbol, seconds))
                    one.limit_s = min(SILENT_S_MAX, max(one.limit_s, 2 * seconds))
                one.newest, one.since, one.silent = newest.get(symbol, 0), now, False
            elif not one.silent and now - max(one.since, self._open_since) >= one.limit_s:
                one.silent = True
                silent.append(Change(symbol, seconds))
        self.silent += len(silent) - len(back)
        return silent, back


NAMES_MAX = 5


def named(changes: Sequence[Change]) -> str:
    """The symbols in words, with their seconds; of many only the first."""
    return first_of([f"{change.symbol} ({change.seconds:.0f} s)" for change in changes], NAMES_MAX)


def first_of(names: Sequence[str], most: int) -> str:
    """`names` in words; of many only the first, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")
