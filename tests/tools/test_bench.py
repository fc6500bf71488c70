"""The benchmark: each part runs in a tiny size on both families, its figures are whole, and nothing is left behind."""

import contextlib
import io
import itertools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import websocket

import ws_client
from binance import rest
from binance.limits import Cooldown
from process.child import ROOT
from tests.support.servers import find_server, short_folder
from tools.bench import __main__ as bench
from tools.bench import backfill, latency, queries, stage
from tools.bench import feed as bench_feed
from tools.bench.figures import Figure, at_least, at_most, number, table
from tools.bench.stage import Feed, Look
from tools.lab.children import RigError

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

FAMILIES = ("mariadb", "mysql")
HELP_S_MAX = 30
BOUNDS = {
    ("ingest", "capture / nothing"): (0.8, 1, True),
    ("ingest", "two connections / nothing"): (0.6, 0.75, True),
    ("ingest", "capture / one by one"): (35, 50, True),
    ("latency", "send to visible, p50"): (2, 1, False),
    ("latency", "send to visible, p99"): (10, 5, False),
    ("latency", "server's time / one by one"): (1.3, 1, False),
    ("network", "5 ms away / direct"): (0.9, 1, True),
    ("live", "min_max up to now, p99"): (15, 5, False),
    ("live", "VWAP up to now, p99"): (15, 5, False),
    ("live", "open candle, p99"): (15, 5, False),
    ("symbols", "resident, 2 symbols at 5,000/s"): (60, 46, False),
    ("symbols", "resident, 400 symbols at 5,000/s"): (90, 70, False),
    ("symbols", "resident, 1,500 symbols at 5,000/s"): (150, 100, False),
    ("symbols", "growth in 600 s, 1,500 symbols at 5,000/s"): (1, 1, False),
    ("symbols", "lag p99, 1,500 symbols at 5,000/s"): (50, 50, False),
    ("symbols", "all have a stored trade after, 1,500 symbols at 5,000/s"): (60, 20, False),
    ("symbols", "resident, 1,500 symbols at 10,000/s"): (150, 100, False),
    ("symbols", "growth in 60 s, 1,500 symbols at 10,000/s"): (1, 1, False),
    ("symbols", "lag p99, 1,500 symbols at 10,000/s"): (50, 50, False),
    ("symbols", "all have a stored trade after, 1,500 symbols at 10,000/s"): (60, 20, False),
    ("memory", "resident at 5,000 trades/s"): (100, 70, False),
    ("memory", "resident while the database hangs"): (150, 150, False),
    ("memory", "CPU at 200 trades/s"): (4, 2, False),
    ("backfill", "back-fill / LOAD DATA"): (0.35, 0.5, True),
    ("backfill", "replay / LOAD DATA"): (0.25, 0.5, True),
    ("history", "import / LOAD DATA"): (0.4, 0.7, True),
    ("history", "a large day imported"): (60, 25, False),
    ("history", "a large day audited"): (20, 10, False),
    ("history", "memory of the import"): (150, 100, False),
    ("history", "memory of the audit"): (150, 100, False),
    ("history", "one altered row is named"): (1, 1, True),
    ("export", "export / mysql --batch"): (0.5, 1, True),
    ("api", "latest, p99"): (50, 25, False),
    ("api", "answers that were not good"): (0, 0, False),
    ("api", "with it / without it"): (2, 1.5, False),
    ("api", "latest of all 1,500 symbols in one request"): (50, 10, False),
    ("queries", "latest / SELECT 1"): (4, 2, False),
    ("queries", "at-second / SELECT 1"): (4, 2, False),
    ("queries", "scan / min_max"): (5_000, 5_700, True),
    ("queries", "scan / VWAP"): (5_000, 5_700, True),
    ("queries", "VWAP / min_max"): (2, 1, False),
    ("queries", "min_max, 2 days / 1 hour"): (3, 1.5, False),
    ("queries", "Grafana's slowest query, 6 hours"): (1_000, 100, False),
    ("queries", "Grafana's slowest query, 3 days"): (1_000, 100, False),
    ("queries", "Grafana's slowest query, 30 days"): (1_000, 100, False),
    ("retention", "table, largest / first day"): (1.05, 1.02, False),
}
"""What the project promises: per figure what it must reach, what it aims at, and whether more is better."""


class Outcome(NamedTuple):
    """What a run gave. `left`: the names of files and the command lines of processes that it left."""

    code: int
    out: str
    document: Any
    left: list[str]


def children() -> set[str]:
    """The processes whose parent is this one."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        # One that ends while it is looked at is none.
        with contextlib.suppress(OSError):
            pid, _, rest = stat.read_text().partition(" (")
            found |= {pid} if int(rest.rpartition(")")[2].split()[1]) == os.getpid() else set()
    return found


def command_lines() -> list[str]:
    """What all processes were started with."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(line.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


def measured(folder: Path, *arguments: str) -> Outcome:
    """The outcome of the command in this process, its files below `folder`."""
    path, out, before = folder / "out.json", io.StringIO(), children()
    with short_folder() as disk, pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr(bench, "DISK", disk)
        patch.setattr(bench, "KEPT", folder / "kept")
        code = bench.main([*arguments, "--json", str(path)])
        left = [entry.name for entry in disk.iterdir()]
        left += sorted(children() - before)
        left += [line for line in command_lines() if str(disk) in line]
    return Outcome(code, out.getvalue(), json.loads(path.read_text()) if path.exists() else None, left)


@pytest.fixture(scope="module", params=FAMILIES)
def outcome(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """All parts, on a server of each family in turn."""
    found = find_server(request.param)
    if isinstance(found, str):
        pytest.skip(f"no {request.param}: {found}")
    return measured(tmp_path_factory.mktemp("bench"), "--quick", "--family", request.param)


@pytest.fixture
def feed() -> Iterator[Feed]:
    """A feeder of one symbol."""
    with Feed("BTCUSDT") as running:
        yield running


@contextlib.contextmanager
def streams(feed: Feed, *groups: str) -> Iterator[list[websocket.WebSocket]]:
    """A connection for each of `groups`; closed without a goodbye, to which the feeder has no answer."""
    connections = [websocket.create_connection(f"{feed.ws}/{group}/stream", timeout=10) for group in groups]
    for group in set(groups):
        feed.order("wait", to=group, connections=groups.count(group))
    yield connections
    for connection in connections:
        connection.shutdown()  # type: ignore[no-untyped-call]


def figures_of(outcome: Outcome, part: str) -> list[Any]:
    return [figure for figure in outcome.document["figures"] if figure["part"] == part]


# ---- Whole runs.


@pytest.mark.timeout(300)
def test_run_succeeds_and_leaves_nothing(outcome: Outcome) -> None:
    """No part fails, and neither a file nor a process of it remains."""
    assert (outcome.code, outcome.document["failed"], outcome.left) == (0, {}, [])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", list(bench.PARTS))
def test_part_gives_figures(outcome: Outcome, part: str) -> None:
    """Each figure of each part has positive values, their median and range, and a verdict where it has bounds."""
    figures = figures_of(outcome, part)
    assert figures
    for figure in figures:
        assert all(math.isfinite(value) and value >= 0 for value in figure["values"])
        assert figure["unit"]
        assert min(figure["values"]) == figure["min"] <= figure["median"] <= figure["max"] == max(figure["values"])
        assert figure["verdict"] in (("aim", "must", "MISSED") if "must" in figure else ("",))
    assert any(figure["median"] > 0 for figure in figures)


@pytest.mark.timeout(300)
def test_bounds_are_those_that_were_promised(outcome: Outcome) -> None:
    """Every promised figure is there, with its two bounds and their direction."""
    found = {
        (figure["part"], figure["name"].partition(", M")[0]): (figure["must"], figure["aim"], figure["at_least"])
        for figure in outcome.document["figures"]
        if "must" in figure
    }
    must = {"mariadb": 1.1, "mysql": 1.15}[outcome.document["family"]]
    assert found == BOUNDS | {("latency", "capture / one by one, p50"): (must, 1, False)}


@pytest.mark.timeout(300)
def test_document_names_what_was_measured_on(outcome: Outcome) -> None:
    """The JSON has the server, the machine, the versions and the time that each part took."""
    document = outcome.document
    assert document["server"].startswith({"mariadb": "MariaDB ", "mysql": "MySQL "}[document["family"]])
    assert document["quick"] is True
    assert set(document["machine"]) == {
        "cpu",
        "cores",
        "memory_mb",
        "load_before",
        "system",
        "file_system",
        "python",
        "packages",
        "c_extension",
    }
    assert set(document["seconds"]) == {*bench.PARTS, "all"}


@pytest.mark.timeout(300)
def test_table_shows_each_figure_beside_its_bounds(outcome: Outcome) -> None:
    """What is printed has a line per figure, with its median and what it must reach."""
    lines = outcome.out.splitlines()
    width = max(len(name) for name in bench.PARTS)
    for figure in outcome.document["figures"]:
        (line,) = [line for line in lines if line.startswith(f"{figure['part']:{width}}  {figure['name']}  ")]
        assert number(figure["median"]) in line
        assert "must" not in figure or f" {number(figure['must'])} " in line


@pytest.mark.timeout(300)
def test_kept_table_is_used_again(tmp_path: Path) -> None:
    """With --keep the table of the queries is built once, and the second time is found and asked."""
    first, second = (measured(tmp_path, "queries", "--quick", "--keep") for _ in range(2))

    names = [[figure["name"] for figure in figures_of(one, "queries")] for one in (first, second)]
    assert (first.code, second.code) == (0, 0)
    assert names[0] == ["building: LOAD DATA", "building: sealing", *names[1]]


def test_failed_part_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A part that fails does not take the others along; the exit code and one line tell of it."""

    def fail(_bench: stage.Bench) -> list[Figure]:
        raise RigError("the run does not count")

    monkeypatch.setattr(bench, "PARTS", {"ingest": fail, "memory": lambda _: [Figure("memory", "size", "MB", [1.0])]})

    outcome = measured(tmp_path)
    assert (outcome.code, outcome.document["failed"]) == (1, {"ingest": "the run does not count"})
    assert [figure["name"] for figure in outcome.document["figures"]] == ["size"]
    assert "tools.bench: ingest failed: the run does not count" in capsys.readouterr().err


def test_missing_server_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a server of the family nothing is tried."""
    monkeypatch.setattr(bench, "find_server", lambda family: f"no {family} here")

    assert bench.main(["--family", "mysql"]) == 2
    assert capsys.readouterr().err == "tools.bench: no mysql here\n"


@pytest.mark.parametrize(
    ("arguments", "code", "words"), [(["--help"], 0, "queries"), (["speed"], 2, "'speed' is not a part")]
)
def test_command_line(arguments: list[str], code: int, words: str) -> None:
    """Help names the parts; an unknown part is refused."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.bench", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=HELP_S_MAX
    )
    assert done.returncode == code
    assert words in done.stdout + done.stderr


# ---- The feed.


def test_frames_are_trades_of_the_tape(feed: Feed) -> None:
    """What is sent parses into the trades of the tape, in order, the second time from where the first ended."""
    parsed = []
    with streams(feed, "group") as (connection,):
        for count in (30, 20):
            last = feed.order("prepare", trades=count)
            feed.order("send", to="group")
            parsed += [ws_client.parse_trade(connection.recv(), None) for _ in range(count)]

    tape = list(itertools.islice(bench_feed.trades(("BTCUSDT",)), 50))
    assert [trade._replace(received_at=None) for trade in map(backfill.as_streamed, tape)] == parsed
    assert last["last_id"] == parsed[-1].trade_id


def test_group_gets_what_is_sent_to_it_alone(feed: Feed) -> None:
    """Both connections of a group get each frame, another group none, and a share is the beginning."""
    with streams(feed, "pair", "pair", "other") as (one, two, other):
        feed.order("prepare", trades=5)
        feed.order("send", to="pair")
        frames = [one.recv() for _ in range(5)]
        assert [two.recv() for _ in range(5)] == frames

        feed.order("prepare", trades=5)
        feed.order("send", to="other", trades=1)
        feed.order("send", to="other", trades=1)
        new = other.recv()
        assert new not in frames
        assert other.recv() == new


def test_pace_is_kept_and_told(feed: Feed) -> None:
    """A hundred trades at 1,000 a second take a tenth of a second at least, and each send is noted in its order."""
    with streams(feed, "group") as (connection,):
        feed.order("prepare", trades=100)
        sent = feed.order("pace", to="group", rate=1_000, symbol="BTCUSDT")
        received = [json.loads(connection.recv())["data"]["t"] for _ in range(100)]

    assert sent["ids"] == received
    assert sent["sent_ns"] == sorted(sent["sent_ns"])
    assert sent["sent_ns"][-1] - sent["sent_ns"][0] >= 0.098e9


def test_rest_pages_are_the_tape(feed: Feed) -> None:
    """The back-fill's own client gets the prepared rows, from the id that it asks for."""
    feed.order("prepare", trades=2_500, rest=True)
    client = rest.Rest(feed.http, Cooldown())
    tape = [backfill.as_streamed(trade) for trade in itertools.islice(bench_feed.trades(("BTCUSDT",)), 2_500)]

    page = client.fetch_trades("BTCUSDT", tape[1_700].trade_id)
    client.close()
    assert page.refused == []
    assert page.trades == [trade._replace(received_at=None) for trade in tape[1_700:2_500]]


def test_feeder_ends_with_its_input() -> None:
    """A feeder whose parent is gone ends by itself."""
    child = subprocess.run(
        [sys.executable, "-m", "tools.bench.feed"], cwd=ROOT, input=b"", capture_output=True, timeout=HELP_S_MAX
    )
    assert (child.returncode, list(json.loads(child.stdout))) == (0, ["port"])


# ---- What the figures are made of.


def test_latency_ends_with_the_first_look_that_saw_the_trade() -> None:
    """A look sees all trades up to the newest; one sent between two looks counts to the second of them."""
    looks = [Look(1_000_000, 0), Look(4_000_000, 11), Look(9_000_000, 13)]

    assert latency.latencies_ms(looks, [10, 11, 12, 13], [0, 3_000_000, 3_000_000, 8_000_000]) == [4, 1, 6, 1]


def test_a_slow_sync_is_waited_for_by_all_that_arrive_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 10 ms a sync, arrivals each millisecond wait between one sync and two of them, and none is forgotten."""
    monkeypatch.setattr(os, "fdatasync", lambda _: time.sleep(0.01), raising=False)

    waited = latency.disk_ms(tmp_path / "disk", 1_000.0, 0.2)

    assert len(waited) == 200
    assert min(waited) >= 10
    assert latency.percentile(waited, 50) >= 14
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("percent", "expected"), [(1, 1), (50, 50), (99, 99), (100, 100)])
def test_percentile_is_the_nearest_rank(percent: int, expected: float) -> None:
    """Of 1 to 100 in whatever order, the n-th."""
    assert latency.percentile([float(value) for value in range(100, 0, -1)], percent) == expected


@pytest.mark.parametrize(
    ("figure", "verdict"),
    [
        (Figure("p", "n", "×", [9.0, 5.0, 0.0], at_least(4, 5)), "aim"),
        (Figure("p", "n", "×", [4.0], at_least(4, 5)), "must"),
        (Figure("p", "n", "×", [3.9], at_least(4, 5)), "MISSED"),
        (Figure("p", "n", "ms", [1.0], at_most(2, 1)), "aim"),
        (Figure("p", "n", "ms", [1.5, 1.5, 99.0], at_most(2, 1)), "must"),
        (Figure("p", "n", "ms", [2.1], at_most(2, 1)), "MISSED"),
        (Figure("p", "n", "ms", [2.1]), ""),
    ],
)
def test_verdict_holds_the_median_against_the_bounds(figure: Figure, verdict: str) -> None:
    """The bound itself is still good; without bounds there is no verdict."""
    assert figure.verdict == verdict


@pytest.mark.parametrize(
    ("value", "text"), [(0.012345, "0.0123"), (1.5, "1.5"), (150.0, "150"), (12345.6, "12,346"), (0.0, "0")]
)
def test_number_is_readable(value: float, text: str) -> None:
    """Three digits that matter, and no exponent."""
    assert number(value) == text


def test_table_is_aligned() -> None:
    """Numbers end, and words begin, in the same column."""
    figures = [
        Figure("ingest", "a", "×", [0.5, 0.75, 0.6], at_least(0.5, 0.7)),
        Figure("memory", "longer", "MB", [1234.0]),
    ]

    assert table(figures).splitlines() == [
        "part    figure  median   min – max  unit   must    aim  met",
        "ingest  a          0.6  0.5 – 0.75  ×     ≥ 0.5  ≥ 0.7  must",
        "memory  longer   1,234              MB",
    ]


@pytest.mark.parametrize(
    "summary", ["parsed 9 = inserted 8 + duplicate 0 + dropped 1 + left over 0", "parsed 9 = …", ""]
)
def test_run_that_lost_trades_does_not_count(summary: str) -> None:
    """A capture that has dropped trades, or does not say that it has not, fails the part."""

    class Stopped:
        def stop(self, _signal: object) -> str:
            return summary

    with pytest.raises(RigError, match="does not count"):
        stage.stop_lossless(Stopped())  # type: ignore[arg-type]


def test_rows_of_the_table_are_a_tape(tmp_path: Path) -> None:
    """The days that are loaded continue each other: ids without a hole, times in order and each within its day."""
    sizes = queries.Sizes(2, 3, 1, 1)
    maker = queries.Maker(sizes)
    lines = [
        line.split("\t")
        for day in range(sizes.days)
        for line in maker.write_day(tmp_path / f"{day}", day).read_text().splitlines()
    ]

    times = [datetime.fromisoformat(line[1]).replace(tzinfo=UTC) for line in lines]
    assert [int(line[2]) for line in lines] == list(range(1, sizes.rows + 1))
    assert times == sorted(times)
    assert [(time - queries.BEGIN).days for time in times] == [0] * (sizes.rows // 2) + [1] * (sizes.rows // 2)
    assert all(Decimal(line[3]) > 0 and Decimal(line[4]) > 0 for line in lines)
