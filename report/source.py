"""The database that a report reads: the real one, or the demo's while only that has trades."""

import difflib
from collections.abc import Sequence
from typing import NamedTuple

import config
import db
from db import Connection


class Mistake(Exception):
    """A question that cannot be answered as asked; one line that says what to do."""


class Source(NamedTuple):
    """The database to read: that of `settings`, the symbols with trades in it, and whether it stands in for another."""

    connection: Connection
    settings: config.Settings
    symbols: list[str]
    fallback: bool


def open_source(settings: config.Settings, demo: bool) -> Source:
    """The real database, or the demo's if `demo` or if only that has trades. Raises Mistake and connect()'s errors."""
    wanted, *others = [config.demo_of(settings)] if demo else [settings, config.demo_of(settings)]
    failure: db.FatalError | None = None
    for candidate in (wanted, *others):
        try:
            connection = db.connect(candidate, read_only=True)
            symbols = db.symbols(connection)
        except db.FatalError as error:
            # The demo's database is often missing; the error to report is that of the wanted one.
            failure = failure or (error if candidate is wanted else None)
            continue
        if symbols:
            return Source(connection, candidate, symbols, candidate is not wanted)
        connection.close()
    if failure:
        raise failure
    way_out = "make demo" if demo else "python ws_client.py"
    raise Mistake(f"no trade is stored in database {wanted.place} yet: run `{way_out}`")


def wanted_symbols(source: Source, asked: Sequence[str]) -> Sequence[str]:
    """The symbols to report on: those `asked` for, or all. Raises Mistake for one without trades, ConfigError."""
    wanted = config.parse_symbols("--symbol", ",".join(asked)) if asked else source.symbols
    stored = frozenset(source.symbols)
    for symbol in wanted:
        if symbol not in stored:
            there = f"no trade of {symbol} is stored in {source.settings.mysql_database}"
            raise Mistake(f"{there}; --symbol can be {_named(symbol, source.symbols)}")
    return wanted


NAMED_MAX = 20
"""Symbols that an error names."""


def _named(symbol: str, stored: Sequence[str]) -> str:
    """The symbols that are stored; of many those that look like `symbol`, or else the first."""
    if len(stored) <= NAMED_MAX:
        return ", ".join(stored)
    some = difflib.get_close_matches(symbol, stored, NAMED_MAX // 4) or stored[:NAMED_MAX]
    return f"{', '.join(some)} or one of {len(stored) - len(some):,} more"
