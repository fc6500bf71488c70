"""The programs that the capture is measured against, each in its own process on the same feed.

`python -m tools.bench.peers floor|plain URL COUNT…` prints one line of JSON each time that COUNT more frames have
passed through its callback, with the time in nanoseconds of the monotonic clock; it ends when the feed does.

floor: websocket-client with a callback that only counts. plain: the obvious design, one INSERT and one commit per
message in the callback, into the database of MYSQL_UNIX_SOCKET and MYSQL_DATABASE.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import accumulate

import mysql.connector
import websocket

PLAIN_TABLE = "plain_trades"
"""It has the columns and the key of `trades`."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read(url: str, counts: list[int], handle: Callable[[str], None] | None) -> None:
    """Reads frames until the connection ends, and calls `handle`, if any, with each."""
    goals: Iterator[int] = accumulate(counts)
    count, goal = 0, next(goals)

    def on_message(_app: websocket.WebSocketApp, frame: str) -> None:
        nonlocal count, goal
        if handle is not None:
            handle(frame)
        count += 1
        if count == goal:
            print(json.dumps({"ns": time.monotonic_ns()}), flush=True)
            goal = next(goals, -1)

    websocket.WebSocketApp(url, on_message=on_message).run_forever(skip_utf8_validation=True)


def floor(url: str, counts: list[int]) -> None:
    """A callback that only counts, to know when it is done, which takes one per cent of the time of a frame."""
    read(url, counts, None)


def plain(url: str, counts: list[int]) -> None:
    """One INSERT and one commit per message."""
    connection = mysql.connector.connect(
        unix_socket=os.environ["MYSQL_UNIX_SOCKET"],
        user=os.environ["MYSQL_USER"],
        password=os.environ["MYSQL_PASSWORD"],
        database=os.environ["MYSQL_DATABASE"],
        charset="utf8mb4",
        collation="utf8mb4_bin",
        autocommit=False,
    )
    cursor = connection.cursor()
    sql = f"INSERT INTO {PLAIN_TABLE} VALUES (%s, %s, %s, %s, %s, %s, %s)"

    def handle(frame: str) -> None:
        received_at = datetime.now(UTC)
        data = json.loads(frame)["data"]
        traded_at = _EPOCH + timedelta(microseconds=data["T"])
        cursor.execute(sql, (data["s"], traded_at, data["t"], data["p"], data["q"], data["m"], received_at))
        connection.commit()

    read(url, counts, handle)
    connection.close()


def main(argv: list[str] | None = None) -> int:
    """Reads until the feed ends."""
    name, url, *counts = argv if argv is not None else sys.argv[1:]
    {"floor": floor, "plain": plain}[name](url, [int(count) for count in counts])
    return 0


if __name__ == "__main__":
    sys.exit(main())
