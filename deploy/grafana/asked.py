"""The queries of the dashboards, as Grafana sends them to the database."""

import json
import re
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).with_name("dashboards")


class Asked(NamedTuple):
    """A query of a panel."""

    panel: str
    sql: str


def asked() -> list[Asked]:
    """All queries of all dashboards."""
    found = []
    for path in sorted(FOLDER.glob("*.json")):
        board = json.loads(path.read_text())
        found += [Asked(one["title"], target["rawSql"]) for one in board["panels"] for target in one["targets"]]
        found += [Asked(one["name"], one["query"]) for one in board["templating"]["list"]]
    return found


def expanded(sql: str, start: datetime, end: datetime) -> str:
    """The query about BTCUSDT in [start, end], as Grafana's MySQL data source sends it: pkg/tsdb/mysql/macros.go."""
    low, high = int(start.timestamp()), int(end.timestamp())
    sql = re.sub(r"\$__timeFilter\(([\w.]+)\)", rf"\1 BETWEEN FROM_UNIXTIME({low}) AND FROM_UNIXTIME({high})", sql)
    sql = sql.replace("$__unixEpochFrom()", str(low)).replace("$__unixEpochTo()", str(high))
    sql = sql.replace("$symbol", "BTCUSDT")
    assert "$" not in sql
    return sql
