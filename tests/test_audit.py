"""audit.py from the terminal, beside the stand-in exchange: each verdict, each exit code, and what a reader sees."""

import csv
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import closing
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import db
from process.child import ROOT
from tests.support import harness
from tests.support.audited import BTC, COIN, DAY_TRADES, FLAGS, MORE, Audited, audited, days_ago
from tests.support.servers import Server
from tests.support.stand_in import StandIn
from tests.support.tables import ask
from tools.lab.children import wait_for

pytestmark = pytest.mark.slow

AWAY = "http://127.0.0.1:9"
"""Nobody listens there."""
BOTH_AWAY = {"BINANCE_REST_URL": AWAY, "BINANCE_ARCHIVE_URL": AWAY}


@pytest.fixture(scope="module")
def market_of_days() -> Iterator[StandIn]:
    """An exchange with five days of history; its tape waits for ever."""
    with StandIn(*FLAGS, *MORE) as running:
        yield running


@pytest.fixture
def exchange(market_of_days: StandIn) -> Iterator[StandIn]:
    """That exchange without faults of other tests."""
    yield market_of_days
    market_of_days.clear()


@pytest.fixture
def case(any_server: Server, exchange: StandIn, tmp_path: Path) -> Iterator[Audited]:
    """A database that does not exist yet."""
    with audited(any_server, exchange, tmp_path) as made:
        yield made


@pytest.fixture
def each(server: Server, exchange: StandIn, tmp_path: Path) -> Iterator[Audited]:
    """The same on each family."""
    with audited(server, exchange, tmp_path) as made:
        yield made


def ids(case: Audited, day: date, symbol: str = BTC) -> list[int]:
    """The stored ids of a day."""
    sql = "SELECT trade_id FROM trades WHERE symbol = %s AND timestamp >= %s AND timestamp < %s ORDER BY trade_id"
    return [one for (one,) in case.sql(sql, symbol, str(day), str(day + timedelta(days=1)))]


def zip_of(exchange: StandIn, folder: Path, day: date, symbol: str = BTC) -> Path:
    """The archive's file of a day, on this disk."""
    path = folder / f"{symbol}-trades-{day}.zip"
    path.write_bytes(exchange.file(f"/data/spot/daily/trades/{symbol}/{path.name}").body)
    return path


# ---- All is well.


def test_days_that_are_equal(each: Audited, exchange: StandIn) -> None:
    """Row by row; by default only those that are not equal yet are audited. A proof of each is in the table and in the
    file, and a list of differences nowhere."""
    each.load(days_ago(3), days_ago(2))
    each.load(days_ago(2), symbol=COIN)
    done = each.run()
    rows = [(BTC, days_ago(3)), (BTC, days_ago(2)), (COIN, days_ago(2))]
    assert (done.code, done.err) == (0, "")
    assert [line.split()[:7] for line in done.lines[:-1]] == [
        [symbol, str(day), "equal", str(DAY_TRADES), "trades", "0", "missing"] for symbol, day in rows
    ]
    assert done.lines[-1] == "3 days audited: 3 equal"
    assert each.run().lines == [
        "all days are equal to the archive already; --since DAY audits them again, --recheck looks for changes"
    ]
    stored = each.sql("SELECT number, symbol, day, verdict, hash FROM proofs ORDER BY number")
    assert [row[:4] for row in stored] == [(n, *row, "equal") for n, row in enumerate(rows, 1)]
    lines = [json.loads(line) for line in (each.folder / "proofs.jsonl").read_text().splitlines()]
    assert [line["hash"] for line in lines] == [row[4] for row in stored]
    assert list((each.folder / "audit").glob("*.csv")) == []
    first = lines[0]
    digest = exchange.file(f"/data/spot/daily/trades/{BTC}/{BTC}-trades-{days_ago(3)}.zip.CHECKSUM").body[:64].decode()
    assert (first["compared_with"].rpartition("/")[2], first["source_sha256"]) == (
        f"{BTC}-trades-{days_ago(3)}.zip",
        digest,
    )


@pytest.mark.parametrize(
    ("against", "verdict", "reason"),
    [
        ("auto", "equal", ""),
        ("archive", "equal", ""),
        ("klines", "agrees", "nothing earlier is stored than 00:00:00"),
        ("none", "contiguous", "nothing earlier is stored than 00:00:00"),
    ],
)
def test_what_a_day_is_compared_with(case: Audited, against: str, verdict: str, reason: str) -> None:
    """The better the other side, the better the verdict; each is well."""
    case.load(days_ago(2))
    assert case.verdicts("--day", str(days_ago(2)), "--against", against) == (0, [(verdict, reason)])


def test_a_strict_audit_wants_more_than_all_ids(case: Audited) -> None:
    """A day that was compared with nothing is not good enough then."""
    case.load(days_ago(2))
    assert case.verdicts("--against", "none", "--strict")[0] == 3
    assert case.verdicts("--against", "klines", "--strict")[0] == 0


def test_a_file_of_the_archive_on_the_disk(case: Audited, exchange: StandIn, tmp_path: Path) -> None:
    """Its name says of which symbol and day it is, so nothing else is audited; also days that are equal already."""
    case.load(days_ago(3), days_ago(2))
    case.load(days_ago(2), symbol=COIN)
    path = zip_of(exchange, tmp_path, days_ago(2))
    for _ in range(2):
        done = case.run("--against", str(path), "--json")
        assert [(row["symbol"], row["day"], row["verdict"]) for row in done.rows] == [(BTC, str(days_ago(2)), "equal")]
        assert (done.code, done.rows[0]["compared_with"]) == (0, str(path))
    case.sql("UPDATE trades SET quantity = quantity + 1 WHERE trade_id = %s", ids(case, days_ago(2))[7])
    assert case.run("--against", str(path)).code == 1


def test_two_recorders_compare_certificates(
    case: Audited, exchange: StandIn, any_server: Server, tmp_path: Path
) -> None:
    """One writes what it has proven, also earlier; the other learns that it has the same, and then which ids differ."""
    case.load(days_ago(3), days_ago(2))
    assert case.run().code == 0
    certificate = tmp_path / "certificate.json"
    assert case.run("--export-cert", str(certificate)).code == 0
    assert [(day["day"], day["verdict"]) for day in json.loads(certificate.read_text())["days"]] == [
        (str(day), "equal") for day in (days_ago(3), days_ago(2))
    ]
    (tmp_path / "other").mkdir()
    with audited(any_server, exchange, tmp_path / "other") as other:
        other.load(days_ago(2))
        assert other.verdicts("--against", str(certificate), **BOTH_AWAY) == (
            0,
            [
                (
                    "equal",
                    "by hash the same trades as there, where they are equal; nothing earlier is stored than 00:00:00",
                )
            ],
        )
        changed = ids(other, days_ago(2))[10]
        other.sql("UPDATE trades SET buyer_is_maker = 1 - buyer_is_maker WHERE trade_id = %s", changed)
        done = other.run("--against", str(certificate), "--json")
        block = changed // 65_536 * 65_536
        assert (done.code, done.rows[0]["verdict"]) == (1, "different")
        assert f"ids {block} to {block + 65_535} differ" in done.rows[0]["problems"]


def test_a_symbol_that_is_not_ascii_in_a_terminal_that_is(case: Audited) -> None:
    """It is escaped there, and no error."""
    case.load(days_ago(2), symbol=COIN)
    done = case.run("--symbol", COIN, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.code, done.lines[0].split()[0]) == (0, COIN.encode("ascii", "backslashreplace").decode())
    assert "_%E5%B8%81" not in done.out


# ---- What is wrong with the trades.


def test_one_digit_that_was_changed_is_named(each: Audited) -> None:
    """The day is different; the row is shown with its column, and is in the file with all differences."""
    each.load(days_ago(3), days_ago(2))
    changed = ids(each, days_ago(2))[100]
    (price,) = each.sql("SELECT price FROM trades WHERE trade_id = %s", changed)[0]
    each.sql("UPDATE trades SET price = price + 0.00000001 WHERE trade_id = %s", changed)
    done = each.run()
    assert (done.code, done.lines[-1]) == (1, "2 days audited: 1 equal, 1 different")
    shown = next(line for line in done.lines if line.startswith("  trade "))
    assert shown.startswith(f"  trade {changed} differs in price: here {changed},{price + Decimal('0.00000001')},")
    assert f", there {changed},{price}," in shown
    with (each.folder / "audit" / f"{BTC}-{days_ago(2)}.csv").open(newline="") as file:
        assert [(row["trade_id"], row["kind"], row["columns"]) for row in csv.DictReader(file)] == [
            (str(changed), "differs", "price")
        ]
    assert f"  all differences (1): {each.folder / 'audit' / f'{BTC}-{days_ago(2)}.csv'}" in done.lines
    assert any("sealed bars are not what their trades make" in line for line in done.lines)
    each.sql("UPDATE trades SET price = price - 0.00000001 WHERE trade_id = %s", changed)
    assert each.run().code == 0
    assert list((each.folder / "audit").glob("*.csv")) == []


def test_a_row_that_was_deleted_is_named(each: Audited) -> None:
    """The archive has it, and no gap says that it is missing."""
    each.load(days_ago(2))
    gone = ids(each, days_ago(2))[100]
    each.sql("DELETE FROM trades WHERE trade_id = %s", gone)
    (row,) = each.run("--json").rows
    assert (row["verdict"], row["missing"], row["trades"]) == ("different", 1, DAY_TRADES - 1)
    assert row["differences"] == {"only there": 1}
    assert [(one["trade_id"], one["kind"], one["here"]) for one in row["first_differences"]] == [
        (gone, "only there", "")
    ]
    assert row["problems"][0] == f"ids {gone} to {gone} are absent, and no gap"


def test_a_gap_is_no_difference(each: Audited) -> None:
    """Ids that are known to be missing; and ids in a gap that are stored all the same are a false claim of ours."""
    each.load(days_ago(2))
    gone = ids(each, days_ago(2))[100:103]
    with closing(db.connect(each.settings)) as connection:
        rows = ask(connection, f"SELECT * FROM trades WHERE trade_id IN ({gone[0]}, {gone[1]}, {gone[2]})")
        ask(connection, f"DELETE FROM trades WHERE trade_id BETWEEN {gone[0]} AND {gone[-1]}")
        ask(
            connection,
            "INSERT INTO gaps SELECT symbol, %s, %s, 'test', NOW(6), NULL, timestamp, timestamp FROM trades"
            " WHERE trade_id = %s",
            gone[0],
            gone[-1],
            gone[0] - 1,
        )
    each.reseal()
    code, verdicts = each.verdicts()
    assert (code, verdicts) == (1, [("gapped", "3 trades only there; nothing earlier is stored than 00:00:00")])
    marks = ", ".join(["%s"] * len(rows[0]))
    each.sql(f"INSERT INTO trades VALUES {', '.join([f'({marks})'] * 3)}", *[value for row in rows for value in row])
    each.reseal()
    code, verdicts = each.verdicts()
    assert (code, verdicts[0][0]) == (1, "different")
    assert f"ids {gone[0]} to {gone[-1]} are listed as a gap, and are not" in verdicts[0][1]


@pytest.mark.parametrize("against", ["archive", "klines"])
def test_a_row_too_many_is_found(case: Audited, against: str) -> None:
    """At the end of the day, where it could be taken for a file of the archive that was cut short."""
    case.load(days_ago(2))
    last = ids(case, days_ago(2))[-1]
    at = f"{days_ago(2)} 23:59:59.999"
    case.sql("INSERT INTO trades VALUES (%s, %s, %s, 1, 1, 0, NULL)", BTC, at, last + 1)
    case.reseal()
    code, verdicts = case.verdicts("--day", str(days_ago(2)), "--against", against)
    assert (code, verdicts[0][0]) == (1, "different")


def test_a_bar_that_is_wrong_is_named(case: Audited) -> None:
    """The trades are equal, but what readers are told of them is not."""
    case.load(days_ago(2))
    case.sql("UPDATE candles SET volume = volume + 1 WHERE resolution = 3600 ORDER BY timestamp LIMIT 1")
    done = case.run()
    assert (done.code, done.lines[0].split()[2]) == (1, "different")
    assert done.lines[1].startswith(
        "  2 sealed bars are not what their trades make, the first is that of 3600 s from 00"
    )
    assert "python -m tools.reseal mends them" in done.lines[1]


def test_klines_name_the_minute_of_a_change(case: Audited) -> None:
    """Also if our own bars were made again from the changed trade."""
    case.load(days_ago(2))
    changed = ids(case, days_ago(2))[50]
    (when,) = case.sql("SELECT timestamp FROM trades WHERE trade_id = %s", changed)[0]
    case.sql("UPDATE trades SET quantity = quantity + 0.00000001 WHERE trade_id = %s", changed)
    case.reseal()
    done = case.run("--against", "klines")
    assert (done.code, done.lines[0].split()[2]) == (1, "different")
    assert done.lines[1].startswith(f"  {when:%H:%M}: volume, quote_volume")


# ---- What is wrong with the exchange's side.

BROKEN = [
    "archive_damaged",
    "archive_cut_short",
    "archive_hole",
    "archive_doubled",
    "archive_unsorted",
    "archive_bad_row",
    "archive_other_day",
    "archive_wrong_member",
    "archive_two_members",
    "archive_bad_checksum",
    "archive_no_checksum",
]


@pytest.mark.heavy
def test_a_broken_archive_is_no_verdict_about_our_trades(case: Audited, exchange: StandIn) -> None:
    """Whatever is wrong with its file, the day agrees with the klines; the archive alone says nothing about it, and is
    named."""
    case.load(days_ago(2))
    day = str(days_ago(2))
    for fault in BROKEN:
        exchange.fault(fault, seconds=600)
        # In the first days of a month its file would serve instead.
        exchange.fault("archive_missing", path="/monthly/", seconds=600)
        code, [(verdict, reason)] = case.verdicts("--day", day)
        assert (fault, code, verdict) == (fault, 0, "agrees")
        assert f"{BTC}-trades-{day}.zip" in reason or f"{BTC}-trades-{day[:7]}" in reason
        code, [(verdict, reason)] = case.verdicts("--day", day, "--against", "archive")
        assert (fault, code, verdict) == (fault, 3, "unverifiable")
        exchange.clear()


def test_a_file_that_ends_early_beside_a_gap_of_ours(case: Audited, exchange: StandIn) -> None:
    """REST does not say how many trades the day has: what the file lacks is no difference, also if ids are missing
    here."""
    case.load(days_ago(2))
    stored = ids(case, days_ago(2))
    case.sql("DELETE FROM trades WHERE trade_id = %s", stored[-5])
    case.sql(
        "INSERT INTO gaps SELECT symbol, %s, %s, 'test', NOW(6), NULL, timestamp, timestamp FROM trades"
        " WHERE trade_id = %s",
        stored[-5],
        stored[-5],
        stored[-6],
    )
    case.reseal()
    exchange.fault("archive_cut_short", rows=20)
    code, [(verdict, reason)] = case.verdicts("--day", str(days_ago(2)), "--against", "archive", BINANCE_REST_URL=AWAY)
    assert (code, verdict) == (1, "gapped")
    assert "does not have all trades of the day" in reason
    assert list((case.folder / "audit").glob("*.csv")) == []


def test_a_file_that_was_published_again_is_a_difference(case: Audited, exchange: StandIn) -> None:
    """A checksum that is right and another digit: somebody is wrong, and nobody knows who."""
    case.load(days_ago(2))
    exchange.fault("archive_changed")
    (row,) = case.run("--json").rows
    assert (row["verdict"], row["differences"]) == ("different", {"differs": 1})
    assert row["first_differences"][0]["columns"] == ["price"]


def test_a_file_that_is_another_one_than_was_loaded_is_said(case: Audited) -> None:
    """Also where its trades are the same, as when it was packed again: another revision of the day."""
    day = days_ago(2)
    case.load(day)
    case.sql("DELETE FROM archive_files")
    case.sql("INSERT INTO archive_files VALUES (%s, %s, %s, 'https://…', 1, 2, NOW(6))", BTC, day, "a" * 64)
    replaced = "the exchange has replaced the file that was loaded"
    assert case.verdicts("--day", str(day)) == (0, [("equal", replaced)])
    case.sql("UPDATE archive_files SET sha256 = (SELECT source_sha256 FROM proofs)")
    assert case.verdicts("--day", str(day)) == (0, [("equal", "")])


def test_a_file_that_is_not_published_yet(case: Audited, exchange: StandIn) -> None:
    """The klines do meanwhile; with the archive alone all ids are there, and that is all."""
    case.load(days_ago(2))
    exchange.fault("archive_missing", seconds=600)
    day = str(days_ago(2))
    name = f"{BTC}-trades-{day}.zip is not published yet; nothing earlier is stored than 00:00:00"
    assert case.verdicts("--day", day) == (0, [("agrees", name)])
    assert case.verdicts("--day", day, "--against", "archive") == (0, [("contiguous", name)])


def test_an_exchange_that_is_away(case: Audited) -> None:
    """The trades are looked at all the same; that they could not be compared is one line, and exit code 2."""
    case.load(days_ago(2))
    done = case.run("--day", str(days_ago(2)), **BOTH_AWAY)
    assert (done.code, done.lines[0].split()[2]) == (2, "contiguous")
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith(f"audit.py: could not be compared: BINANCE_REST_URL={AWAY}")
    assert case.run("--day", str(days_ago(2)), "--against", "none", **BOTH_AWAY).code == 0
    assert case.run("--day", str(days_ago(2)), BINANCE_ARCHIVE_URL=AWAY).code == 0


def test_a_day_of_which_nothing_is_stored(case: Audited) -> None:
    """The exchange has trades of it, so all of these are missing; it is not called complete."""
    case.load(days_ago(2))
    code, [(verdict, reason)] = case.verdicts("--day", str(days_ago(4)))
    assert (code, verdict, reason) == (1, "gapped", f"{DAY_TRADES} trades only there; no trade of it is stored")


def test_since_reaches_today(case: Audited) -> None:
    """A recorder that stopped two days ago is not told that all is well."""
    case.load(days_ago(3))
    done = case.run("--since", str(days_ago(3)), "--json")
    assert (done.code, [(row["day"], row["verdict"]) for row in done.rows]) == (
        1,
        [
            (str(days_ago(3)), "equal"),
            (str(days_ago(2)), "gapped"),
            (str(days_ago(1)), "gapped"),
            (str(days_ago(0)), "contiguous"),
        ],
    )
    assert done.rows[-1]["reason"] == "nothing of the day is sealed yet"


# ---- The archive alone.


def test_the_archive_alone_needs_no_database(exchange: StandIn, tmp_path: Path) -> None:
    """Whether its files are whole and joined; a file that is not, or is not there, is exit code 3."""
    with_no_server = {
        "MYSQL_HOST": "127.0.0.1",
        "MYSQL_PORT": "9",
        "DATA_DIR": str(tmp_path),
        "SYMBOLS": f"{BTC},{COIN}",
        "BINANCE_REST_URL": exchange.http,
        "BINANCE_ARCHIVE_URL": exchange.http,
    }

    def run(*argv: str) -> tuple[int, list[str]]:
        line = [sys.executable, str(ROOT / "audit.py"), "--archive-only", *argv]
        done = subprocess.run(line, env=os.environ | with_no_server, capture_output=True, text=True, timeout=60)
        assert done.stderr == ""
        return done.returncode, done.stdout.splitlines()

    code, lines = run("--since", str(days_ago(2)))
    assert (code, [line.split()[:4] for line in lines]) == (
        0,
        [[symbol, str(day), "whole", "400"] for symbol in (BTC, COIN) for day in (days_ago(2), days_ago(1))],
    )
    # On the first days of a month there are files of the month before, which serve instead.
    exchange.fault("archive_missing", path="/monthly/", seconds=600)
    exchange.fault("archive_hole", symbol=COIN, path="/daily/", seconds=600)
    code, lines = run("--since", str(days_ago(2)), "--symbol", COIN)
    assert (code, ["lacks the ids" in line for line in lines]) == (3, [True, True])
    assert run("--day", str(days_ago(0)))[0] == 3


# ---- Rechecks.


def test_a_change_after_the_proof_is_named(each: Audited) -> None:
    """The block, and then the row by the archive."""
    each.load(days_ago(3), days_ago(2))
    assert each.run().code == 0
    done = each.run("--recheck")
    assert (done.code, done.out.splitlines()[-1]) == (
        0,
        "2 days looked at: 2 unchanged; the chain of 2 proofs is whole",
    )
    changed = ids(each, days_ago(2))[5]
    each.sql("UPDATE trades SET price = price + 1 WHERE trade_id = %s", changed)
    done = each.run("--recheck")
    block = changed // 65_536 * 65_536
    assert (done.code, done.out.splitlines()[-1]) == (
        1,
        "2 days looked at: 1 unchanged, 1 changed; the chain of 2 proofs is whole",
    )
    assert f"  ids {block} to {block + 65_535}: a trade was changed, removed or added without a record" in done.out
    assert f"  trade {changed} differs in price: here " in done.out
    rows = each.run("--recheck", "--json").rows
    assert [(row["became"], row["changed_blocks"]) for row in rows] == [
        ("unchanged", []),
        ("changed", [[block, block + 65_535]]),
    ]


def test_the_parts_of_a_recheck_are_all_days(case: Audited) -> None:
    """Each day is in one of three parts."""
    days = [days_ago(number) for number in (5, 4, 3, 2, 1)]
    case.load(*days)
    assert case.run().code == 0
    found = [row["day"] for part in (1, 2, 3) for row in case.run(f"--recheck={part}/3", "--json").rows]
    assert sorted(found) == [str(day) for day in days]


def test_a_chain_that_was_broken_is_found(case: Audited) -> None:
    """By the table, or by the file beside it, in which another database's proofs do not count."""
    case.load(days_ago(3), days_ago(2))
    assert case.run().code == 0
    file = case.folder / "proofs.jsonl"
    others = [json.loads(line) | {"database": "another", "hash": "0" * 64} for line in file.read_text().splitlines()]
    with file.open("a") as lines:
        lines.writelines(json.dumps(one) + "\n" for one in others)
    assert case.run("--recheck").code == 0
    case.sql("DELETE FROM proofs WHERE number = 2")
    done = case.run("--recheck")
    assert (done.code, done.out.splitlines()[0]) == (
        1,
        f"the chain of proofs: {file} has proofs up to 2, the table up to 1",
    )
    case.sql("UPDATE proofs SET verdict = 'agrees'")
    done = case.run("--recheck", "--json")
    assert (done.code, done.err.splitlines()[0]) == (
        1,
        f"the chain of proofs: proof 1 ({BTC} {days_ago(3)}) was changed: its hash is not that of it",
    )


def test_nothing_was_proven_yet(case: Audited) -> None:
    """And how it is."""
    case.load(days_ago(2))
    done = case.run("--recheck")
    assert (done.code, done.out) == (0, "nothing was proven yet: audit.py without --recheck does it\n")


# ---- The calendar, mistakes, bounds.


def test_the_calendar(case: Audited) -> None:
    """A letter for each day, what the letters mean, and which day lacks what; no colours where nobody sees them."""
    case.load(days_ago(3), days_ago(2), days_ago(1))
    last = ids(case, days_ago(1))[-1]
    case.sql("DELETE FROM trades WHERE trade_id = %s", last)
    done = case.run("--calendar")
    calendar = done.lines[done.lines.index(BTC) :]
    assert "\x1b" not in done.out
    months = [line for line in calendar if line.startswith("20")]
    assert "".join("".join(month.split()[1:]) for month in months) == "EEG"
    assert "         E equal to the exchange's archive, row by row" in calendar
    assert f"         {days_ago(1)}: 1 ids missing; 1 trade only there" in calendar


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--day", "2025-03-01", "--since", "2025-03-01"], "--day and --since: give one of them"),
        (["--day", "2125-03-01"], "--day=2125-03-01 has not begun yet: today is "),
        (["--since", "2125-03-01"], "--since=2125-03-01 has not begun yet: today is "),
        (["--archive-only", "--since", "2125-03-01"], "--since=2125-03-01 has not begun yet: today is "),
        (["--archive-only"], "--archive-only: give --day or --since"),
        (["--day", "yesterday"], "argument --day: 'yesterday' is not a day; give it as YYYY-MM-DD"),
        (["--recheck=0/3"], "--recheck=0/3: give N/T, such as 3/30: the third of thirty parts"),
        (["--recheck=4/3"], "--recheck=4/3: give N/T"),
        (["--recheck=1/²"], "--recheck=1/²: give N/T"),
        (["--against", "nowhere"], "--against=nowhere: give archive, klines, none, or a file that is there"),
        (["--against", "pyproject.toml"], "--against=pyproject.toml: a file of the archive has a name such as"),
        (["--symbol", "NOSUCHUSDT"], "--symbol=NOSUCHUSDT: no trade of it is stored; stored: BTCUSDT"),
    ],
)
def test_a_mistake_is_one_line(case: Audited, argv: list[str], words: str) -> None:
    """On stderr, with exit code 2; nothing is proven."""
    case.load(days_ago(2))
    done = case.run(*argv)
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)
    assert done.err.startswith(f"audit.py: {words}")
    assert case.sql("SELECT COUNT(*) FROM proofs") == [(0,)]


def test_a_file_of_another_day_or_symbol_is_refused(case: Audited, exchange: StandIn, tmp_path: Path) -> None:
    """It is not compared with what it is not of; a file that is damaged is named."""
    case.load(days_ago(3), days_ago(2))
    day = str(days_ago(2))
    certificate = tmp_path / "certificate.json"
    case.run("--day", str(days_ago(3)), "--export-cert", str(certificate))
    (tmp_path / "none.json").write_text("{}")
    damaged = zip_of(exchange, tmp_path, days_ago(2))
    damaged.write_bytes(damaged.read_bytes()[:-30])
    for against, words in [
        (certificate, f"--against={certificate} says nothing of {BTC} on {day}"),
        (path := zip_of(exchange, tmp_path, days_ago(3)), f"--against={path} says nothing of {BTC} on {day}"),
        (path := zip_of(exchange, tmp_path, days_ago(2), COIN), f"--against={path} says nothing of {BTC} on {day}"),
        (path := tmp_path / "none.json", f"{path} is no certificate: "),
        (damaged, f"--against={damaged}: {damaged.name} cannot be unpacked: "),
    ]:
        done = case.run("--day", day, "--against", str(against))
        assert (done.code, len(done.err.splitlines())) == (2, 1)
        assert done.err.startswith(f"audit.py: {words}")


def test_a_database_that_has_nothing(case: Audited) -> None:
    """None, or no trade in it."""
    done = case.run()
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    db.close(db.connect(case.settings))
    done = case.run()
    assert (done.code, done.out) == (2, "")
    assert "no trade is stored in database" in done.err


def rss_kb(case: Audited, *argv: str) -> int:
    """The most memory that an audit had."""
    code = "import resource, sys, audit; audit.main(sys.argv[1:]);"
    code += " print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code, *argv],
        env=os.environ | case.environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    return int(done.stderr.splitlines()[-1])


@pytest.mark.heavy
def test_memory_does_not_grow_with_the_day(case: Audited, tmp_path: Path) -> None:
    """Ten times the trades, a few megabytes more: a block of them is in memory, whatever they are."""
    small, large = days_ago(12), days_ago(11)
    first = 10 * 65_536
    rows = {small: 65_536, large: 655_360}
    with closing(db.connect(case.settings)) as connection:
        for day, number in rows.items():
            text = "".join(
                f"{first + n},{60_000 + n % 7}.00000000,0.00100000,60.00000000,{_us(day) + n * 120_000},True,True\n"
                for n in range(number)
            ).encode()
            db.load_history(connection, db.Lines(BTC, first, first + number - 1, text), tmp_path / "lines.csv")
            _zip(tmp_path, day, text)
            first += number
        db.seal_history(connection, BTC)
    used = [rss_kb(case, "--against", str(tmp_path / f"{BTC}-trades-{day}.zip")) for day in rows]
    assert case.sql("SELECT verdict, trades FROM proofs ORDER BY number") == [("equal", n) for n in rows.values()]
    assert used[1] - used[0] < 25_000


def _us(day: date) -> int:
    return (day - date(1970, 1, 1)) // timedelta(days=1) * 86_400_000_000


def _zip(folder: Path, day: date, text: bytes) -> None:
    stem = f"{BTC}-trades-{day}"
    with zipfile.ZipFile(folder / f"{stem}.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr(f"{stem}.csv", text)


# ---- A capture.


def test_a_captured_day_is_equal_to_the_archive(any_server: Server, tmp_path: Path) -> None:
    """Through a day of faults: frames lost, repeated and out of order, connections closed. The exchange's clock is
    quicker than ours, so the day is over when the tape is."""
    flags = ["--clock", "virtual", "--speed", "20000", "--rate", "0.05", "--trades", "6000", "--wait-clients", "2"]
    flags += ["--days", "2", "--day-trades", "300", "--weight-limit", "1000000", "--after-end", "stay"]
    faults = ["skip=count:40,after:300", "double=30", "shuffle=60"]
    flags += [part for fault in faults for part in ("--fault", fault)]
    with harness.Rig(any_server, tmp_path, flags) as rig, rig.capture():
        rig.stores()
        rig.exchange.fault("close")
        wait_for("the tape has ended", lambda: bool(rig.exchange.state()["tape"] == "ended"), 60)
        wait_for("all is stored", lambda: all(one.exact for one in rig.compared()), 60)
        assert all(rig.exchange.struck(name) for name in ("skip", "double", "shuffle", "close"))
        environ = os.environ | rig.environ | {"BINANCE_ARCHIVE_URL": rig.exchange.http}
        line = [sys.executable, str(ROOT / "audit.py"), "--day", "2025-01-01", "--json"]
        done = subprocess.run(line, env=environ, capture_output=True, text=True, timeout=60)
        rows: list[Any] = [json.loads(text) for text in done.stdout.splitlines()]
    assert [(row["symbol"], row["verdict"], row["reason"]) for row in rows] == [
        (symbol, "equal", "") for symbol in harness.SYMBOLS
    ]
    assert all(row["trades"] > 1_000 for row in rows)
    assert (done.returncode, done.stderr) == (0, "")
