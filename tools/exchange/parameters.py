"""The parameters of a REST call of the stand-in exchange, checked as Binance checks them."""

import re

from aiohttp import web

from tools.exchange.bars import Ask
from tools.exchange.clock import DAY_US

LIMIT_DEFAULT = 500
LIMIT_MAX = 1000

STATUSES = ("TRADING", "HALT", "BREAK", "CANCEL_ONLY", "END_OF_DAY")
_MICRO_FROM = 10**14
_PARAMETERS = {
    "/api/v3/ping": (),
    "/api/v3/time": (),
    "/api/v3/exchangeInfo": ("symbol", "symbols", "permissions", "showPermissionSets", "symbolStatus"),
    "/api/v3/historicalTrades": ("symbol", "limit", "fromId"),
    "/api/v3/trades": ("symbol", "limit"),
    "/api/v3/aggTrades": ("symbol", "limit", "fromId", "startTime", "endTime"),
    "/api/v3/klines": ("symbol", "interval", "startTime", "endTime", "limit"),
    "/api/v3/ticker/24hr": ("symbol",),
}
_UNITS_US = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": DAY_US}
_INTERVALS = {
    text: int(text[:-1]) * _UNITS_US[text[-1]]
    for text in ("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d")
}


class ApiError(Exception):
    """A refused call: Binance's code, its text and the HTTP status."""

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


def check_names(request: web.Request) -> None:
    """Refuses a parameter that the call does not have, or has twice. Raises ApiError, as all of these."""
    names = [name for name, _ in request.query.items()]
    if len(set(names)) != len(names):
        raise ApiError(-1101, "Duplicate values for a parameter detected.")
    known = [name for name in names if name in _PARAMETERS[request.path]]
    if len(known) != len(names):
        text = f"Not all sent parameters were read; read '{len(known)}' parameter(s) but was sent '{len(names)}'."
        raise ApiError(-1104, text)


def status(request: web.Request) -> None:
    """Refuses a `symbolStatus` that there is not, or beside names."""
    wanted = request.query.get("symbolStatus")
    if wanted is None:
        return
    if "symbol" in request.query or "symbols" in request.query:
        raise ApiError(-1128, "Combination of optional parameters invalid.")
    if wanted not in STATUSES:
        raise ApiError(-1122, "Invalid symbolStatus.")


def symbol(request: web.Request) -> str:
    """The symbol, which must be given."""
    name = request.query.get("symbol")
    if name is None:
        raise ApiError(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
    if not name:
        raise ApiError(-1105, "Parameter 'symbol' was empty.")
    bare = re.sub(r"[-_.]", "", name)
    if not bare.isalnum() or name != name.upper() or len(name) > 32:
        text = "Illegal characters found in parameter 'symbol'; legal range is '^[A-Z0-9-_.]{1,20}$'."
        raise ApiError(-1100, text)
    return name


def integer(request: web.Request, name: str) -> int | None:
    """The whole number of that name; None if it is not given."""
    text = request.query.get(name)
    if text is None:
        return None
    if not text:
        raise ApiError(-1105, f"Parameter '{name}' was empty.")
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise ApiError(-1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.")
    if int(text) >= 2**63:
        raise ApiError(-1130, f"Data sent for parameter '{name}' is not valid.")
    return int(text)


def limit(request: web.Request) -> int:
    """How many rows are wanted."""
    wanted = integer(request, "limit")
    if wanted is None:
        return LIMIT_DEFAULT
    if not 1 <= wanted <= LIMIT_MAX:
        raise ApiError(-1130, "Data sent for parameter 'limit' is not valid.")
    return wanted


def time_us(request: web.Request, name: str, rest_us: int) -> int | None:
    """The time in microseconds. One given in milliseconds stands for `rest_us` microseconds into that millisecond."""
    given = integer(request, name)
    if given is None:
        return None
    return given if given >= _MICRO_FROM else given * 1000 + rest_us


def bars(request: web.Request) -> Ask:
    """Which klines are wanted."""
    start_us, end_us = time_us(request, "startTime", 0), time_us(request, "endTime", 999)
    return Ask(interval_us(request), start_us, end_us, limit(request))


def interval_us(request: web.Request) -> int:
    """The length of a kline in microseconds."""
    interval = request.query.get("interval")
    if interval is None:
        raise ApiError(-1102, "Mandatory parameter 'interval' was not sent, was empty/null, or malformed.")
    if interval not in _INTERVALS:
        raise ApiError(-1120, "Invalid interval.")
    return _INTERVALS[interval]
