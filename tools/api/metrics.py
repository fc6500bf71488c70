"""What the API tells Prometheus: the state of the table, which no capture knows as a whole.

The names say what is stored; those of a capture, at its METRICS_PORT, say what it does (capture/metrics.py).
"""

import heapq
from collections.abc import Iterator
from datetime import datetime

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

import db
from storage import gaps
from tools.api import params, shapes
from tools.api.context import Context, context_of
from tools.api.described import content
from tools.api.door import METRICS
from tools.api.sessions import AwayError
from tools.api.verdicts import Verdicts

SYMBOLS_MAX = 100
"""Of more symbols only those whose newest trade is the oldest have a series of their own."""

router = APIRouter(tags=["For machines"], dependencies=[Depends(params.refuse_unknown)])


@router.get(
    METRICS,
    response_class=Response,
    responses={
        200: {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        422: content(shapes.Mistakes, 422),
    },
)
def metrics(request: Request) -> Response:
    """What is stored, for Prometheus: newest trades, open gaps, verdicts of audits; whether the database answers."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Stored(context_of(request)))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST, headers={"Cache-Control": "no-store"})


class _Stored(Collector):
    def __init__(self, context: Context) -> None:
        self._context = context

    def collect(self) -> Iterator[Metric]:
        """The metrics now."""
        try:
            yield from self._context.sessions.ask(lambda c: list(_stored(c, self._context.verdicts)))
            is_up = 1
        except AwayError:
            is_up = 0
        yield GaugeMetricFamily("recorder_api_database_up", "Whether the database answers the API.", value=is_up)


def _stored(connection: db.Connection, verdicts: Verdicts) -> Iterator[Metric]:
    open_gaps = gaps.count_open_gaps(connection).values()
    yield GaugeMetricFamily(
        "recorder_stored_gaps_open", "Runs of missing ids that are open.", value=sum(one.gaps for one in open_gaps)
    )
    yield GaugeMetricFamily(
        "recorder_stored_ids_missing", "Ids in open gaps.", value=sum(one.missing for one in open_gaps)
    )
    newest = {trade.symbol: trade.timestamp for trade in db.latest_of_all(connection)}
    yield GaugeMetricFamily("recorder_stored_symbols", "Symbols of which trades are stored.", value=len(newest))
    each = GaugeMetricFamily(
        "recorder_stored_trade_timestamp_seconds",
        f"The exchange's time of the newest stored trade of a symbol; of the {SYMBOLS_MAX} for which it is the oldest.",
        labels=["symbol"],
    )
    for symbol, when in heapq.nsmallest(SYMBOLS_MAX, newest.items(), key=_when):
        each.add_metric([symbol], when.timestamp())
    yield each
    days = GaugeMetricFamily(
        "recorder_audit_days", "Days of all symbols, by the verdict of their last audit.", labels=["verdict"]
    )
    for verdict, number in verdicts.ask(connection).items():
        days.add_metric([verdict], number)
    yield days


def _when(item: tuple[str, datetime]) -> datetime:
    return item[1]
