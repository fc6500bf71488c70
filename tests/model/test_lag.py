"""Percentiles of lags."""

import pytest

from model.lag import percentiles


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], (None, None)),
        ([7], (7, 7)),
        ([2, 1], (1, 2)),
        ([3, 1, 2], (2, 3)),
        (list(range(1, 101)), (50, 99)),
        (list(range(1, 102)), (51, 100)),
        (list(range(1_000, 0, -1)), (500, 990)),
        ([-5, -5, 10**6], (-5, 10**6)),
    ],
)
def test_percentiles_are_values_that_occurred(values: list[int], expected: tuple[int | None, int | None]) -> None:
    """Nearest rank: no average of two, and 99 of 100 values are at most the 99th percentile."""
    assert percentiles(values) == expected
