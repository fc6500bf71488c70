"""The calendar of a symbol in a terminal, and the days that are known of it."""

from datetime import date, timedelta
from typing import Any

import pytest

import db
from proof import calendar
from storage import proofs
from storage.proofs import AGREES, CONTIGUOUS, DIFFERENT, EQUAL, GAPPED, UNVERIFIABLE, DayCoverage
from tests.makers import BTC, MIDNIGHT, trade


def day(when: str, verdict: str | None, missing: int = 0, reason: str = "") -> DayCoverage:
    """What is known of a day."""
    return DayCoverage(date.fromisoformat(when), verdict, reason, 100, missing, MIDNIGHT, "", True)


DAYS = [
    day("2025-01-30", None),
    day("2025-01-31", EQUAL),
    day("2025-02-01", AGREES),
    day("2025-02-02", CONTIGUOUS),
    day("2025-02-03", GAPPED, 1_234, "1,234 trades only there"),
    day("2025-02-04", DIFFERENT, 0, "1 trade differs"),
    day("2025-02-05", UNVERIFIABLE),
]
PLAIN = """\
BTCUSDT
         1234567890123456789012345678901
2025-01                               ?E
2025-02  ACGDU
         E equal to the exchange's archive, row by row
         A agrees with the exchange's klines, minute by minute
         C contiguous: all ids are there, compared with nothing yet
         G gapped: ids are missing
         D different
         U unverifiable: the archive's file is of no use
         ? not audited
         2025-02-03: 1,234 ids missing; 1,234 trades only there
         2025-02-04: 0 ids missing; 1 trade differs"""


def test_a_month_is_a_line_and_a_day_a_letter() -> None:
    """Each day stands below its number; only letters that occur are explained."""
    assert calendar.text(BTC, DAYS, colour=False) == PLAIN
    assert calendar.text(BTC, DAYS[1:2], colour=False).splitlines()[3:] == [
        "         E equal to the exchange's archive, row by row"
    ]


def test_colours_add_nothing_but_colour() -> None:
    """Without them it is the same text."""
    text = calendar.text(BTC, DAYS, colour=True)
    for style in ("32", "36", "33", "31", "35", "2", "0"):
        assert f"\x1b[{style}m" in text
        text = text.replace(f"\x1b[{style}m", "")
    assert text == PLAIN


def test_the_newest_of_many_days_with_gaps_are_listed() -> None:
    """And how many there are before these."""
    many = [day(str(date(2025, 1, 1) + timedelta(days=number)), GAPPED, number + 1) for number in range(25)]
    lines = calendar.text(BTC, many, colour=False).splitlines()
    assert lines[-21:-1] == [f"         {one.day}: {one.missing} ids missing" for one in many[5:]]
    assert lines[-1] == "         … and 5 days before these"


@pytest.mark.parametrize(
    ("first", "last", "number"), [(None, None, 8), (1, None, 7), (-3, 12, 16), (6, 6, 1), (9, None, 0)]
)
def test_all_days_are_known_however_many(
    connection: db.Connection, monkeypatch: pytest.MonkeyPatch, first: int | None, last: int | None, number: int
) -> None:
    """They are asked for in parts, each once and in order; default: from the first to the last stored trade."""
    monkeypatch.setattr(proofs, "DAYS_MAX", 3)
    monkeypatch.setattr(calendar, "DAYS_MAX", 3)
    db.insert_trades(connection, [trade(1, MIDNIGHT), trade(2, MIDNIGHT + timedelta(days=7))])
    start = MIDNIGHT.date()
    bounds: list[Any] = [None if one is None else start + timedelta(days=one) for one in (first, last)]
    found = [one.day for one in calendar.days(connection, BTC, *bounds)]
    low = start if first is None else bounds[0]
    assert found == [low + timedelta(days=n) for n in range(number)]
    assert list(calendar.days(connection, "ETHUSDT", *bounds)) == []
