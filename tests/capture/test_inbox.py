"""The inbox: it takes what is new, up to its bound, and gives it in batches."""

import random
import threading

import pytest

from capture.inbox import (
    BATCH_TRADES_MAX,
    BATCH_TRADES_MIN,
    COMMIT_S_GOAL,
    HOLES_MAX,
    BatchSize,
    Inbox,
    Verdicts,
)
from tests.makers import stream, streamed

SYMBOLS = ("BTCUSDT", "ETHUSDT")
NEW, REPEATED, DROPPED = Verdicts(1, 0, 0), Verdicts(0, 1, 0), Verdicts(0, 0, 1)


def test_the_inbox_drops_at_its_bound_and_remembers_only_what_it_took() -> None:
    """A trade that was dropped is new when a second connection brings it later."""
    inbox = Inbox(2)
    assert inbox.put(stream(1, 3)) == Verdicts(2, 0, 1)
    assert inbox.put([streamed(2)]) == REPEATED
    assert inbox.put([streamed(3)]) == DROPPED
    assert inbox.take(0) == stream(1, 2)
    assert inbox.put([streamed(3)]) == NEW
    assert inbox.put([streamed(3, "ETHUSDT")]) == NEW
    assert len(inbox) == 2


def test_ids_in_any_order_go_through_once() -> None:
    """Two connections that lose, shuffle and repeat: each id that any of them brought goes through once."""
    chance = random.Random(1)
    inbox, numbers = Inbox(), list(range(1_000, 3_000))
    for start in range(0, len(numbers), 50):
        for _ in range(2):
            part = [number for number in numbers[start : start + 50] if number % 97 and chance.random() > 0.1]
            chance.shuffle(part)
            inbox.put([streamed(number) for number in part + part[::7]])
    inbox.put([streamed(number) for number in numbers])

    assert sorted(each.trade_id for each in inbox.take(0)) == numbers


def test_the_inbox_remembers_holes_up_to_a_bound() -> None:
    """An id that was jumped over is new once; below the last runs that are remembered the database has to know."""
    inbox = Inbox()
    jumps = [streamed(number) for number in range(10, 10 + 2 * (HOLES_MAX + 3), 2)]
    inbox.put(jumps)
    assert inbox.put([streamed(jumps[-1].trade_id - 1)]) == NEW
    assert inbox.put([streamed(jumps[-1].trade_id - 1)]) == REPEATED
    assert inbox.put([jumps[-2]]) == REPEATED
    assert inbox.put([jumps[0]]) == NEW


def test_a_symbol_that_is_not_used_costs_nothing() -> None:
    """No memory up front: 1,500 symbols are a few hundred kilobytes."""
    import tracemalloc

    tracemalloc.start()
    inbox = Inbox()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(inbox) == 0
    assert used < 1_000_000


def test_the_inbox_gives_a_batch_and_waits_for_its_first() -> None:
    """No more than its size and what one read brings; none after the wait."""
    inbox = Inbox()
    assert inbox.take(0) == []
    assert inbox.take(0.01) == []
    for start in range(1, BATCH_TRADES_MIN + 800, 100):
        inbox.put(stream(start, 100))
    assert [len(inbox.take(0, size)) for size in (BATCH_TRADES_MIN, 250, 999, 9)] == [BATCH_TRADES_MIN, 300, 500, 0]


def test_a_batch_grows_while_it_is_stored_quickly() -> None:
    """Up to a bound, by full ones only; it shrinks when one took long, and begins anew when the database failed."""
    size = BatchSize()
    size.took(BATCH_TRADES_MIN - 1, 0.01)
    assert size.trades_max == BATCH_TRADES_MIN
    for _ in range(9):
        size.took(size.trades_max, COMMIT_S_GOAL / 3)
    assert size.trades_max == BATCH_TRADES_MAX
    size.took(BATCH_TRADES_MAX, COMMIT_S_GOAL * 0.9)
    assert size.trades_max == BATCH_TRADES_MAX
    size.took(1, COMMIT_S_GOAL * 1.1)
    assert size.trades_max == BATCH_TRADES_MAX // 2
    for _ in range(9):
        size.took(BATCH_TRADES_MAX, COMMIT_S_GOAL * 1.1)
    assert size.trades_max == BATCH_TRADES_MIN
    size.took(BATCH_TRADES_MIN, COMMIT_S_GOAL / 3)
    size.failed()
    assert size.trades_max == BATCH_TRADES_MIN


def test_several_threads_put_and_one_takes() -> None:
    """Nothing is lost, doubled or counted twice, whoever comes first."""
    inbox, found, totals = Inbox(), list[int](), list[Verdicts]()
    everything = stream(1, 20_000)

    def put() -> None:
        totals.extend(inbox.put(everything[start : start + 30]) for start in range(0, len(everything), 30))

    threads = [threading.Thread(target=put) for _ in range(3)]
    for thread in threads:
        thread.start()
    while len(found) < len(everything):
        found += [each.trade_id for each in inbox.take(1)]
    for thread in threads:
        thread.join()

    assert sorted(found) == [each.trade_id for each in everything]
    assert len(inbox) == 0
    assert [sum(column) for column in zip(*totals, strict=True)] == [20_000, 40_000, 0]


@pytest.mark.parametrize("late", [0, 1, 5])
def test_the_inbox_is_stopped_even_if_a_trade_comes_late(late: int) -> None:
    """A connection that did not end in time may put trades behind the last message; they are not lost either."""
    inbox = Inbox()
    inbox.put(stream(1, 3))
    inbox.stop()
    inbox.put(stream(4, late))
    assert inbox.take(0) == stream(1, 3 + late)
    assert inbox.stopped
    assert inbox.take(0) == []
    assert inbox.stopped
