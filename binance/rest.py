"""The exchange's REST calls that the back-fill needs: trades by id, within the exchange's limits.

Source of the calls, weights and headers: Binance's rest-api.md, "Old trade lookup" and "LIMITS".
"""

import logging
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import msgspec
import urllib3

from binance import checks, network
from binance.limits import RATE_LIMITED_S, Cooldown, meaning, retry_after_s
from model.trade import Trade

log = logging.getLogger("rest")

SYMBOLS_PER_CALL_MAX = 50
INFO_CALLS_MAX = 100
"""Of exchangeInfo, each of which weighs 20: enough for 1,024 symbols and a handful that it does not know."""
PAGE_TRADES_MAX = 1_000
TRADES_WEIGHT = 25
INFO_WEIGHT = 20
WEIGHT_PER_MINUTE = 6_000
"""Used until exchangeInfo has told the current limit."""
WEIGHT_SHARE = 2
"""Only this fraction (1/2) of the limit is used; the rest is for other programs at this address."""
CONNECT_S_MAX = 5.0
READ_S_MAX = 10.0
"""The longest pause within an answer."""
CALL_S_MAX = 30.0
"""For a whole body, however slowly it arrives."""
READ_BYTES_MAX = 64 * 2**10
BODY_BYTES_MAX = 8 * 2**20
"""A page of 1,000 trades is 150 KB, exchangeInfo of one symbol 10 KB."""


_ELSEWHERE = "another BINANCE_REST_URL, such as https://data-api.binance.vision, may serve you"


class RestError(Exception):
    """The exchange gave no usable answer this time; the message says why."""


class LastingError(RestError):
    """It will give none as long as nothing is changed."""


class UnknownSymbolError(RestError):
    """The exchange does not know the symbol."""


UNKNOWN_SYMBOL = -1121
KEY_WANTED = (-2008, -2014, -2015)
"""Binance's codes (errors.md): invalid API key id, bad format, rejected."""


class Page(NamedTuple):
    """An answer: the trades in the exchange's order, and the rows that are not trades (reason and text)."""

    trades: list[Trade]
    refused: list[tuple[str, bytes]]


class _Row(msgspec.Struct, gc=False):
    id: int
    price: str
    qty: str
    time: int
    isBuyerMaker: bool


class _Error(msgspec.Struct, gc=False):
    code: int


_decode_error = msgspec.json.Decoder(_Error).decode


class _Symbol(msgspec.Struct, gc=False):
    symbol: str
    status: str


class _Info(msgspec.Struct, gc=False):
    symbols: list[_Symbol]


_decode_info = msgspec.json.Decoder(_Info).decode
_decode_page = msgspec.json.Decoder(list[_Row]).decode
_decode_rows = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_row = msgspec.json.Decoder(_Row).decode
_REFUSALS = (checks.Refusal, msgspec.DecodeError, UnicodeError, RecursionError)


def parse_rows(symbol: str, body: bytes) -> Page:
    """The trades of a historicalTrades answer; a row has no symbol, no event time and no time of receipt.

    Raises RestError for a body that is not a JSON list.
    """
    with suppress(*_REFUSALS):
        return Page([_trade(symbol, row) for row in _decode_page(body)], [])
    # Some row is malformed: look at each one separately, which takes longer.
    page = Page([], [])
    try:
        rows = _decode_rows(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise RestError(f"the answer is not a list of trades: {error}") from None
    for raw in rows:
        text = bytes(raw)
        try:
            page.trades.append(_trade(symbol, _decode_row(text)))
        except _REFUSALS as error:
            page.refused.append((f"not a trade: {error}", text))
    return page


def _trade(symbol: str, row: _Row) -> Trade:
    return Trade(
        symbol,
        checks.time(row.time),
        checks.trade_id(row.id),
        checks.decimal("price", row.price),
        checks.decimal("quantity", row.qty),
        row.isBuyerMaker,
    )


class Rest:
    """A kept connection to BINANCE_REST_URL. `wait` is called with the seconds by which a request must be put off."""

    def __init__(self, url: str, cooldown: Cooldown, wait: Callable[[float], object] = time.sleep) -> None:
        self._url = url
        self._cooldown = cooldown
        self._wait = wait
        self._weight_max: int | None = None
        self._used = 0
        self._minute_left_s = 0.0
        timeout = urllib3.Timeout(connect=CONNECT_S_MAX, read=READ_S_MAX)
        self._pool, self._proxy = network.pool(url, timeout)

    def fetch_statuses(self, symbols: Sequence[str]) -> dict[str, str | None]:
        """What the exchange says of each of `symbols`: `TRADING`, `HALT`, `BREAK` …; None: it does not know it.

        One call for each SYMBOLS_PER_CALL_MAX; if it knows one of them not, it says no more, and they are halved.
        Raises RestError.
        """
        found: dict[str, str | None] = {}
        waiting = [
            symbols[start : start + SYMBOLS_PER_CALL_MAX] for start in range(0, len(symbols), SYMBOLS_PER_CALL_MAX)
        ]
        calls = 0
        while waiting and calls < INFO_CALLS_MAX:
            part = waiting.pop()
            calls += 1
            try:
                found |= self._statuses(part)
            except UnknownSymbolError:
                if len(part) == 1:
                    found[part[0]] = None
                else:
                    waiting += [part[: len(part) // 2], part[len(part) // 2 :]]
        return found

    def _statuses(self, symbols: Sequence[str]) -> dict[str, str]:
        # As the exchange writes it: without spaces.
        self._keep_within(INFO_WEIGHT)
        names = msgspec.json.encode(list(symbols)).decode()
        body = self._get("exchangeInfo", {"symbols": names, "showPermissionSets": "false"})
        try:
            rows = _decode_info(body).symbols
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise LastingError(f"BINANCE_REST_URL={self._url}: exchangeInfo is not as documented: {error}") from None
        return {row.symbol: row.status for row in rows}

    def fetch_newest_id(self, symbol: str) -> int:
        """The id of the newest trade of `symbol` (the call `trades`, which is not behind the stream); 0: it has none.
        Raises RestError."""
        self._keep_within(TRADES_WEIGHT)
        page = parse_rows(symbol, self._get("trades", {"symbol": symbol, "limit": "1"}))
        return max((trade.trade_id for trade in page.trades), default=0)

    def fetch_trades(self, symbol: str, from_id: int, limit: int = PAGE_TRADES_MAX) -> Page:
        """The trades of `symbol` from `from_id` on, at most `limit`. The first may have a higher id than was asked
        for: the exchange silently skips what it does not have. Raises RestError."""
        if self._weight_max is None:
            self._weight_max = self._fetch_weight_max(symbol)
        self._keep_within(TRADES_WEIGHT)
        body = self._get("historicalTrades", {"symbol": symbol, "fromId": str(from_id), "limit": str(limit)})
        return parse_rows(symbol, body)

    def _keep_within(self, weight: int) -> None:
        """Waits if a call of this weight would be more than our share of what the exchange allows in a minute."""
        most = WEIGHT_PER_MINUTE if self._weight_max is None else self._weight_max
        if self._used + weight > most // WEIGHT_SHARE:
            log.info(
                "half of the exchange's request weight is used; waiting %.0f s for the next minute", self._minute_left_s
            )
            self._wait(self._minute_left_s)
            self._used = 0

    def close(self) -> None:
        """Closes the connection."""
        self._pool.clear()

    def _fetch_weight_max(self, symbol: str) -> int:
        body = self._get("exchangeInfo", {"symbol": symbol})
        try:
            limits = msgspec.json.decode(body)["rateLimits"]
            found = [int(limit["limit"]) for limit in limits if limit["rateLimitType"] == "REQUEST_WEIGHT"]
        except (msgspec.DecodeError, UnicodeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise RestError(f"exchangeInfo is not as documented: {error!r}") from None
        return found[0] if found else WEIGHT_PER_MINUTE

    def _get(self, call: str, fields: dict[str, str]) -> bytes:
        if left_s := self._cooldown.left_s():
            self._wait(left_s)
        # The wait may have been cut short, or the exchange may have ordered another one.
        if left_s := self._cooldown.left_s():
            raise RestError(f"the exchange allows no request for another {left_s:.0f} s")
        try:
            answer = self._pool.request("GET", f"{self._url}/api/v3/{call}", fields=fields, preload_content=False)
            # Before the body is read, which may never arrive.
            self._note_limits(answer.status, answer.headers)
            try:
                body = _body(answer)
            finally:
                answer.close() if answer.status >= 400 else answer.release_conn()
        except urllib3.exceptions.ProxyError as error:
            raise RestError(f"{self._proxy}: {error.original_error}") from None
        except urllib3.exceptions.HTTPError as error:
            raise RestError(f"BINANCE_REST_URL={self._url}{self._through()}: {error}") from None
        if answer.status != 200:
            raise self._refusal(answer.status, body)
        return body

    def _through(self) -> str:
        return f" through {self._proxy}" if self._proxy else ""

    def _note_limits(self, status: int, headers: urllib3.HTTPHeaderDict) -> None:
        if status in (418, 429):
            self._cooldown.order(retry_after_s(headers.get("Retry-After"), RATE_LIMITED_S))
        used = headers.get("X-MBX-USED-WEIGHT-1M", "")
        if re.fullmatch(r"[0-9]{1,9}", used):
            self._used = int(used)
        # The counter restarts on the exchange's minute, which its Date header tells even if our clock is off.
        try:
            second = parsedate_to_datetime(headers.get("Date", "")).second
        except ValueError:
            second = time.gmtime().tm_sec
        self._minute_left_s = 61.0 - second

    def _refusal(self, status: int, body: bytes) -> RestError:
        if status in (418, 429):
            left_s = self._cooldown.left_s()
            return RestError(f"HTTP {status}: too many requests from this address; waiting {left_s:.0f} s as told")
        code = _code(body)
        if code == UNKNOWN_SYMBOL:
            return UnknownSymbolError(f"HTTP {status}: the exchange knows no such symbol")
        if status == 407:
            return LastingError(f"HTTP 407: {self._proxy} wants a user and a password, as in http://user:password@host")
        where = f"BINANCE_REST_URL={self._url}{self._through()}"
        if status == 401 or code in KEY_WANTED:
            return LastingError(f"HTTP {status}: {where} wants an API key, which Binance's does not; {_ELSEWHERE}")
        words = meaning(status, _ELSEWHERE) or " ".join(body[:200].decode("utf-8", "replace").split())
        # Any other refusal of what is asked, or of who asks, is not cured by waiting.
        if 300 <= status < 500 and status != 408:
            return LastingError(f"HTTP {status}: {where}: {words}")
        return RestError(f"HTTP {status}: {where if self._proxy else ''}{': ' if self._proxy else ''}{words}")


def _code(body: bytes) -> int | None:
    """Binance's number of an error, if it is one of its answers."""
    with suppress(msgspec.DecodeError, UnicodeError, RecursionError):
        return _decode_error(body).code
    return None


def _body(answer: urllib3.BaseHTTPResponse) -> bytes:
    """The whole body. Raises RestError if it is too long or too slow, urllib3's HTTPError if it ends early."""
    deadline = time.monotonic() + CALL_S_MAX
    parts: list[bytes] = []
    size = 0
    while piece := answer.read1(READ_BYTES_MAX):
        parts.append(piece)
        size += len(piece)
        if size > BODY_BYTES_MAX:
            answer.close()
            raise RestError(f"the answer is longer than {BODY_BYTES_MAX} bytes")
        if time.monotonic() > deadline:
            answer.close()
            raise RestError(f"the answer was not complete after {CALL_S_MAX:.0f} s")
    return b"".join(parts)
