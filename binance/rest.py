"""The exchange's REST calls, within its limits: trades by id, the first id of a time, klines, the state of symbols.

Source of the calls, weights and headers: Binance's rest-api.md, "Market data endpoints" and "LIMITS".
"""

import logging
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime

import msgspec
import urllib3

from binance import network, units
from binance.answers import (
    MALFORMED,
    LastingError,
    Page,
    RestError,
    UnknownSymbolError,
    parse_aggregates,
    parse_rows,
)
from binance.klines import Kline, parse_klines
from binance.limits import RATE_LIMITED_S, Cooldown, meaning, retry_after_s
from model.times import EPOCH, MILLISECOND, floor_ms

__all__ = ["Kline", "LastingError", "Page", "Rest", "RestError", "UnknownSymbolError", "parse_rows", "read_body"]

log = logging.getLogger("rest")

SYMBOLS_PER_CALL_MAX = 50
INFO_CALLS_MAX = 100
"""Of exchangeInfo, each of which weighs 20: enough for some thousand symbols and a handful that it does not know."""
PAGE_TRADES_MAX = 1_000
PAGE_KLINES_MAX = 1_000
AGGREGATES = 10
"""Asked for at once to find a valid one; those that are marked as duplicates are rare."""
AGGREGATE_CALLS_MAX = 20
TRADES_WEIGHT = 25
INFO_WEIGHT = 20
AGGREGATES_WEIGHT = 4
KLINES_WEIGHT = 2
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
LISTING_BYTES_MAX = 64 * 2**20
"""exchangeInfo of all symbols that are traded, some 1,500, is 3 to 5 MB."""

_ELSEWHERE = "another BINANCE_REST_URL, such as https://data-api.binance.vision, may serve you"
UNKNOWN_SYMBOL = -1121
TRADING = "TRADING"
"""What exchangeInfo says of a symbol that is traded."""
KEY_WANTED = (-2008, -2014, -2015)
"""Binance's codes (errors.md): invalid API key id, bad format, rejected."""


class _Error(msgspec.Struct, gc=False):
    code: int


_decode_error = msgspec.json.Decoder(_Error).decode


class _Symbol(msgspec.Struct, gc=False):
    symbol: str
    status: str


class _Info(msgspec.Struct, gc=False):
    symbols: list[_Symbol]


_decode_info = msgspec.json.Decoder(_Info).decode


class Rest:
    """A kept connection to BINANCE_REST_URL. `wait` is called with the seconds by which a request must be put off."""

    def __init__(self, url: str, cooldown: Cooldown, wait: Callable[[float], object] = time.sleep) -> None:
        self._url = url
        self._cooldown = cooldown
        self._wait = wait
        self._weight_max: int | None = None
        self._is_refused = False
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
        rows = self._symbols_in({"symbols": names, "showPermissionSets": "false"})
        return {row.symbol: row.status for row in rows}

    def _symbols_in(self, fields: dict[str, str], bytes_max: int | None = None) -> list[_Symbol]:
        body = self._get("exchangeInfo", fields, bytes_max)
        try:
            return _decode_info(body).symbols
        except MALFORMED as error:
            raise LastingError(f"BINANCE_REST_URL={self._url}: exchangeInfo is not as documented: {error}") from None

    def fetch_trading(self) -> list[str]:
        """All symbols that are traded now, in order: those of which the exchange says TRADING. Raises RestError."""
        self._keep_within(INFO_WEIGHT)
        rows = self._symbols_in({"symbolStatus": TRADING, "showPermissionSets": "false"}, LISTING_BYTES_MAX)
        # An old host may not know symbolStatus, and answer with all.
        return sorted(row.symbol for row in rows if row.status == TRADING)

    def fetch_newest_id(self, symbol: str) -> int:
        """The id of the newest trade of `symbol` (the call `trades`, which is not behind the stream); 0: it has none.
        Raises RestError."""
        self._keep_within(TRADES_WEIGHT)
        page = parse_rows(symbol, self._get("trades", {"symbol": symbol, "limit": "1"}))
        return max((trade.trade_id for trade in page.trades), default=0)

    def fetch_trades(self, symbol: str, from_id: int, limit: int = PAGE_TRADES_MAX) -> Page:
        """The trades of `symbol` from `from_id` on, at most `limit`. The first may have a higher id than was asked
        for: the exchange silently skips what it does not have. Raises RestError."""
        body = self._ask("historicalTrades", TRADES_WEIGHT, symbol, {"fromId": str(from_id), "limit": str(limit)})
        page = parse_rows(symbol, body)
        units.look("REST", f"BINANCE_REST_URL={self._url}", page.stamp)
        return page

    def fetch_klines(self, symbol: str, interval: str, start: datetime, limit: int = PAGE_KLINES_MAX) -> list[Kline]:
        """The klines of `symbol` that begin at `start` or later, oldest first, at most `limit`; the last one may not be
        over yet. `interval` is one of the exchange's: 1s, 1m, 1h, 1d … Raises RestError."""
        fields = {"interval": interval, "startTime": _stamp(start), "limit": str(limit)}
        return parse_klines(self._ask("klines", KLINES_WEIGHT, symbol, fields))

    def fetch_first_minute(self, symbol: str) -> datetime | None:
        """The start of the first minute of which the exchange has a kline of `symbol`; None: it has none.
        Raises RestError."""
        first = self.fetch_klines(symbol, "1m", EPOCH, 1)
        return first[0].start if first else None

    def fetch_first_id(self, symbol: str, when: datetime) -> int | None:
        """The id of the first trade of `symbol` at or after `when`, seen in milliseconds; None: there is none yet.

        Of the exchange's aggregates, which unlike trades are found by time. Raises RestError.
        """
        fields = {"startTime": _stamp(when)}
        for _ in range(AGGREGATE_CALLS_MAX):
            body = self._ask("aggTrades", AGGREGATES_WEIGHT, symbol, {**fields, "limit": str(AGGREGATES)})
            found = parse_aggregates(body)
            ids = [one.first_id for one in found if one.first_id is not None]
            if ids or not found:
                return ids[0] if ids else None
            fields = {"fromId": str(found[-1].aggregate_id + 1)}
        raise RestError(
            f"of {symbol} the first {AGGREGATE_CALLS_MAX * AGGREGATES} aggregates from {when} on are no trades"
        )

    def _ask(self, call: str, weight: int, symbol: str, fields: dict[str, str]) -> bytes:
        """The body of an answer about a symbol, which weighs so much; the limit is asked for before the first."""
        if self._weight_max is None:
            # Of a symbol that is unknown it is not told, and the next one asks for it again: of many, too often.
            if self._is_refused:
                self._keep_within(INFO_WEIGHT)
            try:
                self._weight_max = self._fetch_weight_max(symbol)
            except UnknownSymbolError:
                self._is_refused = True
                raise
        self._keep_within(weight)
        return self._get(call, {"symbol": symbol, **fields})

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
        except (*MALFORMED, KeyError, TypeError, ValueError) as error:
            raise RestError(f"exchangeInfo is not as documented: {error!r}") from None
        return found[0] if found else WEIGHT_PER_MINUTE

    def _get(self, call: str, fields: dict[str, str], bytes_max: int | None = None) -> bytes:
        if left_s := self._cooldown.left_s():
            self._wait(left_s)
        # The wait may have been cut short, or the exchange may have ordered another one.
        if left_s := self._cooldown.left_s():
            raise RestError(f"the exchange allows no request for another {left_s:.0f} s")
        try:
            url = f"{self._url}/api/v3/{call}"
            answer = self._pool.request("GET", url, fields=fields, headers=units.REST_HEADERS, preload_content=False)
            # Before the body is read, which may never arrive.
            self._note_limits(answer.status, answer.headers)
            try:
                body = read_body(answer, bytes_max)
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


def _stamp(when: datetime) -> str:
    """The first millisecond at or after `when`, as the exchange takes it; microseconds would mislead an old host."""
    below = floor_ms(when)
    return str((below - EPOCH) // MILLISECOND + (below < when))


def _code(body: bytes) -> int | None:
    """Binance's number of an error, if it is one of its answers."""
    with suppress(*MALFORMED):
        return _decode_error(body).code
    return None


def read_body(answer: urllib3.BaseHTTPResponse, bytes_max: int | None = None) -> bytes:
    """The whole body. Raises RestError if it is too long or too slow, urllib3's HTTPError if it ends early."""
    deadline = time.monotonic() + CALL_S_MAX
    most = bytes_max or BODY_BYTES_MAX
    parts: list[bytes] = []
    size = 0
    while piece := answer.read1(READ_BYTES_MAX):
        parts.append(piece)
        size += len(piece)
        if size > most:
            answer.close()
            raise RestError(f"the answer is longer than {most} bytes")
        if time.monotonic() > deadline:
            answer.close()
            raise RestError(f"the answer was not complete after {CALL_S_MAX:.0f} s")
    return b"".join(parts)
