"""The files of `--plot` and `--html`."""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from db import Connection
from report import charted, svg
from report.charted import Chart
from report.html import as_html
from report.source import Mistake
from report.text import Answer, Read


def draw(
    connection: Connection, options: argparse.Namespace, read: Read, answers: Sequence[Answer], now: datetime
) -> None:
    """Writes the files of --plot and --html. Raises Mistake."""
    spans = {number: (one.symbol, *one.span) for number, one in enumerate(answers) if one.span}
    drawn = charted.fetch_all(connection, spans)
    if options.plot:
        _write(options.plot, _picture(list(drawn.values())))
    if options.html:
        figures = {number: svg.figure(chart) for number, chart in drawn.items()}
        _write(options.html, as_html(read, answers, figures, now, options.sql).encode())


def _picture(drawn: Sequence[Chart]) -> bytes:
    """The charts as PNG, one for each symbol. Raises Mistake."""
    try:
        # Slow to import, and not needed for anything else.
        from report import charts
    except ImportError as error:
        raise Mistake(f"--plot needs another package: pip install -r requirements-tools.txt ({error})") from error
    # Of the report's ranges the longest, which comes last.
    longest = list({chart.found.symbol: chart for chart in drawn}.values())
    if not longest or len(longest) > charts.CHARTS_MAX:
        shown = f"a picture can show 1 to {charts.CHARTS_MAX} symbols with trades, not {len(longest)}"
        raise Mistake(f"{shown}; choose with --symbol, or another range")
    return charts.png(longest)


def _write(path: Path, content: bytes) -> None:
    """A file that appears whole, or stays as it was. Raises Mistake."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        raise Mistake(f"{path} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            part.unlink()
    print(f"query_examples.py: wrote {path}", file=sys.stderr)
