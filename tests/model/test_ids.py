"""Runs of ids: what is left, what they are made of, what is in them."""

import pytest

from model import ids


@pytest.mark.parametrize(
    ("gone", "left"),
    [
        ((1, 4), [(5, 9), (20, 20)]),
        ((5, 9), [(20, 20)]),
        ((0, 30), []),
        ((7, 7), [(5, 6), (8, 9), (20, 20)]),
        ((9, 20), [(5, 8)]),
        ((10, 19), [(5, 9), (20, 20)]),
    ],
)
def test_runs_without_some_of_their_ids(gone: ids.Run, left: list[ids.Run]) -> None:
    """Cut at either end, in the middle, over several runs, or not at all."""
    assert ids.without([(5, 9), (20, 20)], gone) == left


def test_runs_are_what_their_ids_make_up() -> None:
    """Both ways, for any set of ids."""
    assert ids.runs_of([]) == []
    assert ids.runs_of([3, 4, 5, 8, 10, 11]) == [(3, 5), (8, 8), (10, 11)]


def test_an_id_is_inside_or_not() -> None:
    """Both ends of a run are in it."""
    runs = [(3, 5), (8, 8)]
    assert [number for number in range(12) if ids.inside(runs, number)] == [3, 4, 5, 8]
    assert not ids.inside([], 3)


def test_the_length_of_a_run_ends_at_the_first_id_that_is_not_there() -> None:
    """Whatever the order; 0 if the first one is not there."""
    assert ids.run_length(4, [6, 4, 5, 8]) == 3
    assert ids.run_length(7, [6, 8]) == 0
