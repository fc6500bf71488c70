"""backfill.py --since and --from-archive by hand: history comes in, and what is said and returned is true."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

import config
import db
from history import place
from process.child import ROOT
from tests.support.child import wait_until
from tests.support.days import (
    DAY_TRADES,
    FLAGS,
    assert_sound,
    assert_whole,
    daily,
    day_before,
    not_published,
    rows_of,
    true_rows,
)
from tests.support.history import LONG_S, RUN_S_MAX, leave_gap
from tests.support.servers import Server
from tests.support.stand_in import StandIn
from tests.support.tables import runs

pytestmark = pytest.mark.slow
BOTH = ("BTCUSDT", "ETHUSDT")


@pytest.fixture(scope="session")
def server(any_server: Server) -> Server:
    """What the two families do differently is tested in tests/storage/test_loading.py."""
    return any_server


@pytest.fixture(scope="module")
def past() -> Iterator[StandIn]:
    """An exchange with days of history."""
    with StandIn(*FLAGS) as running:
        yield running


@pytest.fixture
def market(past: StandIn) -> Iterator[StandIn]:
    """It, without faults of other tests."""
    past.clear()
    yield past
    past.clear()


@pytest.fixture
def start(
    settings: config.Settings, server: Server, market: StandIn
) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts the command with these arguments; what still runs in the end is killed."""
    environ = {**os.environ, **server.environ, "MYSQL_DATABASE": settings.mysql_database}
    environ |= {"DATA_DIR": str(settings.data_dir), "BINANCE_REST_URL": market.http, "BINANCE_ARCHIVE_URL": market.http}
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "backfill.py", *arguments]
        pipes = subprocess.PIPE
        started.append(subprocess.Popen(command, cwd=ROOT, env=environ, text=True, stdout=pipes, stderr=pipes))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


Said = tuple[int, str, str]


@pytest.fixture
def command(start: Callable[..., "subprocess.Popen[str]"]) -> Callable[..., Said]:
    """Runs it to its end: the exit code, the output and the errors."""

    def run(*arguments: str) -> Said:
        process = start(*arguments)
        out, err = process.communicate(timeout=RUN_S_MAX)
        return process.returncode, out, err

    return run


def test_history_into_an_empty_database(
    command: Callable[..., Said], settings: config.Settings, market: StandIn
) -> None:
    """Both symbols, a line for each day, newest first; today's part from REST; a second run brings in nothing."""
    days = [day_before(number) for number in (1, 2)]
    code, out, err = command("--since", str(days[-1]))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[:-1] == [
        f"{symbol} {day}: 1,500 trades in the archive, 1,500 of them new" for symbol in BOTH for day in days
    ]
    assert re.fullmatch(r"database .*: no id is missing", lines[-1])
    connection = db.connect(settings)
    for symbol in BOTH:
        stored = rows_of(connection, symbol)
        truth = true_rows(market, [*days, day_before(0)], symbol)
        assert stored == truth[: len(stored)]
        assert len(stored) >= 2 * DAY_TRADES
        assert_sound(connection, market, [*days, day_before(0)], symbol)
    code, out, err = command("--since", str(days[-1]))
    assert (code, err) == (0, "")
    assert f"BTCUSDT {days[0]}: 1,500 trades in the archive, 0 of them new" in out
    assert [path.name for path in (settings.data_dir / "history").iterdir()] == ["lock"]
    db.close(connection)


def test_these_days_and_no_others(command: Callable[..., Said], connection: db.Connection, market: StandIn) -> None:
    """With --until, of one symbol; the day without a file comes from REST, which is said."""
    days = [day_before(number) for number in (5, 4)]
    not_published(market, days[1])
    code, out, err = command("--since", str(days[0]), "--until", str(days[1]), "--symbol", "btcusdt")
    assert (code, err) == (0, "")
    assert out.splitlines()[:-1] == [
        f"BTCUSDT {days[1]}: not from the archive: BTCUSDT-trades-{days[1]}.zip is not published yet",
        f"BTCUSDT {days[0]}: 1,500 trades in the archive, 1,500 of them new",
    ]
    assert_whole(connection, market, days)
    assert rows_of(connection, "ETHUSDT") == []


def test_days_of_long_ago(command: Callable[..., Said], connection: db.Connection, market: StandIn) -> None:
    """What lies between them and what is stored is not fetched, but listed as missing: exit code 1."""
    days = [day_before(number) for number in (5, 4)]
    newest = true_rows(market, [day_before(1)])[-1][0]
    leave_gap(connection, market, newest)
    market.fault("archive_missing", path=daily(days[1]), seconds=LONG_S)
    code, out, _ = command("--since", str(days[0]), "--until", str(days[1]), "--symbol", "BTCUSDT")
    ids = [row[0] for row in true_rows(market, days)]
    assert [row[0] for row in rows_of(connection)] == [*ids, newest]
    assert runs(connection) == [(ids[-1] + 1, newest - 1)]
    assert (code, out.splitlines()[-1].endswith(f"{newest - 1 - ids[-1]} ids are missing in 1 gaps")) == (1, True)


def test_what_is_nowhere_to_be_had_is_not_called_whole(
    command: Callable[..., Said], connection: db.Connection, market: StandIn
) -> None:
    """The first ids of the day are neither in the archive nor served: exit code 1, and they are named."""
    day = day_before(2)
    first = true_rows(market, [day])[0][0]
    market.fault("archive_missing", seconds=LONG_S)
    market.fault("rest_hole", symbol="BTCUSDT", first=first, last=first + 9, seconds=LONG_S)
    code, _, err = command("--since", str(day), "--until", str(day), "--symbol", "BTCUSDT")
    assert code == 1
    assert f"id {first} is neither in the archive nor served" in err
    assert_sound(connection, market, [day])


def test_rest_is_away(command: Callable[..., Said], connection: db.Connection, market: StandIn) -> None:
    """Days that are over are loaded; then it ends with one line that names the setting, and exit code 2."""
    day = day_before(1)
    market.fault("rest_status", status=451, seconds=LONG_S)
    code, out, err = command("--since", str(day), "--symbol", "BTCUSDT")
    assert code == 2
    assert out == f"BTCUSDT {day}: 1,500 trades in the archive, 1,500 of them new\n"
    assert "BINANCE_REST_URL" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert_sound(connection, market, [day])


def test_gaps_from_the_archive_alone(command: Callable[..., Said], connection: db.Connection, market: StandIn) -> None:
    """REST is not asked for trades; what the archive does not have stays open: exit code 1, then 0."""
    days = [day_before(number) for number in (3, 2, 1)]
    assert command("--since", str(days[0]), "--until", str(days[0]), "--symbol", "BTCUSDT")[0] == 0
    not_published(market, days[1])
    # A capture was not running on these two days.
    ids = [row[0] for row in true_rows(market, days[1:])]
    leave_gap(connection, market, ids[-1])
    assert runs(connection) == [(ids[0], ids[-1] - 1)]
    before = market.state()["rest_calls"].get("/api/v3/historicalTrades", 0)
    code, out, _ = command("--from-archive")
    assert code == 1
    assert f"BTCUSDT {days[1]}: not from the archive" in out
    assert runs(connection) == [(ids[0], ids[DAY_TRADES] - 1)]
    market.clear()
    code, out, _ = command("--from-archive")
    assert (code, out.splitlines()[-1].endswith("no id is missing")) == (0, True)
    assert market.state()["rest_calls"].get("/api/v3/historicalTrades", 0) == before
    assert rows_of(connection)[-1][0] == ids[-1]
    assert_sound(connection, market, days)


# The names of tests must not change at midnight, nor tomorrow become today before their turn comes.
FUTURE, PAST = "2125-03-01", "2020-01-02"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--since", "2026-02-30"], "'2026-02-30' is not a day; give it as YYYY-MM-DD"),
        (["--since", "yesterday"], "'yesterday' is not a day"),
        (["--since", "20260101"], "'20260101' is not a day"),
        (["--since", FUTURE], f"--since={FUTURE}"),
        (["--since", PAST, "--until", "2020-01-01"], "--until=2020-01-01: give a --since that is not after it"),
        (["--until", PAST], f"--until={PAST}: give a --since"),
        (["--since", PAST, "--list"], "--list"),
        (["--since", PAST, "--from-archive"], "--from-archive"),
        (["--list", "--from-archive"], "--from-archive"),
        (["--since", PAST, "--symbol", "BTC USDT"], "--symbol"),
    ],
)
def test_a_mistake_is_one_line(
    command: Callable[..., Said], settings: config.Settings, arguments: list[str], words: str
) -> None:
    """And exit code 2; nothing is made."""
    code, out, err = command(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err
    assert not (settings.data_dir / "history").exists()


def test_a_second_one_ends_at_once(command: Callable[..., Said], settings: config.Settings) -> None:
    """One line says what holds the place; without --since gaps are filled from REST all the same."""
    with place.taken(settings.data_dir):
        code, out, err = command("--since", PAST)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "another process brings history in" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_it_is_ended_in_the_middle(
    start: Callable[..., "subprocess.Popen[str]"],
    connection: db.Connection,
    settings: config.Settings,
    market: StandIn,
    number: signal.Signals,
) -> None:
    """Ctrl-C is one line and exit code 2; after either the next run continues, and removes what was left."""
    days = [day_before(number) for number in (3, 2, 1)]
    market.fault("archive_slow", delay=20.0, path=daily(days[1]), seconds=LONG_S)
    process = start("--since", str(days[0]), "--symbol", "BTCUSDT")
    wait_until(lambda: len(rows_of(connection)) == DAY_TRADES, RUN_S_MAX)
    process.send_signal(number)
    _, err = process.communicate(timeout=RUN_S_MAX)
    if number == signal.SIGINT:
        assert process.returncode == 2
        assert "interrupted; what was filled is stored, and the next run continues there" in err
        assert err.count("\n") == 1
    assert_whole(connection, market, days[2:])
    (settings.data_dir / "history" / "left.zip").write_bytes(b"half")
    market.clear()
    second = start("--since", str(days[0]), "--until", str(days[2]), "--symbol", "BTCUSDT")
    out, _ = second.communicate(timeout=RUN_S_MAX)
    assert second.returncode == 0
    assert f"BTCUSDT {days[2]}: 1,500 trades in the archive, 0 of them new" in out
    assert_whole(connection, market, days)
    assert [path.name for path in (settings.data_dir / "history").iterdir()] == ["lock"]
