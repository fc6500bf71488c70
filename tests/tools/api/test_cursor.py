"""What a client of the stream has seen, against the plain set of ids."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.ids import Run
from tools.api import cursor
from tools.api.cursor import HOLES_MAX, Seen

IDS = st.integers(1, 60)


def ids(runs: list[Run]) -> set[int]:
    """Every id of these runs."""
    return {number for first, last in runs for number in range(first, last + 1)}


# Each id makes at most one more hole.
@given(st.lists(IDS, max_size=HOLES_MAX))
def test_an_id_is_new_once(numbers: list[int]) -> None:
    """Every id above the begin is new the first time, in whatever order they come."""
    seen, known = Seen(20), set(range(21))

    for number in numbers:
        assert seen.add(number) is (number not in known)
        known.add(number)

    assert seen.high == max(known)
    assert ids(seen.holes) == set(range(seen.high)) - known
    assert seen.holes == sorted(seen.holes)


@given(st.lists(IDS, max_size=60), st.lists(st.tuples(IDS, IDS), max_size=6))
def test_nothing_is_taken_for_seen_that_is_not(numbers: list[int], lost: list[Run]) -> None:
    """However many holes there are: the bound makes them larger, never smaller."""
    seen, known = Seen(20), set(range(21))
    for number in numbers:
        seen.add(number)
        known.add(number)
    runs = [(min(run), min(max(run), seen.high - 1)) for run in lost if min(run) < seen.high]
    seen.lose(runs)

    assert len(seen.holes) <= HOLES_MAX
    assert ids(seen.holes) >= (set(range(seen.high)) - known) | ids(runs)
    assert ids(seen.holes) <= set(range(seen.high))


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=32),
        st.lists(st.integers(1, 2**63), max_size=15),
        min_size=1,
        max_size=4,
    )
)
def test_what_is_written_is_read(numbers: dict[str, list[int]]) -> None:
    """In ASCII without a line break, for symbols of any letters."""
    seen = {symbol: Seen(0) for symbol in numbers}
    for symbol, found in numbers.items():
        for number in found:
            seen[symbol].add(number)

    text = cursor.write(seen)
    back = cursor.read(text)

    assert text.isascii()
    assert text.isprintable()
    assert {symbol: str(one) for symbol, one in back.items()} == {symbol: str(one) for symbol, one in seen.items()}


@pytest.mark.parametrize(
    "text",
    [
        *("", "BTCUSDT", "BTCUSDT:", "BTCUSDT:-1", "BTCUSDT:x", ":5", "A:5,", "A:5\n", "É:5"),
        *("A:9;1", "A:9;3-1", "A:9;1-9;5-6", "A:5;6-7", "A:9" + ";1-1" * (HOLES_MAX + 1)),
        *("A:" + "9" * 21, "A:99999999999999999999"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    """What is no id of an event, or one whose numbers are out of order or too large."""
    with pytest.raises(ValueError, match="event"):
        cursor.read(text)
