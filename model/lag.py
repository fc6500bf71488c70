"""The lag of trades: milliseconds from the exchange's clock to this machine's."""

from collections.abc import Sequence

from model.times import MILLISECOND
from model.trade import Trade


def lag_ms(trade: Trade) -> int | None:
    """How long after the exchange's stamp the trade arrived, in whole milliseconds (floored); None: back-filled.

    Negative if the exchange's clock is ahead of this machine's.
    """
    return None if trade.received_at is None else (trade.received_at - trade.timestamp) // MILLISECOND


def percentiles(values: Sequence[int]) -> tuple[int | None, int | None]:
    """The median and the 99th percentile (nearest rank) of `values`; None when there are none."""
    if not values:
        return None, None
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2], ordered[-(-99 * len(ordered) // 100) - 1]
