"""The three questions as SQL for the copy in PostgreSQL, to paste into psql. Pure.

The conventions are those of MySQL's table: times are UTC, a range includes its start but not its end, and the earliest
trade wins among equal prices.
"""

from datetime import UTC, datetime, timedelta

from model.times import MILLISECOND

_COLUMNS = "timestamp, trade_id, price, quantity, buyer_is_maker"
_RANGE = timedelta(hours=1)
_AGO = timedelta(minutes=1)


def latest_sql(symbol: str) -> str:
    """One row: the newest trade."""
    return _trades(_of(symbol), newest_first=True)


def second_sql(symbol: str, when: datetime) -> str:
    """The trades in the second of `when`, in order."""
    start = when.replace(microsecond=0)
    return _trades(_within(symbol, start, start + timedelta(seconds=1)))


def as_of_sql(symbol: str, when: datetime) -> str:
    """One row: the last trade up to and including the millisecond of `when`."""
    end = when.replace(microsecond=when.microsecond // 1000 * 1000) + MILLISECOND
    return _trades(f"{_of(symbol)} AND timestamp < {_time(end)}", newest_first=True)


def min_max_sql(symbol: str, start: datetime, end: datetime) -> str:
    """Two rows: the earliest trades at the low and at the high of [start, end), each preceded by its name
    and by the number of trades in the range."""
    inside = f"SELECT {_COLUMNS} FROM prices\n  WHERE {_within(symbol, start, end)}"
    counted = "(SELECT COUNT(*) FROM inside) AS count"
    return (
        f"WITH inside AS (\n  {inside}\n)\n"
        f"(SELECT 'low' AS which, {counted}, * FROM inside ORDER BY price, timestamp, trade_id LIMIT 1)\n"
        "UNION ALL\n"
        f"(SELECT 'high', {counted}, * FROM inside ORDER BY price DESC, timestamp, trade_id LIMIT 1)"
    )


def missing_sql(symbol: str, start: datetime, end: datetime) -> str:
    """One number: how many ids are missing in the copy between trades of [start, end), or reach into it."""
    return (
        "SELECT COALESCE(SUM(last_trade_id - first_trade_id + 1), 0) AS missing FROM mirror_holes\n"
        f"WHERE {_of(symbol)} AND timestamp_after >= {_time(start)} AND timestamp_before < {_time(end)}"
    )


def as_text(symbol: str, now: datetime | None = None) -> str:
    """The questions about `symbol`, each as a comment above its SQL; the times are examples shortly before `now`.

    psql would show times in its own time zone, so the first statement sets UTC.
    """
    now = (now or datetime.now(UTC)).replace(microsecond=0)
    when, start = now - _AGO, now - _RANGE
    questions = [
        (f"What is the latest price of {symbol}?", latest_sql(symbol)),
        (f"What was the price of {symbol} at {_said(when)} UTC? Every trade of that second:", second_sql(symbol, when)),
        ("And the price at that time, in case nothing was traded in that second:", as_of_sql(symbol, when)),
        (
            f"What were the low and the high of {symbol} from {_said(start)} until {_said(now)} UTC?",
            min_max_sql(symbol, start, now),
        ),
        (
            "How many trades are missing there? Above 0 the answers may be wrong:",
            missing_sql(symbol, start, now),
        ),
    ]
    return "\n\n".join(["SET TIME ZONE 'UTC';", *(f"-- {question}\n{sql};" for question, sql in questions)])


def _trades(where: str, newest_first: bool = False) -> str:
    order = "timestamp DESC, trade_id DESC LIMIT 1" if newest_first else "timestamp, trade_id"
    return f"SELECT {_COLUMNS} FROM prices\nWHERE {where}\nORDER BY {order}"


def _within(symbol: str, start: datetime, end: datetime) -> str:
    return f"{_of(symbol)} AND timestamp >= {_time(start)} AND timestamp < {_time(end)}"


def _of(symbol: str) -> str:
    quoted = symbol.replace("'", "''")
    return f"symbol = '{quoted}'"


def _time(when: datetime) -> str:
    return f"'{when.astimezone(UTC).isoformat(' ')}'"


def _said(when: datetime) -> str:
    return when.replace(tzinfo=None).isoformat(" ")
