"""The arithmetic of missing ids, without a database: what a batch reveals, fills and leaves open."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import gaps
from model.gaps import Gap, Point, Span

NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
IDS_MAX = 60
"""Few enough that ids of different batches meet, many enough for several gaps side by side."""


def at(trade_id: int) -> datetime:
    """A time stamp that tells which id it belongs to."""
    return datetime(2025, 3, 1, tzinfo=UTC) + timedelta(milliseconds=trade_id)


def points(*ids: int) -> list[Point]:
    """The points of `ids`, in their order."""
    return [(trade_id, at(trade_id)) for trade_id in ids]


def gap(first: int, last: int, filled_at: datetime | None = None) -> Gap:
    """The gap of these ids between two stored neighbours."""
    return Gap("BTCUSDT", first, last, gaps.MISSED, NOW, filled_at, at(first - 1), at(last + 1))


def filled(first: int, last: int) -> Gap:
    """The filled run of these ids: its time stamps are those of its own ends."""
    return gap(first, last, LATER)._replace(timestamp_before=at(first), timestamp_after=at(last))


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([], []),
        ([7], []),
        ([7, 8, 9], []),
        ([7, 9], [gap(8, 8)]),
        ([7, 10], [gap(8, 9)]),
        ([1, 2, 5, 6, 8], [gap(3, 4), gap(7, 7)]),
        ([1, 1_000_000_000], [gap(2, 999_999_999)]),
    ],
)
def test_holes_are_what_lies_between_neighbours(ids: list[int], expected: list[Gap]) -> None:
    """A hole begins right above a known id and ends right below the next one; neighbours in a row have none."""
    assert gaps.holes("BTCUSDT", points(*ids), gaps.MISSED, NOW) == expected


def test_a_gap_counts_its_ids() -> None:
    """Both ends of a gap are missing."""
    assert [gap(5, 5).missing, gap(5, 8).missing] == [1, 4]


def span(first: int, last: int) -> Span:
    """The span from one id to another."""
    return Span(*points(first, last))


@pytest.mark.parametrize(
    ("known", "batch", "grown", "revealed", "late"),
    [
        (None, [5], (5, 5), [], []),
        (None, [5, 6, 9], (5, 9), [(7, 8)], []),
        ((5, 9), [10, 11], (5, 11), [], []),
        ((5, 9), [12], (5, 12), [(10, 11)], []),
        ((5, 9), [4], (4, 9), [], []),
        ((5, 9), [1, 3], (1, 9), [(2, 2), (4, 4)], []),
        ((5, 9), [5, 7, 9], (5, 9), [], [5, 7, 9]),
        ((5, 9), [2, 7, 12], (2, 12), [(3, 4), (10, 11)], [7]),
        ((5, 5), [5], (5, 5), [], [5]),
    ],
)
def test_a_batch_is_accounted_for(
    known: tuple[int, int] | None,
    batch: list[int],
    grown: tuple[int, int],
    revealed: list[tuple[int, int]],
    late: list[int],
) -> None:
    """Ids above and below the span grow it and reveal the holes up to them; those inside are late."""
    new, stretches, late_points = gaps.account(span(*known) if known else None, points(*batch))

    found = [hole for stretch in stretches for hole in gaps.holes("BTCUSDT", stretch, gaps.MISSED, NOW)]
    assert new == span(*grown)
    assert sorted(found) == [gap(*ends) for ends in revealed]
    assert late_points == points(*late)


@pytest.mark.parametrize(
    ("ids", "still_open", "runs"),
    [
        ([], [(10, 14)], []),
        ([9, 15], [(10, 14)], []),
        ([10], [(11, 14)], [(10, 10)]),
        ([14], [(10, 13)], [(14, 14)]),
        ([12], [(10, 11), (13, 14)], [(12, 12)]),
        ([10, 11, 13], [(12, 12), (14, 14)], [(10, 11), (13, 13)]),
        ([9, 10, 11, 12, 13, 14, 15], [], [(10, 14)]),
    ],
)
def test_late_trades_shrink_split_and_close_a_gap(
    ids: list[int], still_open: list[tuple[int, int]], runs: list[tuple[int, int]]
) -> None:
    """What stays open and what is filled are the two parts of the gap, each in runs as long as can be."""
    assert gaps.fill(gap(10, 14), points(*ids), LATER) == (
        [gap(*ends) for ends in still_open],
        [filled(*ends) for ends in runs],
    )


def test_what_stays_open_keeps_its_history() -> None:
    """Reason and time of detection of a gap survive its splitting."""
    old = gap(10, 14)._replace(reason=gaps.AWAY, detected_at=NOW - timedelta(days=1))

    still_open, runs = gaps.fill(old, points(12), LATER)

    assert {(part.reason, part.detected_at) for part in [*still_open, *runs]} == {(old.reason, old.detected_at)}


class Model:
    """What db.insert_trades does with the ids of one symbol, in memory."""

    def __init__(self) -> None:
        self.stored: set[int] = set()
        self.span: Span | None = None
        self.open: list[Gap] = []
        self.filled: list[Gap] = []

    def insert(self, batch: Sequence[int]) -> None:
        """Accounts for a batch, which must not be empty, and checks everything that must hold after it."""
        batch_points = points(*sorted(set(batch)))
        self.span, stretches, late = gaps.account(self.span, batch_points)
        for stretch in stretches:
            self.open += gaps.holes("BTCUSDT", stretch, gaps.MISSED, NOW)
        for old in list(self.open):
            still_open, runs = gaps.fill(old, late, LATER)
            self.open.remove(old)
            self.open += still_open
            self.filled += runs
        self.stored.update(batch)
        self.check()

    def check(self) -> None:
        """Stored and open are two parts of first … last, and nothing is called filled that is not stored."""
        first, last = min(self.stored), max(self.stored)
        missing = ids_of(self.open)
        done = ids_of(self.filled)
        assert self.span == span(first, last)
        assert len(missing) == len(set(missing))
        assert self.stored.isdisjoint(missing)
        assert self.stored.union(missing) == set(range(first, last + 1))
        assert len(done) == len(set(done))
        assert self.stored.issuperset(done)
        assert all(gap(part.first_trade_id, part.last_trade_id) == part for part in self.open)
        assert all(below.last_trade_id + 1 < above.first_trade_id for below, above in pairwise(sorted(self.open)))


def ids_of(runs: Sequence[Gap]) -> list[int]:
    """Every id of `runs`."""
    return [trade_id for run in runs for trade_id in range(run.first_trade_id, run.last_trade_id + 1)]


BATCHES = st.lists(st.lists(st.integers(1, IDS_MAX), min_size=1, max_size=12), min_size=1, max_size=12)


@pytest.mark.slow
@settings(max_examples=500)
@given(BATCHES)
def test_stored_and_missing_are_every_id_whatever_comes(batches: list[list[int]]) -> None:
    """Any order, repetition and loss of ids leaves stored and open gaps contiguous, after each batch."""
    model = Model()
    for batch in batches:
        model.insert(batch)


@settings(max_examples=200)
@given(st.permutations(range(1, 25)), st.sets(st.integers(1, 24), max_size=8), st.integers(1, 6))
def test_the_order_leaves_no_trace_in_what_is_open(order: list[int], lost: set[int], size: int) -> None:
    """The same ids in any order and any batches leave the same open gaps, and all of them once they are all there."""
    kept = [trade_id for trade_id in order if trade_id not in lost]
    shuffled, in_order = Model(), Model()
    for start in range(0, len(kept), size):
        shuffled.insert(kept[start : start + size])
    in_order.insert(kept)

    assert sorted(shuffled.open) == sorted(in_order.open)

    shuffled.insert(order)

    assert shuffled.open == []
