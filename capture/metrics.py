"""What the capture tells Prometheus, at http://METRICS_HOST:METRICS_PORT/metrics, while it runs.

Names and units follow Prometheus' conventions; a scrape reads counters that the other threads write, and asks neither
the database nor the exchange. deploy/prometheus/alerts.yml has the rules for them.
"""

import heapq
import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from capture.progress import Lags, Snapshot

log = logging.getLogger("metrics")

SYMBOLS_MAX = 100
"""Of more symbols only those whose newest trade is the oldest have a series of their own."""


_COUNTERS = {
    "frames": ("recorder_frames", "Frames that the streams brought."),
    "parsed": ("recorder_trades_received", "Trades that the streams brought, repeats of the standby included."),
    "inserted": ("recorder_trades_stored", "Trades of the streams that were stored and were new."),
    "duplicate": ("recorder_trades_duplicate", "Trades of the streams that were there already."),
    "dropped": ("recorder_trades_dropped", "Trades that were not stored: refused, or no room in the queue."),
    "rejected": ("recorder_rejects", "Frames and rows that are no valid trade."),
    "reconnects": ("recorder_reconnects", "Connections to the streams beyond the first of each."),
    "gaps opened": ("recorder_gaps_opened", "Runs of missing ids that were found."),
    "filled": ("recorder_ids_filled", "Missing ids that were fetched and stored."),
    "given up": ("recorder_ids_given_up", "Missing ids that the exchange said it does not have."),
    "spooled": ("recorder_trades_spooled", "Trades that went over the disk, since the database was away."),
}
_GAUGES = {
    "queue": ("recorder_queue_trades", "Trades that wait in memory to be stored."),
    "gaps open": ("recorder_gaps_open", "Runs of missing ids that are open."),
    "missing": ("recorder_ids_missing", "Ids in open gaps."),
    "left over": ("recorder_trades_waiting", "Trades of this run that are not in the database yet."),
}


class CaptureCollector(Collector):
    """Makes the metrics from what `read` returns, at each scrape."""

    def __init__(self, read: Callable[[], Snapshot]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """The metrics now."""
        found = self._read()
        for name, (metric, words) in _COUNTERS.items():
            yield CounterMetricFamily(metric, words, value=found.counters[name])
        for name, (metric, words) in _GAUGES.items():
            yield GaugeMetricFamily(metric, words, value=found.counters[name])
        state = {
            "recorder_spool_trades": ("Trades of this run that wait on the disk for the database.", found.on_disk),
            "recorder_database_up": ("Whether the database answered when it was last used.", int(found.online)),
            "recorder_connections_open": ("Connections to the streams that are open.", found.connections),
            "recorder_groups": ("Groups of streams; each is read by several connections.", found.groups),
            "recorder_groups_closed": ("Groups of streams without any open connection.", found.closed_groups),
        }
        for metric, (words, value) in state.items():
            yield GaugeMetricFamily(metric, words, value=value)
        yield _lag(found.lags)
        yield from _last(found.last_at)


def _lag(lags: Lags) -> Metric:
    words = "From the exchange's stamp to the arrival here, of at most 64 trades of each batch; the clocks may differ."
    rows = [*((str(bound / 1000), count) for bound, count in lags.cumulative()), ("+Inf", lags.count)]
    return HistogramMetricFamily("recorder_trade_lag_seconds", words, buckets=rows, sum_value=lags.sum_ms / 1000)


def _last(last_at: Mapping[str, datetime]) -> Iterator[Metric]:
    newest = GaugeMetricFamily(
        "recorder_newest_trade_timestamp_seconds", "The exchange's time of the newest trade of all symbols."
    )
    each = GaugeMetricFamily(
        "recorder_last_trade_timestamp_seconds",
        f"The exchange's time of the newest trade of a symbol; of the {SYMBOLS_MAX} for which it is the oldest.",
        labels=["symbol"],
    )
    if last_at:
        newest.add_metric([], max(last_at.values()).timestamp())
    for symbol, when in heapq.nsmallest(SYMBOLS_MAX, last_at.items(), key=_when):
        each.add_metric([symbol], when.timestamp())
    yield newest
    yield each


def _when(item: tuple[str, datetime]) -> datetime:
    return item[1]


def serve(host: str, port: int, read: Callable[[], Snapshot]) -> Callable[[], None]:
    """Answers at that address, in threads of its own, until what it returns is called. Raises OSError if it cannot."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(CaptureCollector(read))
    server, _ = start_http_server(port, host, registry)
    log.info("metrics: http://%s:%d/metrics", host, server.server_port)

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return stop
