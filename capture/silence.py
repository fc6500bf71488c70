"""Which symbols have brought no trade for too long, and of which the stream is dead: pure, the caller has the clock.

Most symbols are quiet at times, and only they know how long: one that was silent and came back may be silent for twice
as long before that is said again. So the exchange is asked for the newest trade of a silent one, and again as long as
it is silent: its stream is dead if that is a trade which an open connection should have brought.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from process.retry import doubled

SILENT_S = 60.0
"""A symbol without a trade for so long is said to be silent, once."""
SILENT_S_MAX = 86_400.0
MANY, SILENT_OF_MANY_S = 20, 900.0
"""Of more symbols than that most are quiet at times: they are said to be silent after this only."""
AGAIN_S_MAX = 3_600.0
"""While a symbol is silent, the exchange is asked about it again; the wait doubles up to this."""
LATE_S = 5.0
"""A stream may bring a trade so much later than the exchange tells of it."""


class Change(NamedTuple):
    """A symbol that is silent, or was until now, and for how many seconds."""

    symbol: str
    seconds: float


class Dead(NamedTuple):
    """A symbol whose stream is dead: the exchange told of the trade `theirs`, and nothing came after `ours`."""

    symbol: str
    ours: int
    theirs: int


class _Symbol:
    def __init__(self, now: float, limit_s: float) -> None:
        self.newest = 0
        self.since = self.open_since = now
        self.limit_s = limit_s
        self.silent = False
        self.asked = 0
        self.ask_at = now
        self.restart()

    def restart(self) -> None:
        """What the exchange tells next may be older than what the connections can bring."""
        # The highest id that has come or could not come; a higher one that the exchange told of, and when.
        self.known: int | None = None
        self.missed: int | None = None
        self.missed_at = 0.0

    def trade(self, newest: int, now: float) -> None:
        """A trade has come."""
        self.newest = self.known = newest
        self.missed = None
        self.since, self.silent = now, False


class Silence:
    """What is known of each symbol. `silent`: how many are."""

    def __init__(self, symbols: Sequence[str], now: float) -> None:
        self._symbols: dict[str, _Symbol] = {}
        self._limit_s = SILENT_S
        self.silent = 0
        self.follow(symbols, now)

    def follow(self, symbols: Sequence[str], now: float) -> None:
        """From now on it is about these symbols; what is known of one of them stays known."""
        self._limit_s = SILENT_S if len(symbols) <= MANY else SILENT_OF_MANY_S
        known = self._symbols
        self._symbols = {symbol: known.get(symbol) or _Symbol(now, self._limit_s) for symbol in symbols}
        self.silent = sum(one.silent for one in self._symbols.values())

    def look(
        self, newest: Mapping[str, int], now: float, unread: Collection[str] = ()
    ) -> tuple[list[Change], list[Change]]:
        """Those that are silent from now on, and those that are back; `newest`: the highest id that came of each.

        While no connection reads a symbol (`unread`: at some time since the look before), which is said elsewhere, it
        does not become silent.
        """
        silent: list[Change] = []
        back: list[Change] = []
        for symbol, one in self._symbols.items():
            seconds = now - one.since
            if newest.get(symbol, 0) > one.newest:
                if one.silent:
                    back.append(Change(symbol, seconds))
                    one.limit_s = min(SILENT_S_MAX, max(one.limit_s, 2 * seconds))
                one.trade(newest[symbol], now)
            elif not one.silent and symbol not in unread and now - max(one.since, one.open_since) >= one.limit_s:
                one.silent, one.asked, one.ask_at = True, 0, now
                silent.append(Change(symbol, seconds))
            if symbol in unread:
                one.open_since = now
                one.restart()
        self.silent += len(silent) - len(back)
        return silent, back

    def to_ask(self, now: float) -> list[str]:
        """The silent symbols whose newest trade the exchange should be asked for now: each is returned once, and again
        after a while."""
        due = [symbol for symbol, one in self._symbols.items() if one.silent and now >= one.ask_at]
        for symbol in due:
            one = self._symbols[symbol]
            one.ask_at = now + doubled(self._limit_s, one.asked, AGAIN_S_MAX)
            one.asked += 1
        return due

    def hear(self, answers: Mapping[str, int], now: float) -> None:
        """Takes in what the exchange told: the newest id of symbols. The first answer after a start, or a time without
        a connection, proves nothing: that trade may be older than the connections."""
        for symbol, theirs in answers.items():
            one = self._symbols.get(symbol)
            if one is None or not one.silent:
                continue
            if one.known is None:
                one.known = theirs
            elif theirs > one.known and one.missed is None:
                one.missed, one.missed_at = theirs, now

    def dead(self, now: float) -> list[Dead]:
        """The symbols whose stream has not brought in time what the exchange told of; each is returned once."""
        found = [
            Dead(symbol, one.known, one.missed)
            for symbol, one in self._symbols.items()
            if one.known is not None and one.missed is not None and now - one.missed_at >= LATE_S
        ]
        self.restart(one.symbol for one in found)
        return found

    def restart(self, symbols: Iterable[str]) -> None:
        """The connections of these symbols are renewed: the new ones do not bring what the old ones missed."""
        for symbol in symbols:
            if symbol in self._symbols:
                self._symbols[symbol].restart()


NAMES_MAX = 5


def named(changes: Sequence[Change]) -> str:
    """The symbols in words, with their seconds; of many only the first."""
    return first_of([f"{change.symbol} ({change.seconds:.0f} s)" for change in changes], NAMES_MAX)


def first_of(names: Sequence[str], most: int) -> str:
    """`names` in words; of many only the first, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")
