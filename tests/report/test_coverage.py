"""The calendar of audits in the HTML report: where a day is, what it says, and that it needs nothing else."""

import re
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import config
from report import answers, coverage
from report.html import as_html
from report.text import Answer, Read
from storage import proofs
from storage.proofs import VERDICTS, DayCoverage

NOON = datetime(2025, 3, 5, 12, tzinfo=UTC)
FIRST = date(2025, 3, 5)


def day(number: int, verdict: str | None = "equal", reason: str = "", is_over: bool = True) -> DayCoverage:
    """A day of 2,000 trades, so many days after a Wednesday."""
    proven_at = NOON if verdict else None
    return DayCoverage(FIRST + timedelta(days=number), verdict, reason, 2_000, 0, proven_at, "", is_over)


def shown(*days: DayCoverage) -> list[dict[str, Any]]:
    """The days as the JSON has them."""
    found = answers.as_dict(answers.coverage(proofs.Coverage("BTCUSDT", list(days), 0)))
    return list(found["days"])


def cells(html: str) -> list[tuple[str, str, str]]:
    """Of each day: its classes, its place, what its tooltip says."""
    return re.findall(r'<li class="day ([^"]*)" style="grid-area: ([^"]*)" title="([^"]*)">', html)


def test_a_few_days_are_weeks_in_rows() -> None:
    """Monday is the first column; a sign for each verdict, and words that say it all."""
    days = [day(number, verdict) for number, verdict in enumerate(VERDICTS)]
    html = coverage.calendar(shown(*days, day(6, None)))

    assert [place for _, place, _ in cells(html)] == ["2 / 4", "2 / 5", "2 / 6", "2 / 7", "2 / 8", "3 / 2", "3 / 3"]
    assert [kind for kind, _, _ in cells(html)] == [*VERDICTS, "not-audited"]
    assert cells(html)[0][2] == "2025-03-05: equal, 2,000 trades, 0 ids missing"
    assert cells(html)[-1][2] == "2025-03-11: not audited, 2,000 trades, 0 ids missing"
    assert re.findall(r"<i>(\d+)</i> ([^<]*)", html) == [
        *(("5", "="), ("6", "≈"), ("7", "•"), ("8", "!"), ("9", "≠"), ("10", "?"), ("11", ""))
    ]
    assert "Mar 5</li>" in html
    assert "Mar 10</li>" in html


def test_many_days_are_weeks_in_columns() -> None:
    """A column for each week, named after the month that begins in it; the first has the year, and so has January."""
    html = coverage.calendar(shown(*(day(number) for number in range(400))))
    labels = re.findall(r'grid-area: 1 / (\d+)">([^<]*)<', html)

    assert [place for _, place, _ in cells(html)][:6] == ["4 / 2", "5 / 2", "6 / 2", "7 / 2", "8 / 2", "2 / 3"]
    assert cells(html)[-1][1] == "4 / 59"
    assert labels[:2] == [("2", "Mar 2025"), ("6", "Apr")]
    assert [name for _, name in labels][9:11] == ["Dec", "Jan 2026"]
    assert len(labels) == 14


@pytest.mark.parametrize("first", range(1, 29))
def test_names_of_months_have_room(first: int) -> None:
    """Whichever day it begins with: three weeks at least for a name."""
    begin = date(2025, 3, first)
    days = [day(number)._replace(day=begin + timedelta(days=number)) for number in range(120)]
    labels = [int(at) for at in re.findall(r'grid-area: 1 / (\d+)"', coverage.calendar(shown(*days)))]

    assert len(labels) >= 3
    assert all(after - before >= 3 for before, after in pairwise(labels))


def test_a_day_that_was_audited_too_early() -> None:
    """Has another edge and says so; a reason is said too, and is only text."""
    html = coverage.calendar(shown(day(0, "different", 'the row <b>"1"</b> & others', is_over=False)))

    assert cells(html) == [
        (
            "different early",
            "2 / 4",
            "2025-03-05: different, 2,000 trades, 0 ids missing, audited before the day was over."
            " the row &lt;b&gt;&quot;1&quot;&lt;/b&gt; &amp; others",
        )
    ]


def test_every_verdict_has_a_sign_a_meaning_and_a_colour() -> None:
    """The signs differ, since colour is never all that says it; the dashboard has the same signs and words."""
    script = Path("tools/api/dashboard/coverage.js").read_text()

    assert set(coverage.VERDICTS) == {*VERDICTS, "not audited"}
    assert len({sign for sign, _ in coverage.VERDICTS.values()}) == len(coverage.VERDICTS)
    assert all(f".{name} {{ background: " in coverage.STYLE for name in VERDICTS)
    for name, (sign, meaning) in coverage.VERDICTS.items():
        assert f'["{name}", ["{sign}", "{meaning}"]]' in script


def test_the_document_has_the_calendar_of_each_symbol(settings: config.Settings) -> None:
    """Under its answer, whatever else there is; without a day there is none."""
    made = [
        Answer("coverage", symbol, "Which days?", ["SELECT 1;"], {"days": shown(*days)}, ["1 day"])
        for symbol, days in (("BTCUSDT", [day(0)]), ("ETHUSDT", [day(0), day(1)]), ("BNBUSDT", []))
    ]
    html = as_html(Read(settings, False), made, {}, NOON)

    assert [len(cells(part)) for part in html.split("<h2 ")[1:]] == [1, 2, 0]
    assert "<script" not in html
    assert "http" not in html
