"""A database of many symbols, with a trade or two of each."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import db
from storage import trades
from tests.makers import trade
from tests.support.servers import Server
from tests.support.tables import ask

ROWS_PER_INSERT = 2_000


def with_time(sql: str, seconds: float) -> str:
    """The question with another time, after which the server ends it."""
    usual = trades.DIVE_S_MAX
    return sql.replace(f"= {usual} FOR", f"= {seconds} FOR").replace(f"({usual * 1000:.0f})", f"({seconds * 1000:.0f})")


def names(count: int) -> list[str]:
    """So many symbols, in order."""
    return [f"S{number:04d}USDT" for number in range(count)]


@contextmanager
def many_symbols(server: Server, name: str, folder: Path, symbols: list[str], at: datetime) -> Iterator[dict[str, str]]:
    """The variables of a database `name` in which each of `symbols` has two trades up to `at`, whose rows the server
    has counted; the symbol at place n has its last trade with the id n + 2."""
    connection = db.connect(server.settings(name, folder))
    rows = [
        trade(number + step, at - timedelta(seconds=2 - step), f"{number + step}.5", symbol)
        for number, symbol in enumerate(symbols)
        for step in (1, 2)
    ]
    for start in range(0, len(rows), ROWS_PER_INSERT):
        db.insert_trades(connection, rows[start : start + ROWS_PER_INSERT])
    ask(connection, "ANALYZE TABLE trades, gaps, symbols")
    db.close(connection)
    try:
        yield server.environ | {"MYSQL_DATABASE": name, "DATA_DIR": str(folder)}
    finally:
        with server.connect() as plain:
            ask(plain, f"DROP DATABASE {name}")
