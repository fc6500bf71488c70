"""Whose gaps are filled next: pure. The exchange serves so many pages a minute, which all symbols with gaps share."""

from collections import defaultdict
from collections.abc import Sequence

from model.gaps import Gap

PAGES_PER_ROUND = 120
"""In a round each symbol gets its part of so many pages, at least one: what half of the exchange's request weight
allows in a minute, at 25 a page (rest-api.md)."""


class Turns:
    """Who had how much already. The symbol whose turn it is keeps it until it had its part of the round; then comes the
    one that was served longest ago, those that were never served first, in the order of their newest gaps."""

    def __init__(self) -> None:
        self._now: str | None = None
        self._left = 0
        self._served: dict[str, int] = {}
        self._rounds = 0

    def order(self, gaps: Sequence[Gap]) -> list[Gap]:
        """`gaps`, which are sorted by symbol and id, as they should be filled: of a symbol the newest first."""
        of: dict[str, list[Gap]] = defaultdict(list)
        for gap in reversed(gaps):
            of[gap.symbol].append(gap)
        self._served = {symbol: turn for symbol, turn in self._served.items() if symbol in of}
        by_newest = sorted(of, key=lambda symbol: of[symbol][0].timestamp_after, reverse=True)
        names = sorted(by_newest, key=lambda symbol: (symbol != self._now, self._served.get(symbol, 0)))
        if names and names[0] != self._now:
            self._now, self._left = names[0], max(1, PAGES_PER_ROUND // len(of))
        return [gap for symbol in names for gap in of[symbol]]

    def part(self, symbol: str) -> int:
        """How many pages `symbol` may have now."""
        return self._left if symbol == self._now else 1

    def took(self, symbol: str, pages: int) -> None:
        """`symbol` was asked for, and got so many pages."""
        if symbol == self._now:
            self._left -= pages
        if symbol != self._now or self._left <= 0:
            self.end(symbol)

    def end(self, symbol: str) -> None:
        """It is the others' turn, as after a failure: a symbol that the exchange refuses must not stop them."""
        self._rounds += 1
        self._served[symbol] = self._rounds
        if symbol == self._now:
            self._now = None
