"""Which ids a copy must still look for: arithmetic on holes and gaps, checked against plain sets."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from model import gaps
from model.gaps import Gap
from model.trade import Trade
from storage.follow import Copied, Run, grown, in_no_gap

MIDNIGHT = datetime(2025, 3, 1, tzinfo=UTC)
ids = st.sets(st.integers(2, 40))


def at(trade_id: int) -> datetime:
    """The time stamp of a trade, a second from each neighbour's."""
    return MIDNIGHT + timedelta(seconds=trade_id)


def trades(numbers: set[int]) -> list[Trade]:
    """The trades of these ids, in no particular order."""
    return [Trade("BTCUSDT", at(number), number, Decimal(1), Decimal(1), False) for number in numbers]


def missing(numbers: set[int]) -> list[Gap]:
    """The runs of `numbers`, each between its stored neighbours."""
    present = [(number, at(number)) for number in range(1, 42) if number not in numbers]
    return gaps.holes("BTCUSDT", present, "", MIDNIGHT)


def ids_of(runs: list[Run]) -> list[int]:
    """Every id of these runs."""
    return [number for run in runs for number in range(run.first, run.last + 1)]


@given(ids, ids)
def test_what_is_in_a_hole_and_in_no_gap_is_looked_for(holes: set[int], open_: set[int]) -> None:
    """Exactly the difference of the two sets, in order, whichever of the two has more or longer runs."""
    assert ids_of(list(in_no_gap(missing(holes), missing(open_)))) == sorted(holes - open_)


@given(ids, ids)
def test_the_times_of_a_run_enclose_it_closely(holes: set[int], filled: set[int]) -> None:
    """They are those of the nearest trades that were stored all along or still border an open gap."""
    for run in in_no_gap(missing(holes), missing(holes - filled)):
        assert run.start in (at(run.first - 1), at(run.first))
        assert run.end in (at(run.last + 1), at(run.last))


@given(st.lists(st.sets(st.integers(1, 40), min_size=1), min_size=1))
def test_the_holes_are_what_lies_between_and_was_not_copied(parts: list[set[int]]) -> None:
    """After any parts in any order, repeated or not: span and holes are exactly right, and so are their times."""
    copied = Copied("BTCUSDT")
    for part in parts:
        copied = grown(copied, trades(part))

    have = set().union(*parts)
    assert copied.span == ((min(have), at(min(have))), (max(have), at(max(have))))
    absent = set(range(min(have), max(have))) - have
    assert ids_of(list(in_no_gap(copied.holes, []))) == sorted(absent)
    for hole in copied.holes:
        assert hole.timestamp_before == at(hole.first_trade_id - 1)
        assert hole.timestamp_after == at(hole.last_trade_id + 1)
