"""Exports, against a known table on each server: every byte of each format, what is read back, and what is refused."""

import csv
import errno
import gzip
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from pyarrow import parquet

import config
import db
from model.trade import Trade
from process.child import ROOT
from storage import lines as db_export
from storage.stored_lines import stored_lines
from tests.support.servers import Server
from tests.support.tables import ask, exact, store
from tools.export import __main__ as export
from tools.export import files as export_files
from tools.export import formats

pytestmark = pytest.mark.slow

SUBPROCESS_S_MAX = 60
MANY_ROWS = 300_000
PEAK_KB_MAX = 150 * 1024


def at(text: str) -> datetime:
    """A time in UTC, such as `2024-12-31 23:59:59.999`."""
    return datetime.fromisoformat(f"{text}+00:00")


def trade(symbol: str, when: str, number: int, amounts: str, received: str | None = None) -> Trade:
    """A trade whose `amounts` are its price and its quantity; the buyer is the maker of those with an even id."""
    price, quantity = map(Decimal, amounts.split())
    return Trade(symbol, at(when), number, price, quantity, number % 2 == 0, at(received) if received else None)


BITCOIN = [
    trade("BTCUSDT", "2024-12-31 23:59:59.999", 100, "93576.01 0.00108", "2025-01-01 00:00:00.012345"),
    trade("BTCUSDT", "2025-01-01 00:00:00.000", 101, "0.003127 4.708"),
    trade("BTCUSDT", "2025-01-01 00:00:00.000", 102, "999999999999.99999999 0.00000001"),
    trade("BTCUSDT", "2025-01-01 23:59:59.999", 105, "61837.63 1", "2025-01-02 00:00:00.000000"),
    trade("BTCUSDT", "2025-01-03 12:00:00.500", 106, "61838 2"),
]
ETHER = [trade("ETHUSDT", "2025-01-01 12:00:00.001", 7, "3450.1 0.5", "2025-01-01 12:00:00.002999")]

PLAIN = """\
symbol,timestamp,trade_id,price,quantity,buyer_is_maker,received_at
BTCUSDT,2024-12-31T23:59:59.999Z,100,93576.01000000,0.00108000,true,2025-01-01T00:00:00.012345Z
BTCUSDT,2025-01-01T00:00:00.000Z,101,0.00312700,4.70800000,false,
BTCUSDT,2025-01-01T00:00:00.000Z,102,999999999999.99999999,0.00000001,true,
BTCUSDT,2025-01-01T23:59:59.999Z,105,61837.63000000,1.00000000,false,2025-01-02T00:00:00.000000Z
BTCUSDT,2025-01-03T12:00:00.500Z,106,61838.00000000,2.00000000,true,
ETHUSDT,2025-01-01T12:00:00.001Z,7,3450.10000000,0.50000000,false,2025-01-01T12:00:00.002999Z
"""
# 0.003127 times 4.708 is 0.014721916; the exchange itself printed 0.01472191 for it.
ARCHIVE = """\
100,93576.01000000,0.00108000,101.06209080,1735689599999,True,True
101,0.00312700,4.70800000,0.01472191,1735689600000000,False,True
102,999999999999.99999999,0.00000001,9999.99999999,1735689600000000,True,True
105,61837.63000000,1.00000000,61837.63000000,1735775999999000,False,True
106,61838.00000000,2.00000000,123676.00000000,1735905600500000,True,True
"""
POINTS = """\
trades,symbol=BTCUSDT price=93576.01000000,quantity=0.00108000,buyer_is_maker=true,trade_id=100i,\
received_at=1735689600012345i 1735689599999000100
trades,symbol=BTCUSDT price=0.00312700,quantity=4.70800000,buyer_is_maker=false,trade_id=101i 1735689600000000101
trades,symbol=BTCUSDT price=999999999999.99999999,quantity=0.00000001,buyer_is_maker=true,trade_id=102i \
1735689600000000102
trades,symbol=BTCUSDT price=61837.63000000,quantity=1.00000000,buyer_is_maker=false,trade_id=105i,\
received_at=1735776000000000i 1735775999999000105
trades,symbol=BTCUSDT price=61838.00000000,quantity=2.00000000,buyer_is_maker=true,trade_id=106i 1735905600500000106
"""


class Outcome(NamedTuple):
    """What main() returned and wrote."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(settings: config.Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs main() on the test's own database."""
    monkeypatch.setattr(config, "load", lambda: settings)

    def run(*argv: object) -> Outcome:
        try:
            code = export.main([str(one) for one in argv])
        except SystemExit as error:
            code = int(str(error.code))
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture
def tape(settings: config.Settings) -> None:
    """The known table."""
    store(settings, BITCOIN + ETHER)


def read_csv(path: Path) -> list[Trade]:
    """The trades of a plain CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Trade(
                row["symbol"],
                datetime.fromisoformat(row["timestamp"]),
                int(row["trade_id"]),
                Decimal(row["price"]),
                Decimal(row["quantity"]),
                {"true": True, "false": False}[row["buyer_is_maker"]],
                datetime.fromisoformat(row["received_at"]) if row["received_at"] else None,
            )
            for row in csv.DictReader(file)
        ]


def read_parquet(path: Path) -> list[Trade]:
    """The trades of a Parquet file or a partitioned folder, in order of symbol, time and id."""
    rows = parquet.read_table(path).to_pylist()
    trades = [Trade(**{name: row[name] for name in Trade._fields}) for row in rows]
    return sorted(trade._replace(timestamp=trade.timestamp.astimezone(UTC)) for trade in trades)


def manifest(path: Path) -> dict[str, Any]:
    """The manifest of the export at `path`, in which there must be no float."""
    name = path / "_manifest.json" if path.is_dir() else path.with_name(path.name + ".manifest.json")
    document: dict[str, Any] = exact(name.read_text(encoding="utf-8"))
    return document


def names(folder: Path) -> list[str]:
    """The files under `folder`, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# ---- The formats.


@pytest.mark.usefixtures("tape")
def test_plain_csv_is_the_whole_expected_text(run: Run, tmp_path: Path) -> None:
    """Every symbol in order, every digit, and nothing for the time of arrival of a trade that was back-filled."""
    assert run("csv", tmp_path / "x.csv").code == 0

    assert (tmp_path / "x.csv").read_text() == PLAIN


@pytest.mark.usefixtures("tape")
def test_csv_read_back_is_what_was_stored(run: Run, tmp_path: Path) -> None:
    """The same trades, with the same decimals."""
    run("csv", tmp_path / "x.csv")

    assert read_csv(tmp_path / "x.csv") == BITCOIN + ETHER


@pytest.mark.usefixtures("tape")
def test_binance_is_the_archive_byte_by_byte(run: Run, tmp_path: Path) -> None:
    """Milliseconds before 2025 and microseconds from then on; quoteQty is exact, and cut off as the exchange does."""
    assert run("csv", tmp_path / "x.csv", "--format", "binance", "--symbol", "BTCUSDT").code == 0

    assert (tmp_path / "x.csv").read_text() == ARCHIVE


@pytest.mark.usefixtures("tape")
def test_quote_quantities_are_the_exact_products(run: Run, tmp_path: Path) -> None:
    """Each one is price times quantity, without what lies beyond the eighth decimal."""
    run("csv", tmp_path / "x.csv", "--format", "binance", "--symbol", "BTCUSDT")

    rows = [line.split(",") for line in (tmp_path / "x.csv").read_text().splitlines()]
    units = [int(Decimal(price) * 10**8) * int(Decimal(quantity) * 10**8) // 10**8 for _, price, quantity, *_ in rows]
    assert [int(Decimal(row[3]) * 10**8) for row in rows] == units


@pytest.mark.usefixtures("tape")
def test_the_archive_has_a_file_for_each_symbol_and_day(run: Run, tmp_path: Path) -> None:
    """The exchange's own names; a day without a trade has no file."""
    assert run("csv", tmp_path / "x", "--format", "binance", "--partition").code == 0

    days = ["BTCUSDT-trades-2024-12-31", "BTCUSDT-trades-2025-01-01", "BTCUSDT-trades-2025-01-03"]
    days.append("ETHUSDT-trades-2025-01-01")
    assert names(tmp_path / "x") == [*(f"{day}.csv" for day in days), "_manifest.json"]
    assert "".join((tmp_path / "x" / f"{day}.csv").read_text() for day in days[:3]) == ARCHIVE


@pytest.mark.usefixtures("tape")
def test_parquet_has_the_types_that_it_promises(run: Run, tmp_path: Path) -> None:
    """decimal128(20, 8), UTC milliseconds, zstd."""
    assert run("parquet", tmp_path / "x.parquet").code == 0

    file = parquet.ParquetFile(tmp_path / "x.parquet")
    amount = pa.decimal128(20, 8)
    types = {"timestamp": pa.timestamp("ms", tz="UTC"), "trade_id": pa.int64(), "price": amount, "quantity": amount}
    types |= {"buyer_is_maker": pa.bool_(), "received_at": pa.timestamp("us", tz="UTC")}
    assert {name: file.schema_arrow.field(name).type for name in types} == types
    assert {file.metadata.row_group(0).column(i).compression for i in range(7)} == {"ZSTD"}


@pytest.mark.usefixtures("tape")
@pytest.mark.parametrize("argv", [[], ["--partition"]])
def test_parquet_read_back_is_what_was_stored(run: Run, tmp_path: Path, argv: list[str]) -> None:
    """The same trades with the same decimals, from one file and from a partitioned folder."""
    assert run("parquet", tmp_path / "x", *argv).code == 0

    assert read_parquet(tmp_path / "x") == BITCOIN + ETHER


@pytest.mark.usefixtures("tape")
def test_a_partitioned_folder_can_be_read_by_day(run: Run, tmp_path: Path) -> None:
    """Symbol and day are columns for whoever reads it."""
    run("parquet", tmp_path / "x", "--partition")

    day = parquet.read_table(tmp_path / "x", filters=[("day", "=", "2025-01-01"), ("symbol", "=", "BTCUSDT")])
    assert day["trade_id"].to_pylist() == [101, 102, 105]


@pytest.mark.usefixtures("tape")
def test_influx_is_the_whole_expected_text(run: Run, tmp_path: Path) -> None:
    """Amounts are numbers with all their digits, ids integers, and no two points have the same time stamp."""
    outcome = run("influx", tmp_path / "x.lp", "--symbol", "BTCUSDT")

    assert (tmp_path / "x.lp").read_text() == POINTS
    assert "1 amounts have more digits than a float can hold" in outcome.out
    assert manifest(tmp_path / "x.lp")["amounts_inexact_as_float"] == 1


@pytest.mark.usefixtures("tape")
def test_influx_amounts_as_text_lose_nothing(run: Run, tmp_path: Path) -> None:
    """Strings come back as the decimals that were stored, and there is nothing to warn of."""
    outcome = run("influx", tmp_path / "x.lp", "--symbol", "BTCUSDT", "--amounts", "text")

    found = re.findall(r' price="([0-9.]+)",quantity="([0-9.]+)",', (tmp_path / "x.lp").read_text())
    assert [(Decimal(price), Decimal(quantity)) for price, quantity in found] == [one[3:5] for one in BITCOIN]
    assert "float" not in outcome.out
    assert manifest(tmp_path / "x.lp")["amounts_inexact_as_float"] is None


@pytest.mark.parametrize(
    ("amount", "lost"),
    [
        ("12345678.12345678", 0),
        ("12345678.00000000", 0),
        ("99999999.99999999", 0),
        ("99999999.99999998", 1),
        ("999999999999.00000001", 1),
    ],
)
def test_inexact_counts_what_a_float_changes(amount: str, lost: int) -> None:
    """Only a number that would come back as another one counts, not one that is merely long."""
    assert lost == int(Decimal(repr(float(amount))) != Decimal(amount))
    assert formats.inexact(f"trades price={amount},quantity=1.00000000 1\n".encode()) == lost


@pytest.mark.parametrize(
    ("symbol", "in_csv", "in_influx"),
    [
        ("BTCUSDT", b"BTCUSDT,", b"BTCUSDT"),
        ('A,"B ', b'"A,""B ",', b'A\\,"B\\ '),
        ("币安", "币安,".encode(), "币安".encode()),
    ],
)
def test_any_symbol_can_be_written(symbol: str, in_csv: bytes, in_influx: bytes) -> None:
    """What would end a field is quoted or escaped, by the rules of each format."""
    assert formats.csv_prefix(symbol) == in_csv
    assert formats.influx_prefix(symbol) == b"trades,symbol=" + in_influx + b" "


# ---- Compressed, and to stdout.


@pytest.mark.usefixtures("tape")
@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["csv"], PLAIN),
        (["csv", "--format", "binance", "--symbol", "BTCUSDT"], ARCHIVE),
        (["influx", "--symbol", "BTCUSDT"], POINTS),
    ],
)
def test_the_ending_of_the_name_compresses(run: Run, tmp_path: Path, argv: list[str], expected: str) -> None:
    """Read back by other programs it is the same text; the manifest is about the file as it is."""
    kind, *options = argv
    for name in ("x.gz", "x.ZST"):
        assert run(kind, tmp_path / name, *options).code == 0

    assert gzip.decompress((tmp_path / "x.gz").read_bytes()).decode() == expected
    assert unzstd(tmp_path / "x.ZST").decode() == expected
    for name in ("x.gz", "x.ZST"):
        content = (tmp_path / name).read_bytes()
        (file,) = manifest(tmp_path / name)["files"]
        assert (file["name"], file["bytes"]) == (name, len(content))
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
    # Without a name and a time in it the same trades are the same file.
    run(kind, tmp_path / "y.gz", *options)
    assert (tmp_path / "x.gz").read_bytes() == (tmp_path / "y.gz").read_bytes()


def unzstd(path: Path) -> bytes:
    """What zstd finds in a file."""
    program = shutil.which("zstd")
    if program:
        return subprocess.run([program, "-dc", path], capture_output=True, check=True).stdout
    with pa.input_stream(str(path), compression="zstd") as stream:
        return bytes(stream.read())


@pytest.mark.usefixtures("tape")
def test_a_failure_leaves_no_compressed_file(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even under another name."""
    real = stored_lines

    def broken(*arguments: Any) -> Iterator[db_export.Chunk]:
        yield from real(*arguments)
        if arguments[1] == "ETHUSDT":
            raise db.GoneError("server has gone away")

    monkeypatch.setattr("tools.export.formats.stored_lines", broken)
    for name in ("x.csv.gz", "x.csv.zst"):
        assert Outcome(2, "", "tools.export: server has gone away\n") == run("csv", tmp_path / name)
    assert names(tmp_path) == []


@pytest.mark.usefixtures("tape")
@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["csv"], PLAIN),
        (["csv", "--format", "binance", "--symbol", "BTCUSDT"], ARCHIVE),
        (["influx", "--symbol", "BTCUSDT"], POINTS),
    ],
)
def test_stdout_has_the_rows_and_nothing_else(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], expected: str
) -> None:
    """What is missing is said on stderr, and no file is made."""
    monkeypatch.chdir(tmp_path)
    kind, *options = argv
    outcome = run(kind, "-", *options)

    assert (outcome.code, outcome.out) == (0, expected)
    assert re.search(r"^stdout: \d+ trades, ", outcome.err, re.MULTILINE)
    assert "BTCUSDT: 2 of ids 100 to 106 are not stored; see `python backfill.py --list`" in outcome.err
    assert names(tmp_path) == []


def test_a_pipe_that_ends_early_is_no_failure(many: dict[str, str]) -> None:
    """As with `| head`: no traceback, no line, exit code 0."""
    process = start(many, "csv", "-", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stderr
    assert process.stdout.readline() == formats.CSV_HEADER
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait(SUBPROCESS_S_MAX) == 0


def test_parquet_can_be_redirected(many: dict[str, str], tmp_path: Path) -> None:
    """It is written from start to end, so a pipe will do; a terminal is refused."""
    with (tmp_path / "x").open("wb") as file:
        process = start(many, "parquet", "-", "--end", "2025-01-01T00:00:00.002", stdout=file, stderr=subprocess.PIPE)
        _, err = process.communicate(timeout=SUBPROCESS_S_MAX)
    ours, theirs = os.openpty()
    refused = start(many, "parquet", "-", stdout=theirs, stderr=subprocess.PIPE)
    _, words = refused.communicate(timeout=SUBPROCESS_S_MAX)
    os.close(ours)
    os.close(theirs)

    assert (process.returncode, b"stdout: 2,000 trades" in err) == (0, True)
    assert parquet.read_table(tmp_path / "x")["trade_id"].to_pylist() == list(range(1, 2_001))
    assert (refused.returncode, words.count(b"\n")) == (2, 1)
    assert b"redirect it" in words


# ---- The range.


@pytest.mark.usefixtures("tape")
def test_a_range_includes_its_start_and_not_its_end(run: Run, tmp_path: Path) -> None:
    """The trades of the first millisecond are in it, those of the last bound are not."""
    run("csv", tmp_path / "x", "--symbol", "BTCUSDT", "--start", "2025-01-01", "--end", "2025-01-01T23:59:59.999")

    assert [one.trade_id for one in read_csv(tmp_path / "x")] == [101, 102]


@pytest.mark.usefixtures("tape")
def test_last_counts_back_from_the_newest_trade_of_each_symbol(run: Run, tmp_path: Path) -> None:
    """As in the reports."""
    run("csv", tmp_path / "x", "--last", "2d")

    assert [one.trade_id for one in read_csv(tmp_path / "x")] == [105, 106, 7]


@pytest.mark.usefixtures("tape")
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_chunks_do_not_show(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """However few rows are read at a time, the text is the same."""
    monkeypatch.setattr(db_export, "CHUNK_ROWS", rows)

    run("csv", tmp_path / "x.csv")
    run("parquet", tmp_path / "x.parquet")

    assert (tmp_path / "x.csv").read_text() == PLAIN
    assert read_parquet(tmp_path / "x.parquet") == BITCOIN + ETHER


def test_row_groups_are_bounded(run: Run, settings: config.Settings, tmp_path: Path, monkeypatch: Any) -> None:
    """More trades than a row group holds become several, and none is lost between them."""
    trades = [trade("BTCUSDT", f"2025-01-01 00:00:00.{i:03}", 1 + i, f"{i + 1} 1") for i in range(25)]
    store(settings, trades)
    monkeypatch.setattr(db_export, "CHUNK_ROWS", 2)
    run("parquet", tmp_path / "x", "--end", "2025-01-01")  # Imports what the next line changes.
    monkeypatch.setattr("storage.parquet.ROW_GROUP_ROWS", 10)

    run("parquet", tmp_path / "x")

    metadata = parquet.ParquetFile(tmp_path / "x").metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [10, 10, 5]
    assert read_parquet(tmp_path / "x") == trades


# ---- The manifest.


@pytest.mark.usefixtures("tape")
def test_the_manifest_is_the_whole_expected_document(
    run: Run, tmp_path: Path, database: str, settings: config.Settings
) -> None:
    """Counts, outermost ids, ids that are missing between them, size and SHA-256."""
    outcome = run("csv", tmp_path / "x.csv", "--end", "2025-01-03T12:00:00.501")

    text = (tmp_path / "x.csv").read_bytes()
    found = manifest(tmp_path / "x.csv")
    assert abs(datetime.now(UTC) - datetime.fromisoformat(found.pop("created_at"))) < timedelta(minutes=1)
    assert found == {
        "format": "csv",
        "database": database,
        "server": settings.server,
        "made_up": False,
        "start": None,
        "end": "2025-01-03T12:00:00.501Z",
        "rows": 6,
        "amounts_inexact_as_float": None,
        "symbols": [
            {
                "symbol": "BTCUSDT",
                "rows": 5,
                "first_trade_id": 100,
                "last_trade_id": 106,
                "ids_missing_in_range": 2,
                "ids_missing": 2,
            },
            {
                "symbol": "ETHUSDT",
                "rows": 1,
                "first_trade_id": 7,
                "last_trade_id": 7,
                "ids_missing_in_range": 0,
                "ids_missing": 0,
            },
        ],
        "files": [{"name": "x.csv", "rows": 6, "bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}],
    }
    assert "6 trades" in outcome.out
    assert "BTCUSDT: 2 of ids 100 to 106 are not stored" in outcome.out


@pytest.mark.usefixtures("tape")
@pytest.mark.parametrize("kind", ["csv", "parquet", "influx"])
def test_the_manifest_of_a_folder_has_every_file(run: Run, tmp_path: Path, kind: str) -> None:
    """With the SHA-256 of each, as sha256sum prints it."""
    run(kind, tmp_path / "x", "--partition")

    files = {file["name"]: file for file in manifest(tmp_path / "x")["files"]}
    assert [*sorted(files), "_manifest.json"] == sorted(names(tmp_path / "x"), key=lambda name: name[0] == "_")
    for name, file in files.items():
        content = (tmp_path / "x" / name).read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert sum(file["rows"] for file in files.values()) == 6


# ---- A file appears whole or not at all.


@pytest.mark.usefixtures("tape")
@pytest.mark.parametrize("argv", [[], ["--partition"]])
def test_nothing_is_overwritten_without_force(run: Run, tmp_path: Path, argv: list[str]) -> None:
    """The first export stays as it is; --force replaces it, and nothing else is left."""
    run("csv", tmp_path / "x", *argv, "--symbol", "ETHUSDT")
    before = names(tmp_path)

    refused = run("csv", tmp_path / "x", *argv)
    kept = manifest(tmp_path / "x")["rows"]
    replaced = run("csv", tmp_path / "x", *argv, "--symbol", "ETHUSDT", "--force")

    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--force" in refused.err
    assert (1, 0, before) == (kept, replaced.code, names(tmp_path))


@pytest.mark.usefixtures("tape")
def test_force_never_removes_a_folder_that_is_no_export(run: Run, tmp_path: Path) -> None:
    """A slip of the keyboard costs nothing."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.txt").write_text("all of it")

    for argv in (["--partition"], []):
        assert run("csv", tmp_path / "x", "--force", *argv).code == 2
    assert names(tmp_path) == ["x/thesis.txt"]


@pytest.mark.usefixtures("tape")
@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("argv", [[], ["--partition"]])
def test_a_failure_leaves_what_was_there(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, argv: list[str]
) -> None:
    """The database goes away in the middle: one line, the earlier export untouched, no half file beside it."""
    run("csv", tmp_path / "x", *argv)
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    real = stored_lines

    def broken(*arguments: Any) -> Iterator[db_export.Chunk]:
        yield from real(*arguments)
        if arguments[1] == "ETHUSDT":
            raise db.GoneError("server has gone away")

    monkeypatch.setattr("tools.export.formats.stored_lines", broken)
    outcome = run(kind, tmp_path / "x", "--force", *argv)

    assert Outcome(2, "", "tools.export: server has gone away\n") == outcome
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before


@pytest.mark.usefixtures("tape")
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_full_disk_is_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """And nothing is left to fill it."""

    def full(self: export_files.Output, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(export_files.Output, "write", full)
    outcome = run(kind, tmp_path / "x")

    assert Outcome(2, "", f"tools.export: {tmp_path / 'x'}: No space left on device\n") == outcome
    assert names(tmp_path) == []


# ---- Mistakes.


@pytest.mark.usefixtures("tape")
@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "usage|required"),
        (["csv"], "OUT"),
        (["xml", "x"], "invalid choice"),
        (["csv", "{x}", "--symbol", "DOGEUSDT"], "no trade of DOGEUSDT .* BTCUSDT, ETHUSDT"),
        (["csv", "{x}", "--start", "tomorrow"], "'tomorrow' is not a time"),
        (["csv", "{x}", "--start", "2025-01-02", "--end", "2025-01-02"], "--start must be before --end"),
        (["csv", "{x}", "--last", "1h", "--start", "2025-01-02"], "either --start and --end, or --last"),
        (["csv", "{x}", "--end", "2020-01-01"], "no trade is stored in that range"),
        (["csv", "{x}", "--start", "2025-01-02", "--end", "2025-01-03"], "no trade is stored in that range"),
        (["csv", "{x}", "--format", "binance"], "one --symbol, or --partition"),
        (["csv", "{x}/y/z.csv"], "folder .*/y does not exist"),
        (["parquet", "{x}", "--format", "binance"], "unrecognized"),
        (["csv", "-", "--partition"], "--partition does not go with -"),
        (["csv", "-", "--force"], "--force does not go with -"),
        (["csv", "-", "--symbol", "BTCUSDT", "--end", "2020-01-01"], "no trade is stored in that range"),
        (["csv", "{x}.gz", "--partition"], "would be a folder, .* leave out .gz"),
        (["parquet", "{x}.zst"], "Parquet is compressed by itself: leave out .zst"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(run: Run, tmp_path: Path, argv: list[str], words: str) -> None:
    """It says what to do, and no file is made."""
    outcome = run(*(one.format(x=tmp_path / "x") for one in argv))

    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert re.search(words, outcome.err)
    assert names(tmp_path) == []


def test_made_up_trades_must_be_asked_for(run: Run, settings: config.Settings, tmp_path: Path) -> None:
    """The demo does not stand in for a database without trades, and its manifest says what it is."""
    store(settings, [])
    store(config.demo_of(settings), ETHER)
    try:
        refused, made = run("csv", tmp_path / "x"), run("csv", tmp_path / "x", "--demo")
    finally:
        with closing(db.connect(settings)) as connection:
            ask(connection, f"DROP DATABASE {settings.mysql_database}_demo")

    assert (refused.code, "--demo" in refused.err) == (2, True)
    assert (made.code, manifest(tmp_path / "x")["made_up"]) == (0, True)


@pytest.mark.usefixtures("tape")
def test_parquet_without_its_package_is_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the command that installs it."""
    monkeypatch.delitem(sys.modules, "storage.parquet", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    outcome = run("parquet", tmp_path / "x")

    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "pip install -r requirements-tools.txt" in outcome.err
    assert names(tmp_path) == []


# ---- The statements, and a table of some size.


@pytest.mark.usefixtures("tape")
@pytest.mark.parametrize("layout", formats.FORMATS)
def test_the_rows_come_by_the_index(settings: config.Settings, layout: str) -> None:
    """Neither a full scan nor a sort nor a temporary table."""
    layout = formats.FORMATS[layout].layout
    with closing(db.connect(settings)) as connection:
        connection.asked = []
        list(db_export.lines(connection, "BTCUSDT", BITCOIN[0].timestamp, BITCOIN[1].timestamp, layout))
        plans = [str(ask(connection, f"EXPLAIN {statement}")) for statement in connection.asked]
    # The rows are counted, then read.
    assert len(plans) == 2
    for plan in plans:
        assert "range" in plan
        assert "PRIMARY" in plan
        assert not re.search("filesort|temporary|Sort:", plan)


def test_a_reader_that_stops_early_leaves_no_broken_connection(settings: config.Settings) -> None:
    """The connection is closed, so that nobody takes the rest of the rows for an answer of their own."""
    store(settings, BITCOIN)
    with closing(db.connect(settings)) as connection:
        lines = db_export.lines(connection, "BTCUSDT", BITCOIN[0].timestamp, BITCOIN[-1].timestamp, db_export.PLAIN)
        next(lines)
        lines.close()  # type: ignore[attr-defined]
        assert not connection.is_connected()


@pytest.fixture
def many(any_server: Server, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a script that finds MANY_ROWS trades, of the same second."""
    settings = any_server.settings(f"test_many_{os.getpid()}", tmp_path)
    with closing(db.connect(settings, read_s_max=SUBPROCESS_S_MAX)) as connection:
        digits = " CROSS JOIN ".join(
            f"(SELECT 0 d{' UNION ALL SELECT '.join(['', *'123456789'])}) t{i}" for i in range(6)
        )
        number = "+".join(f"t{i}.d*{10**i}" for i in range(6))
        ask(
            connection,
            "INSERT INTO trades SELECT 'BTCUSDT', '2025-01-01' + INTERVAL n DIV 1000 * 1000 MICROSECOND, 1 + n,"
            f" 61837.63, 0.00108, n % 2, NULL FROM (SELECT {number} AS n FROM {digits}) AS x WHERE n < {MANY_ROWS}",
        )
    own = {"MYSQL_DATABASE": settings.mysql_database, "DATA_DIR": str(tmp_path)}
    yield os.environ | any_server.environ | own
    with closing(db.connect(settings)) as connection:
        ask(connection, f"DROP DATABASE {settings.mysql_database}")


def start(environment: dict[str, str], *argv: object, **options: Any) -> subprocess.Popen[bytes]:
    """`python -m tools.export` as users run it."""
    command = [sys.executable, "-m", "tools.export", *map(str, argv)]
    return subprocess.Popen(command, env=environment, cwd=ROOT, **options)


PEAK = """
import sys
from tools.export.__main__ import main
code = main(sys.argv[1:])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(code)
"""
"""Runs an export, and says how many KB it had in memory at most; wait4() would count this process before the exec."""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of the memory is read from /proc")
@pytest.mark.parametrize("kind", ["csv", "parquet", "influx"])
def test_memory_does_not_grow_with_the_table(many: dict[str, str], tmp_path: Path, kind: str) -> None:
    """Twice as many trades take no more memory, and never more than 150 MB."""
    peaks = []
    for argv in (["--end", "2025-01-01T00:00:00.150"], []):
        command = [sys.executable, "-c", PEAK, kind, str(tmp_path / "x"), *argv, "--force"]
        done = subprocess.run(command, env=many, cwd=ROOT, capture_output=True, text=True, timeout=SUBPROCESS_S_MAX)
        assert (done.returncode, done.stderr) == (0, "")
        peaks.append(int(done.stdout.split()[-1]))

    assert manifest(tmp_path / "x")["rows"] == MANY_ROWS
    assert peaks[1] < PEAK_KB_MAX
    assert peaks[1] - peaks[0] < MANY_ROWS // 2 * 60 // 1024


def test_terminated_it_leaves_nothing(many: dict[str, str], tmp_path: Path) -> None:
    """SIGTERM in the middle removes what is half written."""
    folder = tmp_path / "out"
    folder.mkdir()
    process = start(many, "influx", folder / "x")
    deadline = time.monotonic() + SUBPROCESS_S_MAX
    while not names(folder) and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)

    assert process.wait(SUBPROCESS_S_MAX) == 130
    assert names(folder) == []


def test_a_terminal_sees_the_progress(many: dict[str, str], tmp_path: Path) -> None:
    """How many of all trades are written; a pipe sees nothing of it."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(ours, (24, 80))
    process = start(many, "csv", tmp_path / "x", stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    seen = b""
    try:
        while piece := os.read(ours, 4096):
            seen += piece
    except OSError:
        pass  # That is how a terminal ends.
    os.close(ours)
    out, _ = process.communicate(timeout=SUBPROCESS_S_MAX)
    piped = start(many, "csv", tmp_path / "y", stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    assert re.search(rb"100%.* 300k/300k .* trades/s", seen)
    assert b"300,000 trades" in out
    assert piped.communicate(timeout=SUBPROCESS_S_MAX)[1] == b""


def test_help_is_the_docstring() -> None:
    """The first line of --help says what it does."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.export", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (export.__doc__ or "").strip() in done.stdout


def missing(ids: int) -> dict[str, int]:
    """How many are missing between the exported ones, and in the whole range, where both are the same."""
    return {"ids_missing_in_range": ids, "ids_missing": ids}


@pytest.mark.usefixtures("tape")
def test_an_answer_that_was_cut_short_is_no_export(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a limit on rows, which may also be that of a proxy: the export fails and leaves nothing."""
    real = db_export._ask

    def limited(connection: db.Connection, sql: str, parameters: tuple[Any, ...]) -> Any:
        return real(connection, f"{sql} LIMIT 1", parameters)

    monkeypatch.setattr(db_export, "_ask", limited)
    outcome = run("csv", str(tmp_path / "x.csv"))

    assert outcome.code == 2
    assert "the server gave 1 of the 2 trades of BTCUSDT" in outcome.err
    assert "sql_select_limit" in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("tape")
def test_what_is_missing_at_the_edges_is_in_the_manifest(run: Run, tmp_path: Path) -> None:
    """The gap reaches into the range, but not one of the exported ids is behind it."""
    outcome = run(
        "csv", str(tmp_path / "x.csv"), "--symbol", "BTCUSDT", "--end", "2025-01-02T12:00", "--start", "2025-01-01"
    )
    (part,) = manifest(tmp_path / "x.csv")["symbols"]
    inside = run("csv", str(tmp_path / "y.csv"), "--symbol", "BTCUSDT", "--end", "2025-01-01T12:00")

    assert (part["rows"], part["ids_missing"], part["ids_missing_in_range"]) == (3, 2, 2)
    assert (inside.code, outcome.code) == (0, 0)
    (part,) = manifest(tmp_path / "y.csv")["symbols"]
    assert (part["rows"], part["ids_missing"], part["ids_missing_in_range"]) == (3, 0, 2)
    assert "up to 2 are missing in that range" in inside.out
