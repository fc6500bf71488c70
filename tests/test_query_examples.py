"""The reports, against a known table on each server: the whole output, the SQL in it, and what is refused."""

import argparse
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import config
import db
import query_examples
from model.trade import Trade
from mysqld import program
from process.child import ROOT
from report import options as query_options
from report import text as report
from report.table import amount, wrap
from storage import proofs, questions, ranges
from tests.support.servers import Server
from tests.support.tables import exact, store

SUBPROCESS_S_MAX = 60
NOW = datetime(2025, 11, 20, 10, 15, 20, 345_678, tzinfo=UTC)
SELECT = "SELECT symbol, timestamp, trade_id, price, quantity, buyer_is_maker, received_at FROM trades"


def at(text: str) -> datetime:
    """A time of the tape's days, such as `19 10:15:10.000` for the 19th."""
    return datetime.fromisoformat(f"2025-11-{text}+00:00")


BITCOIN = [
    # One day and no millisecond less before the newest trade, so the last day does not have it.
    Trade("BTCUSDT", at("19 10:15:10.000"), 100, Decimal("50000.00"), Decimal("1"), True),
    Trade("BTCUSDT", at("19 10:15:10.001"), 101, Decimal("60000.10"), Decimal("0.25"), False),
    Trade("BTCUSDT", at("20 10:00:00.000"), 102, Decimal("61000.5"), Decimal("0.5"), False),
    Trade("BTCUSDT", at("20 10:15:08.999"), 103, Decimal("61850.00"), Decimal("2"), True),
    Trade("BTCUSDT", at("20 10:15:09.000"), 104, Decimal("61837.63"), Decimal("0.00108"), False),
    Trade("BTCUSDT", at("20 10:15:09.000"), 105, Decimal("61830.5"), Decimal("0.2"), True),
    Trade("BTCUSDT", at("20 10:15:09.999"), 106, Decimal("61837.63"), Decimal("10.00000001"), True),
    Trade("BTCUSDT", at("20 10:15:10.000"), 107, Decimal("61839.00"), Decimal("0.3"), False),
]
ETHER = [
    Trade(
        "ETHUSDT", at("20 10:15:00.000") + timedelta(milliseconds=i), 900 + i, Decimal("3450.00") + i, Decimal(1), True
    )
    for i in range(13)
]


class Outcome(NamedTuple):
    """What main() returned and wrote."""

    code: int
    out: str
    err: str


Ask = Callable[..., Outcome]


@pytest.fixture
def ask(settings: config.Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Runs main() on the test's own database, ten seconds after the newest trade of the tape."""
    monkeypatch.setattr(config, "load", lambda: settings)

    def run(*argv: str, now: datetime = NOW) -> Outcome:
        try:
            code = query_examples.main(list(argv), now=now)
        except SystemExit as error:
            code = int(str(error.code))
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture
def place(settings: config.Settings) -> str:
    """The database in words, as the output begins."""
    return "\n".join(wrap(f"Database {settings.place}: trades captured from the exchange; times are UTC", 100))


@pytest.fixture
def tape(settings: config.Settings) -> None:
    """The known table."""
    store(settings, BITCOIN + ETHER)


def environ(server: Server, settings: config.Settings, **changes: str) -> dict[str, str]:
    """The environment of a subprocess that reads the database of `settings`."""
    own = {"MYSQL_DATABASE": settings.mysql_database, "DATA_DIR": str(settings.data_dir)}
    return os.environ | server.environ | own | changes


def script(environment: dict[str, str], *argv: str) -> Outcome:
    """Runs query_examples.py as users do."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "query_examples.py"), *argv],
        env=environment,
        capture_output=True,
        text=True,
        timeout=SUBPROCESS_S_MAX,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def trade(trade_id: int, timestamp: str, price: str, quantity: str, buyer_is_maker: bool) -> dict[str, Any]:
    """A trade as JSON has it: of BTCUSDT, or of ETHUSDT if its id says so."""
    return {
        "symbol": "ETHUSDT" if 900 <= trade_id < 1_000 else "BTCUSDT",
        "trade_id": trade_id,
        "timestamp": timestamp,
        "price": price,
        "quantity": quantity,
        "buyer_is_maker": buyer_is_maker,
        "received_at": None,
    }


def gaps_sql(start: str, end: str, symbol: str = "BTCUSDT") -> str:
    """The question what is missing in a time, as it is shown."""
    return (
        "    SELECT COUNT(*), COALESCE(SUM(last_trade_id - first_trade_id + 1), 0) FROM gaps\n"
        f"      WHERE filled_at IS NULL AND symbol = '{symbol}' AND timestamp_after >= '{start}'\n"
        f"      AND timestamp_before < '{end}';"
    )


# ---- The answers for people.


@pytest.mark.usefixtures("tape")
def test_latest_is_the_whole_expected_text(ask: Ask, place: str) -> None:
    """The newest trade with its age, in a table with units, under the question and the SQL."""
    expected = f"""\
{place}

What is the latest price of BTCUSDT?

          price USDT  quantity BTC  taker   time UTC                 trade id
  latest    61839.00          0.30  bought  2025-11-20 10:15:10.000  107

  10.345 s old by this machine's clock, 2025-11-20 10:15:20.345 UTC

    {SELECT}
      WHERE symbol = 'BTCUSDT' ORDER BY timestamp DESC, trade_id DESC LIMIT 1;
{gaps_sql("2025-11-20 10:15:10", "2025-11-20 10:15:10.001000")}
"""
    assert ask("latest", "--symbol", "BTCUSDT") == (0, expected, "")


@pytest.mark.usefixtures("tape")
def test_latest_of_a_clock_that_runs_behind_says_so(ask: Ask) -> None:
    """A trade from after this machine's time is ahead of it; its age is not a negative number."""
    outcome = ask("latest", "--no-sql", "--symbol", "BTCUSDT", now=at("20 10:15:09.880"))
    assert outcome.out.splitlines()[-1] == "  0.120 s ahead by this machine's clock, 2025-11-20 10:15:09.880 UTC"


@pytest.mark.usefixtures("tape")
def test_at_a_second_is_the_whole_expected_text(ask: Ask, place: str) -> None:
    """The second has its first millisecond and its last, and not the next second's first."""
    expected = f"""\
{place}

What was the price of BTCUSDT at 2025-11-20 10:15:09 UTC?

         price USDT  quantity BTC  taker   time UTC                 trade id
  first    61837.63    0.00108     bought  2025-11-20 10:15:09.000  104
  low      61830.50    0.20        sold    2025-11-20 10:15:09.000  105
  high     61837.63    0.00108     bought  2025-11-20 10:15:09.000  104
  last     61837.63   10.00000001  sold    2025-11-20 10:15:09.999  106

  3 trades in that second:

  trade id  price USDT  quantity BTC  taker   time UTC
  104         61837.63    0.00108     bought  2025-11-20 10:15:09.000
  105         61830.50    0.20        sold    2025-11-20 10:15:09.000
  106         61837.63   10.00000001  sold    2025-11-20 10:15:09.999

    {SELECT}
      WHERE symbol = 'BTCUSDT' AND timestamp >= '2025-11-20 10:15:09'
      AND timestamp < '2025-11-20 10:15:10' ORDER BY timestamp, trade_id;
{gaps_sql("2025-11-20 10:15:09", "2025-11-20 10:15:10")}
"""
    assert ask("at", "2025-11-20T10:15:09", "--symbol", "BTCUSDT") == (0, expected, "")


@pytest.mark.usefixtures("tape")
def test_at_a_second_without_a_trade_gives_the_price_as_of_then(ask: Ask, place: str) -> None:
    """The answer says that nothing traded, and shows the trade before with its age at the time that was asked for."""
    expected = f"""\
{place}

What was the price of BTCUSDT at 2025-11-20 10:03:00 UTC?

  No trade of BTCUSDT in that second. The price as of 2025-11-20 10:03:00 UTC was 3 min old:

              price USDT  quantity BTC  taker   time UTC                 trade id
  until then    61000.50          0.50  bought  2025-11-20 10:00:00.000  102

    {SELECT}
      WHERE symbol = 'BTCUSDT' AND timestamp >= '2025-11-20 10:03:00'
      AND timestamp < '2025-11-20 10:03:01' ORDER BY timestamp, trade_id;
    {SELECT}
      WHERE symbol = 'BTCUSDT' AND timestamp < '2025-11-20 10:03:00.001000'
      ORDER BY timestamp DESC, trade_id DESC LIMIT 1;
{gaps_sql("2025-11-20 10:03:00", "2025-11-20 10:03:01")}
"""
    assert ask("at", "2025-11-20T11:03:00+01:00", "--symbol", "BTCUSDT") == (0, expected, "")


def test_at_a_second_whose_first_trade_is_late(ask: Ask, settings: config.Settings) -> None:
    """The price at its start was that of a trade from before the second, which is shown beside those of the second."""
    store(settings, [BITCOIN[2], BITCOIN[6], BITCOIN[7]])

    lines = ask("at", "2025-11-20T10:15:09").out.splitlines()
    (answer,) = exact(ask("at", "2025-11-20T10:15:09", "--json").out)["answers"]

    assert "  until then    61000.50    0.50        bought  2025-11-20 10:00:00.000  102" in lines
    assert "  first         61837.63   10.00000001  sold    2025-11-20 10:15:09.999  106" in lines
    as_of = trade(102, "2025-11-20T10:00:00.000Z", "61000.50000000", "0.50000000", False) | {"age_ms": 909_000}
    assert (as_of, 106, 3) == (answer["result"]["as_of"], answer["result"]["first"]["trade_id"], len(answer["sql"]))


# ---- The price at an instant.


@pytest.mark.usefixtures("tape")
def test_at_an_instant_is_the_whole_expected_text(ask: Ask, place: str) -> None:
    """A fraction asks for the price at that very millisecond: whose it was, how old, and that nothing is missing."""
    expected = f"""\
{place}

What was the price of BTCUSDT at the instant 2025-11-20 10:15:09.500 UTC?

  The price was 61830.50 USDT: that of trade 105, the last one up to that millisecond, which was
  0.500 s old.

              price USDT  quantity BTC  taker  time UTC                 trade id
  until then    61830.50          0.20  sold   2025-11-20 10:15:09.000  105

  No id is missing between that trade and that instant.

    {SELECT}
      WHERE symbol = 'BTCUSDT' AND timestamp < '2025-11-20 10:15:09.501000'
      ORDER BY timestamp DESC, trade_id DESC LIMIT 1;
    SELECT symbol, first_trade_id, last_trade_id, reason, detected_at, filled_at,
      timestamp_before, timestamp_after FROM gaps WHERE filled_at IS NULL AND symbol = 'BTCUSDT'
      AND timestamp_after >= '2025-11-20 10:15:09'
      AND timestamp_before < '2025-11-20 10:15:09.501000';
    {SELECT}
      WHERE symbol = 'BTCUSDT' ORDER BY timestamp DESC, trade_id DESC LIMIT 1;
"""
    assert ask("at", "2025-11-20T10:15:09.500", "--symbol", "BTCUSDT") == (0, expected, "")


@pytest.mark.usefixtures("tape")
@pytest.mark.parametrize(
    ("time", "trade_id", "age_ms"),
    [
        ("10:15:09.000", 105, 0),
        ("10:15:08.999", 103, 0),
        ("10:15:09.998999", 105, 998),
        ("10:15:09.999", 106, 0),
        ("10:15:09,9999", 106, 0),
        ("10:15:10.000", 107, 0),
    ],
)
def test_an_instant_includes_its_own_millisecond(ask: Ask, time: str, trade_id: int, age_ms: int) -> None:
    """Of several trades in it the last one counts; a time is cut off to the millisecond, as those of trades are."""
    (answer,) = exact(ask("at", f"2025-11-20T{time}", "--json", "--symbol", "BTCUSDT").out)["answers"]
    result = answer["result"]
    assert (answer["kind"], result["as_of"]["trade_id"], result["as_of"]["age_ms"]) == ("instant", trade_id, age_ms)
    assert (result["missing"], result["is_newest"]) == (0, trade_id == 107)


def test_an_instant_says_what_is_missing_from_its_trade_on(ask: Ask, settings: config.Settings) -> None:
    """Ids that are missing behind the trade may have changed the price by then; those before it have not."""
    store(settings, [one for one in BITCOIN if one.trade_id not in (103, 104)])

    def asked(time: str) -> tuple[int, int, str]:
        result = exact(ask("at", f"2025-11-20T{time}", "--json").out)["answers"][0]["result"]
        text = " ".join(ask("at", f"2025-11-20T{time}", "--no-sql").out.split())
        return result["as_of"]["trade_id"], result["missing"], text

    trade_id, missing, text = asked("10:15:08.999")
    assert (trade_id, missing) == (102, 2)
    assert "The last stored price was 61000.50 USDT" in text
    assert "Up to 2 trades are missing between that trade and that instant, so the price may have been another" in text
    assert "No id is missing" not in text
    for time, expected in (("10:15:09.000", 105), ("10:15:09.500", 105), ("10:15:09.999", 106)):
        trade_id, missing, text = asked(time)
        assert (trade_id, missing) == (expected, 0)
        assert "No id is missing between that trade and that instant." in text


def test_a_gap_whose_times_run_back_is_missing_at_an_instant(ask: Ask, settings: config.Settings) -> None:
    """The ids are below that of the trade, but one of them may have come after it."""
    late = [Trade("BTCUSDT", at(f"20 10:00:0{s}.000"), i, Decimal(i), Decimal(1), True) for i, s in ((1, 1), (3, 5))]
    after = [Trade("BTCUSDT", at(f"20 10:00:0{s}.000"), i, Decimal(i), Decimal(1), True) for i, s in ((4, 3), (5, 6))]
    store(settings, late + after)
    (answer,) = exact(ask("at", "2025-11-20T10:00:04.500", "--json").out)["answers"]
    assert (answer["result"]["as_of"]["trade_id"], answer["result"]["missing"]) == (4, 1)


@pytest.mark.usefixtures("tape")
def test_nothing_is_known_behind_the_newest_trade(ask: Ask) -> None:
    """The recorder may not have run since: neither an instant, nor a second, nor a range says that nothing traded."""
    newest = "The newest stored trade of BTCUSDT is of 2025-11-20 10:15:10 UTC: what it traded after that is not known."
    texts = {
        argv: " ".join(ask(*argv, "--symbol", "BTCUSDT", "--no-sql").out.split())
        for argv in (
            ("at", "2025-11-20T10:15:20.000"),
            ("at", "2025-11-20T10:15:20"),
            ("at", "2025-11-20T10:15:10"),
            ("range", "2025-11-20T10:15", "2025-11-20T10:15:20"),
            ("vwap", "2025-11-20T10:15", "2025-11-20T10:15:20"),
            ("range", "2025-11-20T10:15", "2025-11-20T10:15:10.001"),
            ("at", "2025-11-20T10:15:09"),
        )
    }
    instant, *beyond, whole, within = texts.values()
    assert "The last stored price was 61839.00 USDT: that of trade 107, the last one that is stored" in instant
    assert "No later trade is stored, so whether another followed by 2025-11-20 10:15:20 UTC is not known." in instant
    assert [newest in text for text in beyond] == [True] * 4
    assert [newest in text for text in (whole, within)] == [False] * 2


@pytest.mark.usefixtures("tape")
def test_an_instant_before_the_first_trade_has_no_price(ask: Ask) -> None:
    """Which is no statement about the exchange."""
    outcome = ask("at", "2020-01-01T00:00:00.000", "--symbol", "BTCUSDT", "--no-sql")
    (answer,) = exact(ask("at", "2020-01-01T00:00:00.000", "--symbol", "BTCUSDT", "--json").out)["answers"]
    words = "No trade of BTCUSDT is stored from 2020-01-01 00:00:00 UTC or before, so the price is not known."
    assert outcome.out.split("\n\n")[-1].split() == words.split()
    assert (answer["result"]["as_of"], answer["result"]["is_newest"]) == (None, False)


@pytest.mark.usefixtures("tape")
@pytest.mark.parametrize(
    ("argv", "where"),
    [
        (["at", "2020-01-01"], "second"),
        (["range", "2020-01-01", "2020-01-02"], "range"),
    ],
)
def test_a_time_before_the_capture_has_no_price(ask: Ask, argv: list[str], where: str) -> None:
    """Before the first stored trade there is no price, and the answer says so."""
    outcome = ask(*argv, "--symbol", "BTCUSDT", "--no-sql")
    words = " ".join(outcome.out.split("UTC?")[-1].split())
    none = f"No trade of BTCUSDT is stored in that {where}, and none from before it. {OLDEST}"
    assert (outcome.code, words) == (0, none)


OLDEST = "The oldest stored trade of BTCUSDT is of 2025-11-19 10:15:10 UTC: what it traded before that is not known."


def test_nothing_is_known_before_the_oldest_trade(ask: Ask, settings: config.Settings) -> None:
    """A range that begins earlier may have had another low and another volume, unless the exchange's first trade is
    stored."""
    first = Trade("NEWUSDT", at("20 10:00:00.000"), 1, Decimal(1), Decimal(1), True)
    store(settings, [*BITCOIN, *ETHER, first])
    whole, early = ("2025-11-19T10:15:10", "2025-11-20"), ("2025-11-19T10:15:09.999", "2025-11-20")
    for command in ("range", "vwap"):
        notes = [
            " ".join(ask(command, *times, "--symbol", "BTCUSDT").out.split()).count(OLDEST) for times in (whole, early)
        ]
        assert notes == [0, 1]
        assert "oldest stored" not in ask(command, "2025-11-19", "2025-11-20T10:00:01", "--symbol", "NEWUSDT").out
    assert "The oldest stored trade of ETHUSDT is of" in " ".join(ask("--symbol", "ETHUSDT").out.split())


@pytest.mark.usefixtures("tape")
def test_a_long_second_lists_its_first_trades(ask: Ask) -> None:
    """Ten trades are listed, and the rest is counted; the four outstanding ones are of all."""
    lines = ask("at", "2025-11-20T10:15:00", "--symbol", "ETHUSDT", "--no-sql").out.splitlines()
    listed = lines[lines.index("  13 trades in that second:") + 3 :]
    assert [line.split()[0] for line in listed[:10]] == [str(900 + i) for i in range(10)]
    assert listed[11] == "  ... and 3 more (--json has them all)"
    assert "  high      3462.00          1.00  sold   2025-11-20 10:15:00.012  912" in lines


@pytest.mark.usefixtures("tape")
def test_a_range_includes_its_start_and_not_its_end(ask: Ask, place: str) -> None:
    """Both bounds fall on trades: the first is in, the last is not; the earliest of equal prices is named."""
    expected = f"""\
{place}

What were the low and the high of BTCUSDT from 2025-11-20 10:15:09 until 2025-11-20 10:15:10 UTC?

         price USDT  quantity BTC  taker   time UTC                 trade id
  first    61837.63    0.00108     bought  2025-11-20 10:15:09.000  104
  low      61830.50    0.20        sold    2025-11-20 10:15:09.000  105
  high     61837.63    0.00108     bought  2025-11-20 10:15:09.000  104
  last     61837.63   10.00000001  sold    2025-11-20 10:15:09.999  106

  3 trades in 1 s; a scan of the stored trades gives the same
  volume 10.20108001 BTC for 630809.1852587763 USDT
  average price (VWAP) 61837.49021088 USDT, rounded to 8 decimals, half to even
"""
    outcome = ask("range", "2025-11-20T10:15:09Z", "2025-11-20T10:15:10Z", "--symbol", "BTCUSDT", "--no-sql")
    assert (0, expected) == (outcome.code, outcome.out)


@pytest.mark.usefixtures("tape")
def test_a_range_without_a_trade_gives_the_price_as_of_its_start(ask: Ask) -> None:
    """A quiet range is an answer and no error: the price that was valid in it."""
    outcome = ask("range", "2025-11-20T10:00:30", "2025-11-20T10:01", "--symbol", "BTCUSDT", "--no-sql")
    expected = [
        "  No trade of BTCUSDT in that range. The price as of 2025-11-20 10:00:30 UTC was 30 s old:",
        "",
        "              price USDT  quantity BTC  taker   time UTC                 trade id",
        "  until then    61000.50          0.50  bought  2025-11-20 10:00:00.000  102",
    ]
    assert (outcome.code, outcome.out.splitlines()[-4:]) == (0, expected)


REPORT = """\
{place}

What is the latest price of BTCUSDT?

          price USDT  quantity BTC  taker   time UTC                 trade id
  latest    61839.00          0.30  bought  2025-11-20 10:15:10.000  107

  10.345 s old by this machine's clock, 2025-11-20 10:15:20.345 UTC


What was the price of BTCUSDT at 2025-11-20 10:15:09 UTC, the last complete second that was
captured?

         price USDT  quantity BTC  taker   time UTC                 trade id
  first    61837.63    0.00108     bought  2025-11-20 10:15:09.000  104
  low      61830.50    0.20        sold    2025-11-20 10:15:09.000  105
  high     61837.63    0.00108     bought  2025-11-20 10:15:09.000  104
  last     61837.63   10.00000001  sold    2025-11-20 10:15:09.999  106

  3 trades in that second:

  trade id  price USDT  quantity BTC  taker   time UTC
  104         61837.63    0.00108     bought  2025-11-20 10:15:09.000
  105         61830.50    0.20        sold    2025-11-20 10:15:09.000
  106         61837.63   10.00000001  sold    2025-11-20 10:15:09.999


What were the low and the high of BTCUSDT in the last minute up to its newest trade, from
2025-11-20 10:14:10.001 until 2025-11-20 10:15:10.001 UTC?

         price USDT  quantity BTC  taker   time UTC                 trade id
  first    61850.00          2.00  sold    2025-11-20 10:15:08.999  103
  low      61830.50          0.20  sold    2025-11-20 10:15:09.000  105
  high     61850.00          2.00  sold    2025-11-20 10:15:08.999  103
  last     61839.00          0.30  bought  2025-11-20 10:15:10.000  107

  5 trades in 1 min; a scan of the stored trades gives the same
  volume 12.50108001 BTC for 773060.8852587763 USDT
  average price (VWAP) 61839.52783603 USDT, rounded to 8 decimals, half to even


What were the low and the high of BTCUSDT in the last hour up to its newest trade, from
2025-11-20 09:15:10.001 until 2025-11-20 10:15:10.001 UTC?

         price USDT  quantity BTC  taker   time UTC                 trade id
  first    61000.50          0.50  bought  2025-11-20 10:00:00.000  102
  low      61000.50          0.50  bought  2025-11-20 10:00:00.000  102
  high     61850.00          2.00  sold    2025-11-20 10:15:08.999  103
  last     61839.00          0.30  bought  2025-11-20 10:15:10.000  107

  6 trades in 1 h; a scan of the stored trades gives the same
  volume 13.00108001 BTC for 803561.1352587763 USDT
  average price (VWAP) 61807.26021536 USDT, rounded to 8 decimals, half to even


What were the low and the high of BTCUSDT in the last day up to its newest trade, from
2025-11-19 10:15:10.001 until 2025-11-20 10:15:10.001 UTC?

         price USDT  quantity BTC  taker   time UTC                 trade id
  first    60000.10          0.25  bought  2025-11-19 10:15:10.001  101
  low      60000.10          0.25  bought  2025-11-19 10:15:10.001  101
  high     61850.00          2.00  sold    2025-11-20 10:15:08.999  103
  last     61839.00          0.30  bought  2025-11-20 10:15:10.000  107

  7 trades in 1 d; a scan of the stored trades gives the same
  volume 13.25108001 BTC for 818561.1602587763 USDT
  average price (VWAP) 61773.16563186 USDT, rounded to 8 decimals, half to even


How did BTCUSDT trade in the last 10 candles of 1m, from 2025-11-20 10:06:00 until
2025-11-20 10:16:00 UTC?

  start UTC         open USDT      high       low     close   volume BTC  trades
  2025-11-20 10:15   61850.00  61850.00  61830.50  61839.00  12.50108001       5

  The last candle is not over yet; one without a trade has no line.


How did BTCUSDT trade in the last 12 candles of 1h, from 2025-11-19 23:00:00 until
2025-11-20 11:00:00 UTC?

  start UTC         open USDT      high       low     close   volume BTC  trades
  2025-11-20 10:00   61000.50  61850.00  61000.50  61839.00  13.00108001       6

  The last candle is not over yet; one without a trade has no line.


Which days of BTCUSDT were audited, and with what result?

  2 days: 2 not audited; run `python audit.py` to audit them
"""


@pytest.mark.usefixtures("tape")
def test_the_report_of_a_symbol_is_the_whole_expected_text(ask: Ask, place: str) -> None:
    """Without a command each of the questions is answered, from the newest trade backwards."""
    outcome = ask("--symbol", "BTCUSDT", "--no-sql")
    assert (0, REPORT.format(place=place), "") == outcome


@pytest.mark.usefixtures("tape")
def test_report_is_the_same_as_no_command(ask: Ask) -> None:
    """It can be said, for its options."""
    assert ask() == ask("report")


@pytest.mark.usefixtures("tape")
def test_the_report_is_about_every_stored_symbol(ask: Ask) -> None:
    """Every stored symbol has its five answers; a capture of one second reports on that second."""
    out = ask().out
    questions = [line for line in out.splitlines() if line.startswith("What ")]
    assert [line.split(" of ")[1][:7] for line in questions] == ["BTCUSDT"] * 5 + ["ETHUSDT"] * 5
    assert "at 2025-11-20 10:15:00 UTC, the only second that was captured?" in " ".join(questions)


@pytest.mark.usefixtures("tape")
def test_no_sql_leaves_out_the_sql_and_nothing_else(ask: Ask) -> None:
    """The answer comes first and the SQL behind it."""
    whole, short = ask("--symbol", "BTCUSDT"), ask("--symbol", "BTCUSDT", "--no-sql")
    blocks = whole.out.split("\n\n")
    without = "\n\n".join(one for one in blocks if not one.startswith(("    SELECT ", "    -- ")))
    assert short.out.rstrip() == without.rstrip()
    assert "SELECT" not in short.out
    assert "SELECT" not in "".join(blocks[:3])
    assert "--no-sql does nothing with --json" in ask("--json", "--no-sql").err


@pytest.mark.usefixtures("tape")
@pytest.mark.parametrize("width", [100, 80, 60])
def test_all_lines_fit_the_terminal(ask: Ask, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Nothing is cut off: every word and every number of the widest text is in the narrowest."""
    whole = ask("report", "--no-sql").out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(width))

    shown = re.sub("\x1b\\[[0-9]m", "", ask("report", "--no-sql").out)
    with_sql = re.sub("\x1b\\[[0-9]m", "", ask("report").out)

    assert max(map(len, shown.splitlines())) <= width
    assert set(whole.split()) == set(shown.split())
    # A column list of the SQL has words that are longer than what is left of a very narrow line.
    assert max(map(len, with_sql.splitlines())) <= max(width, 80)


def test_a_terminal_may_be_too_narrow_or_too_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """The width has bounds; a pipe has its own, whatever the terminal is."""
    out = io.StringIO()
    widths = {}
    for columns in (1, 60, 500):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert report.look_of(out, sql=True) == report.Look(report.LINE_CHARS_MAX, styled=False, sql=True)
        with monkeypatch.context() as patched:
            patched.setattr(out, "isatty", lambda: True, raising=False)
            widths[columns] = report.look_of(out, sql=True).width
    assert widths == {1: report.LINE_CHARS_MIN, 60: 60, 500: report.LINE_CHARS_MAX}


def test_a_remark_stays_a_remark() -> None:
    """Each line of it, when it has to be folded: the mysql client would take the rest for a statement."""
    remark = "-- the trades of BTCUSDT of 2025-03-02 are in /some/folder/symbol=BTCUSDT/day=2025-03-02/trades.parquet;"
    assert [line[:3] for line in report.fold(remark, 60).splitlines()] == ["-- "] * 2
    assert "/some/folder/symbol=BTCUSDT/day=2025-03-02/trades.parquet;" in report.fold(remark, 60)


def test_every_digit_is_shown(ask: Ask, settings: config.Settings) -> None:
    """Twelve digits before the point and eight after it come out as they went in, as text and as JSON."""
    price = "999999999999.99999999"
    store(
        settings,
        [Trade("X币ETH", at("20 10:00:00.000"), 18_446_744_073_709_551_615, Decimal(price), Decimal("1E-8"), True)],
    )
    text = ask("latest").out
    row = next(line for line in text.splitlines() if line.startswith("  latest")).split()
    assert row == ["latest", price, "0.00000001", "sold", "2025-11-20", "10:00:00.000", "18446744073709551615"]
    assert "price ETH" in text
    ((answer,),) = [exact(ask("latest", "--json").out)["answers"]]
    expected = trade(18_446_744_073_709_551_615, "2025-11-20T10:00:00.000Z", price, "0.00000001", True)
    assert expected | {"symbol": "X币ETH", "age_ms": 920_345, "missing": 0} == answer["result"]


# ---- The answers for programs.


@pytest.mark.usefixtures("tape")
def test_json_of_latest_is_the_whole_expected_document(ask: Ask, settings: config.Settings) -> None:
    """One document: prices are strings, ids and the age integers, times ISO 8601 with milliseconds and Z."""
    outcome = ask("--json", "latest", "--symbol", "ETHUSDT")
    expected = {
        "database": settings.mysql_database,
        "server": settings.server,
        "demo": False,
        "answers": [
            {
                "kind": "latest",
                "symbol": "ETHUSDT",
                "question": "What is the latest price of ETHUSDT?",
                "sql": [
                    f"{SELECT} WHERE symbol = 'ETHUSDT' ORDER BY timestamp DESC, trade_id DESC LIMIT 1;",
                    " ".join(gaps_sql("2025-11-20 10:15:00.012000", "2025-11-20 10:15:00.013000", "ETHUSDT").split()),
                ],
                "result": {
                    **trade(912, "2025-11-20T10:15:00.012Z", "3462.00000000", "1.00000000", True),
                    "age_ms": 20_333,
                    "missing": 0,
                },
            }
        ],
    }
    assert (0, expected, "") == (outcome.code, exact(outcome.out), outcome.err)


@pytest.mark.usefixtures("tape")
def test_json_of_a_second_has_all_its_trades(ask: Ask) -> None:
    """A program gets every trade of the second, however many the text would list."""
    (answer,) = exact(ask("at", "2025-11-20T10:15:00", "--json", "--symbol", "ETHUSDT").out)["answers"]
    trades = [
        trade(900 + i, f"2025-11-20T10:15:00.{i:03}Z", f"{3450 + i}.00000000", "1.00000000", True) for i in range(13)
    ]
    assert answer["result"] == {
        "symbol": "ETHUSDT",
        "time": "2025-11-20T10:15:00.000Z",
        "second": "2025-11-20T10:15:00.000Z",
        "count": 13,
        "first": trades[0],
        "low": trades[0],
        "high": trades[12],
        "last": trades[12],
        "as_of": trades[0] | {"age_ms": 0},
        "missing": 0,
        "unknown_before": None,
        "unknown_after": "2025-11-20T10:15:00.012Z",
        "trades": trades,
    }


INSIDE = {"unknown_before": None, "unknown_after": None}
TRADED = {
    "symbol": "BTCUSDT",
    "start": "2025-11-20T10:15:08.001Z",
    "end": "2025-11-20T10:15:10.001Z",
    "count": 5,
    "volume": "12.50108001",
    "quote_volume": "773060.8852587763000000",
    "taker_buy_volume": "0.30108000",
    "taker_buy_quote_volume": "18618.4846404000000000",
    "vwap": "61839.52783603",
    "missing": 0,
    **INSIDE,
}


@pytest.mark.usefixtures("tape")
def test_json_of_a_volume(ask: Ask) -> None:
    """The exact sums of a range, the average price, and how many ids are missing; of one without a trade too."""
    (answer,) = exact(ask("vwap", "--last", "2s", "--json", "--symbol", "BTCUSDT").out)["answers"]
    assert (answer["kind"], answer["result"]) == ("vwap", TRADED)
    start, end = "2025-11-20T10:00:30", "2025-11-20T10:01"
    (quiet,) = exact(ask("vwap", start, end, "--json", "--symbol", "BTCUSDT").out)["answers"]
    assert (quiet["result"]["count"], quiet["result"]["volume"], quiet["result"]["vwap"]) == (0, "0.00000000", None)
    assert "No trade of BTCUSDT in that range." in ask("vwap", start, end, "--symbol", "BTCUSDT").out


@pytest.mark.usefixtures("tape")
def test_the_volume_for_people(ask: Ask) -> None:
    """All of it and the part in which the taker bought, with the average price, which says if it was rounded."""
    lines = ask("vwap", "--last", "1h", "--symbol", "BTCUSDT", "--no-sql").out.splitlines()
    assert lines[-6:] == [
        "                 volume BTC        volume USDT",
        "  traded        13.00108001  803561.1352587763",
        "  taker bought   0.80108      49118.7346404",
        "",
        "  average price (VWAP) 61807.26021536 USDT, rounded to 8 decimals, half to even",
        "  6 trades in 1 h",
    ]
    exactly = ask("vwap", "2025-11-20T10:15:10", "2025-11-20T10:15:11", "--symbol", "BTCUSDT").out
    assert "average price (VWAP) 61839.00 USDT\n" in exactly


@pytest.mark.usefixtures("tape")
@pytest.mark.parametrize(("resolution", "bars"), [("1s", 2), ("5m", 1), ("15m", 2), ("4h", 1), ("1d", 2)])
def test_candles_of_any_resolution(ask: Ask, resolution: str, bars: int) -> None:
    """Those that are stored and those that are made of them, as many as are asked for."""
    (answer,) = exact(ask("candles", resolution, "--count", "2", "--json", "--symbol", "BTCUSDT").out)["answers"]
    found = answer["result"]["candles"]
    assert len(found) == bars
    assert found[-1]["close"] == "61839.00000000"
    assert ask("candles", resolution, "--symbol", "BTCUSDT").code == 0
    assert ask("candles", "2m").code == 2


@pytest.mark.usefixtures("tape")
def test_json_of_a_range(ask: Ask) -> None:
    """The range as it was asked, how many trades it has, and the four outstanding ones."""
    (answer,) = exact(ask("range", "--last", "2s", "--json", "--symbol", "BTCUSDT").out)["answers"]
    assert answer["result"] == {
        "symbol": "BTCUSDT",
        "start": "2025-11-20T10:15:08.001Z",
        "end": "2025-11-20T10:15:10.001Z",
        "count": 5,
        "first": trade(103, "2025-11-20T10:15:08.999Z", "61850.00000000", "2.00000000", True),
        "low": trade(105, "2025-11-20T10:15:09.000Z", "61830.50000000", "0.20000000", True),
        "high": trade(103, "2025-11-20T10:15:08.999Z", "61850.00000000", "2.00000000", True),
        "last": trade(107, "2025-11-20T10:15:10.000Z", "61839.00000000", "0.30000000", False),
        "equals_scan": True,
        "as_of": None,
        "missing": 0,
        **INSIDE,
        "traded": TRADED,
    }


@pytest.mark.usefixtures("tape")
def test_json_of_a_quiet_second_has_the_price_as_of_then(ask: Ask) -> None:
    """The same keys as ever, null where there is nothing, and the trade before with its age in milliseconds."""
    (answer,) = exact(ask("at", "2025-11-20T10:00:30", "--json", "--symbol", "BTCUSDT").out)["answers"]
    before = trade(102, "2025-11-20T10:00:00.000Z", "61000.50000000", "0.50000000", False)
    assert answer["result"] == {
        "symbol": "BTCUSDT",
        "time": "2025-11-20T10:00:30.000Z",
        "second": "2025-11-20T10:00:30.000Z",
        "count": 0,
        "first": None,
        "low": None,
        "high": None,
        "last": None,
        "as_of": before | {"age_ms": 30_000},
        "missing": 0,
        **INSIDE,
        "trades": [],
    }


@pytest.mark.usefixtures("tape")
def test_json_of_the_candles(ask: Ask) -> None:
    """Each bar with its exact prices and its ids; a bar without a trade is not there."""
    answers = exact(ask("report", "--json", "--symbol", "BTCUSDT").out)["answers"]
    minutes, _hours = (answer["result"] for answer in answers if answer["kind"] == "candles")
    prices = {"open": "61850.00000000", "high": "61850.00000000", "low": "61830.50000000", "close": "61839.00000000"}
    sums = {name: TRADED[name] for name in TRADED if "volume" in name}
    ids = {"first_trade_id": 103, "last_trade_id": 107}
    candle = {"timestamp": "2025-11-20T10:15:00.000Z", **prices, **sums, **ids}
    assert minutes == {
        "symbol": "BTCUSDT",
        "resolution": "1m",
        "start": "2025-11-20T10:06:00.000Z",
        "end": "2025-11-20T10:16:00.000Z",
        "candles": [{**candle, "trades": 5, "missing": 0}],
    }


def test_candles_say_how_many_of_their_trades_are_missing(ask: Ask, settings: config.Settings) -> None:
    """A column says it, and a note what to do; so does each range, of which they may be missing."""
    store(settings, [one for one in BITCOIN if one.trade_id not in (104, 105, 106)])

    notes = [line.strip() for line in ask("report", "--no-sql").out.splitlines() if "missing" in line.lower()]

    latest_note = "Up to 3 trades are missing in the time right before it, so what the price was until then is not"
    second_note = "Up to 3 trades are missing in that second, so first, low, high and last may be wrong; `python"
    range_note = "Up to 3 trades are missing in that range, so first, low, high and last may be wrong, and volume"
    bars_note = "Missing: ids in gaps that reach into a candle; see `python backfill.py --list`."
    heading = "start UTC         open USDT      high       low     close  volume BTC  trades  missing"
    days_note = "2 days: 1 gapped, 1 not audited (3 ids missing); run `python audit.py` to audit them"
    assert notes == [latest_note, second_note, *[range_note] * 3, *[heading, bars_note] * 2, days_note]


def prove(settings: config.Settings, *verdicts: str) -> None:
    """The proofs of the tape's two days, as far as there are verdicts."""
    with closing(db.connect(settings)) as connection:
        for verdict, day, trades in zip(verdicts, ("19", "20"), (2, 6), strict=False):
            hashes = ("ab" * 32, "cd" * 32, "klines" if verdict == "agrees" else "", "")
            about = (at(f"{day} 00:00").date(), verdict, "", 100, 101, trades, 0)
            proofs.add_proof(connection, proofs.Proof(0, "BTCUSDT", *about, *hashes, at("20 12:00")))


@pytest.mark.usefixtures("tape")
def test_the_report_says_which_days_were_audited(ask: Ask, settings: config.Settings) -> None:
    """One line for people; each day for programs, as the API gives it."""
    prove(settings, "equal", "agrees")
    lines = ask("--symbol", "BTCUSDT", "--no-sql").out.splitlines()
    answer = exact(ask("--symbol", "BTCUSDT", "--json").out)["answers"][-1]

    assert lines[-1] == "  2 days: 1 equal, 1 agrees; `python audit.py --calendar` shows them"
    assert (answer["kind"], answer["question"]) == (
        "coverage",
        "Which days of BTCUSDT were audited, and with what result?",
    )
    assert answer["result"] == {
        "symbol": "BTCUSDT",
        "days": [
            {
                "day": "2025-11-19",
                "verdict": "equal",
                "reason": "",
                "trades": 2,
                "missing": 0,
                "proven_at": "2025-11-20T12:00:00.000Z",
                "compared_with": "",
                "day_was_over": True,
            },
            {
                "day": "2025-11-20",
                "verdict": "agrees",
                "reason": "",
                "trades": 6,
                "missing": 0,
                "proven_at": "2025-11-20T12:00:00.000Z",
                "compared_with": "klines",
                "day_was_over": False,
            },
        ],
        "missing": 0,
    }


@pytest.mark.usefixtures("tape")
def test_a_database_without_proofs_has_a_report(ask: Ask, settings: config.Settings, server: Server) -> None:
    """One of the version before, which is only read: nothing was audited, and nothing fails."""
    with closing(server.connect()) as connection, closing(connection.cursor()) as cursor:
        cursor.execute(f"DROP TABLE {settings.mysql_database}.proofs")
        cursor.execute(f"UPDATE {settings.mysql_database}.schema_version SET version = 2")
        connection.commit()
    outcome = ask("--symbol", "BTCUSDT", "--no-sql")

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.endswith("  2 days: 2 not audited; run `python audit.py` to audit them\n")


@pytest.mark.parametrize(
    ("verdicts", "missing", "expected"),
    [
        (["equal"] * 10 + ["agrees", "gapped"], 142, "12 days: 10 equal, 1 agrees, 1 gapped (142 ids missing); `pyth"),
        (["different", None], 1, "2 days: 1 different, 1 not audited (1 id missing);"),
        (["contiguous"], 0, "1 day: 1 contiguous; `python audit.py --calendar` shows them"),
        ([None] * 1_200, 0, "1,200 days: 1,200 not audited; run `python audit.py` to audit them"),
    ],
)
def test_coverage_in_a_line(verdicts: list[str | None], missing: int, expected: str) -> None:
    """How many days have which verdict, from the best to the worst, and how many ids are missing in all of them."""
    days = [
        proofs.DayCoverage(NOW.date(), verdict, "", 1, 0, NOW if verdict else None, "", True) for verdict in verdicts
    ]

    assert report.coverage_line(proofs.Coverage("BTCUSDT", days, missing)).startswith(expected)


def test_an_answer_inside_a_gap_is_no_answer(ask: Ask, settings: config.Settings) -> None:
    """That nothing traded is not known where trades are missing, nor that the price was that of the trade before."""
    store(settings, [one for one in BITCOIN if one.trade_id in (102, 107)])
    inside = (
        (["at", "2025-11-20T10:05"], "that second"),
        (["range", "2025-11-20T10:05", "2025-11-20T10:06"], "that range"),
    )
    for argv, where in inside:
        text = " ".join(ask(*argv).out.split())
        assert f"No trade of BTCUSDT is stored in {where}. The last stored price as of" in text
        assert f"Up to 4 trades are missing in {where}, so it may well have traded, and at another price" in text
    volume = " ".join(ask("vwap", "2025-11-20T10:05", "2025-11-20T10:06").out.split())
    assert "No trade of BTCUSDT is stored in that range. Up to 4 trades are missing" in volume
    whole = " ".join(ask("range", "2025-11-20", "2025-11-20T10:15:10").out.split())
    assert "a scan of the stored trades gives the same" in whole
    assert "Up to 4 trades are missing in that range, so first, low, high and last may be wrong" in whole
    results = [exact(ask(*argv, "--json").out)["answers"][0]["result"] for argv, _ in inside]
    assert [result["missing"] for result in results] == [4, 4]


# ---- Whether the answer is that of a scan.


@pytest.mark.usefixtures("tape")
def test_a_large_range_is_not_compared_and_says_so(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan takes time that grows with the range."""
    monkeypatch.setattr(questions, "SCAN_TRADES_MAX", 7)

    small, large = (ask("range", "--last", last, "--symbol", "BTCUSDT") for last in ("1d", "2d"))

    assert "7 trades in 1 d; a scan of the stored trades gives the same" in small.out
    assert "8 trades in 2 d; not compared with a scan of the trades" in large.out


@pytest.mark.usefixtures("tape")
def test_candles_that_are_spoilt_are_found_out(ask: Ask, settings: config.Settings) -> None:
    """Whoever deletes from the table of candles is told what to do."""
    with closing(db.connect(settings)) as connection, connection.cursor() as cursor:
        assert db.seal(connection, ["BTCUSDT"], None, at("20 10:15:09.000"))
        cursor.execute("DELETE FROM candles")

    outcome = ask("range", "--last", "1h", "--symbol", "BTCUSDT")
    (answer,) = exact(ask("range", "--last", "1h", "--symbol", "BTCUSDT", "--json").out)["answers"]

    assert "a scan of the stored trades gives ANOTHER answer" in outcome.out
    assert answer["result"]["equals_scan"] is False


def test_a_trade_that_is_stored_meanwhile_is_no_difference(
    ask: Ask, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both answers are asked for again."""
    real, late = db.min_max_by_scan, [BITCOIN[3]]
    store(settings, BITCOIN[:3] + BITCOIN[4:])

    def scan(*arguments: Any) -> Any:
        if late:
            store(settings, [late.pop()])
        return real(*arguments)

    monkeypatch.setattr(ranges, "min_max_by_scan", scan)
    outcome = ask("range", "2025-11-20T09:00", "2025-11-20T10:15:10", "--symbol", "BTCUSDT")

    assert not late
    assert "high     61850.00" in outcome.out
    assert "a scan of the stored trades gives the same" in outcome.out


# ---- The SQL that is shown.


def run_again(server: Server, database: str, statements: list[str]) -> list[list[Any]]:
    """The rows of each statement, asked on another connection than the project's."""
    with closing(server.connect()) as connection, closing(connection.cursor()) as cursor:
        cursor.execute(f"USE {database}")
        results = []
        for statement in statements:
            cursor.execute(statement)
            results.append(list(cursor.fetchall()))
        return results


@pytest.mark.usefixtures("tape")
@pytest.mark.parametrize(
    "argv",
    [
        ["latest"],
        ["at", "2025-11-20T10:15:09"],
        ["at", "2025-11-20T10:03"],
        ["range", "2025-11-20T10:00", "2025-11-20T10:15:10"],
        ["range", "--last", "2d"],
    ],
)
def test_the_sql_gives_the_result_again(ask: Ask, server: Server, database: str, argv: list[str]) -> None:
    """The statements of the text and of the JSON are the same, and find the trades that the answer names."""
    (answer,) = exact(ask(*argv, "--json", "--symbol", "BTCUSDT").out)["answers"]
    *_, folded = ask(*argv, "--symbol", "BTCUSDT").out.split("\n\n")
    results = run_again(server, database, answer["sql"])
    plain = [answer["plain_sql"]] if "plain_sql" in answer else []
    again = run_again(server, database, re.split(r"(?<=;)\n", folded.rstrip("\n")))
    assert again == run_again(server, database, plain) + results
    trades = [row[-7:] for rows in results for row in rows if len(row) >= 7]
    found = {(row[2], f"{row[3]:.8f}") for row in trades}
    named = re.findall(r'"trade_id": (\d+),\s+"timestamp": "[^"]+",\s+"price": "([^"]+)"', json.dumps(answer["result"]))
    assert named
    assert {(int(trade_id), price) for trade_id, price in named} == found


@pytest.mark.usefixtures("tape")
def test_the_sql_can_be_pasted_into_the_mysql_client(ask: Ask, server: Server, database: str) -> None:
    """The text of an answer, put into the command-line client as it is, prints the same second."""
    try:
        client = program.find_client()
    except program.ServerError as error:
        pytest.skip(str(error))
    *_, shown = ask("at", "2025-11-20T10:15:09", "--symbol", "BTCUSDT").out.split("\n\n")
    where = [f"--socket={server.socket_path}"] if server.socket_path else [f"-h{server.host}", f"-P{server.port}"]
    line = [str(client), "--no-defaults", *where, f"--user={server.user}", f"--password={server.password}", "--batch"]
    done = subprocess.run([*line, database], input=shown, capture_output=True, text=True, timeout=SUBPROCESS_S_MAX)
    rows = [row.split("\t") for row in done.stdout.splitlines()]
    prices = [row[3] for row in rows[1:4]]
    assert (prices, done.stderr) == (["61837.63000000", "61830.50000000", "61837.63000000"], "")
    assert rows[-1] == ["0", "0"]


@pytest.mark.usefixtures("tape")
@pytest.mark.parametrize(
    "argv",
    [
        ["--last", "1d"],
        ["2025-11-20T10:15:08.9991", "2025-11-20T10:15:10"],
        ["2025-11-20T10:15:09", "2025-11-20T10:15:10"],
        ["2025-11-20T10:00:30", "2025-11-20T10:01"],
    ],
)
def test_the_plain_statement_gives_the_same(ask: Ask, server: Server, database: str, argv: list[str]) -> None:
    """One SELECT MIN, MAX over the trades, beside the statements that go by the candles."""
    (answer,) = exact(ask("range", *argv, "--json", "--symbol", "BTCUSDT").out)["answers"]
    plain, result = answer["plain_sql"], answer["result"]
    expected = tuple(Decimal(result[mark]["price"]) if result[mark] else None for mark in ("low", "high"))

    assert plain.startswith("SELECT MIN(price), MAX(price) FROM trades WHERE symbol = 'BTCUSDT' AND timestamp >= '")
    assert [[expected]] == run_again(server, database, [plain])
    shown = " ".join(ask("range", *argv, "--symbol", "BTCUSDT").out.split())
    assert plain in shown


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1;",
        "SELECT a FROM t WHERE s = 'two  spaces AND more' AND " + "x = 'y' AND " * 20 + "z = 1 ORDER BY a;",
        "SELECT " + ", ".join(f"column_{i}" for i in range(40)) + " FROM t;",
        r"SELECT a FROM t WHERE s = 'it\'s AND so' AND b = 1 UNION ALL SELECT 'FROM  x', a FROM t;",
    ],
)
def test_fold_changes_only_white_space_outside_of_quotes(statement: str) -> None:
    """Joined again, a folded statement is the statement; a quoted text is never broken."""
    assert re.sub(r"\n *", " ", report.fold(statement)) == statement


# ---- Which symbols, and which database.


@pytest.mark.usefixtures("tape")
@pytest.mark.parametrize(
    ("argv", "symbols"),
    [
        ([], ["BTCUSDT", "ETHUSDT"]),
        (["--symbol", "ETHUSDT"], ["ETHUSDT"]),
        (["--symbol", "ethusdt,btcusdt"], ["ETHUSDT", "BTCUSDT"]),
        (["--symbol", "ETHUSDT", "--symbol", "BTCUSDT", "--symbol", "ETHUSDT"], ["ETHUSDT", "BTCUSDT"]),
    ],
)
def test_symbols_are_chosen_by_name(ask: Ask, argv: list[str], symbols: list[str]) -> None:
    """--symbol can be repeated and take a list, in any case of letters; before the command it works as well."""
    for line in (["latest", "--json", *argv], [*argv, "--json", "latest"]):
        assert [answer["symbol"] for answer in exact(ask(*line).out)["answers"]] == symbols


def source(outcome: Outcome) -> str:
    """What the report says of its source."""
    assert outcome.code == 0, outcome.err
    return " ".join(outcome.out.split("\n\n")[0].split())


@pytest.mark.parametrize("real", ["missing", "without tables", "empty"])
def test_the_demo_stands_in_for_a_real_database_without_trades(
    ask: Ask, settings: config.Settings, server: Server, real: str
) -> None:
    """Whatever is missing of the real database, the demo's trades are shown, marked as such, and nothing is created."""
    demo = config.demo_of(settings)
    store(demo, ETHER)
    if real == "empty":
        store(settings, [])
    if real == "without tables":
        run_again(server, demo.mysql_database, [f"CREATE DATABASE {settings.mysql_database}"])
    try:
        expected = f"Database {demo.place}: made-up trades of the stand-in exchange (no real trades yet)"
        assert f"{expected}; times are UTC" == source(ask())
        assert (demo.mysql_database, True) == tuple(exact(ask("--json").out)[name] for name in ("database", "demo"))
        shown = run_again(server, demo.mysql_database, [f"SHOW DATABASES LIKE '{settings.mysql_database}'"])
        assert ([[]] if real == "missing" else [[(settings.mysql_database,)]]) == shown
    finally:
        run_again(server, "mysql", [f"DROP DATABASE {demo.mysql_database}"])


@pytest.mark.usefixtures("tape")
def test_real_trades_come_before_those_of_the_demo(ask: Ask, settings: config.Settings, server: Server) -> None:
    """With trades in both databases the real one is read, and the demo's only on request."""
    demo = config.demo_of(settings)
    store(demo, [ETHER[0]._replace(symbol="BNBUSDT")])
    try:
        expected = f"Database {settings.place}: trades captured from the exchange; times are UTC"
        assert expected == source(ask("latest"))
        expected = f"Database {demo.place}: made-up trades of the stand-in exchange; times are UTC"
        assert expected == source(ask("--demo", "latest")) == source(ask("latest", "--demo"))
        assert "no trade of BNBUSDT is stored" in ask("latest", "--symbol", "BNBUSDT").err
    finally:
        run_again(server, "mysql", [f"DROP DATABASE {demo.mysql_database}"])


def refusal(outcome: Outcome) -> str:
    """The one line with which the program has ended in exit code 2."""
    assert (outcome.code, outcome.out) == (2, "")
    assert re.fullmatch(r"query_examples\.py[^\n]*: [^\n]+\n", outcome.err), outcome.err
    return outcome.err.rstrip("\n")


def test_an_empty_table_says_what_to_do(ask: Ask, settings: config.Settings) -> None:
    """With tables and no trade, and no demo either, the way to the first trades is named."""
    store(settings, [])
    expected = f"query_examples.py: no trade is stored in database {settings.place} yet: run `python ws_client.py`"
    assert expected == refusal(ask())


def test_a_missing_database_is_one_line(ask: Ask, settings: config.Settings, server: Server) -> None:
    """The report names the database that is missing, the demo's when that was asked for, and creates neither."""
    assert f"'{settings.mysql_database}'" in refusal(ask())
    assert f"'{settings.mysql_database}_demo'" in refusal(ask("--demo"))
    assert "nothing was captured yet? run `python ws_client.py` or `make demo`" in refusal(ask())
    assert run_again(server, "mysql", [f"SHOW DATABASES LIKE '{settings.mysql_database}%'"]) == [[]]


# ---- Mistakes.


@pytest.mark.usefixtures("tape")
@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["latest", "--plot", "x.png"], "unrecognized"),
        (["--plot", "x.png", "latest"], "latest has nothing to draw"),
        (["range", "--last", "5m", "--plot", "x.jpg"], "does not end in .png"),
        (
            ["latest", "--symbol", "XRPUSDT"],
            "no trade of XRPUSDT is stored in {database}; --symbol can be BTCUSDT, ETHUSDT",
        ),
        (["latest", "--symbol", "'; DROP"], "is not a symbol"),
        (["--symbol", ","], "0 symbols"),
        (["at", "2025-11-20T10:15:20.346"], "2025-11-20T10:15:20.346Z is in the future; give a time up to now"),
        (["range", "2025-11-20", "2025-11-21"], "2025-11-21T00:00:00.000Z is in the future"),
        (["range", "2025-11-20T10:15", "2025-11-20T10:14:59.999"], "is empty: START must be before END"),
        (["range", "2025-11-20T10:15", "2025-11-20T11:15+01:00"], "is empty: START must be before END"),
        (["range", "2025-11-20T10:15"], "give either START and END, or --last"),
        (["range"], "give either START and END, or --last"),
        (["range", "2025-11-20", "2025-11-21", "--last", "5m"], "give either START and END, or --last"),
        (["range", "--last", "5"], "'5' is not a duration"),
        (["range", "--last", "0s"], "'0s' is not a duration"),
        (["range", "--last", "1.5h"], "'1.5h' is not a duration"),
        (["range", "--last", "٣m"], "is not a duration"),
        (["range", "--last", "36501d"], "'36501d' is too long"),
        (["at", "noon"], "'noon' is not a time"),
        (["at", "2025-11-20T10:15:60"], "is not a time"),
        (["at", "1763633709"], "is not a time"),
        (["at", "0001-01-01T00:00+01:00"], "is not a time"),
        (["at", "1969-12-31"], "is too early"),
        (["at"], "TIME"),
        (["newest"], "invalid choice: 'newest'"),
        (["latest", "--sym", "BTCUSDT"], "unrecognized arguments: --sym"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(ask: Ask, database: str, argv: list[str], words: str) -> None:
    """Every mistake on the command line is answered by one line that says what is wrong."""
    assert words.format(database=database) in refusal(ask(*argv))


@pytest.mark.usefixtures("tape")
def test_the_present_is_not_the_future(ask: Ask) -> None:
    """The time now, and that of a newest trade ahead of this machine's clock, can be asked for."""
    assert ask("at", "2025-11-20T10:15:20.345").code == 0
    assert ask("range", "2025-11-20", "2025-11-20T10:15:10.001", now=at("20 10:15:01.000")).code == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-11-20", at("20 00:00:00.000")),
        ("2025-11-20 10:15", at("20 10:15:00.000")),
        ("20251120T101509Z", at("20 10:15:09.000")),
        ("2025-11-20T10:15:09.123456789", at("20 10:15:09.123456")),
        ("2025-11-20T10:15:09,5+05:30", at("20 04:45:09.500")),
    ],
)
def test_parse_time_returns_utc(text: str, expected: datetime) -> None:
    """ISO 8601 in its forms; without an offset a time is UTC."""
    time = query_options.parse_time(text)
    assert (expected, UTC) == (time, time.tzinfo)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("090s", 90), ("5m", 300), ("2h", 7_200), ("1d", 86_400), ("36500d", 3_153_600_000)],
)
def test_parse_duration(text: str, seconds: int) -> None:
    """A whole number and a unit."""
    assert timedelta(seconds=seconds) == query_options.parse_duration(text)


def test_parse_duration_refuses_what_timedelta_cannot_hold() -> None:
    """The largest number that the form allows is refused, and does not overflow."""
    with pytest.raises(argparse.ArgumentTypeError, match="too long"):
        query_options.parse_duration("999999999d")


@pytest.mark.parametrize(
    ("milliseconds", "expected"),
    [
        (0, "0 s"),
        (1, "0.001 s"),
        (59_999, "59.999 s"),
        (60_999, "1 min"),
        (3_599_999, "59 min 59 s"),
        (3_600_000, "1 h"),
        (7_500_000, "2 h 5 min"),
        (86_399_999, "23 h 59 min"),
        (90_000_000, "1 d 1 h"),
        (31_536_000_000_000, "365000 d"),
    ],
)
def test_duration(milliseconds: int, expected: str) -> None:
    """Two units, rounded down."""
    assert expected == report.duration(timedelta(milliseconds=milliseconds))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("61837.63000000", "61837.63"), ("100.00000000", "100.00"), ("0.00000001", "0.00000001"), ("1E+3", "1000.00")],
)
def test_amount(text: str, expected: str) -> None:
    """Trailing zeros go, but two decimals stay."""
    assert expected == amount(Decimal(text))


# ---- As users run it.


def test_help_is_the_docstring() -> None:
    """--help works without a database and shows the module's docstring."""
    outcome = script(os.environ.copy(), "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert query_examples.__doc__ is not None
    assert query_examples.__doc__.strip() in outcome.out


@pytest.mark.usefixtures("tape")
def test_the_script_reads_the_environment(server: Server, settings: config.Settings) -> None:
    """As a process, by TCP, on the real clock: the same tape, and nothing on stderr."""
    outcome = script(environ(server, settings), "latest", "--json")
    answers = exact(outcome.out)["answers"]
    assert (
        outcome.code,
        outcome.err,
        [answer["result"]["trade_id"] for answer in answers],
    ) == (0, "", [107, 912])


@pytest.mark.usefixtures("tape")
def test_head_ends_it_silently(server: Server, settings: config.Settings) -> None:
    """A reader that goes away before anything is written leaves no traceback and no message."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "query_examples.py")],
        env=environ(server, settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait(SUBPROCESS_S_MAX) == 0


@pytest.mark.usefixtures("tape")
def test_a_symbol_that_the_output_cannot_show_is_escaped(server: Server, settings: config.Settings) -> None:
    """On a pipe of another encoding a symbol that is not ASCII costs its letters, not the report."""
    store(settings, [ETHER[0]._replace(symbol="币USDT")])
    outcome = script(environ(server, settings, PYTHONIOENCODING="ascii"), "latest", "--symbol", "币USDT")
    assert (outcome.code, outcome.err) == (0, "")
    assert r"What is the latest price of \u5e01USDT?" in outcome.out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"MYSQL_USER": "nobody", "MYSQL_PASSWORD": "wrong"}, "check MYSQL_USER"),
        ({"MYSQL_PORT": "no port"}, "MYSQL_PORT='no port'"),
        ({"MYSQL_PORT": "closed"}, "check MYSQL_HOST"),
    ],
)
def test_an_error_of_the_database_is_one_line(
    server: Server, settings: config.Settings, changes: dict[str, str], words: str, closed_port: int
) -> None:
    """Access denied, a wrong setting, no server: one line that names the setting, and no traceback."""
    if changes.get("MYSQL_PORT") == "closed":
        changes = {"MYSQL_PORT": str(closed_port)}
    assert words in refusal(script(environ(server, settings, **changes)))


@pytest.mark.parametrize("argv", [[], ["--demo"]])
def test_no_private_server_is_started_for_nothing(tmp_path: Path, argv: list[str]) -> None:
    """Before anything was captured there is one line that says what to do, and DATA_DIR stays untouched."""
    folder = tmp_path / "data"
    outcome = script(os.environ | {"DATA_DIR": str(folder)}, *argv)
    expected = f"nothing was captured in DATA_DIR={folder} yet: run `python ws_client.py`, or `make demo`"
    assert f"query_examples.py: {expected}" == refusal(outcome)
    assert not folder.exists()


# ---- Many symbols.


@pytest.fixture
def crowd(settings: config.Settings) -> list[str]:
    """Twelve symbols, of which the later ones have more trades behind them; the newest has a gap before it."""
    names = [f"S{number:02d}USDT" for number in range(12)]
    when = at("20 10:15:10.000")
    rows = [Trade(name, when, 100 + 3 * n, Decimal(n) + 1, Decimal(1), True) for n, name in enumerate(names)]
    rows.append(Trade(names[4], when - timedelta(seconds=1), 105, Decimal(7), Decimal(1), True))
    store(settings, rows)
    return names


LEFT_OUT = "the 10 symbols with the most trades; 2 more are stored: name them with --symbol"


def test_of_many_symbols_those_with_the_most_trades_are_answered_for(ask: Ask, crowd: list[str]) -> None:
    """And a line says so; those that are named all are, and so are ten."""
    outcome = ask("range", "--last", "5m")
    found = ask("range", "--last", "5m", "--json")
    named = ask("range", "--last", "5m", "--json", "--symbol", ",".join(crowd))

    assert outcome.out.split("\n\n")[0].endswith(f"\n{LEFT_OUT}")
    assert [answer["symbol"] for answer in exact(found.out)["answers"]] == crowd[:1:-1]
    assert found.err == f"query_examples.py: {LEFT_OUT}\n"
    assert exact(found.out)["left_out"] == LEFT_OUT
    assert "left_out" not in exact(named.out)
    assert [answer["symbol"] for answer in exact(named.out)["answers"]] == crowd
    assert named.err == ""


def test_the_report_file_says_what_is_left_out(ask: Ask, crowd: list[str], tmp_path: Path) -> None:
    """A reader of the file, who did not see the terminal, is told."""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    outcome = ask("range", "--last", "5m", "--html", str(tmp_path / "report.html"))

    assert outcome.code == 0
    assert LEFT_OUT in (tmp_path / "report.html").read_text()


def test_the_latest_price_of_many_symbols_is_a_table(ask: Ask, crowd: list[str]) -> None:
    """A line for each, with its exact price, its age, and what is missing; programs get an answer for each as ever."""
    outcome = ask("latest")
    table = outcome.out[outcome.out.index("  symbol") :].splitlines()
    alone = exact(ask("latest", "--json", "--symbol", crowd[4]).out)["answers"][0]
    found = exact(ask("latest", "--json").out)["answers"]

    assert table[0].split() == ["symbol", "price", "time", "UTC", "age", "missing"]
    assert table[5].split() == ["S04USDT", "5.00", "2025-11-20", "10:15:10.000", "10.345", "s", "6"]
    assert [line.split()[0] for line in table[1:13]] == crowd
    assert table[14].strip() == "12 symbols; ages by this machine's clock, 2025-11-20 10:15:20.345 UTC"
    assert "Up to 6 trades are missing" in table[16]
    assert max(map(len, outcome.out.splitlines())) <= 120
    assert [one["symbol"] for one in found] == crowd
    assert found[4] | {"sql": []} == alone | {"sql": []}


def test_a_wrong_symbol_names_some_of_many(ask: Ask, settings: config.Settings) -> None:
    """Those that look like it, and how many more there are."""
    names = [f"S{number:03d}USDT" for number in range(30)]
    store(settings, [Trade(name, at("20 10:15:10.000"), 1, Decimal(1), Decimal(1), True) for name in names])
    outcome = ask("latest", "--symbol", "S07USDT")

    assert outcome.code == 2
    assert "S007USDT, " in outcome.err
    assert "or one of 25 more" in outcome.err
