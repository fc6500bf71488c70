"""The commands and the API, as users run them: whatever is asked of old days, the answer is the same when they are in
files; and where a file cannot be read, one line names it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import config
import db
import query_examples
from model.trade import Trade
from tests.makers import BTC
from tests.support.child import wait_until
from tests.support.moved import days, fill, move, tape
from tests.support.servers import Server
from tests.support.serving import serving
from tools.export import __main__ as export

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

DAY_1, DAY_2 = "2025-03-02", "2025-03-03"
RANGE = (f"{DAY_1}T06:00:01.5Z", f"{DAY_2}T18:00:59Z")
QUESTIONS = (
    ("--json", "at", f"{DAY_1}T12:00:00"),
    ("--json", "at", f"{DAY_1}T12:00:00.500"),
    ("--json", "range", *RANGE),
    ("--json", "vwap", *RANGE),
    ("--json", "candles", "1s", "--count", "200"),
    ("--json", "report"),
)
EXPORTS = (("csv",), ("csv", "--format", "binance"), ("parquet",), ("influx",), ("csv", "--partition"))
ADDRESSES: tuple[tuple[str, dict[str, object]], ...] = (
    ("/api/symbols", {}),
    (f"/api/trades/{BTC}", {"start": f"{DAY_1}T00:00:00Z", "end": f"{DAY_2}T12:00:00Z", "limit": 700}),
    (f"/api/trades/{BTC}/by-id", {"first_id": 1_390, "last_id": 1_900}),
    (f"/api/trades/{BTC}/by-id", {"first_id": 1, "last_id": 2_000_000, "limit": 900}),
    (f"/api/at/{BTC}", {"time": f"{DAY_1}T07:00:00Z"}),
    (f"/api/range/{BTC}", {"start": f"{DAY_1}T06:00:01.5Z", "end": f"{DAY_2}T18:00:59Z"}),
    (f"/api/vwap/{BTC}", {"start": f"{DAY_1}T06:00:01.5Z", "end": f"{DAY_2}T18:00:59Z"}),
    (f"/api/candles/{BTC}", {"resolution": "1s", "start": f"{DAY_1}T06:00:00Z", "end": f"{DAY_1}T07:00:00Z"}),
    (f"/api/export/{BTC}.csv", {}),
    (f"/api/coverage/{BTC}", {"from": "2025-03-01", "to": "2025-03-05"}),
    (f"/api/candles/{BTC}", {"resolution": "1h", "start": f"{DAY_1}T00:00:00Z", "end": f"{DAY_2}T18:00:00Z"}),
)
MOVED = days(1, 2)


@pytest.fixture
def whole(connection: db.Connection, settings: config.Settings, monkeypatch: pytest.MonkeyPatch) -> list[Trade]:
    """A tape in the table; the commands read its database."""
    monkeypatch.setattr(config, "load", lambda: settings)
    found = tape()
    fill(connection, found)
    return found


def run(
    main: Callable[..., int], capsys: pytest.CaptureFixture[str], *argv: object, **more: Any
) -> tuple[int, str, str]:
    """What a command returns and writes."""
    capsys.readouterr()
    code = main([str(one) for one in argv], **more)
    return code, *capsys.readouterr()


def test_the_reports(connection: db.Connection, whole: list[Trade], capsys: pytest.CaptureFixture[str]) -> None:
    """In text, and as JSON, whose statements say which file was read."""
    now = whole[-1].timestamp

    def answers() -> list[Any]:
        found = []
        for argv in QUESTIONS:
            code, out, err = run(query_examples.main, capsys, *argv, now=now)
            assert (code, err) == (0, "")
            found += json.loads(out)["answers"]
        return found

    before = answers()
    for day in MOVED:
        move(connection, day)
    after = answers()
    remarks = [line for one in after for line in one["sql"] if line.startswith("-- ")]
    assert {line.partition(" are in ")[0] for line in remarks} == {
        "-- the trades of BTCUSDT of 2025-03-02",
        "-- the trades of BTCUSDT of 2025-03-03",
    }
    # A plain statement finds nothing of a day in a file, so there is none then.
    assert [one.get("plain_sql", "") is None for one in after[:3]] == [False, False, True]
    for one in (*before, *after):
        del one["sql"]
        one.pop("plain_sql", None)
    assert after == before


def test_the_exports(
    connection: db.Connection, whole: list[Trade], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each file byte for byte, and its manifest."""

    def exported(folder: Path) -> dict[str, object]:
        folder.mkdir()
        for number, argv in enumerate(EXPORTS):
            assert run(export.main, capsys, argv[0], folder / f"out-{number}", *argv[1:])[0] == 0
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        texts: dict[str, object] = {str(path.relative_to(folder)): path.read_bytes() for path in files}
        for name, text in texts.items():
            if isinstance(text, bytes) and name.endswith("manifest.json"):
                texts[name] = json.loads(text) | {"created_at": ""}
        return texts

    before = exported(tmp_path / "before")
    for day in MOVED:
        move(connection, day)
    assert exported(tmp_path / "after") == before
    assert len(before) == 14


def test_a_file_that_is_gone_ends_a_command_with_one_line(
    connection: db.Connection, whole: list[Trade], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which names it; an export leaves nothing behind."""
    path = move(connection, MOVED[0])
    path.unlink()
    out = tmp_path / "trades.csv"
    for main, argv in ((query_examples.main, ["at", f"{DAY_1}T12:00:00"]), (export.main, ["csv", str(out)])):
        code, _, err = run(main, capsys, *argv)
        assert code == 2
        assert err.count("\n") == 1
        assert str(path) in err
    assert not list(tmp_path.glob("*trades.csv*"))
    code, _, _ = run(query_examples.main, capsys, "candles", "1h", "--count", "80", now=whole[-1].timestamp)
    assert code == 0


def test_the_api(connection: db.Connection, whole: list[Trade], server: Server, settings: config.Settings) -> None:
    """Each answer, page by page and as a download; then 503 with a line that names the file."""
    environ = server.environ | {"MYSQL_DATABASE": settings.mysql_database, "DATA_DIR": str(settings.data_dir)}

    def answers() -> list[tuple[Any, ...]]:
        with serving(environ) as api:
            wait_until(lambda: api.get("/api/symbols").status == 200)
            return [api.get(path, query=query)[::2] for path, query in ADDRESSES]

    before = answers()
    assert [one[0] for one in before] == [200] * len(ADDRESSES)
    path, *_ = [move(connection, day) for day in MOVED]
    assert answers() == before
    path.unlink()
    with serving(environ) as api:
        wait_until(lambda: api.get("/api/symbols").status == 200)
        refused = api.get(f"/api/at/{BTC}", query={"time": f"{DAY_1}T07:00:00Z"})
        assert refused.status == 503
        assert str(path) in refused.body["detail"]
        assert api.get(f"/api/at/{BTC}", query={"time": f"{DAY_2}T07:00:00Z"}).status == 200
