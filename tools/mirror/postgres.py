"""The PostgreSQL side of the mirror: the copy's tables, and the transaction that stores trades and progress together.

`prices` is the copy. The progress (first and last trade per symbol, and the holes between them) is stored in the same
transaction as the trades, so neither can be ahead of the other, however the program ends.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, NamedTuple

import psycopg
from psycopg import conninfo

from model.gaps import Gap, Span
from model.trade import Trade
from storage.follow import Copied

CONNECT_S_MAX = 5
SILENT_S_MAX = 20
"""A server that sends nothing for this long while a request is in progress counts as gone."""
LOCK_S_MAX = 5
ID_MAX = 2**63 - 1
"""The largest BIGINT."""
_LOCK = 5_437_610_219
"""Makes two mirrors that start at once create the tables one after the other; the number is arbitrary."""

_TABLES = """
CREATE TABLE IF NOT EXISTS prices (
    timestamp      TIMESTAMPTZ   NOT NULL,
    symbol         TEXT          NOT NULL,
    trade_id       BIGINT        NOT NULL,
    price          NUMERIC(18,8) NOT NULL,
    quantity       NUMERIC(20,8) NOT NULL,
    buyer_is_maker BOOLEAN       NOT NULL,
    received_at    TIMESTAMPTZ,
    PRIMARY KEY (timestamp, symbol, trade_id)
);
CREATE TABLE IF NOT EXISTS mirror_symbols (
    symbol          TEXT        PRIMARY KEY,
    source          TEXT        NOT NULL,
    first_trade_id  BIGINT      NOT NULL,
    first_timestamp TIMESTAMPTZ NOT NULL,
    last_trade_id   BIGINT      NOT NULL,
    last_timestamp  TIMESTAMPTZ NOT NULL,
    step            BIGINT      NOT NULL
);
CREATE TABLE IF NOT EXISTS mirror_holes (
    symbol           TEXT        NOT NULL,
    first_trade_id   BIGINT      NOT NULL,
    last_trade_id    BIGINT      NOT NULL,
    timestamp_before TIMESTAMPTZ NOT NULL,
    timestamp_after  TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (symbol, first_trade_id)
);
COMMENT ON TABLE prices IS 'one row per trade: a copy of the MySQL table trades, kept by tools/mirror.py';
COMMENT ON TABLE mirror_symbols IS 'what was copied; to copy anew, drop this, mirror_holes and prices';
COMMENT ON TABLE mirror_holes IS 'ids between first and last that were not stored in MySQL yet when they were passed';
"""
_COLUMNS = ", ".join(Trade._fields)
_ARRIVING = """\
CREATE TEMP TABLE IF NOT EXISTS arriving (
    symbol TEXT, timestamp TIMESTAMPTZ, trade_id BIGINT, price NUMERIC, quantity NUMERIC, buyer_is_maker BOOLEAN,
    received_at TIMESTAMPTZ
) ON COMMIT DELETE ROWS
"""
_AWAY = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError)
# What the server says when a connection may succeed later; any other FATAL error is the operator's mistake.
_LATER = re.compile("starting up|shutting down|recovery|not yet accepting|too many|slots are reserved|terminating")


class MirrorError(Exception):
    """Something that only the operator can fix; one line."""


class AwayError(Exception):
    """PostgreSQL is away or cannot write now: reconnect, read what was copied, and repeat."""


class MovedError(Exception):
    """Another mirror has copied in the meantime, so nothing was stored: read what was copied, and repeat."""


class _Limit(NamedTuple):
    """What a column can hold: numbers below `bound` that are multiples of `unit`. `type` is its SQL type."""

    type: str
    bound: Decimal
    unit: Decimal

    def fits(self, value: Decimal) -> bool:
        return value < self.bound and value % self.unit == 0


def parse_target(text: str) -> str:
    """The libpq connection string for an address; time-outs are added if it has none. Raises MirrorError."""
    try:
        given = conninfo.conninfo_to_dict(text)
    except psycopg.ProgrammingError:
        given = {}
    # The address may hold a password, so the error must not repeat it.
    if not text.startswith(("postgresql://", "postgres://")) or not given:
        raise MirrorError("--to is not a PostgreSQL address, which looks like postgresql://user@host:5432/database")
    patience: dict[str, Any] = {
        "connect_timeout": CONNECT_S_MAX,
        "keepalives_idle": SILENT_S_MAX // 2,
        "keepalives_interval": SILENT_S_MAX // 4,
        "keepalives_count": 2,
        "tcp_user_timeout": SILENT_S_MAX * 1000,
        "application_name": "mirror",
        # As parameters of the connection and not by SET: a proxy that pools transactions keeps these, and those not.
        "client_encoding": "UTF8",
    }
    return conninfo.make_conninfo(**{**patience, **given})


class Target:
    """A connection to the copy of `source`, and the number of each symbol's last step; used by one thread."""

    def __init__(self, target: str, source: str) -> None:
        """Connects, and creates the tables if missing. Raises AwayError, MirrorError."""
        self._source = source
        self._steps: dict[str, int] = {}
        try:
            # Such a proxy gives each transaction another session, which knows no statement that was prepared before.
            self._connection = psycopg.connect(target, autocommit=True, prepare_threshold=None)
        except psycopg.OperationalError as error:
            words = _words(error)
            raise (MirrorError if "FATAL" in words and not _LATER.search(words) else AwayError)(words) from error
        try:
            self._set_up()
        except psycopg.Error as error:
            self.close()
            raise _translated(error) from error
        except MirrorError:
            self.close()
            raise

    def _set_up(self) -> None:
        connection = self._connection
        # A user without the right to create tables can still copy into tables that somebody else has created.
        if connection.execute("SELECT to_regclass('mirror_holes')").fetchone() == (None,):
            with self._transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                connection.execute(_TABLES)
        others = connection.execute("SELECT DISTINCT source FROM mirror_symbols WHERE source <> %s", (self._source,))
        for (other,) in others:
            raise MirrorError(f"--to holds a copy of {other!r}, not of {self._source!r}: give another database")
        types = connection.execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = 'prices'::regclass AND attname IN ('price', 'quantity')"
        )
        self._limits = {name: _limit(name, type_) for name, type_ in types}

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """A transaction with what holds for its session, which may be another one each time."""
        with self._connection.transaction():
            self._connection.execute(f"SET LOCAL TIME ZONE 'UTC'; SET LOCAL lock_timeout = '{LOCK_S_MAX}s'")
            yield

    def close(self) -> None:
        """Closes the connection, which may already be dead."""
        self._connection.close()

    def fetch_copied(self, symbol: str) -> Copied:
        """What was copied of `symbol`. Raises AwayError, MirrorError."""
        try:
            return self._fetch_copied(symbol)
        except psycopg.Error as error:
            raise _translated(error) from error

    def _fetch_copied(self, symbol: str) -> Copied:
        # One statement for both tables would be one snapshot; two are enough, since store() notices a step in between.
        row = self._connection.execute(
            "SELECT step, first_trade_id, first_timestamp, last_trade_id, last_timestamp FROM mirror_symbols"
            " WHERE symbol = %s",
            (symbol,),
        ).fetchone()
        if row is None:
            self._steps[symbol] = 0
            return Copied(symbol)
        self._steps[symbol] = row[0]
        holes = self._connection.execute(
            "SELECT first_trade_id, last_trade_id, timestamp_before, timestamp_after FROM mirror_holes"
            " WHERE symbol = %s ORDER BY first_trade_id",
            (symbol,),
        )
        found = (Gap(symbol, first, last, "", before, None, before, after) for first, last, before, after in holes)
        return Copied(symbol, Span((row[1], row[2]), (row[3], row[4])), tuple(found))

    def fitting(self, trades: Sequence[Trade]) -> Sequence[Trade]:
        """The trades before the first one that a column cannot hold exactly. Raises MirrorError if there is none."""
        price, quantity = self._limits["price"], self._limits["quantity"]
        for index, trade in enumerate(trades):
            if price.fits(trade.price) and quantity.fits(trade.quantity) and trade.trade_id <= ID_MAX:
                continue
            if index:
                return trades[:index]
            raise MirrorError(self._misfit(trade))
        return trades

    def _misfit(self, trade: Trade) -> str:
        which = f"{trade.symbol} trade {trade.trade_id} at {trade.timestamp.isoformat(' ', 'milliseconds')}"
        for name, limit in self._limits.items():
            value = getattr(trade, name)
            if not limit.fits(value):
                way_out = f"ALTER TABLE prices ALTER {name} TYPE NUMERIC(20,8) makes room"
                return f"{which}: its {name} {value:f} does not fit prices.{name} {limit.type}; {way_out}"
        return f"{which}: its id does not fit prices.trade_id BIGINT"

    def store(self, before: Copied, after: Copied, trades: Sequence[Trade]) -> int:
        """How many of `trades` were new to the copy, which now has all of them and records its progress as `after`.

        Raises MovedError if the progress was no longer `before`, AwayError (all or nothing is stored), MirrorError.
        """
        try:
            with self._transaction():
                self._advance(after)
                self._store_holes(before, after)
                inserted = self._copy(trades)
        except psycopg.Error as error:
            raise _translated(error) from error
        self._steps[after.symbol] += 1
        return inserted

    def _advance(self, after: Copied) -> None:
        assert after.span is not None
        step = self._steps[after.symbol]
        (first, first_at), (last, last_at) = after.span
        ends = {"first": first, "first_at": first_at, "last": last, "last_at": last_at}
        values: dict[str, Any] = {**ends, "symbol": after.symbol, "source": self._source, "step": step}
        if step:
            sql = (
                "UPDATE mirror_symbols SET first_trade_id = %(first)s, first_timestamp = %(first_at)s,"
                " last_trade_id = %(last)s, last_timestamp = %(last_at)s, step = step + 1"
                " WHERE symbol = %(symbol)s AND step = %(step)s"
            )
        else:
            sql = (
                "INSERT INTO mirror_symbols (symbol, source, first_trade_id, first_timestamp, last_trade_id,"
                " last_timestamp, step) VALUES (%(symbol)s, %(source)s, %(first)s, %(first_at)s, %(last)s, %(last_at)s,"
                " 1) ON CONFLICT DO NOTHING"
            )
        if self._connection.execute(sql, values).rowcount == 0:
            raise MovedError

    def _store_holes(self, before: Copied, after: Copied) -> None:
        old = {(hole.first_trade_id, hole.last_trade_id): hole for hole in before.holes}
        new = {(hole.first_trade_id, hole.last_trade_id): hole for hole in after.holes}
        with self._connection.cursor() as cursor:
            closed = [(after.symbol, first) for first, last in old.keys() - new.keys()]
            opened = [
                (after.symbol, *run, new[run].timestamp_before, new[run].timestamp_after)
                for run in new.keys() - old.keys()
            ]
            if closed:
                cursor.executemany("DELETE FROM mirror_holes WHERE symbol = %s AND first_trade_id = %s", closed)
            if opened:
                cursor.executemany("INSERT INTO mirror_holes VALUES (%s, %s, %s, %s, %s)", opened)

    def _copy(self, trades: Sequence[Trade]) -> int:
        with self._connection.cursor() as cursor:
            # The session may have it from another transaction of ours.
            cursor.execute(_ARRIVING)
            with cursor.copy(f"COPY arriving ({_COLUMNS}) FROM STDIN") as copy:
                for trade in trades:
                    copy.write_row(trade)
            cursor.execute(f"INSERT INTO prices ({_COLUMNS}) SELECT {_COLUMNS} FROM arriving ON CONFLICT DO NOTHING")
            return cursor.rowcount


def _limit(name: str, type_: str) -> _Limit:
    match = re.fullmatch(r"numeric\(([0-9]+),([0-9]+)\)", type_)
    if match:
        digits, decimals = int(match[1]), int(match[2])
        return _Limit(type_.upper(), Decimal(10) ** (digits - decimals), Decimal(10) ** -decimals)
    if type_ == "numeric":
        return _Limit("NUMERIC", Decimal("Infinity"), Decimal("1e-8"))
    raise MirrorError(f"prices.{name} has the type {type_}, which is not exact; use NUMERIC(18,8)")


def _translated(error: psycopg.Error) -> AwayError | MirrorError:
    return (AwayError if isinstance(error, _AWAY) else MirrorError)(_words(error))


def _words(error: psycopg.Error) -> str:
    return "PostgreSQL: " + " ".join(str(error).split())
