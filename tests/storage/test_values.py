"""What is stored as it is, and what is refused because the server would change it."""

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

import db
from tests.makers import MIDNIGHT, trade
from tests.support.tables import ask, stored

TABLES = ("trades", "candles", "gaps", "symbols")
_fresh = (f"FRESH{number}" for number in count())


REFUSED: dict[str, dict[str, Any]] = {
    "13 integer digits": {"price": Decimal("1000000000000")},
    "9 decimals": {"price": Decimal("0.123456789")},
    "9 decimals of quantity": {"quantity": Decimal("1E-9")},
    "not a number": {"price": Decimal("NaN")},
    "signalling": {"price": Decimal("sNaN")},
    "infinite": {"quantity": Decimal("Infinity")},
    "negative": {"price": Decimal("-1")},
    "a gigabyte when written out": {"price": Decimal("1E+999999999")},
    "without a zone": {"timestamp": datetime(2025, 3, 1)},  # noqa: DTZ001 - what it is about
    "another zone": {"timestamp": datetime(2025, 3, 1, tzinfo=ZoneInfo("Asia/Kolkata"))},
    "seconds of an offset": {"timestamp": MIDNIGHT.replace(tzinfo=timezone(timedelta(seconds=1)))},
    "received without a zone": {"received_at": datetime(2025, 3, 1)},  # noqa: DTZ001 - what it is about
    "received in another zone": {"received_at": datetime(2025, 3, 1, tzinfo=timezone(timedelta(hours=-5)))},
    "33 characters": {"symbol": "A" * 33},
    "no symbol": {"symbol": ""},
    "a blank behind": {"symbol": "BTCUSDT "},
    "half a character": {"symbol": "\ud800"},
    "negative id": {"trade_id": -1},
    "id of 65 bits": {"trade_id": 2**64},
}


@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused_and_nothing_stored(connection: db.Connection, change: dict[str, Any]) -> None:
    """The engines would round, clip or shift it without an error; here it raises, and its batch leaves no trace."""
    with pytest.raises(db.RefusedError):
        db.insert_trades(connection, [trade(1), trade(2)._replace(**change), trade(9)])

    assert [ask(connection, f"SELECT * FROM {table}") for table in TABLES] == [[], [], [], []]
    assert db.insert_trades(connection, [trade(3)]) == 1


def test_a_refused_trade_does_not_take_its_batch_along(connection: db.Connection) -> None:
    """insert_acceptable sets the refused ones aside with the reason and stores all others."""
    bad = {2: Decimal("NaN"), 3: Decimal("1E-9"), 8: Decimal("1E+12")}
    batch = [trade(number)._replace(price=bad.get(number, Decimal("1"))) for number in range(1, 9)]
    refused: list[tuple[int, str]] = []

    inserted = db.insert_acceptable(connection, batch, lambda made, why: refused.append((made.trade_id, why)))

    assert inserted == 5
    assert [made.trade_id for made in stored(connection)] == [1, 4, 5, 6, 7]
    assert [number for number, _ in refused] == [2, 3, 8]
    assert all("does not fit DECIMAL(20,8)" in why for _, why in refused)
    assert [(gap.first_trade_id, gap.last_trade_id) for gap in db.open_gaps(connection)] == [(2, 3)]


STRANGE = [
    "币安人生USDT",
    "😀USDT",
    "A'B",
    'A"B',
    "A`B",
    "A\\",
    "\\",
    "\\'",
    "'",
    "A\\'); DROP TABLE trades; -- ",
    "'); DROP TABLE trades; #",
    "' OR '1'='1",
    "%s%(x)s%%",
    "A\0B",
    "A\nB\r\tC\x1a",
    "/*!50000 1*/",
    "?",
    " A",
    "é",
    "É",
    "a",
    "A",
]


def test_a_symbol_is_never_sql(connection: db.Connection) -> None:
    """Quotes, backslashes, placeholders and SQL text are stored as they are, and nothing of it is executed."""
    names = [name.rstrip(" ") for name in STRANGE]
    made = [trade(7, symbol=name) for name in names]

    assert db.insert_trades(connection, made) == len(made)

    assert sorted(db.symbols(connection)) == sorted(names)
    assert [db.latest(connection, name) for name in names] == made
    assert [stored(connection, name) for name in names] == [[one] for one in made]
    assert db.insert_trades(connection, made) == 0


@examples(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=1, max_size=32))
def test_any_text_is_stored_verbatim_or_refused(connection: db.Connection, text: str) -> None:
    """Whatever the symbol is, it comes back as it is or it is refused; it is never another one."""
    made = trade(7, symbol=text)
    try:
        db.insert_trades(connection, [made])
    except db.RefusedError:
        assert text.endswith(" ") or not text.isprintable()
    else:
        assert stored(connection, text) == [made]
