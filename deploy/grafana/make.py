"""Makes the dashboards for Grafana in deploy/grafana/dashboards: `python -m deploy.grafana.make`.

With Grafana's own builders, so that the JSON is what Grafana expects. A test makes them again and compares, and runs
every query. The queries read by the primary keys; of a longer range they read coarser candles.
"""

import json
import sys
from typing import Any

from grafana_foundation_sdk.builders import candlestick, stat, table, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard, QueryVariable
from grafana_foundation_sdk.cog import builder, variants
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

from deploy.grafana.asked import FOLDER

SOURCE = DataSourceRef(type_val="mysql", uid="recorder")
GREEN, RED = "#2e9e5b", "#d64545"

_RANGE_S = "($__unixEpochTo() - $__unixEpochFrom())"
RESOLUTION = f"IF({_RANGE_S} > 5184000, 86400, IF({_RANGE_S} > 172800, 3600, 60))"
"""Minutes up to two days, hours up to sixty, then days."""
BARS = f"FROM candles WHERE symbol = '$symbol' AND resolution = {RESOLUTION} AND $__timeFilter(timestamp)"

CANDLES = f"SELECT timestamp AS time, open, high, low, close, volume {BARS} ORDER BY timestamp"
VOLUME = f"""\
SELECT timestamp AS time, taker_buy_quote_volume AS bought, quote_volume - taker_buy_quote_volume AS sold
{BARS} ORDER BY timestamp"""
VWAP = f"SELECT timestamp AS time, ROUND(quote_volume / volume, 8) AS vwap, close {BARS} ORDER BY timestamp"
TRADES = f"SELECT timestamp AS time, trades {BARS} ORDER BY timestamp"
LATEST = """\
SELECT timestamp AS time, price FROM trades WHERE symbol = '$symbol' ORDER BY timestamp DESC, trade_id DESC LIMIT 1"""
EXTREMES = f"SELECT MIN(low) AS low, MAX(high) AS high, SUM(quote_volume) AS volume {BARS}"
LAG_MOMENTS, LAG_TRADES = 60, 20
_SAMPLE = f"""\
SELECT {{end}} AS time, AVG(TIMESTAMPDIFF(MICROSECOND, timestamp, received_at)) / 1000 AS lag_ms
FROM (SELECT timestamp, received_at FROM trades
  WHERE symbol = '$symbol' AND timestamp > {{start}} AND timestamp <= {{end}}
  ORDER BY symbol DESC, timestamp DESC, trade_id DESC LIMIT {LAG_TRADES}) AS sample"""


def _moment(number: int) -> str:
    return f"FROM_UNIXTIME($__unixEpochFrom() + FLOOR({_RANGE_S} * {number} / {LAG_MOMENTS}))"


# Moments of one SELECT each: a subquery about each candle reads all trades of the symbol every time, since neither
# MariaDB nor MySQL looks up a range in a key whose bounds are a column of another table.
LAG = "\nUNION ALL ".join(
    _SAMPLE.format(start=_moment(number - 1), end=_moment(number)) for number in range(1, LAG_MOMENTS + 1)
)
MISSING = "SELECT COALESCE(SUM(last_trade_id - first_trade_id + 1), 0) AS missing FROM gaps WHERE filled_at IS NULL"
GAPS = """\
SELECT symbol, first_trade_id, last_trade_id, last_trade_id - first_trade_id + 1 AS missing, reason, detected_at,
  timestamp_before, timestamp_after
FROM gaps WHERE filled_at IS NULL ORDER BY symbol, first_trade_id LIMIT 500"""
AGE = """\
SELECT symbols.symbol, TIMESTAMPDIFF(SECOND, (SELECT t.timestamp FROM trades AS t WHERE t.symbol = symbols.symbol
  ORDER BY t.symbol DESC, t.timestamp DESC LIMIT 1), UTC_TIMESTAMP()) AS age_s
FROM symbols ORDER BY age_s DESC LIMIT 100"""
COVERAGE = """\
SELECT p.symbol, p.day, p.verdict, p.trades, p.missing, p.compared_with, p.reason, p.proven_at
FROM proofs AS p JOIN (SELECT MAX(number) AS newest FROM proofs WHERE symbol = '$symbol'
  AND day >= DATE(FROM_UNIXTIME($__unixEpochFrom())) AND day <= DATE(FROM_UNIXTIME($__unixEpochTo()))
  GROUP BY symbol, day) AS last ON p.number = last.newest
ORDER BY p.day DESC"""
SYMBOLS = "SELECT symbol FROM symbols ORDER BY symbol"


class Query(builder.Builder[variants.Dataquery], variants.Dataquery):
    """A query in SQL; `series`: its rows are points in time."""

    def __init__(self, sql: str, series: bool = True) -> None:
        self._sql = sql
        self._series = series

    def build(self) -> variants.Dataquery:
        """Itself: the library has no query of this data source."""
        return self

    def to_json(self) -> dict[str, Any]:
        """As Grafana's editor writes it."""
        return {
            "refId": "A",
            "datasource": SOURCE.to_json(),
            "editorMode": "code",
            "format": "time_series" if self._series else "table",
            "rawQuery": True,
            "rawSql": self._sql,
        }


def prices() -> Dashboard:
    """Candles, volume, average price."""
    return (
        _dashboard("Prices", "recorder-prices", "now-6h")
        .with_panel(stat.Panel().title("Latest price").span(6).height(4).with_target(Query(LATEST)).datasource(SOURCE))
        .with_panel(
            stat.Panel()
            .title("Low, high and volume of the range (USDT)")
            .description("Of the whole candles in it.")
            .span(18)
            .height(4)
            .with_target(Query(EXTREMES, series=False))
            .datasource(SOURCE)
        )
        .with_panel(
            candlestick.Panel()
            .title("$symbol")
            .description("Sealed candles: the current minute is not in them.")
            .span(24)
            .height(12)
            .with_target(Query(CANDLES, series=False))
            .datasource(SOURCE)
        )
        .with_panel(_lines("Volume bought and sold by takers (quote asset)", VOLUME))
        .with_panel(_lines("Volume-weighted average price and close", VWAP))
    )


def health() -> Dashboard:
    """Lag, gaps, coverage."""
    return (
        _dashboard("Recorder", "recorder-health", "now-24h")
        .with_panel(
            stat.Panel()
            .title("Missing ids")
            .description("In open gaps, of all symbols and times.")
            .span(6)
            .height(6)
            .with_target(Query(MISSING, series=False))
            .datasource(SOURCE)
        )
        .with_panel(_table("Age of the newest trade, oldest first", AGE, 18, 6))
        .with_panel(
            _lines(
                f"Lag of $symbol: mean of the last {LAG_TRADES} trades before each of {LAG_MOMENTS} moments (ms)", LAG
            )
        )
        .with_panel(_lines("Trades of $symbol for each candle", TRADES))
        .with_panel(_table("Open gaps", GAPS, 24, 8))
        .with_panel(_table("Coverage of $symbol: the last audit of each day", COVERAGE, 24, 10))
    )


def _dashboard(title: str, uid: str, begin: str) -> Dashboard:
    symbol = (
        QueryVariable("symbol")
        .label("Symbol")
        .query(SYMBOLS)
        .datasource(SOURCE)
        .refresh(VariableRefresh.ON_DASHBOARD_LOAD)
    )
    made = Dashboard(title).uid(uid).tags(["recorder"]).timezone("utc").time(begin, "now").refresh("30s")
    return made.with_variable(symbol).readonly()


def _lines(title: str, sql: str) -> timeseries.Panel:
    return timeseries.Panel().title(title).span(12).height(9).with_target(Query(sql)).datasource(SOURCE)


def _table(title: str, sql: str, span: int, height: int) -> table.Panel:
    made = table.Panel().title(title).span(span).height(height)
    return made.with_target(Query(sql, series=False)).datasource(SOURCE)


DASHBOARDS = {"prices.json": prices, "recorder.json": health}


def text_of(name: str) -> str:
    """The JSON of a dashboard."""
    return json.dumps(DASHBOARDS[name]().build(), cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Writes all of them."""
    FOLDER.mkdir(exist_ok=True)
    for name in DASHBOARDS:
        (FOLDER / name).write_text(text_of(name), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
