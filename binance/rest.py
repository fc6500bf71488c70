"""The exchange's REST calls that the back-fill needs: trades by id, within the exchange's limits.

Source of the calls, weights and headers: Binance's rest-api.md, "Old trade lookup" and "LIMITS".
"""

import logging
import re
import time
from collections.abc import Callable
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import msgspec
import urllib3

from binance import checks
from binance.limits import RATE_LIMITED_S, Cooldown, meaning, retry_after_s
from model.trade import Trade

log = logging.getLogger("rest")

PAGE_TRADES_MAX = 1_000
TRADES_WEIGHT = 25
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
        self._pool = urllib3.PoolManager(1, timeout=timeout, retries=False)

    def fetch_trades(self, symbol: str, from_id: int, limit: int = PAGE_TRADES_MAX) -> Page:
        """The trades of `symbol` from `from_id` on, at most `limit`. The first may have a higher id than was asked
        for: the exchange silently skips what it does not have. Raises RestError."""
        if self._weight_max is None:
            self._weight_max = self._fetch_weight_max(symbol)
        if self._used + TRADES_WEIGHT > self._weight_max // WEIGHT_SHARE:
            log.info(
                "half of the exchange's request weight is used; waiting %.0f s for the next minute", self._minute_left_s
            )
            self._wait(self._minute_left_s)
            self._used = 0
        body = self._get("historicalTrades", {"symbol": symbol, "fromId": str(from_id), "limit": str(limit)})
        return parse_rows(symbol, body)

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
        except urllib3.exceptions.HTTPError as error:
            raise RestError(f"BINANCE_REST_URL={self._url}: {error}") from None
        if answer.status != 200:
            raise RestError(self._refusal(answer.status, body))
        return body

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

    def _refusal(self, status: int, body: bytes) -> str:
        if status in (418, 429):
            left_s = self._cooldown.left_s()
            return f"HTTP {status}: too many requests from this address; waiting {left_s:.0f} s as told"
        words = " ".join(body[:200].decode("utf-8", "replace").split())
        return f"HTTP {status}: {meaning(status, _ELSEWHERE) or words}"


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
