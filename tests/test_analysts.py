"""docs/analysts.md: its recipes run, print what the page shows, and say what SQL says."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import parquet  # type: ignore[import-untyped]

import config
import db
from model.amounts import average_price
from model.times import midnight
from process.child import ROOT
from tests.makers import BTC
from tests.support.moved import ONE_DAY, days, fill, move, tape
from tests.support.servers import Server
from tests.support.tables import ask, plain_bars, runs, stored
from tools.export import __main__ as export

PAGE = ROOT / "docs" / "analysts.md"
RUN_S_MAX = 90
DAYS = days(1, 2)


def recipes() -> list[tuple[str, str]]:
    """Each block of code, and what is shown below it."""
    found: list[tuple[str, str]] = re.findall(
        r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL
    )
    return found


def printed(code: str, folder: Path) -> str:
    """What a block of code prints that is run in `folder`."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | {"TZ": "America/New_York"},
        capture_output=True,
        text=True,
        timeout=RUN_S_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def connection(any_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[db.Connection]:
    """A database whose second and third day are in files, in the folders that the page names."""
    name, folder = "test_analysts", tmp_path_factory.mktemp("analysts")
    opened = db.connect(any_server.settings(name, folder))
    opened.files = folder / "data" / "parquet" / "binance"
    fill(opened, tape())
    for day in DAYS:
        move(opened, day, keep_rows=True)
    yield opened
    ask(opened, f"DROP DATABASE {name}")
    db.close(opened)


@pytest.mark.parametrize("place", range(5))
def test_a_recipe_prints_what_the_page_shows(connection: db.Connection, place: int) -> None:
    """In whatever time zone its reader lives."""
    code, shown = recipes()[place]
    assert printed(code, connection.files.parents[2]) == shown


def test_the_page_says_what_sql_says(connection: db.Connection) -> None:
    """The known trades by SQL and by the plain definition, beside the text of the page."""
    page = [shown for _, shown in recipes()]
    assert len(page) == 5
    bounds = [when.replace(tzinfo=None) for when in (midnight(DAYS[0]), midnight(DAYS[1]))]
    within = "FROM trades WHERE symbol = %s AND timestamp >= %s AND timestamp < %s"
    sums = "COUNT(*), MIN(price), MAX(price), SUM(quantity), SUM(price * quantity)"
    ((count, low, high, volume, quote),) = ask(connection, f"SELECT {sums} {within}", BTC, *bounds)
    average = average_price(quote, volume)
    assert page[0] == f"{count} trades, low {low}, high {high}, volume {volume}, average {average}\n"
    in_days = [trade for trade in stored(connection) if DAYS[0] <= trade.timestamp.date() <= DAYS[1]]
    bars = plain_bars(in_days, 60)[:3]
    prices = [f"{bar.open:.8f} {bar.high:.8f} {bar.low:.8f} {bar.close:.8f}" for bar in bars]
    times = [f"{bar.timestamp:%H:%M}" for bar in bars]
    of_bars = zip(times, prices, bars, strict=True)
    assert page[1].splitlines() == [f"{DAYS[0]} {at} {text} {bar.volume:.8f} {bar.trades}" for at, text, bar in of_bars]
    ids = [trade.trade_id for trade in in_days]
    missing = [run for run in runs(connection) if min(ids) < run[0] and run[1] < max(ids)]
    total = sum(last - first + 1 for first, last in missing)
    assert page[2] == f"{total} ids are missing, in {len(missing)} runs; the first: {missing[0]}\n"
    both = [f"low {low}, high {high}, quote volume {quote:.16f}"]
    both += [f"{at} {text}" for at, text in zip(times, prices, strict=True)]
    assert page[3].splitlines() == page[4].splitlines() == both


def test_an_export_has_the_same_files(
    connection: db.Connection, any_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same folders, with the same columns and rows, though it reads the table."""
    ask(connection, "UPDATE retained SET state = 'restored'")
    settings = any_server.settings("test_analysts", tmp_path)
    monkeypatch.setattr(config, "load", lambda: settings)
    out = tmp_path / "out"
    span = ("--start", str(DAYS[0]), "--end", str(DAYS[1] + ONE_DAY))
    assert export.main(["parquet", str(out), "--partition", *span]) == 0
    found = sorted(path.relative_to(out) for path in out.rglob("*.parquet"))
    assert found == sorted(path.relative_to(connection.files) for path in connection.files.rglob("*.parquet"))
    for path in found:
        assert parquet.read_table(out / path).equals(parquet.read_table(connection.files / path))
