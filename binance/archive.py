"""The exchange's archive: the trades of a symbol and UTC day, published as a file the day after.

Source: github.com/binance/binance-public-data (README and issues). A file is asked for by its exact name, never looked
for in a listing; 404 means "not yet", never "no trades". Each has a CHECKSUM beside it, one line of sha256sum. Monthly
files come later and hold the same trades; here one is asked for only where the daily file is of no use.
"""

import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import urllib3

from binance import network
from binance.archive_file import ArchiveFile, Content, Defect
from binance.limits import meaning
from process.retry import backoff_s, jittered

log = logging.getLogger("archive")

NOT_PUBLISHED = "not published yet"
NO_CHECKSUM = "without its CHECKSUM"
BAD_CHECKSUM = "does not match its CHECKSUM"
CUT_SHORT = "cut short"

CONNECT_S_MAX, READ_S_MAX = 10.0, 30.0
FILE_S_MAX = 3_600.0
"""For a whole file, however slowly it arrives."""
ZIP_BYTES_MAX = 8 * 2**30
"""The busiest month of BTCUSDT is about 3 GB."""
CHECKSUM_BYTES_MAX = 1_024
PIECE_BYTES = 2**18
TRIES_MAX = 3
"""Of a request that gets no answer, and of a file that is not as its checksum says."""

_OF_TRANSPORT = (NO_CHECKSUM, BAD_CHECKSUM)
"""What may be right the next time; what a right CHECKSUM vouches for stays as it is."""
_ELSEWHERE = "another BINANCE_ARCHIVE_URL, or a proxy, may serve you"
_CHECKSUM = re.compile(rb"([0-9a-fA-F]{64}) [ *]([^\r\n]{1,300})\r?\n?")


class ArchiveError(Exception):
    """The archive could not be asked; the message says why."""


class _FinalError(ArchiveError):
    """Asking again would not help."""


class Expected(NamedTuple):
    """What is known of a day from elsewhere: how many trades the exchange counts (None: not known), and the id right
    before the first one of the next day (None: not known)."""

    trades: int | None = None
    last_trade_id: int | None = None

    def is_less(self, content: Content) -> bool:
        """Whether a file that has this must have been cut short. The exchange's counts may be wrong, so one whose last
        id is followed by the first one of the next day is whole."""
        return self.trades is not None and content.trades < self.trades and content.last_trade_id != self.last_trade_id


NOTHING_EXPECTED = Expected()


class Archived(NamedTuple):
    """A file of the archive that has passed every check: what it has of the day, its hash and where it is from."""

    symbol: str
    day: date
    file: ArchiveFile
    content: Content
    sha256: str
    url: str


class Archive:
    """The archive at BINANCE_ARCHIVE_URL; files are kept in `folder` while they are used.

    `wait` is called with the seconds before a request is repeated.
    """

    def __init__(self, url: str, folder: Path, wait: Callable[[float], object] = time.sleep) -> None:
        self._url = url
        self._folder = folder
        self._wait = wait
        timeout = urllib3.Timeout(connect=CONNECT_S_MAX, read=READ_S_MAX)
        self._pool, self._proxy = network.pool(url, timeout)

    @contextmanager
    def day(self, symbol: str, day: date, expected: Expected = NOTHING_EXPECTED) -> Iterator[Archived]:
        """A block with the checked file of a day: the daily one or, if that is of no use, the monthly one.

        Raises Defect: what is wrong with the daily file, with the kinds of archive_file.py and of this module;
        ArchiveError.
        """
        why: Defect | None = None
        for monthly in (False, True):
            found = self._tried(symbol, day, monthly, expected)
            if isinstance(found, Archived):
                break
            why = why or found
        else:
            assert why is not None
            raise why
        try:
            if why is not None:
                log.warning("the monthly file %s is used instead: %s", found.file.path.name, why)
            yield found
        finally:
            found.file.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Closes the kept connection."""
        self._pool.clear()

    def _tried(self, symbol: str, day: date, monthly: bool, expected: Expected) -> Archived | Defect:
        """The file, or what is wrong with it each time that it is fetched. Raises ArchiveError."""
        attempt = 0
        while True:
            try:
                return self._fetch(symbol, day, monthly, expected)
            except _FinalError:
                raise
            except (Defect, ArchiveError) as error:
                why = error
            attempt += 1
            if attempt == TRIES_MAX or (isinstance(why, Defect) and why.kind not in _OF_TRANSPORT):
                break
            log.info("%s; it is fetched again", why)
            self._wait(jittered(backoff_s(attempt)))
        if isinstance(why, ArchiveError):
            raise why
        return why

    def _fetch(self, symbol: str, day: date, monthly: bool, expected: Expected) -> Archived:
        """A file that has passed every check. Raises Defect, ArchiveError."""
        stem = f"{symbol}-trades-{day:%Y-%m}" if monthly else f"{symbol}-trades-{day:%Y-%m-%d}"
        url = f"{self._url}/data/spot/{'monthly' if monthly else 'daily'}/trades/{quote(symbol)}/{quote(stem)}.zip"
        wanted = self._fetch_checksum(url, stem)
        path = self._folder / f"{stem}.zip"
        try:
            sha256 = self._fetch_file(url, path)
            if wanted is None:
                raise Defect(NO_CHECKSUM, f"{path.name} is there without its CHECKSUM")
            if sha256 != wanted:
                raise Defect(BAD_CHECKSUM, f"{path.name} has the SHA-256 {sha256}, and its CHECKSUM says {wanted}")
            file = ArchiveFile(path, f"{stem}.csv", day, monthly)
            content = file.check()
            if expected.is_less(content):
                raise Defect(CUT_SHORT, f"{path.name} has {content.trades} of the {expected.trades} trades of the day")
            return Archived(symbol, day, file, content, sha256, url)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def _fetch_checksum(self, url: str, stem: str) -> str | None:
        """What the CHECKSUM says; None: there is none, though the file may be there."""
        with self._answer(f"{url}.CHECKSUM") as answer:
            if answer.status == 404:
                return None
            # Only the second raises an error if the answer has ended early.
            text = answer.read(CHECKSUM_BYTES_MAX) + answer.read(1)
        match = _CHECKSUM.fullmatch(text)
        if match is None or match[2].decode("utf-8", "replace") != f"{stem}.zip":
            raise Defect(BAD_CHECKSUM, f"the CHECKSUM of {stem}.zip is no line of sha256sum for it: {text[:120]!r}")
        return match[1].decode().lower()

    def _fetch_file(self, url: str, path: Path) -> str:
        """The SHA-256 of the file, which is at `path` then."""
        self._folder.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + FILE_S_MAX
        found, size = hashlib.sha256(), 0
        with self._answer(url) as answer:
            if answer.status == 404:
                raise Defect(NOT_PUBLISHED, f"{path.name} is not published yet")
            with path.open("wb") as file:
                # read() would wait for a whole piece, which takes as long as slow bytes like.
                while piece := answer.read1(PIECE_BYTES):
                    size += len(piece)
                    if size > ZIP_BYTES_MAX or time.monotonic() > deadline:
                        raise _FinalError(f"{url} is longer than {ZIP_BYTES_MAX} bytes or takes over {FILE_S_MAX} s")
                    found.update(piece)
                    file.write(piece)
        return found.hexdigest()

    @contextmanager
    def _answer(self, url: str) -> Iterator[urllib3.BaseHTTPResponse]:
        """A block with the answer to a request, which has the status 200 or 404. Raises ArchiveError."""
        answer = self._ask(url)
        try:
            yield answer
        except urllib3.exceptions.HTTPError as error:
            raise ArchiveError(f"{url}: {error}") from error
        finally:
            # Of one that was read to its end the connection is kept already.
            answer.close()

    def _ask(self, url: str) -> urllib3.BaseHTTPResponse:
        why = ""
        for attempt in range(TRIES_MAX):
            if attempt:
                self._wait(jittered(backoff_s(attempt)))
            try:
                answer = self._pool.request("GET", url, preload_content=False, decode_content=False)
            except urllib3.exceptions.HTTPError as error:
                through = f" through {self._proxy}" if self._proxy else ""
                why = f"BINANCE_ARCHIVE_URL={self._url}{through}: {error}"
                continue
            if answer.status in (200, 404):
                return answer
            answer.close()
            means = meaning(answer.status, _ELSEWHERE) or "no answer"
            why = f"BINANCE_ARCHIVE_URL={self._url}: HTTP {answer.status}: {means}"
            if answer.status < 500:
                break
        raise _FinalError(why)
