"""The answers of query_examples.py as one self-contained HTML file: no script, no font, no other file."""

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from typing import NamedTuple

import config
from report import coverage
from report.text import Answer, fold, headline, utc

_STYLE = """\
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { margin-top: 3rem; border-bottom: 1px solid #8886; }
h3 { font-size: 1rem; margin: 2rem 0 .5rem; }
pre { overflow-x: auto; font: 13px/1.45 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; margin: .5rem 0; }
pre.result, details pre { padding: .75rem; border-radius: 6px; background: #8881; }
summary { cursor: pointer; font-size: .875rem; }
img { width: 100%; height: auto; background: #fff; border-radius: 6px; margin-top: .5rem; }
nav a { margin-right: 1rem; } footer { margin-top: 3rem; font-size: .875rem; }
"""
_STYLES = _STYLE + coverage.STYLE


class Picture(NamedTuple):
    """A chart as PNG, and what it shows in words."""

    png: bytes
    words: str


def as_html(
    read: tuple[config.Settings, bool], answers: Sequence[Answer], pictures: Mapping[int, Picture], now: datetime
) -> str:
    """The whole document. `read`: the settings of the database, and whether it stands in for another; `pictures`: by
    the number of the answer."""
    symbols = list(dict.fromkeys(answer.symbol for answer in answers))
    links = "".join(f'<a href="#{escape(symbol)}">{escape(symbol)}</a>' for symbol in symbols)
    title = f"Trades of {', '.join(symbols)}"
    parts = [
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>',
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>\n{_STYLES}</style>\n</head>',
        f"<body>\n<h1>{escape(title)}</h1>\n<p>{escape(headline(*read))}</p>\n<nav>{links}</nav>\n<main>",
    ]
    for symbol in symbols:
        parts.append(f'<h2 id="{escape(symbol)}">{escape(symbol)}</h2>')
        parts += [
            _section(answer, pictures.get(number)) for number, answer in enumerate(answers) if answer.symbol == symbol
        ]
    parts.append(f"</main>\n<footer>Created at {utc(now)} UTC by this machine's clock.</footer>\n</body>\n</html>\n")
    return "\n".join(parts)


def _section(answer: Answer, picture: Picture | None) -> str:
    sql, result = "\n".join(map(fold, answer.sql)), "\n".join(answer.lines)
    parts = [f"<section>\n<h3>{escape(answer.question)}</h3>"]
    parts.append(f'<pre class="result" tabindex="0">{escape(result)}</pre>')
    if answer.kind == "coverage":
        parts.append(coverage.calendar(answer.result["days"]))
    if picture:
        data = base64.b64encode(picture.png).decode()
        parts.append(f'<img alt="{escape(picture.words)}" src="data:image/png;base64,{data}">')
    parts.append(f'<details><summary>The SQL</summary>\n<pre tabindex="0">{escape(sql)}</pre></details>\n</section>')
    return "\n".join(parts)
