"""archive.py: which files are asked for, what is believed of the answers, and that no file is left behind."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from binance import archive, archive_file
from binance.archive import Archive, Archived, ArchiveError, Expected
from binance.archive_file import Content, Defect
from tests.makers import BTC, MIDNIGHT
from tests.support.archive_files import DAY, DAY_MS, STEM, at_ms, checksum, line, lines, packed
from tests.support.scripted_archive import DAILY, MONTHLY, ScriptedArchive
from tests.support.scripted_rest import Reply

COIN = "币安人生USDT"
QUOTED = "%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9FUSDT"
GOOD = packed(lines(1, 40))
MONTH = packed(line(1, -DAY_MS) + lines(2, 31) + line(32, DAY_MS), f"{STEM[:-3]}.csv")
CHECKSUM = f"{DAILY}.CHECKSUM"
DAILY_ONCE, MONTHLY_ONCE = [CHECKSUM, DAILY], [f"{MONTHLY}.CHECKSUM", MONTHLY]


@pytest.fixture
def server() -> Iterator[ScriptedArchive]:
    """An archive that has nothing yet."""
    running = ScriptedArchive()
    with running:
        yield running


class Client(Archive):
    """An Archive whose waits are only noted in `waits`, and whose folder does not exist yet."""

    def __init__(self, url: str, folder: Path) -> None:
        self.waits: list[float] = []
        self.folder = folder / "archive"
        super().__init__(url, self.folder, self.waits.append)

    def left(self) -> list[str]:
        """The files in the folder."""
        return [path.name for path in self.folder.iterdir()] if self.folder.exists() else []

    def use(self, trades: int | None = None) -> Archived:
        """What day() gives for DAY; the file is there within the block, and afterwards nothing is."""
        with self.day(BTC, DAY, Expected(trades)) as found:
            assert self.left() == [found.file.path.name]
            assert found.file.check() == found.content
        assert self.left() == []
        return found

    def defect(self, trades: int | None = None) -> tuple[str, str]:
        """The kind and the words of what is wrong; no file is left."""
        with pytest.raises(Defect) as caught, self.day(BTC, DAY, Expected(trades)):
            pytest.fail("there is nothing to use")
        assert self.left() == []
        return caught.value.kind, str(caught.value)

    def failure(self) -> str:
        """Why the archive could not be asked: one line; no file is left."""
        with pytest.raises(ArchiveError) as caught, self.day(BTC, DAY):
            pytest.fail("there is nothing to use")
        assert self.left() == []
        assert "\n" not in str(caught.value)
        return str(caught.value)


@pytest.fixture
def client(server: ScriptedArchive, tmp_path: Path) -> Iterator[Client]:
    """A client of that archive."""
    made = Client(server.url, tmp_path)
    yield made
    made.close()


# ---- What is asked for.


def test_a_daily_file(server: ScriptedArchive, client: Client) -> None:
    """What it has, its hash and its address; asked for by its exact name, over one connection, and never again."""
    server.put(DAILY, GOOD)

    found = client.use()

    assert (found.symbol, found.day, found.url) == (BTC, DAY, server.url + DAILY)
    assert found.content == Content(1, 40, MIDNIGHT, at_ms(39))
    assert found.sha256 == hashlib.sha256(GOOD).hexdigest()
    assert found.file.monthly is False
    assert server.paths == DAILY_ONCE
    assert client.use()[:2] == found[:2]
    assert len(server.clients) == 1
    assert client.waits == []


def test_a_symbol_that_is_not_ascii(server: ScriptedArchive, client: Client) -> None:
    """Its name is percent-encoded in the address, and as it is in the CHECKSUM and in the zip."""
    path = f"/data/spot/daily/trades/{QUOTED}/{QUOTED}-trades-{DAY}.zip"
    content = packed(lines(1, 3), f"{COIN}-trades-{DAY}.csv")
    server.files = {path: [Reply(content)], f"{path}.CHECKSUM": [Reply(checksum(content, f"{COIN}-trades-{DAY}.zip"))]}

    with client.day(COIN, DAY) as found:
        assert found.content.trades == 3
        assert client.left() == [f"{COIN}-trades-{DAY}.zip"]

    assert server.paths == [f"{path}.CHECKSUM", path]
    assert client.left() == []


def test_a_file_that_is_not_there_yet(server: ScriptedArchive, client: Client) -> None:
    """Is not published: daily and monthly are asked for once each, without a wait."""
    assert client.defect() == (archive.NOT_PUBLISHED, f"{STEM}.zip is not published yet")
    assert server.paths == DAILY_ONCE + MONTHLY_ONCE
    assert client.waits == []


def test_a_monthly_file_instead_of_none(
    server: ScriptedArchive, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Only the rows of the day are its content; why it is used is said once."""
    server.put(MONTHLY, MONTH)

    found = client.use()

    assert (found.url, found.file.monthly) == (server.url + MONTHLY, True)
    assert found.content == Content(2, 31, MIDNIGHT, at_ms(29))
    assert [record.message for record in caplog.records] == [
        f"the monthly file {STEM[:-3]}.zip is used instead: {STEM}.zip is not published yet"
    ]


# ---- Checksums.


@pytest.mark.parametrize(
    "text",
    [
        checksum(GOOD),
        checksum(GOOD).rstrip(),
        checksum(GOOD).replace(b"\n", b"\r\n"),
        checksum(GOOD).replace(b"  ", b" *"),
        checksum(GOOD)[:64].upper() + checksum(GOOD)[64:],
    ],
)
def test_a_checksum_however_it_is_written(server: ScriptedArchive, client: Client, text: bytes) -> None:
    """With or without a line feed, as of Windows, of a binary file, in upper case."""
    server.put(DAILY, GOOD)
    server.files[CHECKSUM] = [Reply(text)]

    assert client.use().content.trades == 40
    assert server.paths == DAILY_ONCE


WRONG = {
    "of another file": checksum(GOOD, "ETHUSDT-trades-2025-03-01.zip"),
    "of another day": checksum(GOOD, f"{STEM[:-1]}2.zip"),
    "without a name": hashlib.sha256(GOOD).hexdigest().encode(),
    "too short": checksum(GOOD)[1:],
    "two lines": checksum(GOOD) * 2,
    "empty": b"",
    "a page": b"<html>" + b"x" * 5_000,
    "not UTF-8": checksum(GOOD).replace(b"BTC", b"\xff\xfe"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_checksum_that_is_none_of_this_file(server: ScriptedArchive, client: Client, name: str) -> None:
    """It is fetched again, each time after a wait; the file itself is not worth it."""
    server.put(DAILY, GOOD)
    server.files[CHECKSUM] = [Reply(WRONG[name])]

    kind, words = client.defect()

    assert kind == archive.BAD_CHECKSUM
    assert words.startswith(f"the CHECKSUM of {STEM}.zip is no line of sha256sum for it")
    assert len(words) < 700
    assert server.paths == [CHECKSUM] * archive.TRIES_MAX + MONTHLY_ONCE
    assert len(client.waits) == archive.TRIES_MAX - 1


def test_a_checksum_that_is_wrong_once(server: ScriptedArchive, client: Client) -> None:
    """As while a file is being replaced: it is fetched again with its CHECKSUM, and no monthly file."""
    server.put(DAILY, GOOD)
    server.files[CHECKSUM].insert(0, Reply(checksum(b"before")))

    assert client.use().url == server.url + DAILY
    assert server.paths == DAILY_ONCE * 2
    assert [0.9 < wait < 2 for wait in client.waits] == [True]


def test_a_checksum_that_stays_wrong(server: ScriptedArchive, client: Client) -> None:
    """The monthly file is used; if there is none, the daily one is what is wrong."""
    server.put(DAILY, GOOD)
    server.files[CHECKSUM] = [Reply(checksum(b"other"))]

    kind, words = client.defect()

    wanted, found = (hashlib.sha256(content).hexdigest() for content in (b"other", GOOD))
    assert kind == archive.BAD_CHECKSUM
    assert words == f"{STEM}.zip has the SHA-256 {found}, and its CHECKSUM says {wanted}"
    assert server.paths == DAILY_ONCE * archive.TRIES_MAX + MONTHLY_ONCE
    server.put(MONTHLY, MONTH)
    assert client.use().url == server.url + MONTHLY


def test_a_file_without_its_checksum(server: ScriptedArchive, client: Client) -> None:
    """Is not believed, though it is good; and it is not "not published"."""
    server.put(DAILY, GOOD)
    del server.files[CHECKSUM]

    assert client.defect() == (archive.NO_CHECKSUM, f"{STEM}.zip is there without its CHECKSUM")


# ---- What is in the file.


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (packed(lines(1, 5) + lines(7, 9)), archive_file.IDS_MISSING),
        (packed(lines(1, 5) + line(5)), archive_file.UNSORTED),
        (packed(line(1, price="0")), archive_file.BAD_ROW),
        (packed(line(1, DAY_MS)), archive_file.OTHER_DAY),
        (packed(""), archive_file.EMPTY),
        (GOOD[:-5], archive_file.DAMAGED),
    ],
)
def test_a_file_that_is_as_its_checksum_says_and_is_bad(
    server: ScriptedArchive, client: Client, content: bytes, kind: str
) -> None:
    """The checksum proves the transport, so it is not fetched again; the monthly file is looked at."""
    server.put(DAILY, content)

    assert client.defect()[0] == kind
    assert server.paths == DAILY_ONCE + MONTHLY_ONCE
    server.put(MONTHLY, MONTH)
    assert client.use().url == server.url + MONTHLY
    server.put(MONTHLY, packed("", f"{STEM[:-3]}.csv"))
    assert client.defect()[0] == kind
    assert client.waits == []


def test_fewer_trades_than_the_exchange_counts(server: ScriptedArchive, client: Client) -> None:
    """Is cut short, daily and monthly; as many or more are not."""
    server.put(DAILY, GOOD)
    server.put(MONTHLY, MONTH)

    assert client.use(40).content.trades == client.use(39).content.trades == client.use(None).content.trades == 40
    assert client.defect(41) == (archive.CUT_SHORT, f"{STEM}.zip has 40 of the 41 trades of the day")
    server.put(DAILY, packed(lines(1, 20)))
    assert client.use(30).file.monthly is True
    assert client.defect(31) == (archive.CUT_SHORT, f"{STEM}.zip has 20 of the 31 trades of the day")


def test_a_count_of_the_exchange_that_is_wrong(server: ScriptedArchive, client: Client) -> None:
    """A file whose last id is followed by the first of the next day is whole, whatever was counted."""
    server.put(DAILY, GOOD)
    with client.day(BTC, DAY, Expected(41, 40)) as found:
        assert found.content.trades == 40
    with pytest.raises(Defect), client.day(BTC, DAY, Expected(41, 41)):
        pytest.fail("there is nothing to use")


# ---- Answers that are none.


@pytest.mark.parametrize("path", DAILY_ONCE)
@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_body_that_is_cut(server: ScriptedArchive, client: Client, path: str, end: str) -> None:
    """It is fetched again from its beginning; if it is always cut, the archive could not be asked."""
    server.put(DAILY, GOOD)
    body = server.files[path][0].body
    cut = Reply(body[:-10], announced=len(body), end=end)
    server.files[path] = [cut, cut, Reply(body)]

    assert client.use().content.trades == 40
    assert server.paths.count(path) == 3
    server.files[path] = [cut]
    assert f"{server.url}{path}" in client.failure()
    assert server.paths.count(path) == 3 + archive.TRIES_MAX


@pytest.mark.parametrize("path", DAILY_ONCE)
@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_server_that_has_a_bad_moment(server: ScriptedArchive, client: Client, path: str, status: int) -> None:
    """The same request again, after a wait each time; in the end the archive could not be asked."""
    server.put(DAILY, GOOD)
    good, bad = server.files[path][0], Reply(b"busy", status=status)
    server.files[path] = [bad, bad, good]

    assert client.use().content.trades == 40
    assert [wait > 0 for wait in client.waits] == [True, True]
    server.paths.clear()
    server.files[path] = [bad]
    assert client.failure() == f"BINANCE_ARCHIVE_URL={server.url}: HTTP {status}: no answer"
    assert server.paths == DAILY_ONCE[: DAILY_ONCE.index(path)] + [path] * archive.TRIES_MAX


@pytest.mark.parametrize("path", DAILY_ONCE)
@pytest.mark.parametrize(
    ("status", "words"),
    [(403, "the exchange's firewall refuses"), (451, "does not serve the country"), (302, "HTTP 302"), (400, "400")],
)
def test_a_server_that_refuses(server: ScriptedArchive, client: Client, path: str, status: int, words: str) -> None:
    """It is asked once, since the answer would be the same; the words say what it means. Nothing is followed."""
    server.put(DAILY, GOOD)
    server.files[path] = [Reply(b"no", status=status, headers={"Location": "/elsewhere"})]

    why = client.failure()

    assert words in why
    assert why.startswith(f"BINANCE_ARCHIVE_URL={server.url}: HTTP {status}: ")
    assert "BINANCE_ARCHIVE_URL, or a proxy" in why or status not in (403, 451)
    assert server.paths == DAILY_ONCE[: DAILY_ONCE.index(path) + 1]
    assert client.waits == []


def test_nobody_there(closed_port: int, tmp_path: Path) -> None:
    """The setting is named; it was tried a few times, and no more."""
    client = Client(f"http://127.0.0.1:{closed_port}", tmp_path)
    assert client.failure().startswith(f"BINANCE_ARCHIVE_URL=http://127.0.0.1:{closed_port}: ")
    assert len(client.waits) == archive.TRIES_MAX - 1


def test_a_file_that_is_too_long(server: ScriptedArchive, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up on the way, once, and the connection with it."""
    monkeypatch.setattr(archive, "ZIP_BYTES_MAX", 1_000)
    monkeypatch.setattr(archive, "PIECE_BYTES", 400)
    server.put(DAILY, b"x" * 100_000)

    assert client.failure() == f"{server.url}{DAILY} is longer than 1000 bytes or takes over 3600.0 s"
    assert server.paths == DAILY_ONCE
    server.put(DAILY, GOOD[:-5])
    assert client.defect()[0] == archive_file.DAMAGED
    assert client.waits == []


def test_a_file_that_takes_too_long(server: ScriptedArchive, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """However steadily it arrives."""
    monkeypatch.setattr(archive, "FILE_S_MAX", 0.1)
    server.put(DAILY, GOOD)
    server.files[DAILY] = [Reply(GOOD * 100, drip_s=0.01)]

    assert "takes over 0.1 s" in client.failure()


def test_nothing_is_left_by_who_fails_to_use_it(server: ScriptedArchive, client: Client) -> None:
    """An error, or a Ctrl-C, while the file is in use."""
    server.put(DAILY, GOOD)

    def fail(error: type[BaseException]) -> None:
        with client.day(BTC, DAY):
            assert client.left() == [f"{STEM}.zip"]
            raise error

    for error in (ZeroDivisionError, KeyboardInterrupt):
        with pytest.raises(error):
            fail(error)
        assert client.left() == []


def test_a_file_that_an_earlier_run_left(server: ScriptedArchive, client: Client) -> None:
    """Is written over."""
    client.folder.mkdir()
    (client.folder / f"{STEM}.zip").write_bytes(b"x" * 100_000)
    server.put(DAILY, GOOD)

    assert client.use().content.trades == 40
