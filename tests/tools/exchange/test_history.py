"""The deep history of the stand-in exchange: days that are made when needed, and what it remembers of a run."""

import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from process.child import ROOT
from tests.support.child import WAIT_S_MAX, wait_until
from tests.support.stand_in import StandIn
from tools.exchange import history, tape
from tools.exchange.clock import DAY_US, day_named
from tools.exchange.history import Cache, Market, Past, Stretch

pytestmark = pytest.mark.slow

DAY = day_named("2026-11-27") * DAY_US
BTC = tape.spec_of("BTCUSDT")
FIRST = 4_000_000_001
VIRTUAL = ["--clock", "virtual", "--speed", "full", "--rest-lag", "0", "--weight-limit", "1000000"]


@pytest.fixture(scope="module")
def deep() -> Iterator[StandIn]:
    """An exchange whose tape of 500 trades has ended, with five days of history before it."""
    flags = ["--days", "5", "--day-trades", "2000", "--trades", "500", "--symbols", "BTCUSDT"]
    with StandIn(*VIRTUAL, *flags) as server:
        wait_until(lambda: bool(server.state()["tape"] == "ended"))
        yield server


def past_of(market: Market, begin_us: int, end: tuple[int, int], listed_us: int = 0) -> Past:
    return Past(market.spec.symbol, market.before(begin_us, end, listed_us), Cache())


# What a day is made of.


def test_a_made_day_has_the_times_of_a_real_one() -> None:
    """Times never fall, fills share one, the first and the last millisecond have trades, and microseconds are odd."""
    times = history.made(BTC, 1, (DAY, DAY + DAY_US), 20_000).times
    assert len(times) == 20_000
    pairs = list(itertools.pairwise(times))
    assert all(one <= other for one, other in pairs)
    assert DAY <= times[0] <= times[1] < DAY + 1000
    assert DAY + DAY_US - 1000 <= times[-2] <= times[-1] < DAY + DAY_US
    assert sum(one == other for one, other in pairs) > 5000
    assert sum(one // 1000 == other // 1000 and one != other for one, other in pairs) > 200
    assert sum(time_us % 1000 != 0 for time_us in times) > 19_000


def test_a_made_day_is_the_same_each_time_and_another_for_another_seed() -> None:
    """It depends on the seed, the symbol and the day alone."""
    span = (DAY, DAY + DAY_US)
    one = history.made(BTC, 1, span, 1000)
    assert history.made(BTC, 1, span, 1000) == one
    others = [
        history.made(BTC, 2, span, 1000),
        history.made(tape.spec_of("ETHUSDT"), 1, span, 1000),
        history.made(BTC, 1, (DAY + DAY_US, DAY + 2 * DAY_US), 1000),
    ]
    assert all(other.prices != one.prices for other in others)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6, 999])
def test_a_made_day_has_exactly_the_trades_that_are_wanted(count: int) -> None:
    """A quiet day too; prices are above zero even of a coin that costs a tick."""
    columns = history.made(BTC._replace(price_e8=BTC.tick_e8), 1, (DAY, DAY + DAY_US), count)
    assert {len(column) for column in columns} == {count}
    assert all(price >= BTC.tick_e8 and price % BTC.tick_e8 == 0 for price in columns.prices)
    assert all(DAY <= time_us < DAY + DAY_US for time_us in columns.times)


def test_ids_run_on_through_the_days_into_today() -> None:
    """Whole days have all their trades, today has its share, and no id is missing."""
    past = past_of(Market(BTC, 1, 1000), DAY - 2 * DAY_US, (DAY + DAY_US // 4, 5001))
    assert [stretch.size for stretch in past.stretches] == [1000, 1000, 250]
    columns = [past.columns(stretch) for stretch in past.stretches]
    ids = [one for column in columns for one in column.ids]
    assert ids == list(range(5001 - 2250, 5001))
    times = [time_us for column in columns for time_us in column.times]
    assert times == sorted(times)


def test_history_begins_with_the_id_1_in_the_middle_of_a_day() -> None:
    """With 1500 ids below the first streamed one there are a day and a half."""
    past = past_of(Market(BTC, 1, 1000), DAY - 3 * DAY_US, (DAY, 1501))
    whole = past_of(Market(BTC, 1, 1000), DAY - 3 * DAY_US, (DAY, 10_001))
    assert [(stretch.first_id, stretch.size) for stretch in past.stretches] == [(1, 500), (501, 1000)]
    first = past.columns(past.stretches[0])
    assert first.ids == range(1, 501)
    assert first.times == whole.columns(whole.stretches[-2]).times[500:]


def test_a_listed_symbol_has_no_trade_before_its_time() -> None:
    """Of the day of its listing it has the share that was left."""
    past = past_of(Market(BTC, 1, 1000), DAY - 3 * DAY_US, (DAY, 9001), listed_us=DAY - DAY_US // 2)
    assert [(stretch.begin_us, stretch.size) for stretch in past.stretches] == [(DAY - DAY_US // 2, 500)]
    assert past.trade(past.first_id).time_us >= DAY - DAY_US // 2


def test_nothing_is_made_before_somebody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty large days cost nothing at the start, and only the day that is asked for is made, once."""
    asked: list[int] = []
    whole = history.made

    def made(spec: tape.Spec, seed: int, span_us: tuple[int, int], count: int) -> history.Columns:
        asked.append(span_us[0])
        return whole(spec, seed, span_us, count)

    monkeypatch.setattr(history, "made", made)
    past = past_of(Market(BTC, 1, 1000), DAY - 20 * DAY_US, (DAY, 1_000_001))
    assert asked == []
    assert past.id_at(DAY - 5 * DAY_US) == 1_000_001 - 5000
    for _ in range(2):
        assert past.trade(1_000_000).time_us < DAY
    assert asked == [DAY - DAY_US]


def test_the_days_in_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was not used for longest is dropped, and is made again when it is needed."""
    monkeypatch.setattr(history, "CACHED_TRADES_MAX", 10)
    made: list[int] = []

    def stretch(first_id: int) -> Stretch:
        def make() -> history.Columns:
            made.append(first_id)
            return history.made(BTC, 1, (DAY, DAY + DAY_US), 5)

        return Stretch(DAY, DAY + DAY_US, first_id, 5, make)

    cache, stretches = Cache(), [stretch(n) for n in (1, 6, 11)]
    for n in (0, 1, 0, 2, 0, 1):
        cache.columns("BTCUSDT", stretches[n])
    assert made == [1, 6, 11, 6]


# What REST says of it.


def test_historical_trades_serves_any_id_of_the_history(deep: StandIn) -> None:
    """From the first id to the last, over the end of a day and into the tape; below the first id it starts there."""
    first = FIRST - 5 * 2000
    address = "/api/v3/historicalTrades?symbol=BTCUSDT&limit=1000&fromId="
    ids: list[int] = []
    while len(ids) < 10_500:
        rows = deep.json(address + str(ids[-1] + 1 if ids else 1), micro=True)
        ids += [row["id"] for row in rows]
    assert ids == list(range(first, FIRST + 500))
    days = [line for day in range(27, 32) for line in deep.day("BTCUSDT", f"2024-12-{day}")]
    assert [line["id"] for line in days] == list(range(first, FIRST))
    row = deep.json(address + str(first + 3999), micro=True)[0]
    assert (row["price"], row["qty"], row["time"]) == tuple(days[3999][key] for key in ("price", "quantity", "time_us"))


def test_the_newest_trades_reach_into_the_history(deep: StandIn) -> None:
    """With 500 trades on the tape the newest thousand are half of each, in trades and in historicalTrades."""
    for call in ("trades", "historicalTrades"):
        rows = deep.json(f"/api/v3/{call}?symbol=BTCUSDT&limit=1000")
        assert [row["id"] for row in rows] == list(range(FIRST - 500, FIRST + 500))


def test_a_hole_of_rest_may_lie_in_the_history(deep: StandIn) -> None:
    """It is jumped over silently; the truth has the trades."""
    deep.fault("rest_hole", first=FIRST - 3000, last=FIRST - 1000)
    rows = deep.json(f"/api/v3/historicalTrades?symbol=BTCUSDT&limit=3&fromId={FIRST - 3001}")
    deep.clear()
    assert [row["id"] for row in rows] == [FIRST - 3001, FIRST - 999, FIRST - 998]


def test_agg_trades_find_the_first_trade_of_a_day(deep: StandIn) -> None:
    """With limit=1 from midnight on; ids of aggregates run on from the history into the tape."""
    midnight_ms = day_named("2024-12-29") * DAY_US // 1000
    address = "/api/v3/aggTrades?symbol=BTCUSDT&limit="
    assert deep.json(f"{address}1&startTime={midnight_ms}")[0]["f"] == FIRST - 6000
    assert deep.json(f"{address}1&startTime=0")[0]["f"] == FIRST - 10_000
    rows = deep.json(f"{address}1000&fromId={FIRST - 500}")
    assert [row["a"] for row in rows] == list(range(FIRST - 500, FIRST - 500 + len(rows)))
    assert all(after["f"] == before["l"] + 1 for before, after in itertools.pairwise(rows))
    assert rows[-1]["l"] == FIRST + 499
    until = deep.json(f"{address}5&endTime={midnight_ms - 1}")
    assert [row["f"] for row in until] == list(range(FIRST - 6005, FIRST - 6000))


def test_the_truth_of_a_day_has_deep_and_emitted_trades(deep: StandIn) -> None:
    """The tape's day is streamed like any other; a day without trades is empty, another word is refused."""
    assert deep.day("BTCUSDT", "2025-01-01") == deep.truth("BTCUSDT")
    assert deep.day("BTCUSDT", "2024-12-01") == []
    assert deep.get("/_truth/day?symbol=BTCUSDT&day=2024-12").status == 400
    assert deep.get("/_truth/day?symbol=NOSUCHUSDT&day=2024-12-31").status == 400


def test_a_symbol_can_be_listed_later_than_the_history_begins() -> None:
    """Its first trade is not older; the other symbol has all days."""
    flags = ["--days", "3", "--day-trades", "240", "--listed", "ETHUSDT=2024-12-30T13:00", "--trades", "1"]
    with StandIn(*VIRTUAL, *flags) as server:
        days = {day: server.day("ETHUSDT", f"2024-12-{day}") for day in (29, 30, 31)}
        assert [len(days[day]) for day in (29, 30, 31)] == [0, 110, 240]
        assert days[30][0]["time_us"] >= (day_named("2024-12-30") * 24 + 13) * 3_600_000_000
        assert len(server.day("BTCUSDT", "2024-12-29")) == 240


# What is remembered across runs.


def flags_of(folder: Path) -> list[str]:
    return ["--days", "2", "--day-trades", "90000", "--rate", "500", "--state", str(folder), "--symbols", "BTCUSDT"]


def recent(server: StandIn, days: list[str]) -> list[dict[str, Any]]:
    return [line for day in days for line in server.day("BTCUSDT", day)]


def test_a_killed_run_is_continued_without_a_hole(tmp_path: Path) -> None:
    """Whatever a client saw before kill -9 is there again; the time between has trades; ids and times run on."""
    days = [(datetime.now(UTC).date() + timedelta(days=n)).isoformat() for n in (-1, 0, 1)]
    seen: list[dict[str, Any]] = []
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        with StandIn(*flags_of(tmp_path / "state")) as server:
            wait_until(lambda server=server: len(server.truth("BTCUSDT")) > 100)  # type: ignore[misc]
            connection = server.connect("/stream?streams=btcusdt@trade")
            streamed = [json.loads(connection.recv())["data"]["t"] for _ in range(50)]
            now = recent(server, days)
            assert now[: len(seen)] == seen
            ids = [line["id"] for line in now]
            assert ids == list(range(ids[0], ids[0] + len(ids)))
            assert [line["time_us"] for line in now] == sorted(line["time_us"] for line in now)
            assert set(streamed) <= set(ids)
            seen = now
            server.stop(number)


def test_a_later_first_id_is_reached_by_more_trades(tmp_path: Path) -> None:
    """--start-id of the second run is above what is remembered: the ids between are trades of the time between."""
    ended = ["--trades", "10", "--speed", "full", "--rest-lag", "0"]
    for start_id in (1_000_000, 1_005_000, 1):
        with StandIn(*flags_of(tmp_path), "--start-id", str(start_id), *ended) as server:
            wait_until(lambda server=server: bool(server.state()["tape"] == "ended"))  # type: ignore[misc]
            first_id = server.truth("BTCUSDT")[0]["id"]
            rows = server.json("/api/v3/historicalTrades?symbol=BTCUSDT&fromId=1000000&limit=1000")
            ids = [row["id"] for row in rows]
            assert ids == list(range(1_000_000, min(first_id + 10, 1_001_000)))
            assert first_id == start_id if start_id > 1 else first_id >= 1_005_010


def test_files_of_days_before_the_history_are_deleted(tmp_path: Path) -> None:
    """What is older than --days is not kept, and its ids are not given again."""
    with StandIn(*flags_of(tmp_path), "--trades", "10", "--speed", "full") as server:
        wait_until(lambda: bool(server.state()["tape"] == "ended"))
    (file,) = tmp_path.glob("*.trades")
    records = [int.from_bytes(file.read_bytes()[n : n + 8], "little") for n in range(0, file.stat().st_size, 8)]
    records[3::5] = [time_us - 9 * DAY_US for time_us in records[3::5]]
    (tmp_path / "BTCUSDT-2020-01-01.trades").write_bytes(b"")
    file.unlink()
    old = datetime.fromtimestamp(records[3] / 1e6, UTC).date().isoformat()
    (tmp_path / f"BTCUSDT-{old}.trades").write_bytes(b"".join(one.to_bytes(8, "little") for one in records))
    anchor = json.loads((tmp_path / "anchor.json").read_text())
    anchor["symbols"]["BTCUSDT"]["start_us"] -= 9 * DAY_US
    (tmp_path / "anchor.json").write_text(json.dumps(anchor))
    for _ in range(2):
        with StandIn(*flags_of(tmp_path)) as server:
            wait_until(lambda server=server: bool(server.truth("BTCUSDT")))  # type: ignore[misc]
            assert server.truth("BTCUSDT")[0]["id"] >= FIRST + 10 + 9 * 90_000
            assert server.json("/_truth?symbol=BTCUSDT")["history_first_id"] > FIRST + 10
        assert not [name for name in (old, "2020-01-01") if (tmp_path / f"BTCUSDT-{name}.trades").exists()]


def torn(folder: Path) -> None:
    file = sorted(folder.glob("*.trades"))[-1]
    file.write_bytes(file.read_bytes()[:-7])


def test_a_record_that_was_cut_off_is_forgotten(tmp_path: Path) -> None:
    """The end of the machine may cut a write; nobody has seen that trade."""
    with StandIn(*flags_of(tmp_path), "--trades", "10", "--speed", "full") as server:
        wait_until(lambda: bool(server.state()["tape"] == "ended"))
    torn(tmp_path)
    with StandIn(*flags_of(tmp_path)) as server:
        wait_until(lambda: bool(server.truth("BTCUSDT")))
        assert server.truth("BTCUSDT")[0]["id"] >= FIRST + 9


def without_record(folder: Path) -> None:
    file = sorted(folder.glob("*.trades"))[-1]
    content = file.read_bytes()
    file.write_bytes(content[:40] + content[80:])


def scribbled(folder: Path) -> None:
    file = sorted(folder.glob("*.trades"))[-1]
    file.write_bytes(b"no trade" * 40)


def broken_anchor(folder: Path) -> None:
    (folder / "anchor.json").write_text('{"version": 1')


def without_anchor(folder: Path) -> None:
    (folder / "anchor.json").unlink()


def with_other_file(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")


def of_the_future(folder: Path) -> None:
    anchor = json.loads((folder / "anchor.json").read_text())
    anchor["symbols"]["BTCUSDT"]["start_us"] += DAY_US
    (folder / "anchor.json").write_text(json.dumps(anchor))


@pytest.mark.parametrize(
    ("spoil", "flags", "named"),
    [
        (without_record, [], "are missing"),
        (scribbled, [], "damaged"),
        (broken_anchor, [], "damaged"),
        (without_anchor, [], "anchor.json"),
        (with_other_file, [], "notes.txt"),
        (of_the_future, [], "clock"),
        (None, ["--seed", "2"], "--seed"),
        (None, ["--day-trades", "5"], "--day-trades"),
        (None, ["--clock", "virtual"], "--clock"),
        (None, ["--listed", "BTCUSDT=2026-01-01"], "--listed"),
        (None, ["--start-id", "4900000000"], "--start-id"),
    ],
)
def test_a_damaged_or_foreign_state_is_one_line(
    tmp_path: Path, spoil: Callable[[Path], None] | None, flags: list[str], named: str
) -> None:
    """Exit code 2; the line says what does not fit."""
    with StandIn(*flags_of(tmp_path), "--trades", "10", "--speed", "full") as server:
        wait_until(lambda: bool(server.state()["tape"] == "ended"))
    if spoil is not None:
        spoil(tmp_path)
    refused([*flags_of(tmp_path), *flags], named)


def refused(flags: list[str], named: str) -> None:
    run = [sys.executable, "-m", "tools.exchange", "--port", "0", *flags]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False, timeout=WAIT_S_MAX)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr
    assert named in done.stderr


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--state", "anywhere"], "--days"),
        (["--listed", "BTCUSDT=2026-01-01"], "--days"),
        (["--days", "1", "--listed", "BTCUSDT"], "--listed"),
        (["--days", "1", "--listed", "NOSUCH=2026-01-01"], "--listed"),
        (["--days", "1", "--replay", "x"], "--replay"),
        (["--days", "-1"], "--days"),
    ],
)
def test_a_wrong_flag_of_the_history_is_one_line(flags: list[str], named: str) -> None:
    """An operator's mistake, named."""
    refused(flags, named)


def test_two_exchanges_cannot_share_a_folder(tmp_path: Path) -> None:
    """The second one says that the folder is in use."""
    with StandIn(*flags_of(tmp_path)):
        refused(flags_of(tmp_path), "another exchange")


def test_a_virtual_clock_continues_after_what_is_remembered(tmp_path: Path) -> None:
    """The second run starts a second after the last trade of the first."""
    flags = [*VIRTUAL, "--days", "1", "--day-trades", "100", "--trades", "20", "--state", str(tmp_path)]
    before: list[dict[str, Any]] = []
    for _ in range(2):
        with StandIn(*flags, "--symbols", "BTCUSDT") as server:
            wait_until(lambda server=server: bool(server.state()["tape"] == "ended"))  # type: ignore[misc]
            lines = server.day("BTCUSDT", "2025-01-01")
            assert lines[: len(before)] == before
            assert [line["id"] for line in lines] == list(range(FIRST, FIRST + len(before) + 20))
            before = lines
    assert before[20]["time_us"] > before[19]["time_us"] + 1_000_000
