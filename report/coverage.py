"""The calendar of audits in the HTML report: a day is a cell; its sign and its colour are the verdict. Pure.

Weeks are rows while they are few, with the day's number in the cell, and columns when they are many.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from html import escape
from typing import Any

from report.text import NOT_AUDITED

FEW_WEEKS = 5
NAME_WEEKS = 3
"""So wide is the name of a month."""
VERDICTS = {
    "equal": ("=", "same as the exchange's archive, row by row"),
    "agrees": ("≈", "every minute agrees with the exchange's klines"),
    "contiguous": ("•", "all ids are there, nothing compared yet"),
    "gapped": ("!", "ids are missing"),
    "different": ("≠", "stored trades differ from the exchange's"),
    "unverifiable": ("?", "the exchange has nothing to compare with"),
    NOT_AUDITED: ("", "nobody has looked yet"),
}
"""The sign of each, and what it means; the dashboard has the same (tools/api/dashboard/coverage.js)."""
# What does not fit is scrolled to; written from right to left, the newest week is in view without a script.
STYLE = """\
.days { overflow-x: auto; padding: 4px 0; position: relative; direction: rtl; }
.days ol { display: grid; list-style: none; margin: 0 auto 0 0; padding: 0; width: max-content; font-size: 12px;
  direction: ltr; }
.days ol.many { grid: 16px repeat(7, 16px) / 30px; grid-auto-columns: 16px; gap: 2px; font-size: 11px; }
.days ol.few { grid: 16px / 52px repeat(7, 38px); grid-auto-rows: 36px; gap: 3px; }
.days .label { width: 0; white-space: nowrap; align-self: center; }
.day { display: flex; align-items: center; justify-content: center; border: 1px solid #888; border-radius: 3px;
  font-weight: 700; line-height: 1; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.day i { font-style: normal; font-weight: 500; } .many .day i { display: none; }
.equal, .agrees, .contiguous, .gapped, .different, .unverifiable { color: #fff; border-color: transparent; }
.equal { background: #0a7d55; } .agrees { background: #0b6f8a; } .contiguous { background: #5b6472; }
.gapped { background: #a84a00; } .different { background: #c32f3c; } .unverifiable { background: #7246b8; }
.early { border: 1px dashed #fff; }
@media (prefers-color-scheme: dark) {
  .equal, .agrees, .contiguous, .gapped, .different, .unverifiable { color: #0e1116; } .early { border-color: #0e1116; }
  .equal { background: #35c48d; } .agrees { background: #55bcd9; } .contiguous { background: #9aa4b2; }
  .gapped { background: #f2a23a; } .different { background: #f2707a; } .unverifiable { background: #b79bf0; }
}
@media (forced-colors: active) { .day { border: 1px solid CanvasText; } }
.meanings { display: flex; flex-wrap: wrap; gap: 4px 20px; list-style: none; padding: 0; font-size: .8rem; }
.meanings li { display: flex; align-items: center; gap: 6px; } .meanings .day { width: 18px; height: 18px; flex: none; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
"""
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

Day = Mapping[str, Any]
"""A day as the JSON has it (answers.DayCoverage)."""


class _Grid:
    """Where a day is: the week, counted from that of the first day, and the weekday; both from 0, on Monday."""

    def __init__(self, first: date, last: date) -> None:
        self._monday = first - timedelta(days=first.weekday())
        self.few = (last - self._monday).days // 7 < FEW_WEEKS

    def week(self, day: date) -> int:
        """The number of the week."""
        return (day - self._monday).days // 7

    def area(self, week: int, weekday: int) -> str:
        """The place in the grid, whose first row and column are for labels (-1)."""
        row, column = (week, weekday) if self.few else (weekday, week)
        return f"grid-area: {row + 2} / {column + 2}"


def calendar(days: Sequence[Day]) -> str:
    """The days, oldest first, as a list in the shape of a calendar, and what the signs mean; empty if there are none.

    Each day is described in words too, for a screen reader and as a tooltip.
    """
    if not days:
        return ""
    dates = [date.fromisoformat(day["day"]) for day in days]
    grid = _Grid(dates[0], dates[-1])
    items = [
        *(_label(name, grid.area(-1, number)) for number, name in enumerate(_WEEKDAYS)),
        *(_label(name, grid.area(week, -1)) for week, name in _week_names(grid, dates)),
        *(_cell(day, when, grid.area(grid.week(when), when.weekday())) for day, when in zip(days, dates, strict=True)),
    ]
    shape = "few" if grid.few else "many"
    listed = f'<ol class="{shape}">{"".join(items)}</ol>'
    return f'<div class="days" tabindex="0" role="group" aria-label="Audits">{listed}</div>\n{_meanings()}'


def _week_names(grid: _Grid, dates: Sequence[date]) -> Iterator[tuple[int, str]]:
    """Weeks and their names: each its first day while they are few, otherwise the month that begins in it."""
    starts = [day for day in dates if day == dates[0] or (day.weekday() == 0 if grid.few else day.day == 1)]
    weeks = [grid.week(day) for day in starts]
    # Of two names side by side the first has no room.
    roomy = [day for day, week, after in zip(starts, weeks, [*weeks[1:], None], strict=True) if _has_room(week, after)]
    for day in starts if grid.few else roomy:
        month = _MONTHS[day.month - 1]
        if grid.few:
            yield grid.week(day), f"{month} {day.day}"
        else:
            yield grid.week(day), f"{month} {day.year}" if day == roomy[0] or day.month == 1 else month


def _has_room(week: int, after: int | None) -> bool:
    return after is None or after - week >= NAME_WEEKS


def _label(text: str, area: str) -> str:
    return f'<li class="label" role="presentation" aria-hidden="true" style="{area}">{text}</li>'


def _cell(day: Day, when: date, area: str) -> str:
    verdict = day["verdict"] or NOT_AUDITED
    early = " early" if _is_early(day) else ""
    words = escape(describe(day))
    shown = (
        f'<span aria-hidden="true"><i>{when.day}</i> {VERDICTS[verdict][0]}</span><span class="unseen">{words}</span>'
    )
    return f'<li class="day {_class(verdict)}{early}" style="{area}" title="{words}">{shown}</li>'


def describe(day: Day) -> str:
    """A day in words."""
    trades, missing = day["trades"], day["missing"]
    parts = [
        day["verdict"] or NOT_AUDITED,
        f"{trades:,} {'trade' if trades == 1 else 'trades'}",
        f"{missing:,} {'id' if missing == 1 else 'ids'} missing",
    ]
    if _is_early(day):
        parts.append("audited before the day was over")
    return f"{day['day']}: {', '.join(parts)}" + (f". {day['reason']}" if day["reason"] else "")


def _is_early(day: Day) -> bool:
    return day["proven_at"] is not None and not day["day_was_over"]


def _class(verdict: str) -> str:
    return verdict.replace(" ", "-")


def _meanings() -> str:
    items = (
        f'<li><span class="day {_class(name)}" aria-hidden="true">{sign}</span><span><b>{name}</b>: {words}</span></li>'
        for name, (sign, words) in VERDICTS.items()
    )
    early = "<li>A dashed edge: audited before the day was over</li>"
    return f'<ul class="meanings" aria-label="What the signs mean">{"".join(items)}{early}</ul>'
