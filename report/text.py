"""How the answers of query_examples.py look: tables for people, one JSON document for programs. Pure."""

import json
import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import config
from model.amounts import EXACT
from model.candles import MINUTE, Candle
from model.times import MILLISECOND
from model.trade import Trade
from storage.proofs import VERDICTS, Coverage
from storage.questions import Aged, Range, Second, Volume

LINE_CHARS_MAX = 100
SQL_INDENT = "  "
RESULT_INDENT = "    "
QUOTE_ASSETS = ("USDT", "USDC", "FDUSD", "TUSD", "EUR", "TRY", "BRL", "JPY", "BTC", "ETH", "BNB")
"""A symbol is its base and its quote asset with nothing between them; these are the quotes that are recognised."""

NOT_AUDITED = "not audited"

Marks = list[tuple[str, Trade]]
"""What a trade is among others, such as "low", and the trade."""


class Answer(NamedTuple):
    """A question about a symbol in English, the SQL as it was sent, and the result as JSON values and as lines."""

    kind: str
    symbol: str
    question: str
    sql: list[str]
    result: dict[str, Any]
    lines: list[str]
    span: tuple[datetime, datetime] | None = None
    """The range of time of which a chart can be drawn."""


# ---- For programs.


def as_json(settings: config.Settings, answers: Sequence[Answer]) -> str:
    """One document with all answers: prices as strings, ids as integers, times with a Z, and no float anywhere."""
    document = {
        "database": settings.mysql_database,
        "server": settings.server,
        "demo": settings.demo,
        "answers": [{name: value for name, value in answer._asdict().items() if name in _JSON} for answer in answers],
    }
    return json.dumps(document, indent=2)


_JSON = ("kind", "symbol", "question", "sql", "result")


def iso(time: datetime) -> str:
    """Such as 2025-11-20T10:15:09.250Z; a part below the millisecond, which only a question can have, is shown too."""
    return time.isoformat(timespec="microseconds" if time.microsecond % 1000 else "milliseconds")[:-6] + "Z"


# ---- For people.


def as_text(settings: config.Settings, fallback: bool, answers: Sequence[Answer], colour: bool) -> str:
    """The answers one below the other, after a line that says which database was read, and if in place of another."""
    bold, dim, plain = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if colour else ("", "", "")
    blocks = [headline(settings, fallback)]
    for answer in answers:
        sql = "\n".join(fold(statement) for statement in answer.sql)
        blocks.append(f"{bold}{textwrap.fill(answer.question, LINE_CHARS_MAX)}{plain}")
        blocks.append(f"{dim}{textwrap.indent(sql, SQL_INDENT)}{plain}")
        blocks.append(textwrap.indent("\n".join(answer.lines), RESULT_INDENT) + "\n")
    return "\n\n".join(blocks).rstrip("\n")


def headline(settings: config.Settings, fallback: bool) -> str:
    """Which database was read, and what is in it."""
    name = settings.place
    if not settings.demo:
        return f"Database {name}: trades captured from the exchange; times are UTC"
    why = " (no real trades yet)" if fallback else ""
    return f"Database {name}: made-up trades of the stand-in exchange{why}; times are UTC"


def fold(statement: str) -> str:
    """`statement` on lines of LINE_CHARS_MAX where its clauses or at least its words allow it; the same SQL but for the
    white space."""
    width = LINE_CHARS_MAX - len(SQL_INDENT)
    lines, clause = [""], ""
    # A quoted text may have a space in it, and stays in one piece.
    for word in [*re.findall(r"(?:'(?:[^'\\]|\\.)*'|[^\s'])+", statement), ""]:
        ends = not word or word in ("FROM", "WHERE", "AND", "ORDER", "GROUP", "UNION")
        if not ends and len(clause) + len(word) < width - len(SQL_INDENT):
            clause += f" {word}"
            continue
        if lines[-1] and len(lines[-1] + clause) > width:
            lines.append(" ")
        lines[-1] += clause
        clause = f" {word}"
    return "\n".join([lines[0].lstrip(), *lines[1:]])


def marks_of(found: Second | Range) -> Marks:
    """The outstanding trades of a time in which something traded."""
    named = (("first", found.first), ("low", found.low), ("high", found.high), ("last", found.last))
    return [(name, trade) for name, trade in named if trade]


def quiet(symbol: str, where: str, when: datetime, as_of: Aged | None, missing: int) -> list[str]:
    """That nothing traded in `where`, with the price as of `when`; or, if ids are missing, that this is not known."""
    first = f"No trade of {symbol} in {where}" if not missing else f"No trade of {symbol} is stored in {where}"
    if not as_of:
        lines = [f"{first}, and none is stored from before it."]
    else:
        age = duration(timedelta(milliseconds=as_of.age_ms))
        words = f"The price as of {said(when)} UTC was {age} old:"
        if missing:
            words = f"The last stored price as of {said(when)} UTC was {age} old:"
        lines = [f"{first}. {words}", "", *trade_table([("until then", as_of.trade)])]
    return lines + missing_note(missing, where, "it may well have traded, and at another price")


def trade_table(rows: Marks) -> list[str]:
    """The trades, all of one symbol, in columns with the units in the heading, after what each of them is."""
    trades = [trade for _, trade in rows]
    base, quote = split_symbol(trades[0].symbol)
    columns = [
        ["", *(mark for mark, _ in rows)],
        _amounts(f"price {quote}", [trade.price for trade in trades]),
        _amounts(f"quantity {base}", [trade.quantity for trade in trades]),
        ["taker", *("sold" if trade.buyer_is_maker else "bought" for trade in trades)],
        ["time UTC", *(utc(trade.timestamp) for trade in trades)],
        ["trade id", *(str(trade.trade_id) for trade in trades)],
    ]
    return _table(columns)


def candle_table(candles: Sequence[Candle], missing: Sequence[int]) -> list[str]:
    """The candles, all of one symbol, oldest first, and how many ids may be missing in each, if any are."""
    base, quote = split_symbol(candles[0].symbol)
    form = "%Y-%m-%d %H:%M" if candles[0].resolution >= MINUTE else "%Y-%m-%d %H:%M:%S"
    columns = [
        ["start UTC", *(f"{candle.timestamp:{form}}" for candle in candles)],
        _amounts(f"open {quote}", [candle.open for candle in candles]),
        _amounts("high", [candle.high for candle in candles]),
        _amounts("low", [candle.low for candle in candles]),
        _amounts("close", [candle.close for candle in candles]),
        _amounts(f"volume {base}", [candle.volume for candle in candles]),
        _right("trades", [f"{candle.trades:,}" for candle in candles]),
    ]
    return _table([*columns, _right("missing", [f"{number:,}" for number in missing])] if any(missing) else columns)


def volume_table(found: Volume) -> list[str]:
    """The sums of a range, in two lines: all of it, and where the taker bought."""
    base, quote = split_symbol(found.symbol)
    return _table(
        [
            ["", "traded", "taker bought"],
            _amounts(f"volume {base}", [found.volume, found.taker_buy_volume]),
            _amounts(f"volume {quote}", [found.quote_volume, found.taker_buy_quote_volume]),
        ]
    )


def volume(found: Volume) -> str:
    """The volume in words."""
    base, quote = split_symbol(found.symbol)
    return f"volume {amount(found.volume)} {base}".rstrip() + f" for {amount(found.quote_volume)} {quote}".rstrip()


def average(found: Volume) -> str:
    """The volume-weighted average price in words; something must have traded."""
    assert found.vwap is not None
    exact = EXACT.multiply(found.vwap, found.volume) == found.quote_volume
    price = f"{amount(found.vwap)} {split_symbol(found.symbol)[1]}".rstrip()
    return f"average price (VWAP) {price}" + ("" if exact else ", rounded to 8 decimals, half to even")


def missing_note(missing: int, where: str, therefore: str) -> list[str]:
    """That ids are missing in `where`, if any are, and what of the answer may be wrong `therefore`."""
    if not missing:
        return []
    are = "trade is" if missing == 1 else "trades are"
    note = f"Up to {missing:,} {are} missing in {where}, so {therefore}; `python backfill.py --list` has the ids."
    return ["", *textwrap.wrap(note, LINE_CHARS_MAX - len(RESULT_INDENT))]


def coverage_line(found: Coverage) -> str:
    """How many days have which verdict, and what to run to see more."""
    counts = Counter(day.verdict or NOT_AUDITED for day in found.days)
    parts = [f"{counts[name]:,} {name}" for name in (*VERDICTS, NOT_AUDITED) if counts[name]]
    days = "1 day" if len(found.days) == 1 else f"{len(found.days):,} days"
    missing = f" ({found.missing:,} {'id' if found.missing == 1 else 'ids'} missing)" if found.missing else ""
    audited = any(day.proven_at for day in found.days)
    next_step = "`python audit.py --calendar` shows them" if audited else "run `python audit.py` to audit them"
    return f"{days}: {', '.join(parts)}{missing}; {next_step}"


def split_symbol(symbol: str) -> tuple[str, str]:
    """The base and the quote asset; both empty when the quote is not one of QUOTE_ASSETS."""
    quote = next((asset for asset in QUOTE_ASSETS if symbol.endswith(asset) and symbol != asset), "")
    return (symbol.removesuffix(quote), quote) if quote else ("", "")


def _table(columns: Sequence[Sequence[str]]) -> list[str]:
    """Columns side by side, without those that are empty."""
    widths = [max(map(len, column)) for column in columns]
    padded = [[cell.ljust(width) for cell in column] for column, width in zip(columns, widths, strict=True) if width]
    return ["  ".join(line).rstrip() for line in zip(*padded, strict=True)]


def _amounts(heading: str, values: Sequence[Decimal]) -> list[str]:
    """A column whose decimal points are below each other."""
    texts = [amount(value) for value in values]
    decimals = max(len(text.partition(".")[2]) for text in texts)
    return _right(heading.strip(), [text + " " * (decimals - len(text.partition(".")[2])) for text in texts])


def _right(heading: str, cells: Sequence[str]) -> list[str]:
    return [cell.rjust(max(map(len, [heading, *cells]))) for cell in (heading, *cells)]


def amount(value: Decimal) -> str:
    """An exact decimal without its trailing zeros, but with two decimals at least."""
    whole, _, fraction = f"{value:f}".partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def utc(time: datetime) -> str:
    """Such as 2025-11-20 10:15:09.250; the heading or the sentence says UTC."""
    return iso(time).replace("T", " ").rstrip("Z")


def said(time: datetime) -> str:
    """As utc(), but a whole second without its zeros, for a sentence."""
    return utc(time).removesuffix(".000")


def duration(length: timedelta) -> str:
    """Such as 0.250 s, 5 min 3 s, 2 h 5 min or 3 d 4 h: two units, counted in integers."""
    seconds, milliseconds = divmod(length // MILLISECOND, 1000)
    if seconds < 60:
        return f"{seconds}.{milliseconds:03} s" if milliseconds else f"{seconds} s"
    for size, unit, small, small_unit in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            rest = seconds % size // small
            return f"{seconds // size} {unit}" + (f" {rest} {small_unit}" if rest else "")
    raise AssertionError("a minute or more has one of the units")


def count(trades: int) -> str:
    """Such as 1 trade, or 1,234 trades."""
    return "1 trade" if trades == 1 else f"{trades:,} trades"
