"""The inbox: it takes what is new, up to its bound, and gives it in batches."""

import pytest

from capture.inbox import BATCH_TRADES_MAX, RECENT_IDS, Inbox
from tests.makers import stream, streamed

SYMBOLS = ("BTCUSDT", "ETHUSDT")


def test_the_inbox_drops_at_its_bound_and_remembers_only_what_it_took() -> None:
    """A trade that was dropped is new when a second connection brings it later."""
    inbox = Inbox(SYMBOLS, 2)
    assert [inbox.put(each) for each in stream(1, 3)] == ["new", "new", "dropped"]
    assert inbox.put(streamed(2)) == "repeated"
    assert inbox.put(streamed(3)) == "dropped"
    assert inbox.take(0) == stream(1, 2)
    assert inbox.put(streamed(3)) == "new"
    assert inbox.put(streamed(3, "ETHUSDT")) == "new"
    assert len(inbox) == 2


def test_the_inbox_forgets_after_65_536_ids() -> None:
    """A repetition from longer ago goes to the database, which knows it; a different id in its slot is new."""
    inbox = Inbox(SYMBOLS, 10)
    assert inbox.put(streamed(1)) == "new"
    assert inbox.put(streamed(1 + RECENT_IDS)) == "new"
    assert inbox.put(streamed(1)) == "new"
    assert inbox.put(streamed(RECENT_IDS)) == "new"


def test_the_inbox_gives_a_batch_and_waits_for_its_first() -> None:
    """At most BATCH_TRADES_MAX at once; none after the wait."""
    inbox = Inbox(SYMBOLS)
    assert inbox.take(0) == []
    assert inbox.take(0.01) == []
    for each in stream(1, BATCH_TRADES_MAX + 1):
        inbox.put(each)
    assert [len(inbox.take(0)) for _ in range(3)] == [BATCH_TRADES_MAX, 1, 0]


@pytest.mark.parametrize("late", [0, 1, 5])
def test_the_inbox_is_stopped_even_if_a_trade_comes_late(late: int) -> None:
    """A connection that did not end in time may put trades behind the last message; they are not lost either."""
    inbox = Inbox(SYMBOLS)
    for each in stream(1, 3):
        inbox.put(each)
    inbox.stop()
    for each in stream(4, late):
        inbox.put(each)
    assert inbox.take(0) == stream(1, 3 + late)
    assert inbox.stopped
    assert inbox.take(0) == []
    assert inbox.stopped
