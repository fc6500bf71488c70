"""What a client of the stream has seen, written so that it fits into Last-Event-ID: pure, no clock and no database.

Of each symbol the highest id, and behind it the runs of lower ids that were missing when the stream passed them:
`BTCUSDT:4000000123;4000000100-4000000102,ETHUSDT:4000000077`. So a trade that is back-filled later, even while the
client is away, is known to be new to it.
"""

import re
from itertools import pairwise
from urllib.parse import quote, unquote

from model.ids import Run, without

HOLES_MAX = 8
"""Runs remembered per symbol. Beyond that the two nearest become one, and what lies between them may be sent twice."""
ID_MAX = 2**64 - 1
"""BIGINT UNSIGNED."""

_SYMBOL = rf"[A-Za-z0-9._~%-]{{1,300}}:[0-9]{{1,20}}(?:;[0-9]{{1,20}}-[0-9]{{1,20}}){{0,{HOLES_MAX}}}"
PATTERN = rf"^{_SYMBOL}(?:,{_SYMBOL})*$"
_PATTERN = re.compile(PATTERN)


class Seen:
    """The ids of one symbol that a client has: all from where it began to `high`, but those of `holes` (inclusive)."""

    def __init__(self, high: int, holes: list[Run] | None = None) -> None:
        self.high = high
        self.holes = holes or []

    def add(self, trade_id: int) -> bool:
        """Whether `trade_id` was new; it is seen now."""
        if trade_id > self.high:
            if trade_id > self.high + 1:
                self.holes.append((self.high + 1, trade_id - 1))
                self._bound()
            self.high = trade_id
            return True
        return bool(self.holes) and self.fill((trade_id, trade_id))

    def fill(self, run: Run) -> bool:
        """Whether any id of `run` was in a hole; none of them is now."""
        rest = without(self.holes, run)
        changed, self.holes = rest != self.holes, rest
        self._bound()
        return changed

    def lose(self, runs: list[Run]) -> None:
        """The ids of `runs` count as not seen."""
        for run in runs:
            self.holes = sorted([*without(self.holes, run), run])
        self._bound()

    def _bound(self) -> None:
        while len(self.holes) > HOLES_MAX:
            distances = [after[0] - before[1] for before, after in pairwise(self.holes)]
            nearest = distances.index(min(distances))
            self.holes[nearest : nearest + 2] = [(self.holes[nearest][0], self.holes[nearest + 1][1])]

    def __str__(self) -> str:
        return ";".join([str(self.high), *(f"{low}-{high}" for low, high in self.holes)])


def write(seen: dict[str, Seen]) -> str:
    """The event id that says `seen`; symbols are percent-encoded, since a header is ASCII."""
    return ",".join(f"{quote(symbol, safe='')}:{one}" for symbol, one in seen.items())


def read(text: str) -> dict[str, Seen]:
    """What `write` wrote. Raises ValueError for anything else."""
    if not _PATTERN.fullmatch(text):
        raise ValueError("give the id of an event of this stream, such as BTCUSDT:4000000123")
    seen: dict[str, Seen] = {}
    for part in text.split(","):
        symbol, _, ids = part.partition(":")
        high, *holes = ids.split(";")
        runs = [(int(low), int(up)) for low, _, up in (hole.partition("-") for hole in holes)]
        ends = [0, *(end for run in runs for end in run), int(high)]
        if sorted(ends) != ends or ends[-1] > ID_MAX:
            raise ValueError("the ids of an event are in order, and fit 64 bits")
        seen[unquote(symbol)] = Seen(int(high), runs)
    return seen
