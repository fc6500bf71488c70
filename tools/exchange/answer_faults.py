"""What can go wrong with a handshake or a REST call of the stand-in exchange: one small function per fault.

Each returns the answer to send instead of the exchange's; None lets the exchange answer.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from tools.exchange.rest import compact, refusal
from tools.exchange.stream_faults import Args, World
from tools.exchange.streams import reset
from tools.exchange.tape import from_e8, to_e8

_HANG_STEP_S = 0.05

Answer = Callable[[web.Request, Args, World], Awaitable[web.StreamResponse | None]]


async def status(request: web.Request, args: Args, world: World) -> web.StreamResponse:
    """HTTP `status`, with the exchange's body for it, and Retry-After if the exchange sends one."""
    if args.status in (418, 429):
        return refusal(args.status, args.retry_after, world.rest.weight)
    if args.status == 451:
        text = "Service unavailable from a restricted location according to 'b. Eligibility' in the terms."
        return compact({"code": 0, "msg": text}, status=451)
    if args.status == 401:
        return compact({"code": -2014, "msg": "API-key format invalid."}, status=401)
    if args.status == 503:
        return compact({"code": -1008, "msg": "Server is currently overloaded with other requests."}, status=503)
    text = f"<html><head><title>{args.status}</title></head><body>{args.status}</body></html>"
    return web.Response(status=args.status, text=text, content_type="text/html")


async def drop(request: web.Request, args: Args, world: World) -> web.StreamResponse:
    """The connection is reset instead of answered."""
    if isinstance(request.transport, asyncio.Transport):
        reset(request.transport)
    return web.Response()


async def hang(request: web.Request, args: Args, world: World) -> web.StreamResponse:
    """Nothing is sent for `delay` seconds, then the connection is reset."""
    await _wait(request, args.delay)
    return await drop(request, args, world)


async def slow(request: web.Request, args: Args, world: World) -> None:
    """The answer is `delay` seconds late."""
    await _wait(request, args.delay)


async def _wait(request: web.Request, seconds: float) -> None:
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s and request.transport is not None:
        await asyncio.sleep(_HANG_STEP_S)


async def truncated(request: web.Request, args: Args, world: World) -> web.StreamResponse:
    """Half of the body is sent, then the connection is closed."""
    answer = world.rest.serve(request)
    body = bytes(answer.body) if isinstance(answer.body, bytes) else b""
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


async def not_json(request: web.Request, args: Args, world: World) -> web.StreamResponse:
    """HTTP 200 with a page of HTML."""
    text = "<html><body>We are undergoing maintenance.</body></html>"
    return web.Response(text=text, content_type="text/html", headers=_weight(world))


async def empty(request: web.Request, args: Args, world: World) -> web.StreamResponse:
    """HTTP 200 with an empty list, as from a database that is far behind."""
    return web.json_response([], headers=_weight(world))


async def error(request: web.Request, args: Args, world: World) -> web.StreamResponse:
    """HTTP 200 with an error object instead of a list."""
    return compact(
        {"code": -1000, "msg": "An unknown error occurred while processing the request."}, 200, _weight(world)
    )


async def bad_row(request: web.Request, args: Args, world: World) -> web.StreamResponse:
    """One row of the answer has a price that is not a number."""
    answer = world.rest.serve(request)
    rows: Any = json.loads(answer.text or "null")
    if isinstance(rows, list) and rows:
        rows[len(rows) // 2]["price"] = "NaN"
    return compact(rows, answer.status, {"X-MBX-USED-WEIGHT-1M": str(world.rest.weight.used)})


_TRADES = 8
"""The column of a kline that says how many trades it has (rest-api.md, "Kline/Candlestick data")."""


async def wrong_kline(request: web.Request, args: Args, world: World) -> web.StreamResponse:
    """One kline of the answer, of a time with trades, has another close."""
    answer = world.rest.serve(request)
    rows: Any = json.loads(answer.text or "null")
    traded = [row for row in rows if row[_TRADES]] if isinstance(rows, list) else []
    if traded:
        row = traded[len(traded) // 2]
        row[4] = from_e8(to_e8(row[4]) + 1_000_000)
    return compact(rows, answer.status, _weight(world))


def _weight(world: World) -> dict[str, str]:
    return {"X-MBX-USED-WEIGHT-1M": str(world.rest.weight.used)}


HANDSHAKES: dict[str, Answer] = {
    "handshake_status": status,
    "handshake_reset": drop,
    "handshake_hang": hang,
    "handshake_slow": slow,
}

CALLS: dict[str, Answer] = {
    "rest_status": status,
    "rest_reset": drop,
    "rest_down": drop,
    "rest_hang": hang,
    "rest_slow": slow,
    "rest_truncated": truncated,
    "rest_not_json": not_json,
    "rest_empty": empty,
    "rest_error": error,
    "rest_bad_row": bad_row,
    "kline_wrong": wrong_kline,
}
