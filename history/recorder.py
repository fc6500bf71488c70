"""Another recorder's API (tools/api) as a source of trades by their ids, each checked as strictly as the exchange's.

A request is repeated a bounded number of times, with growing waits; what repeating does not cure is not repeated.
"""

import logging
import re
import time
from collections.abc import Callable
from datetime import datetime
from operator import lt
from typing import NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

import msgspec
import urllib3

from binance import checks, network, rest
from binance.limits import retry_after_s
from binance.rest import RestError
from model.ids import Run
from model.times import EPOCH, MILLISECOND
from model.trade import Trade
from process import retry
from process.retry import backoff_s, jittered

log = logging.getLogger("recorder")

PAGE_TRADES_MAX = 5_000
"""About 1 MB; the API gives no more at once."""
TRIES_MAX = 8
"""Of a request: about two minutes."""
GARBAGE_TRIES_MAX = 3
"""Of one that is answered with what is no answer to it: most often that does not pass."""

_WORDS_CHARS_MAX = 200
T = TypeVar("T")

_is_time = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z").fullmatch


class RecorderError(Exception):
    """The other recorder gave no usable answer, however often it was asked; the message says why. `wait_s`: how long it
    wants to be left alone."""

    wait_s = 0.0


class RefusedError(RecorderError):
    """It will give none as long as nothing is changed."""


class GarbageError(RecorderError):
    """What it answers is no answer to the question."""


class _Row(msgspec.Struct, gc=False):
    symbol: str
    trade_id: int
    timestamp: str
    price: str
    quantity: str
    buyer_is_maker: bool


class _Numbered(msgspec.Struct, gc=False):
    symbol: str
    trades: list[_Row]
    next_id: int | None


class _Symbols(msgspec.Struct, gc=False):
    symbols: list[str]


class _Problem(msgspec.Struct, gc=False):
    detail: str


_decode_page = msgspec.json.Decoder(_Numbered).decode
_decode_symbols = msgspec.json.Decoder(_Symbols).decode
_decode_problem = msgspec.json.Decoder(_Problem).decode
_MALFORMED = (msgspec.DecodeError, RecursionError, ValueError)
"""Of ValueError are checks.Refusal, the errors of Unicode and of a time."""


class Numbered(NamedTuple):
    """Trades by rising id, as back-filled ones; `next_id`: the lowest stored id behind them, None: there is none."""

    trades: list[Trade]
    next_id: int | None


class Recorder:
    """A kept connection to the API at `url`; `wait` is called with the seconds before a request is repeated.

    Raises RecorderError from each call; RefusedError or GarbageError if that is what it is.
    """

    def __init__(self, url: str, token: str | None, wait: Callable[[float], object] = time.sleep) -> None:
        self.url = url
        self._wait = wait
        self._headers = {"Accept-Encoding": "gzip"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._has_token = token is not None
        parts = urlsplit(url)
        if token and parts.scheme == "http" and not network.is_this_machine(parts.hostname or ""):
            log.warning("%s is not https: whoever is on the way can read RECORDER_TOKEN", url)
        self._pool, _ = network.pool(url, urllib3.Timeout(connect=rest.CONNECT_S_MAX, read=rest.READ_S_MAX))

    def fetch_symbols(self) -> list[str]:
        """The symbols of which it has trades."""
        return self._ask("/api/symbols", {}, parse_symbols)

    def fetch(self, symbol: str, ids: Run, limit: int = PAGE_TRADES_MAX) -> Numbered:
        """The first `limit` or fewer of its trades with `ids`."""
        fields = {"first_id": str(ids[0]), "last_id": str(ids[1]), "limit": str(limit)}
        path = f"/api/trades/{quote(symbol, safe='')}/by-id"
        return self._ask(path, fields, lambda body: parse_numbered(symbol, ids, limit, body))

    def close(self) -> None:
        """Closes the connection."""
        self._pool.clear()

    def _ask(self, path: str, fields: dict[str, str], parse_body: Callable[[bytes], T]) -> T:
        attempt = 0
        while True:
            try:
                return parse_body(self._get(path, fields))
            except RefusedError:
                raise
            except RecorderError as error:
                attempt += 1
                if attempt == (GARBAGE_TRIES_MAX if isinstance(error, GarbageError) else TRIES_MAX):
                    raise
                wait_s = max(jittered(backoff_s(attempt - 1)), error.wait_s)
                log.warning("%s; asking again in %.1f s", error, wait_s)
            self._wait(wait_s)

    def _get(self, path: str, fields: dict[str, str]) -> bytes:
        try:
            answer = self._pool.request(
                "GET", self.url + path, fields=fields, headers=self._headers, preload_content=False
            )
            try:
                body = rest.read_body(answer)
            finally:
                answer.close() if answer.status >= 400 else answer.release_conn()
        except urllib3.exceptions.LocationValueError as error:
            raise RefusedError(f"{self.url}: {error}") from None
        except (urllib3.exceptions.HTTPError, RestError) as error:
            raise RecorderError(f"{self.url}: {error}") from None
        if answer.status != 200:
            raise self._refusal(answer.status, answer.headers.get("Retry-After"), body)
        return body

    def _refusal(self, status: int, retry_after: str | None, body: bytes) -> RecorderError:
        words = f"HTTP {status}: {_detail(body)}"
        if status == 401:
            what = "is wrong" if self._has_token else "is not set"
            return RefusedError(f"{self.url} wants its API_TOKEN: RECORDER_TOKEN (environment or .env) {what}")
        if status in (408, 429) or status >= 500:
            error = RecorderError(f"{self.url}: {words}")
            error.wait_s = min(retry_after_s(retry_after, 0.0), retry.BACKOFF_S_MAX)
            return error
        return RefusedError(f"{self.url}: {words}. Is it the API of a recorder of this version (`make api`)?")


def _detail(body: bytes) -> str:
    """What the API says of its refusal, or the start of what somebody else does."""
    try:
        return _decode_problem(body).detail[:_WORDS_CHARS_MAX]
    except _MALFORMED:
        return " ".join(body[:_WORDS_CHARS_MAX].decode("utf-8", "replace").split())


def parse_symbols(body: bytes) -> list[str]:
    """The symbols of an answer to /api/symbols. Raises GarbageError."""
    try:
        return _decode_symbols(body).symbols
    except _MALFORMED as error:
        raise GarbageError(f"the answer is not a list of symbols: {error}") from None


def parse_numbered(symbol: str, ids: Run, limit: int, body: bytes) -> Numbered:
    """The trades of an answer to /api/trades/…/by-id that was asked for `limit` trades of `symbol` with `ids`.

    Raises GarbageError for anything that is no answer to that: one that is wrong in part is not used in part.
    """
    try:
        page = _decode_page(body)
        trades = [_trade(symbol, row) for row in page.trades]
    except _MALFORMED as error:
        raise GarbageError(f"the answer is not a page of trades: {error}") from None
    # All of it rises, within what was asked for.
    numbers = [ids[0] - 1, *(trade.trade_id for trade in trades), *([] if page.next_id is None else [page.next_id])]
    if len(trades) > limit or not all(map(lt, numbers, numbers[1:])) or numbers[-1] > ids[1]:
        raise GarbageError(f"the answer is not the trades of {symbol} from {ids[0]} to {ids[1]}, but {numbers[1:3]} …")
    return Numbered(trades, page.next_id)


def _trade(symbol: str, row: _Row) -> Trade:
    if row.symbol != symbol:
        raise checks.Refusal(f"a trade of {row.symbol[:40]!r}")
    if not _is_time(row.timestamp):
        raise checks.Refusal(f"time {row.timestamp[:40]!r} is not in milliseconds and UTC")
    when = (datetime.fromisoformat(row.timestamp) - EPOCH) // MILLISECOND
    return Trade(
        symbol,
        checks.time(when),
        checks.trade_id(row.trade_id),
        checks.decimal("price", row.price),
        checks.decimal("quantity", row.quantity),
        row.buyer_is_maker,
    )
