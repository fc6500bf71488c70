"""turns.py: whose gaps are filled next."""

from datetime import timedelta
from itertools import pairwise

from capture import turns
from capture.turns import Turns
from model.gaps import Gap
from tests.makers import MIDNIGHT


def gap(symbol: str, first: int, last: int, minute: int) -> Gap:
    """A gap that ends in that minute."""
    when = MIDNIGHT + timedelta(minutes=minute)
    return Gap(symbol, first, last, "missed", MIDNIGHT, None, when - timedelta(minutes=1), when)


def served(gaps: list[Gap], pages: int) -> list[str]:
    """The symbols in the order in which they get pages, each page filling 1,000 ids of a gap from its start."""
    found, queue = list[str](), Turns()
    left = list(gaps)
    while left and len(found) < pages:
        one = queue.order(left)[0]
        found.append(one.symbol)
        queue.took(one.symbol, 1)
        shorter = one._replace(first_trade_id=one.first_trade_id + 1_000)
        left[left.index(one)] = shorter
        left = [each for each in left if each.missing > 0]
    return found


def test_the_newest_gap_comes_first() -> None:
    """Of all symbols, and of one symbol."""
    gaps = [gap("A", 1, 500, 1), gap("A", 900, 950, 9), gap("B", 1, 500, 5), gap("C", 1, 500, 7)]
    assert [(one.symbol, one.first_trade_id) for one in Turns().order(gaps)] == [
        ("A", 900),
        ("A", 1),
        ("C", 1),
        ("B", 1),
    ]


def test_a_long_gap_does_not_keep_the_others_waiting() -> None:
    """1,500 symbols, one of which has a million ids missing: each gets a page before that gets its second."""
    names = [f"S{number:04}" for number in range(1_500)]
    gaps = [gap(name, 1, 1_000_000 if number == 0 else 800, 5) for number, name in enumerate(names)]
    first = served(gaps, 1_500)
    assert sorted(first) == names
    assert served(gaps, 1_510)[1_500:] == ["S0000"] * 10


def test_two_symbols_share_a_minute_of_the_exchange_s_weight() -> None:
    """Each keeps its turn for half of it, so that pages can be fetched ahead."""
    gaps = [gap("A", 1, 10**6, 5), gap("B", 1, 10**6, 5)]
    found = served(gaps, 240)
    assert (found.count("A"), found.count("B")) == (120, 120)
    assert sum(one != other for one, other in pairwise(found)) == 3
    assert turns.PAGES_PER_ROUND == 120


def test_a_symbol_that_fails_lets_the_others_go_first() -> None:
    """And comes back after them."""
    gaps = [gap("A", 1, 10**6, 6), gap("B", 1, 10**6, 5), gap("C", 1, 10**6, 4)]
    queue = Turns()
    assert queue.order(gaps)[0].symbol == "A"
    queue.end("A")
    assert [one.symbol for one in queue.order(gaps)] == ["B", "C", "A"]


def test_a_new_gap_of_a_symbol_that_has_had_none_goes_first() -> None:
    """What is remembered ends with the last gap of a symbol, so that it has a bound."""
    queue, long = Turns(), gap("A", 1, 10**6, 5)
    queue.order([long])
    queue.took("A", 200)
    assert queue.order([long, gap("B", 1, 100, 1)])[0].symbol == "B"
    queue.took("B", 200)
    queue.order([long])
    assert "B" not in queue._served
