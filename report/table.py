"""Tables for people: as text they are laid out for the width that there is, as HTML they are real tables. Pure."""

import re
import textwrap
from collections.abc import Iterator, Sequence
from decimal import Decimal
from html import escape
from typing import NamedTuple

GAP = "  "
"""Between two columns of a text."""
_FIGURE_SPACE = "\u2007"
"""As wide as a digit."""


class Column(NamedTuple):
    """A heading and a cell for each row. `right`: numbers, which end at the right; their cells are equally wide, so
    that the decimal points are below each other."""

    heading: str
    cells: list[str]
    right: bool = False


class Table(NamedTuple):
    """Columns side by side; the first says what each row is. `titled`: the caption is shown as text too, not only to
    who reads the HTML."""

    caption: str
    columns: list[Column]
    titled: bool = False


def numbers(heading: str, texts: Sequence[str]) -> Column:
    """A column of texts that end at the right."""
    return Column(heading.strip(), list(texts), right=True)


def amounts(heading: str, values: Sequence[Decimal]) -> Column:
    """A column whose decimal points are below each other."""
    texts = [amount(value) for value in values]
    decimals = max(len(text.partition(".")[2]) for text in texts)
    return numbers(heading, [text + " " * (decimals - len(text.partition(".")[2])) for text in texts])


def amount(value: Decimal) -> str:
    """An exact decimal without its trailing zeros, but with two decimals at least."""
    whole, _, fraction = f"{value:f}".partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


# ---- As text.


def wrap(text: str, width: int) -> list[str]:
    """`text` on lines of at most `width`, as far as its words allow: no word, number or time is ever broken."""
    bound = re.sub(r"(\d{4}-\d\d-\d\d) (?=\d\d:)", "\\1\xa0", text)
    lines = textwrap.wrap(bound, width, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\xa0", " ") for line in lines]


def as_lines(table: Table, width: int) -> list[str]:
    """The table in at most `width` characters a line: as it is; or with headings of several lines; or in parts that are
    below each other, each with the first column. What is wider than that by itself is not cut off."""
    columns = [column for column in table.columns if any([column.heading, *column.cells])]
    blocks = [_block(column, wrapped=False) for column in columns]
    if _width(blocks) > width:
        blocks = [_block(column, wrapped=True) for column in columns]
    lines = [*wrap(f"{table.caption}:", width), ""] if table.titled else []
    for part in _parts(blocks, width):
        rows = zip(*_equally_high(part), strict=True)
        lines += [*(GAP.join(row).rstrip() for row in rows), ""]
    return lines[:-1]


def _block(column: Column, wrapped: bool) -> list[str]:
    """The lines of a column, all equally wide."""
    room = max(map(len, column.cells), default=0)
    words = column.heading.split() if wrapped else []
    heading = wrap(column.heading, max([room, *map(len, words)])) if words else [column.heading]
    width = max(map(len, [*heading, *column.cells]))
    return [text.rjust(width) if column.right else text.ljust(width) for text in (*heading, *column.cells)]


def _equally_high(blocks: Sequence[list[str]]) -> list[list[str]]:
    """`blocks` with empty lines above the headings that have fewer."""
    height = max(map(len, blocks))
    return [[" " * len(block[0])] * (height - len(block)) + block for block in blocks]


def _width(blocks: Sequence[list[str]]) -> int:
    return sum(len(block[0]) for block in blocks) + len(GAP) * (len(blocks) - 1)


def _parts(blocks: Sequence[list[str]], width: int) -> Iterator[list[list[str]]]:
    """The blocks in groups that are not too wide, each of which begins with the first block."""
    first, *rest = blocks
    part = [first]
    for block in rest:
        if len(part) > 1 and _width([*part, block]) > width:
            yield part
            part = [first]
        part.append(block)
    yield part


# ---- As HTML.


def as_html(table: Table) -> str:
    """The table with a caption, and headings of columns and rows that a screen reader can name; it scrolls by itself
    where the page is too narrow."""
    columns = [column for column in table.columns if any([column.heading, *column.cells])]
    caption = escape(table.caption)
    headings = "".join(map(_heading, columns))
    rows = "\n".join(
        "<tr>" + "".join(_row_cell(number, column, row) for number, column in enumerate(columns)) + "</tr>"
        for row in range(len(columns[0].cells))
    )
    return (
        f'<div class="table" tabindex="0" role="region" aria-label="{caption}">\n<table>\n'
        f"<caption>{caption}</caption>\n<thead><tr>{headings}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</div>"
    )


def _heading(column: Column) -> str:
    # A heading without words would be read out as one that is missing.
    return _cell("th", column.heading, column.right, ' scope="col"') if column.heading else "<td></td>"


def _row_cell(number: int, column: Column, row: int) -> str:
    tag, attributes = ("td", "") if number else ("th", ' scope="row"')
    return _cell(tag, column.cells[row], column.right, attributes)


def _cell(tag: str, text: str, right: bool, attributes: str) -> str:
    digits = text.rstrip(" ")
    # Keeps the decimal points below each other, and is no part of the number for who copies or hears it.
    space = f'<span aria-hidden="true">{_FIGURE_SPACE * (len(text) - len(digits))}</span>' if digits != text else ""
    class_ = ' class="number"' if right else ""
    return f"<{tag}{class_}{attributes}>{escape(digits)}{space}</{tag}>"
