"""The back-off and its jitter, as tables."""

import pytest

from process.retry import backoff_s, doubled, insisted, jittered


@pytest.mark.parametrize("attempt", range(51))
def test_the_wait_doubles_up_to_half_a_minute(attempt: int) -> None:
    """0.5, 1, 2, 4, 8, 16 and then 30 seconds for ever."""
    table = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
    assert backoff_s(attempt) == (table[attempt] if attempt < len(table) else 30.0)
    assert type(backoff_s(attempt)) is float


def test_a_month_of_attempts_is_no_overflow() -> None:
    """The exponent is bounded too."""
    assert backoff_s(10**9) == 30.0
    assert doubled(0.5, 10**9, 3_600.0) == 3_600.0


def test_a_wait_is_doubled_as_often_as_it_is_told() -> None:
    """Up to the most; not before its time."""
    assert [doubled(0.5, times, 3.0) for times in (-2, 0, 1, 2, 3)] == [0.5, 0.5, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("wait_s", [0.0, 0.5, 30.0])
def test_jitter_lengthens_by_a_quarter_at_most(wait_s: float) -> None:
    """Never shorter, and not always the same."""
    waits = {jittered(wait_s) for _ in range(200)}
    assert wait_s <= min(waits) <= max(waits) <= wait_s * 1.25
    assert len(waits) > 100 or wait_s == 0.0


@pytest.mark.parametrize("failures", range(6))
def test_a_step_is_insisted_on_so_many_times(failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the error is of the kind that passes; the last one is raised, and another kind at once."""
    waits, left = list[float](), iter(range(failures))

    def step() -> str:
        if next(left, None) is not None:
            raise TimeoutError
        return "done"

    monkeypatch.setattr("time.sleep", waits.append)
    if failures < 5:
        assert insisted(step, TimeoutError, 5) == "done"
    else:
        with pytest.raises(TimeoutError):
            insisted(step, TimeoutError, 5)
    assert len(waits) == min(failures, 4)
    assert waits == sorted(waits)
    left = iter(range(1))
    with pytest.raises(TimeoutError):
        insisted(step, ValueError, 5)
