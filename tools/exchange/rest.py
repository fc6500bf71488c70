"""The REST half of the stand-in exchange: the public market-data calls, their checks, and the weight limit."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Callable
from typing import NamedTuple

from aiohttp import web

from tools.exchange import parameters as given
from tools.exchange.bars import Ask, Bar, Bars, kline_row
from tools.exchange.clock import DAY_US, Clock
from tools.exchange.ledger import Aggregate, Ledger, Truth
from tools.exchange.tape import E8, Trade, from_e8, rest_row, spec_of

WINDOW_S = 60
"""The weight counter restarts at each full minute of the clock."""

BAN_AFTER = 5
"""Calls that a client may still make in the minute after its first 429; the next one bans its address."""

BAN_S = 120
"""The first ban, seconds; each further one is twice as long, up to BAN_S_MAX."""

BAN_S_MAX = 3 * 86400

_SQL = re.compile(r"(?i)\b(select|union|insert|drop|delete|update|sleep)\b|--|/\*")
WEIGHTS = {
    "/api/v3/ping": 1,
    "/api/v3/time": 1,
    "/api/v3/exchangeInfo": 20,
    "/api/v3/historicalTrades": 25,
    "/api/v3/trades": 25,
    "/api/v3/aggTrades": 4,
    "/api/v3/klines": 2,
    "/api/v3/ticker/24hr": 2,
}


class RestRules(NamedTuple):
    """What the command line can change. `oldest_id`: older trades are never served."""

    lag_s: float = 0.2
    weight_limit: int = 6000
    oldest_id: int = 0


class Weight:
    """The weight used in the current minute, and the ban of a client that did not stop."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.refused = 0
        self.banned_until_s = 0.0
        self._window = -1
        self._bans = 0

    def take(self, weight: int, now_s: float) -> tuple[int, int] | None:
        """Counts a call at wall-clock second `now_s`. Returns (429 or 418, Retry-After seconds) if it is refused."""
        window = int(now_s // WINDOW_S)
        if window != self._window:
            self._window, self.used, self.refused = window, 0, 0
        if now_s < self.banned_until_s:
            return 418, int(self.banned_until_s - now_s) + 1
        self.used += weight
        if self.used <= self.limit:
            return None
        self.refused += 1
        if self.refused <= BAN_AFTER:
            return 429, int((window + 1) * WINDOW_S - now_s) + 1
        ban_s = min(BAN_S_MAX, BAN_S * 2**self._bans)
        self._bans += 1
        self.banned_until_s = now_s + ban_s
        return 418, ban_s


class Rest:
    """The calls under /api/v3, answered from the truth."""

    def __init__(self, truth: Truth, rules: RestRules, clock: Clock) -> None:
        self.truth = truth
        self.rules = rules
        self.clock = clock
        self._bars: dict[str, Bars] = {}
        self.late_ids = 0
        self.statuses: dict[str, str] = {}
        self.lag_s = rules.lag_s
        self.weight = Weight(rules.weight_limit)
        self.calls: dict[str, int] = {}
        self._do: dict[str, Callable[[web.Request, bool], object]] = {
            "/api/v3/ping": lambda request, micro: {},
            "/api/v3/time": lambda request, micro: {"serverTime": self._now(micro)},
            "/api/v3/exchangeInfo": self._exchange_info,
            "/api/v3/historicalTrades": self._historical_trades,
            "/api/v3/trades": self._trades,
            "/api/v3/aggTrades": self._agg_trades,
            "/api/v3/klines": self._klines,
            "/api/v3/ticker/24hr": self._ticker,
        }

    def serve(self, request: web.Request) -> web.Response:
        """The answer to one call, with the weight used so far in its headers."""
        response = self._limited(request)
        response.headers["X-MBX-USED-WEIGHT"] = response.headers["X-MBX-USED-WEIGHT-1M"] = str(self.weight.used)
        return response

    def _limited(self, request: web.Request) -> web.Response:
        path = request.path
        self.calls[path] = self.calls.get(path, 0) + 1
        over = self.weight.take(WEIGHTS.get(path, 1), time.time())
        if over is not None:
            return refusal(*over, self.weight)
        if _SQL.search(request.query_string):
            return web.Response(status=403, text="<html>403 Forbidden</html>", content_type="text/html")
        if path not in self._do:
            return web.Response(status=404, text="<html>404 Not found</html>", content_type="text/html")
        micro = request.headers.get("X-MBX-TIME-UNIT", "").upper() == "MICROSECOND"
        try:
            given.check_names(request)
            return compact(self.answer(request, micro))
        except given.ApiError as error:
            return compact({"code": error.code, "msg": str(error)}, status=error.status)

    def answer(self, request: web.Request, micro: bool) -> object:
        """What a call that is known is answered with. Raises ApiError."""
        return self._do[request.path](request, micro)

    def _ledger(self, request: web.Request) -> Ledger:
        symbol = given.symbol(request)
        if symbol not in self.truth.ledgers:
            raise given.ApiError(-1121, "Invalid symbol.")
        return self.truth.ledgers[symbol]

    def _historical_trades(self, request: web.Request, micro: bool) -> object:
        ledger, limit = self._ledger(request), given.limit(request)
        from_id = given.integer(request, "fromId")
        if from_id is None:
            found = self.newest(ledger, limit, self._shown(ledger))
        else:
            found = self.from_id(ledger, max(from_id + self.late_ids, self.rules.oldest_id), limit)
        return [rest_row(trade, micro) for trade in found if trade.trade_id >= self.rules.oldest_id]

    def _trades(self, request: web.Request, micro: bool) -> object:
        # Served from memory, which does not lag behind the stream as the database does.
        ledger, limit = self._ledger(request), given.limit(request)
        return [rest_row(trade, micro) for trade in self.newest(ledger, limit, len(ledger.ids))]

    def _shown(self, ledger: Ledger) -> int:
        return ledger.shown(time.monotonic(), self.lag_s)

    def newest(self, ledger: Ledger, limit: int, shown: int) -> list[Trade]:
        """The last `limit` trades of the first `shown`, oldest first."""
        return ledger.newest(limit, shown)

    def from_id(self, ledger: Ledger, from_id: int, limit: int) -> list[Trade]:
        """The first `limit` trades from an id on."""
        return ledger.from_id(from_id, limit, self._shown(ledger))

    def _agg_trades(self, request: web.Request, micro: bool) -> object:
        ledger, limit = self._ledger(request), given.limit(request)
        from_id = given.integer(request, "fromId")
        start_us, end_us = given.time_us(request, "startTime", 0), given.time_us(request, "endTime", 999)
        if from_id is not None and (start_us is not None or end_us is not None):
            raise given.ApiError(-1128, "Combination of optional parameters invalid.")
        if start_us is not None and end_us is not None and start_us > end_us:
            raise given.ApiError(-1128, "Combination of optional parameters invalid.")
        return [_agg_row(row, micro) for row in self.aggregates(ledger, limit, from_id, (start_us, end_us))]

    def aggregates(
        self, ledger: Ledger, limit: int, from_id: int | None, times_us: tuple[int | None, int | None]
    ) -> list[Aggregate]:
        """As Ledger.aggregates(), without what is not shown yet."""
        last_shown = ledger.newest_id(self._shown(ledger))
        found = ledger.aggregates(limit, from_id, times_us)
        return [row for row in found if row.last.trade_id <= last_shown]

    async def warm(self, request: web.Request) -> None:
        """Makes what the answer needs of the deep history, if that takes long, while the tape goes on."""
        if request.path == "/api/v3/klines":
            with contextlib.suppress(given.ApiError):
                ledger, ask = self._ledger(request), given.bars(request)
                shown, now_us = self._shown(ledger), self.clock.shown_us(self.lag_s)
                await asyncio.to_thread(self._bars_of(ledger).warm, ask, shown, now_us)

    def _klines(self, request: web.Request, micro: bool) -> object:
        ledger, ask = self._ledger(request), given.bars(request)
        return [kline_row(open_us, ask.unit_us, bar, micro) for open_us, bar in self.klines(ledger, ask)]

    def klines(self, ledger: Ledger, ask: Ask) -> list[tuple[int, Bar]]:
        """The bars that are wanted, with their open times."""
        return self._bars_of(ledger).klines(ask, self._shown(ledger), self.clock.shown_us(self.lag_s))

    def _ticker(self, request: web.Request, micro: bool) -> object:
        ledger, now_us = self._ledger(request), self.clock.now_us()
        begin_us, unit = now_us - DAY_US, 1 if micro else 1000
        bar, first, last = self.span(ledger, begin_us)
        bar = bar or Bar(0, 0, 0, 0, 0, 0, 0, 0, 0)
        return {
            "symbol": ledger.symbol,
            "lastPrice": from_e8(bar.close),
            "openPrice": from_e8(bar.open),
            "highPrice": from_e8(bar.high),
            "lowPrice": from_e8(bar.low),
            "volume": from_e8(bar.base),
            "quoteVolume": from_e8(bar.quote_e16 // E8),
            "openTime": begin_us // unit,
            "closeTime": now_us // unit,
            "firstId": first,
            "lastId": last if bar.trades else -1,
            "count": bar.trades,
        }

    def span(self, ledger: Ledger, begin_us: int) -> tuple[Bar | None, int, int]:
        """The bar of all trades since that time (None: there are none), and its first and last id."""
        shown = self._shown(ledger)
        bar = self._bars_of(ledger).span(begin_us, shown)
        return bar, ledger.first_id_since(begin_us) if bar else -1, ledger.newest_id(shown)

    def _bars_of(self, ledger: Ledger) -> Bars:
        if ledger.symbol not in self._bars:
            self._bars[ledger.symbol] = Bars(ledger)
        return self._bars[ledger.symbol]

    def _exchange_info(self, request: web.Request, micro: bool) -> object:
        names = self._asked(request)
        if (wanted := request.query.get("symbolStatus")) is not None:
            names = [name for name in names if self.statuses.get(name, "TRADING") == wanted]
        return {
            "timezone": "UTC",
            "serverTime": self._now(micro),
            "rateLimits": [
                _rate_limit("REQUEST_WEIGHT", "MINUTE", 1, self.weight.limit),
                _rate_limit("RAW_REQUESTS", "MINUTE", 5, 300_000),
            ],
            "exchangeFilters": [],
            "symbols": [_symbol_info(name) | {"status": self.statuses.get(name, "TRADING")} for name in names],
        }

    def _now(self, micro: bool) -> int:
        return time.time_ns() // (1000 if micro else 1_000_000)

    def _asked(self, request: web.Request) -> list[str]:
        given.status(request)
        if "symbol" in request.query:
            asked = [given.symbol(request)]
        elif "symbols" in request.query:
            asked = re.findall(r'"([^"]*)"', request.query["symbols"])
            if not asked:
                raise given.ApiError(-1100, "Illegal characters found in parameter 'symbols'.")
        else:
            asked = list(self.truth.ledgers)
        if any(name not in self.truth.ledgers for name in asked):
            raise given.ApiError(-1121, "Invalid symbol.")
        return asked


def refusal(status: int, retry_after_s: int, weight: Weight) -> web.Response:
    """HTTP 429 or 418 with its body and `Retry-After`."""
    if status == 418:
        until_ms = int((time.time() + retry_after_s) * 1000)
        message = f"Way too much request weight used; IP banned until {until_ms}. Please use WebSocket Streams."
    else:
        message = (
            f"Too much request weight used; current limit is {weight.limit} request weight per 1 MINUTE. "
            "Please use WebSocket Streams for live updates to avoid polling the API."
        )
    return compact({"code": -1003, "msg": message}, status=status, headers={"Retry-After": str(retry_after_s)})


def compact(body: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer, written without spaces as the exchange writes it."""
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    return web.Response(text=text, status=status, headers=headers, content_type="application/json")


def _agg_row(row: Aggregate, micro: bool) -> dict[str, object]:
    first: Trade = row.first
    return {
        "a": row.aggregate_id,
        "p": from_e8(first.price_e8),
        "q": from_e8(row.quantity_e8),
        "f": first.trade_id,
        "l": row.last.trade_id,
        "T": first.time_us if micro else first.time_us // 1000,
        "m": first.buyer_is_maker,
        "M": True,
    }


def _rate_limit(kind: str, interval: str, number: int, limit: int) -> dict[str, object]:
    return {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": limit}


def _symbol_info(symbol: str) -> dict[str, object]:
    spec = spec_of(symbol)
    tick, step, highest = from_e8(spec.tick_e8), from_e8(spec.step_e8), from_e8(spec.price_e8 * 100)
    return {
        "symbol": symbol,
        "status": "TRADING",
        "baseAsset": spec.base,
        "baseAssetPrecision": 8,
        "quoteAsset": spec.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
        "isSpotTradingAllowed": True,
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": tick,
                "maxPrice": highest,
                "tickSize": tick,
            },
            {"filterType": "LOT_SIZE", "minQty": step, "maxQty": "9000000.00000000", "stepSize": step},
        ],
        "permissions": [],
        "permissionSets": [["SPOT"]],
    }
