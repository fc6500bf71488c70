"""How long Grafana waits for the queries of its dashboards, over hours, days and months of the table of 20 million."""

import time
from contextlib import closing
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from deploy.grafana.asked import asked, expanded
from tools.bench.figures import Figure, at_most
from tools.bench.stage import Bench, say

RANGES = {"6 hours": timedelta(hours=6), "3 days": timedelta(days=3), "30 days": timedelta(days=30)}
TURNS = 3


def slowest(bench: Bench, part: str, database: str, end: datetime) -> list[Figure]:
    """The slowest of all queries for each length of a range up to `end`: the median of TURNS runs, in milliseconds."""
    figures = []
    with closing(bench.server.connect_to(database)) as connection:
        _ask(connection, "SET time_zone = '+00:00'")
        for words, length in RANGES.items():
            found = {one.panel: _ms(connection, expanded(one.sql, end - length, end)) for one in asked()}
            panel = max(found, key=lambda name: found[name])
            say(f"{part}: Grafana over {words}: slowest of {len(found)} is {panel!r}, {found[panel]:.3g} ms")
            figures.append(Figure(part, f"Grafana's slowest query, {words}", "ms", [found[panel]], at_most(1_000, 100)))
    return figures


def _ms(connection: Any, sql: str) -> float:
    taken = []
    for _ in range(TURNS):
        begun_s = time.perf_counter()
        _ask(connection, sql)
        taken.append((time.perf_counter() - begun_s) * 1e3)
    return median(taken)


def _ask(connection: Any, sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        if cursor.with_rows:
            cursor.fetchall()
