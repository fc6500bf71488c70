"""The archive of the stand-in exchange: files like the real ones, of the true trades, and all that can be wrong."""

import hashlib
import http.client
import io
import json
import socket
import struct
import time
import zipfile
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from tests.support.child import wait_until
from tests.support.stand_in import StandIn
from tools.exchange import archive
from tools.exchange.clock import DAY_US, day_named
from tools.exchange.tape import E8, from_e8, to_e8

pytestmark = pytest.mark.slow

COIN = "币安人生"
DAY, LAST, RUNNING = "2024-12-31", "2025-01-01", "2025-01-02"
FLAGS = ["--clock", "virtual", "--speed", "full", "--rate", "0.02", "--trades", "2500", "--symbols", f"BTCUSDT,{COIN}"]
FLAGS += ["--days", "40", "--day-trades", "500", "--connect-limit", "0"]


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    """A virtual clock that began with 2025 and has passed a midnight; days of history before it."""
    with StandIn(*FLAGS) as running:
        wait_until(lambda: bool(running.state()["tape"] == "ended"))
        yield running


@pytest.fixture
def exchange(server: StandIn) -> Iterator[StandIn]:
    """The exchange, its faults switched off afterwards."""
    yield server
    server.clear()


def path(symbol: str = "BTCUSDT", period: str = DAY) -> str:
    kind = "daily" if len(period) == 10 else "monthly"
    return f"/data/spot/{kind}/trades/{symbol}/{symbol}-trades-{period}.zip"


def unpacked(content: bytes, name: str) -> list[str]:
    """The lines of the only member, which must have that name."""
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        assert packed.namelist() == [name]
        return packed.read(name).decode().splitlines(keepends=True)


def good(exchange: StandIn, symbol: str = "BTCUSDT", period: str = DAY) -> list[str]:
    """The lines of a file whose CHECKSUM is right."""
    answer, text = exchange.file(path(symbol, period)), exchange.file(path(symbol, period) + ".CHECKSUM")
    assert (answer.status, text.status) == (200, 200)
    name = f"{symbol}-trades-{period}"
    assert text.body.decode() == f"{hashlib.sha256(answer.body).hexdigest()}  {name}.zip\n"
    return unpacked(answer.body, f"{name}.csv")


def expected(line: dict[str, Any]) -> str:
    """A line of the truth as the archive has it."""
    quote = from_e8(to_e8(line["price"]) * to_e8(line["quantity"]) // E8)
    stamp = line["time_us"] if line["time_us"] >= archive.MICROSECONDS_FROM_US else line["time_us"] // 1000
    return f"{line['id']},{line['price']},{line['quantity']},{quote},{stamp},{line['maker']},True\n"


# Good files.


@pytest.mark.parametrize("symbol", ["BTCUSDT", COIN])
@pytest.mark.parametrize(("day", "digits"), [(DAY, 13), (LAST, 16)])
def test_a_daily_file_has_the_true_trades_of_its_day(exchange: StandIn, symbol: str, day: str, digits: int) -> None:
    """No header, eight decimals, milliseconds before 2025 and microseconds since, the tape's own day included."""
    rows = good(exchange, symbol, day)
    assert rows == [expected(line) for line in exchange.day(symbol, day)]
    assert len(rows) >= 500
    assert {len(row.split(",")[4]) for row in rows} == {digits}
    number, price, size, quote, *_ = rows[7].split(",")
    assert number.isdigit()
    assert Decimal(quote) == (Decimal(price) * Decimal(size)).quantize(Decimal("1e-8"), "ROUND_DOWN")


def test_a_day_begins_with_the_id_after_the_day_before(exchange: StandIn) -> None:
    """From file to file, out of the history and into the tape."""
    ids = [int(row.partition(",")[0]) for day in ("2024-12-30", DAY, LAST) for row in good(exchange, "BTCUSDT", day)]
    assert ids == list(range(ids[0], ids[0] + len(ids)))


def test_a_monthly_file_has_the_days_of_the_month(exchange: StandIn) -> None:
    """December is complete; of November there is what the history has, from the 22nd on."""
    days = [f"2024-12-{day:02d}" for day in range(1, 32)]
    assert good(exchange, "BTCUSDT", "2024-12") == [row for day in days for row in good(exchange, "BTCUSDT", day)]
    assert len(good(exchange, "BTCUSDT", "2024-11")) == 9 * 500


@pytest.mark.parametrize(
    "name",
    [
        path(period=RUNNING),
        path(period="2025-01-03"),
        path(period="2024-11-21"),
        path(period="2025-01"),
        path(period="2024-10"),
        path("NOSUCHUSDT"),
        path(period="2024-13-01"),
        path(period="2024-2-1"),
        "/data/spot/daily/trades/BTCUSDT/ETHUSDT-trades-2024-12-31.zip",
        "/data/spot/daily/trades/BTCUSDT/BTCUSDT-trades-2024-12.zip",
        "/data/spot/daily/klines/BTCUSDT/BTCUSDT-trades-2024-12-31.zip",
        "/data/",
    ],
)
def test_what_is_not_there_is_404(exchange: StandIn, name: str) -> None:
    """Days that run or lie ahead, days and months without a trade, unknown symbols and names: as the store says it."""
    for answer in (exchange.file(name), exchange.file(name + ".CHECKSUM")):
        assert answer.status == 404
        assert b"<Code>NoSuchKey</Code>" in answer.body


def test_head_says_the_size(exchange: StandIn) -> None:
    """As GET, without the body."""
    whole, head = exchange.file(path()), exchange.file(path(), "HEAD")
    assert (head.status, head.headers["Content-Length"], head.body) == (200, str(len(whole.body)), b"")
    assert exchange.file(path(period=RUNNING), "HEAD").status == 404


def test_the_bytes_are_the_same_each_time(exchange: StandIn) -> None:
    """Also from another process with the same seed."""
    with StandIn(*FLAGS) as other:
        wait_until(lambda: bool(other.state()["tape"] == "ended"))
        assert other.file(path(period=LAST)).body == exchange.file(path(period=LAST)).body


def test_a_file_appears_after_its_lag() -> None:
    """With a lag of a day the day that ended at midnight is not there yet; the one before it is."""
    with StandIn(*FLAGS, "--archive-lag", "86400") as other:
        wait_until(lambda: bool(other.state()["tape"] == "ended"))
        assert other.file(path(period=LAST)).status == 404
        assert other.file(path()).status == 200


def test_a_large_file_is_served_from_the_disk_while_the_tape_runs() -> None:
    """Hundreds of thousands of trades in a day: the file is whole, and trades go on while it is made."""
    flags = ["--days", "1", "--day-trades", "400000", "--symbols", "BTCUSDT", "--rate", "100"]
    with StandIn(*flags) as running:
        day = running.json("/api/v3/time")["serverTime"] // 86_400_000 - 1
        name = path(period=time.strftime("%Y-%m-%d", time.gmtime(day * 86_400)))
        before = running.state()["emitted"]
        content = running.file(name).body
        assert len(content) > archive.IN_MEMORY_BYTES_MAX
        assert running.state()["emitted"] > before
        assert running.file(name).body == content
        rows = unpacked(content, name.rpartition("/")[2].replace(".zip", ".csv"))
        assert len(rows) == 400_000


def test_requests_are_counted(exchange: StandIn) -> None:
    """GET /_state says what was asked for."""
    exchange.file(path())
    assert exchange.state()["archive_calls"][path()] >= 1


# Faults of what is in a file: its CHECKSUM is right.


def spoiled(exchange: StandIn, name: str, **fields: object) -> tuple[list[str], list[str]]:
    """The lines of the file without and with a fault."""
    before = good(exchange)
    exchange.fault(name, **{"path": path(), **fields})
    return before, good(exchange)


def differing(before: list[str], after: list[str]) -> list[tuple[str, str]]:
    assert len(before) == len(after)
    return [(one, other) for one, other in zip(before, after, strict=True) if one != other]


@pytest.mark.parametrize(("fields", "left"), [({}, 450), ({"rows": 7}, 493)])
def test_a_file_may_be_cut_short(exchange: StandIn, fields: dict[str, object], left: int) -> None:
    """The last rows are missing: a tenth, or as many as asked for."""
    before, after = spoiled(exchange, "archive_cut_short", **fields)
    assert after == before[:left]


def test_a_file_may_have_a_hole(exchange: StandIn) -> None:
    """Ten ids in the middle are missing, or those that were named."""
    before, after = spoiled(exchange, "archive_hole")
    assert after == before[:245] + before[255:]
    exchange.clear()
    first = int(before[100].partition(",")[0])
    before, after = spoiled(exchange, "archive_hole", first=first, last=first + 2)
    assert after == before[:100] + before[103:]


def test_a_row_may_be_doubled_or_two_swapped(exchange: StandIn) -> None:
    """The middle one, and the two in the middle."""
    before, after = spoiled(exchange, "archive_doubled")
    assert after == [*before[:251], *before[250:]]
    exchange.clear()
    before, after = spoiled(exchange, "archive_unsorted")
    assert after == [*before[:249], before[250], before[249], *before[251:]]


def test_a_file_may_be_published_again_with_another_price(exchange: StandIn) -> None:
    """One digit of one price differs."""
    ((one, other),) = differing(*spoiled(exchange, "archive_changed"))
    assert sum(a != b for a, b in zip(one, other, strict=True)) == 1
    assert one.split(",")[1] != other.split(",")[1]


def test_a_row_may_have_no_price_or_the_time_of_another_day(exchange: StandIn) -> None:
    """NaN, and a day later."""
    ((one, other),) = differing(*spoiled(exchange, "archive_bad_row"))
    assert other.split(",")[1] == "NaN"
    exchange.clear()
    ((one, other),) = differing(*spoiled(exchange, "archive_other_day"))
    assert int(other.split(",")[4]) - int(one.split(",")[4]) == 86_400_000


def test_a_file_may_have_a_header_or_milliseconds(exchange: StandIn) -> None:
    """As futures files have, and as old ones have."""
    before, after = spoiled(exchange, "archive_header")
    assert after[0].startswith("id,price,")
    assert after[1:] == before
    exchange.fault("archive_ms", path=LAST)
    times_ms = [line["time_us"] // 1000 for line in exchange.day("BTCUSDT", LAST)]
    assert [int(row.split(",")[4]) for row in good(exchange, period=LAST)] == times_ms


def test_a_zip_may_be_none_or_have_other_members(exchange: StandIn) -> None:
    """No zip at all, two members, a member of another name; each with a right CHECKSUM."""
    exchange.fault("archive_damaged", path=path())
    assert not zipfile.is_zipfile(io.BytesIO(exchange.file(path()).body))
    exchange.clear()
    for name, members in (("archive_two_members", 2), ("archive_wrong_member", 1)):
        exchange.fault(name, path=path())
        content = exchange.file(path()).body
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            assert packed.testzip() is None
            assert len(packed.namelist()) == members
            assert packed.namelist() != [f"BTCUSDT-trades-{DAY}.csv"]
        assert exchange.file(path() + ".CHECKSUM").body.startswith(hashlib.sha256(content).hexdigest().encode())
        exchange.clear()


@pytest.mark.parametrize(("fields", "size"), [({}, 20 << 30), ({"size": 50_000_000}, 50_000_000)])
def test_a_bomb_is_small_until_it_is_unpacked(exchange: StandIn, fields: dict[str, object], size: int) -> None:
    """A thousandth of what it says that it has, and really has."""
    exchange.fault("archive_bomb", path=path(), **fields)
    content = exchange.file(path()).body
    assert len(content) < size / 900
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        (member,) = packed.infolist()
        assert (member.filename, member.file_size) == (f"BTCUSDT-trades-{DAY}.csv", size)
        with packed.open(member) as file:
            assert file.read(1 << 20) == b"0" * (1 << 20)


def test_a_fault_of_content_lasts_until_it_is_switched_off(exchange: StandIn) -> None:
    """Or for its seconds; a count is a number of files, which stay as they are; other files are not meant."""
    before, after = spoiled(exchange, "archive_header", seconds=60)
    assert len(after) == len(before) + 1
    exchange.clear()
    exchange.fault("archive_header", seconds=0.3)
    wait_until(lambda: not exchange.state()["faults"]["on"])
    assert good(exchange) == before
    exchange.fault("archive_header", path="/daily/", count=1)
    assert len(good(exchange)) == 501
    assert len(good(exchange, period="2024-12-30")) == 500
    assert len(good(exchange)) == 501
    exchange.clear()
    assert good(exchange) == before
    exchange.fault("archive_header", path=path())
    assert len(good(exchange)) == len(good(exchange)) == 501
    assert len(good(exchange, COIN)) == 500
    exchange.clear()
    exchange.fault("archive_header", symbol=COIN)
    assert (len(good(exchange)), len(good(exchange, COIN))) == (500, 501)


def test_a_running_day_may_be_there_too_early(exchange: StandIn) -> None:
    """As far as it has been traded, until the fault is over."""
    exchange.fault("archive_early", path=RUNNING)
    rows = good(exchange, period=RUNNING)
    assert rows == [expected(line) for line in exchange.day("BTCUSDT", RUNNING)]
    assert exchange.file(path(period="2025-01")).status == 404
    exchange.clear()
    assert exchange.file(path(period=RUNNING)).status == 404


# Faults of the answers.


def test_a_file_or_its_checksum_may_be_missing(exchange: StandIn) -> None:
    """Once without a count; another file is not meant."""
    exchange.fault("archive_missing", path=DAY, count=2)
    assert exchange.file(path(period=LAST)).status == 200
    assert [exchange.file(name).status for name in (path(), path() + ".CHECKSUM", path())] == [404, 404, 200]
    exchange.fault("archive_missing", symbol=COIN)
    assert [exchange.file(name).status for name in (path(), path(COIN))] == [200, 404]
    exchange.fault("archive_no_checksum")
    assert [exchange.file(name).status for name in (path(), path() + ".CHECKSUM")] == [200, 404]
    assert exchange.file(path() + ".CHECKSUM").status == 200


def test_a_checksum_may_be_wrong(exchange: StandIn) -> None:
    """64 hexadecimal digits of something else, with the right name."""
    exchange.fault("archive_bad_checksum")
    wrong = exchange.file(path() + ".CHECKSUM").body
    right = exchange.file(path() + ".CHECKSUM").body
    assert len(wrong) == len(right)
    assert wrong[:64] != right[:64]
    assert wrong[64:] == right[64:]


def test_an_answer_may_be_a_status_late_or_none(exchange: StandIn) -> None:
    """503, a delay, a reset, and half of a body."""
    exchange.fault("archive_status", status=503)
    assert exchange.file(path()).status == 503
    exchange.fault("archive_slow", delay=0.5)
    began_s = time.monotonic()
    assert exchange.file(path()).status == 200
    assert time.monotonic() - began_s >= 0.5
    exchange.fault("archive_reset")
    with pytest.raises(OSError, match=r".*"):
        exchange.file(path())
    exchange.fault("archive_truncated")
    assert exchange.file(path() + ".CHECKSUM").status == 200
    with pytest.raises(http.client.IncompleteRead) as caught:
        exchange.file(path())
    assert len(caught.value.partial) > 1000


def test_a_fault_of_the_archive_does_not_strike_rest(exchange: StandIn) -> None:
    """Nor does one of REST strike the archive."""
    exchange.fault("archive_status", count=5)
    exchange.fault("rest_status", count=5)
    assert exchange.get("/api/v3/ping").status == 500
    exchange.clear()
    exchange.fault("rest_status", count=5)
    assert exchange.file(path()).status == 200


# The parts.


@pytest.mark.parametrize(
    ("text", "first", "after"),
    [("2024-12-31", "2024-12-31", "2025-01-01"), ("2024-12", "2024-12-01", "2025-01-01")],
)
def test_a_name_stands_for_a_span_of_utc_days(text: str, first: str, after: str) -> None:
    """A day or a month, the end excluded; path_of() gives the name back."""
    asked = archive.asked_for(path(period=text))
    assert asked is not None
    assert (asked.begin_us, asked.end_us) == (day_named(first) * DAY_US, day_named(after) * DAY_US)
    assert archive.path_of(asked) == path(period=text)


def test_the_names_of_faults_tell_what_they_take(exchange: StandIn) -> None:
    """A size above what a frame may have is for the bomb alone."""
    assert exchange.post("/_faults", {"fault": "big", "size": 1 << 30}).status == 400
    body = exchange.post("/_faults", {"fault": "archive_bomb", "size": 1 << 30}).body
    assert json.dumps(body) == '{"fault": "archive_bomb", "applied": 1}'


# Clients that leave.


@pytest.mark.parametrize("what", [path(), f"/_truth/day?symbol=BTCUSDT&day={DAY}"])
def test_a_client_that_leaves_before_its_answer_is_no_mistake(what: str) -> None:
    """As when the capture is stopped in the middle of a back-fill: nothing is printed, and the next one is served."""
    with StandIn(*FLAGS, "--day-trades", "200000") as exchange:
        wait_until(lambda: bool(exchange.state()["tape"] == "ended"))
        left = http.client.HTTPConnection(exchange.http.removeprefix("http://"))
        left.request("GET", what)
        left.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        left.close()
        # Files are made one after the other: the answer that nobody reads was given before this one.
        assert exchange.file(path()).status == 200
        code, _, err = exchange.stop()
    assert (code, err) == (0, "")
