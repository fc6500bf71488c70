"""How the answers of query_examples.py look: tables and words for people, one JSON document for programs. Pure."""

import json
import re
import shutil
import textwrap
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TextIO

import config
from model.amounts import EXACT
from model.candles import MINUTE, Candle
from model.times import MILLISECOND
from model.trade import Trade
from report.table import Column, Table, amount, amounts, as_lines, numbers, wrap
from storage.proofs import VERDICTS, Coverage
from storage.questions import Aged, Instant, Latest, Outside, Range, Second, Volume

LINE_CHARS_MAX = 100
"""Longer lines are hard to read; and as long are those of a file or a pipe, whatever the terminal is."""
LINE_CHARS_MIN = 40
INDENT = "  "
SQL_INDENT = "    "
QUOTE_ASSETS = ("USDT", "USDC", "FDUSD", "TUSD", "EUR", "TRY", "BRL", "JPY", "BTC", "ETH", "BNB")
"""A symbol is its base and its quote asset with nothing between them; these are the quotes that are recognised."""

NOT_AUDITED = "not audited"

Marks = list[tuple[str, Trade]]
"""What a trade is among others, such as "low", and the trade."""


class Note(NamedTuple):
    """What an answer does not know, in words."""

    text: str


Part = Table | Note | str
"""Of an answer: a table, what is not known, or a paragraph, whose lines are lines of their own."""


class Answer(NamedTuple):
    """A question about a symbol in English, the SQL as it was sent, and the result as JSON values and for people."""

    kind: str
    symbol: str
    question: str
    sql: list[str]
    result: dict[str, Any]
    parts: list[Part]
    span: tuple[datetime, datetime] | None = None
    """The range of time of which a chart can be drawn."""
    plain_sql: str | None = None
    """A statement that gives the same and that everybody understands, if there is one that is simpler than `sql`."""


class Read(NamedTuple):
    """The settings of the database that was read, whether it stands in for another, and what is left out, in a line."""

    settings: config.Settings
    fallback: bool
    left_out: str = ""


# ---- For programs.


def as_json(read: "Read", answers: Sequence[Answer]) -> str:
    """One document with all answers: prices as strings, ids as integers, times with a Z, and no float anywhere. What is
    left out, if anything is, stands in `left_out`."""
    settings = read.settings
    document: dict[str, Any] = {
        "database": settings.mysql_database,
        "server": settings.server,
        "demo": settings.demo,
        "answers": [_json(answer) for answer in answers],
    }
    if read.left_out:
        document["left_out"] = read.left_out
    return json.dumps(document, indent=2)


def _json(answer: Answer) -> dict[str, Any]:
    plain = {"plain_sql": answer.plain_sql} if answer.kind == "range" else {}
    about = {"kind": answer.kind, "symbol": answer.symbol, "question": answer.question}
    return {**about, "sql": answer.sql, **plain, "result": answer.result}


def iso(time: datetime) -> str:
    """Such as 2025-11-20T10:15:09.250Z; a part below the millisecond, which only a question can have, is shown too."""
    return time.isoformat(timespec="microseconds" if time.microsecond % 1000 else "milliseconds")[:-6] + "Z"


# ---- For people.


class Look(NamedTuple):
    """How wide the text is, whether a terminal shows it in bold and dim, and whether the SQL is a part of it."""

    width: int = LINE_CHARS_MAX
    styled: bool = False
    sql: bool = True


def look_of(out: TextIO, sql: bool) -> Look:
    """As wide as the terminal, within reason; of a file or a pipe always the same."""
    if not out.isatty():
        return Look(sql=sql)
    return Look(min(max(shutil.get_terminal_size().columns, LINE_CHARS_MIN), LINE_CHARS_MAX), True, sql)


def as_text(read: Read, answers: Sequence[Answer], look: Look) -> str:
    """The answers one below the other, after what is to be said of the database that was read: of each the question,
    the answer, and the SQL that gave it."""
    bold, dim, plain = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if look.styled else ("", "", "")
    blocks = ["\n".join(line for text in headline(read).split("\n") for line in wrap(text, look.width))]
    for answer in answers:
        question = "\n".join(wrap(answer.question, look.width))
        blocks.append(f"{bold}{question}{plain}")
        blocks += [textwrap.indent(_part(part, look.width - len(INDENT)), INDENT) for part in answer.parts]
        if look.sql:
            sql = textwrap.indent(sql_lines(answer, look.width - len(SQL_INDENT)), SQL_INDENT)
            blocks.append(f"{dim}{sql}{plain}")
        blocks[-1] += "\n"
    return "\n\n".join(blocks).rstrip("\n")


def _part(part: Part, width: int) -> str:
    if isinstance(part, Table):
        return "\n".join(as_lines(part, width))
    text = part.text if isinstance(part, Note) else part
    return "\n".join(line for paragraph in text.split("\n") for line in wrap(paragraph, width))


def sql_lines(answer: Answer, width: int = LINE_CHARS_MAX - len(SQL_INDENT)) -> str:
    """The SQL of an answer, all of which can be pasted into the mysql client."""
    first = [_PLAIN, answer.plain_sql, _FAST] if answer.plain_sql else []
    return "\n".join(fold(statement, width) for statement in (*first, *answer.sql))


_PLAIN = "-- The low and the high in plain SQL, which reads every trade of the range:"
_FAST = "-- As they were asked for, in a time that does not grow with the range, with their trades and the volume:"


def headline(read: Read) -> str:
    """Which database was read, what is in it, and what is left out."""
    settings, fallback, note = read
    name = settings.place
    words = f"Database {name}: trades captured from the exchange; times are UTC"
    if settings.demo:
        why = " (no real trades yet)" if fallback else ""
        words = f"Database {name}: made-up trades of the stand-in exchange{why}; times are UTC"
    return f"{words}\n{note}" if note else words


def fold(statement: str, width: int = LINE_CHARS_MAX - len(SQL_INDENT)) -> str:
    """`statement` on lines of at most `width` where its clauses or at least its words allow it; the same SQL but for
    the white space."""
    if statement.startswith("-- "):
        return "\n".join(f"-- {line}" for line in wrap(statement.removeprefix("-- "), width - 3))
    lines, clause = [""], ""
    # A quoted text may have a space in it, and stays in one piece.
    for word in [*re.findall(r"(?:'(?:[^'\\]|\\.)*'|[^\s'])+", statement), ""]:
        ends = not word or word in ("FROM", "WHERE", "AND", "ORDER", "GROUP", "UNION")
        if not ends and len(clause) + len(word) < width - len(INDENT):
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


def quiet(symbol: str, where: str, when: datetime, as_of: Aged | None, missing: int) -> list[Part]:
    """That nothing traded in `where`, with the price as of `when`; or, if ids are missing, that this is not known."""
    known = as_of is not None and not missing
    first = f"No trade of {symbol} in {where}" if known else f"No trade of {symbol} is stored in {where}"
    parts: list[Part]
    if not as_of:
        parts = [f"{first}, and none from before it."]
    else:
        age = duration(timedelta(milliseconds=as_of.age_ms))
        words = f"The price as of {said(when)} UTC was {age} old:"
        if missing:
            words = f"The last stored price as of {said(when)} UTC was {age} old:"
        caption = f"The last stored trade of {symbol} before {where}"
        parts = [f"{first}. {words}", trade_table([("until then", as_of.trade)], caption)]
    return parts + missing_note(missing, f"in {where}", "it may well have traded, and at another price")


def instant(found: Instant) -> list[Part]:
    """The price at an instant, whose price it was, and what is not known of the time from that trade on."""
    when = f"{said(found.time)} UTC"
    if found.as_of is None:
        return [Note(f"No trade of {found.symbol} is stored from {when} or before, so the price is not known.")]
    trade, age_ms = found.as_of
    quote = split_symbol(found.symbol)[1]
    price = f"{amount(trade.price)} {quote}".rstrip()
    known = not found.missing and not found.is_newest
    name = "The price was" if known else "The last stored price was"
    last = f"the last one{'' if known else ' that is stored'} up to that millisecond"
    words = f"{name} {price}: that of trade {trade.trade_id}, {last}, which was {aged(age_ms)} old."
    parts: list[Part] = [
        words,
        trade_table([("until then", trade)], f"The last stored trade of {found.symbol} by {when}"),
    ]
    if found.is_newest:
        parts.append(Note(f"No later trade is stored, so whether another followed by {when} is not known."))
    if known:
        parts.append("No id is missing between that trade and that instant.")
    between = "between that trade and that instant"
    return parts + missing_note(found.missing, between, "the price may have been another")


def outside_note(symbol: str, outside: Outside) -> list[Part]:
    """That nothing is known of the time before the oldest or after the newest stored trade."""
    sides = (("oldest", outside.before, "before"), ("newest", outside.after, "after"))
    return [
        Note(f"The {which} stored trade of {symbol} is of {said(when)} UTC: what it traded {side} that is not known.")
        for which, when, side in sides
        if when
    ]


def trade_table(rows: Marks, caption: str) -> Table:
    """The trades, all of one symbol, in columns with the units in the heading, after what each of them is."""
    return Table(caption, [Column("", [mark for mark, _ in rows]), *_trade_columns([trade for _, trade in rows])])


def trade_list(trades: Sequence[Trade], caption: str) -> Table:
    """The trades, all of one symbol, each known by its id."""
    *columns, ids = _trade_columns(trades)
    return Table(caption, [ids, *columns], titled=True)


def _trade_columns(trades: Sequence[Trade]) -> list[Column]:
    base, quote = split_symbol(trades[0].symbol)
    return [
        amounts(f"price {quote}", [trade.price for trade in trades]),
        amounts(f"quantity {base}", [trade.quantity for trade in trades]),
        Column("taker", ["sold" if trade.buyer_is_maker else "bought" for trade in trades]),
        Column("time UTC", [utc(trade.timestamp) for trade in trades]),
        Column("trade id", [str(trade.trade_id) for trade in trades]),
    ]


def newest_table(rows: Sequence[Latest]) -> Table:
    """The newest trades of many symbols, their ages, and how many ids are missing at each, if any are."""
    columns = [
        Column("symbol", [row.trade.symbol for row in rows]),
        amounts("price", [row.trade.price for row in rows]),
        Column("time UTC", [utc(row.trade.timestamp) for row in rows]),
        numbers("age", [aged(row.age_ms) for row in rows]),
    ]
    missing = [numbers("missing", [f"{row.missing:,}" for row in rows])] if any(row.missing for row in rows) else []
    return Table("The latest price of each symbol", [*columns, *missing])


def aged(age_ms: int) -> str:
    """Such as 5 min 3 s; with a minus sign where the exchange's clock is ahead."""
    length = timedelta(milliseconds=age_ms)
    return duration(length) if age_ms >= 0 else f"-{duration(-length)}"


def candle_table(candles: Sequence[Candle], missing: Sequence[int], caption: str) -> Table:
    """The candles, all of one symbol, oldest first, and how many ids may be missing in each, if any are."""
    base, quote = split_symbol(candles[0].symbol)
    form = "%Y-%m-%d %H:%M" if candles[0].resolution >= MINUTE else "%Y-%m-%d %H:%M:%S"
    columns = [
        Column("start UTC", [f"{candle.timestamp:{form}}" for candle in candles]),
        amounts(f"open {quote}", [candle.open for candle in candles]),
        amounts("high", [candle.high for candle in candles]),
        amounts("low", [candle.low for candle in candles]),
        amounts("close", [candle.close for candle in candles]),
        amounts(f"volume {base}", [candle.volume for candle in candles]),
        numbers("trades", [f"{candle.trades:,}" for candle in candles]),
    ]
    return Table(caption, [*columns, *([numbers("missing", [f"{n:,}" for n in missing])] if any(missing) else [])])


def volume_table(found: Volume, caption: str) -> Table:
    """The sums of a range, in two lines: all of it, and where the taker bought."""
    base, quote = split_symbol(found.symbol)
    columns = [
        Column("", ["traded", "taker bought"]),
        amounts(f"volume {base}", [found.volume, found.taker_buy_volume]),
        amounts(f"volume {quote}", [found.quote_volume, found.taker_buy_quote_volume]),
    ]
    return Table(caption, columns)


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


def missing_note(missing: int, where: str, therefore: str) -> list[Part]:
    """That ids are missing `where`, such as "in that second", if any are, and what may be wrong `therefore`."""
    if not missing:
        return []
    are = "trade is" if missing == 1 else "trades are"
    note = f"Up to {missing:,} {are} missing {where}, so {therefore}; `python backfill.py --list` has the ids."
    return [Note(note)]


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
