"""What the exchange orders, and its limit on connection attempts."""

import math

import pytest

from binance import limits
from binance.limits import ConnectBudget, Cooldown, retry_after_s


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("text", "expected_s"),
    [
        (None, 60.0),
        ("", 60.0),
        ("soon", 60.0),
        ("-5", 60.0),
        ("+5", 60.0),
        ("1.5", 60.0),
        ("1e3", 60.0),
        ("٣", 60.0),
        ("²", 60.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 60.0),
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("259200", 259_200.0),
        ("259201", 259_200.0),
        ("9" * 400, 259_200.0),
    ],
)
def test_retry_after_is_whole_seconds_up_to_the_longest_ban(text: str | None, expected_s: float) -> None:
    """Anything else is the default; three days are the most that is believed."""
    assert retry_after_s(text, 60.0) == expected_s


def test_an_order_holds_until_its_time_is_over() -> None:
    """A shorter order does not shorten one that stands, a longer one lengthens it."""
    clock = Clock()
    cooldown = Cooldown(clock)
    assert cooldown.left_s() == 0.0
    cooldown.order(60.0)
    assert cooldown.left_s() == 60.0
    cooldown.order(5.0)
    clock.now += 10
    assert cooldown.left_s() == 50.0
    cooldown.order(120.0)
    assert cooldown.left_s() == 120.0
    clock.now += 120
    assert cooldown.left_s() == 0.0
    clock.now += 10**6
    assert cooldown.left_s() == 0.0


def test_attempts_are_bounded_in_any_window() -> None:
    """250 at once are allowed, the next one when the first is five minutes old; waiting costs no attempt."""
    clock = Clock()
    budget = ConnectBudget(clock)
    assert [budget.wait_s() for _ in range(limits.CONNECTS_MAX)] == [0.0] * 250
    assert budget.wait_s() == 300.0
    clock.now += 299.5
    assert [budget.wait_s() for _ in range(10)] == [0.5] * 10
    clock.now += 0.5
    assert [budget.wait_s() for _ in range(limits.CONNECTS_MAX)] == [0.0] * 250
    assert budget.wait_s() == 300.0


def test_the_window_slides() -> None:
    """However the attempts are spread, never more than the limit fall into five minutes, and one is always possible."""
    clock = Clock()
    budget = ConnectBudget(clock)
    made: list[float] = []
    for _ in range(2_000):
        wait_s = budget.wait_s()
        assert math.isfinite(wait_s)
        if wait_s:
            clock.now += wait_s
            assert budget.wait_s() == 0.0
        made.append(clock.now)
        clock.now += 0.75
    windows = [sum(start <= at < start + limits.CONNECTS_WINDOW_S - 1e-6 for at in made) for start in made]
    assert max(windows) <= limits.CONNECTS_MAX
    assert len(made) / (made[-1] - made[0]) > 0.8
