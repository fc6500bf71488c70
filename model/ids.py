"""Runs of consecutive ids: (first, last), both included."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence

Run = tuple[int, int]


def without(runs: Iterable[Run], gone: Run) -> list[Run]:
    """What is left of `runs` without the ids of `gone`."""
    rest: list[Run] = []
    for low, high in runs:
        parts = (low, min(high, gone[0] - 1)), (max(low, gone[1] + 1), high)
        rest += [part for part in parts if part[0] <= part[1]]
    return rest


def runs_of(ids: Sequence[int]) -> list[Run]:
    """The runs that `ids`, which rise, make up."""
    runs: list[Run] = []
    for number in ids:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = runs[-1][0], number
        else:
            runs.append((number, number))
    return runs


def inside(runs: Sequence[Run], number: int) -> bool:
    """Whether `number` is in one of `runs`, which rise."""
    place = bisect_right(runs, number, key=_first)
    return place > 0 and number <= runs[place - 1][1]


def run_length(first: int, ids: Iterable[int]) -> int:
    """How many of first, first + 1, first + 2 … are in `ids` without a break."""
    present = set(ids)
    length = 0
    while first + length in present:
        length += 1
    return length


def _first(run: Run) -> int:
    return run[0]
