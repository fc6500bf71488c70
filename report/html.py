"""The answers of query_examples.py as one self-contained HTML file: no script, no font, no other file."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape

from report import coverage, svg, table
from report.table import Table
from report.text import Answer, Note, Read, headline, said, sql_lines, utc

_STYLE = """\
:root { color-scheme: light dark; --quiet: #5c6470; --line: #8884; --warn: #a84a00; --warn-back: #d9480f14; }
@media (prefers-color-scheme: dark) { :root { --quiet: #a3acb9; --warn: #ffb27a; --warn-back: #ff9e5e1f; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; }
h2 { margin: 3rem 0 0; padding-bottom: .2rem; border-bottom: 2px solid var(--line); }
h3 { font-size: 1rem; margin: 2rem 0 .5rem; } main > section { margin-bottom: 3rem; }
.about { color: var(--quiet); font-size: .875rem; margin: .2rem 0; overflow-wrap: anywhere; }
.missing { border: 1px solid var(--line); border-left: 5px solid var(--high); border-radius: 6px; padding: .1rem 1rem;
  margin: 1.25rem 0; }
.missing.some { border-left-color: var(--warn); } .missing h2 { font-size: 1rem; margin: .6rem 0 0; border: 0; }
.missing ul { padding-left: 1.2rem; } .missing ul ul { font-size: .9rem; }
.note { color: var(--warn); background: var(--warn-back); border-left: 4px solid; padding: .4rem .75rem; }
.table { overflow-x: auto; margin: .5rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
caption { text-align: left; color: var(--quiet); font-size: .8rem; padding: .2rem 0; }
th, td { text-align: left; padding: .2rem 1rem .2rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
th.number, td.number { text-align: right; } thead th { font-weight: 600; } tbody th { font-weight: 500; }
td span, th span { user-select: none; }
pre { overflow-x: auto; font: 13px/1.45 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; margin: .5rem 0;
  padding: .75rem; border-radius: 6px; background: #8881; }
summary { cursor: pointer; font-size: .875rem; color: var(--quiet); }
@media (max-width: 40rem) { th, td { white-space: normal; padding-right: .3rem; } table { font-size: .72rem; } }
nav a { margin-right: 1rem; } footer { margin-top: 3rem; }
@media print { body { max-width: none; padding: 0; } section { break-inside: avoid; } details, nav { display: none; }
  .table { overflow: visible; } }
"""
_STYLES = _STYLE + svg.STYLE + coverage.STYLE


def as_html(
    read: Read, answers: Sequence[Answer], figures: Mapping[int, str], now: datetime, with_sql: bool = True
) -> str:
    """The whole document. `figures`: the charts, by the number of the answer."""
    symbols = list(dict.fromkeys(answer.symbol for answer in answers))
    links = "".join(f'<a href="#{escape(symbol)}">{escape(symbol)}</a>' for symbol in symbols)
    nav = f"<nav>{links}</nav>\n" if len(symbols) > 1 else ""
    title = f"Trades of {', '.join(symbols)}"
    parts = [
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>',
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>\n{_STYLES}</style>\n</head>',
        f"<body>\n<header>\n<h1>{escape(title)}</h1>\n{_about(read, answers, now)}\n{nav}</header>",
        f"<main>\n{_missing(symbols, answers)}",
    ]
    for symbol in symbols:
        parts.append(f'<h2 id="{escape(symbol)}">{escape(symbol)}</h2>')
        parts += [
            _section(number, answer, figures.get(number), with_sql)
            for number, answer in enumerate(answers)
            if answer.symbol == symbol
        ]
    parts.append("</main>\n</body>\n</html>\n")
    return "\n".join(parts)


def _about(read: Read, answers: Sequence[Answer], now: datetime) -> str:
    """Of which time the answers are, when they were given, and from which database."""
    spans = [answer.span for answer in answers if answer.span]
    lines = [f"Made at {utc(now)} UTC by the clock of the machine that made it.", *headline(read).split("\n")]
    if spans:
        start, end = min(span[0] for span in spans), max(span[1] for span in spans)
        lines.insert(0, f"From {said(start)} until {said(end)} UTC.")
    return "\n".join(f'<p class="about">{escape(line)}</p>' for line in lines)


def _missing(symbols: Sequence[str], answers: Sequence[Answer]) -> str:
    """What the answers do not know, before all of them."""
    items, some = [], False
    for symbol in symbols:
        notes = [
            f'<li><a href="#answer-{number}">{escape(answer.question)}</a> {_escaped(part.text)}</li>'
            for number, answer in enumerate(answers)
            for part in answer.parts
            if answer.symbol == symbol and isinstance(part, Note)
        ]
        some = some or bool(notes)
        words = f"<ul>{''.join(notes)}</ul>" if notes else "no trade id is missing in the times of these answers."
        items.append(f"<li><b>{escape(symbol)}</b>: {words}</li>")
    class_ = "missing some" if some else "missing"
    return f'<section class="{class_}">\n<h2>What is missing</h2>\n<ul>{"".join(items)}</ul>\n</section>'


def _section(number: int, answer: Answer, figure: str | None, with_sql: bool) -> str:
    parts = [f'<section id="answer-{number}">\n<h3>{escape(answer.question)}</h3>']
    parts += [table.as_html(part) if isinstance(part, Table) else _words(part) for part in answer.parts]
    if answer.kind == "coverage":
        parts.append(coverage.calendar(answer.result["days"]))
    if figure:
        parts.append(figure)
    if with_sql:
        sql = f'<pre tabindex="0">{escape(sql_lines(answer))}</pre>'
        parts.append(f"<details><summary>The SQL</summary>\n{sql}</details>")
    return "\n".join([*parts, "</section>"])


def _words(part: Note | str) -> str:
    text, class_ = (part.text, ' class="note"') if isinstance(part, Note) else (part, "")
    return f"<p{class_}>{_escaped(text)}</p>".replace("\n", "<br>\n")


def _escaped(text: str) -> str:
    """`text` with its commands as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))
