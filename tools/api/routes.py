"""The questions that the API answers: each asks the database once, in a thread of its own."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

import db
from db import Connection
from report import answers
from storage import gaps as stored_gaps
from storage import pages, questions
from storage.gaps import OpenGaps
from storage.pages import EARLIEST, LATEST
from tools.api import cursor, params, shapes
from tools.api.context import RETRY_AFTER_S, Context, away, check_known, context_of, unknown
from tools.api.described import content, described
from tools.api.door import LOGIN, is_token, set_cookie
from tools.api.hub import FullError, Listener
from tools.api.sessions import AwayError
from tools.api.settings import ApiSettings
from tools.api.shapes import Json, Refusal
from tools.api.stream import respond

CANDLES_MAX = 5_000
"""In one answer; about 1 MB of JSON."""
CANDLES_DEFAULT = 500
STREAM_SYMBOLS_MAX = 20
"""In one stream; the id of each of its events names them all."""

_NOTHING = OpenGaps(0, 0)
_EVENTS = (
    'event: trade\nid: BTCUSDT:4000000124\ndata: {"symbol":"BTCUSDT","trade_id":4000000124,'
    '"timestamp":"2025-11-20T10:15:09.250Z","price":"97123.45000000","quantity":"0.00012000","buyer_is_maker":false,'
    '"received_at":"2025-11-20T10:15:09.262Z"}\n\n'
)

router = APIRouter(prefix="/api", tags=["Questions"], dependencies=[Depends(params.refuse_unknown)])
open_router = APIRouter(tags=["For everybody"], dependencies=[Depends(params.refuse_unknown)])
"""What needs no token."""


@router.get("/symbols", **described(shapes.Symbols))
def symbols(request: Request) -> Response:
    """The symbols of which trades are stored."""
    return Json(shapes.Symbols(context_of(request).sessions.ask(db.symbols)))


@router.get("/latest", **described(shapes.LatestOfAll, 422))
def latest_of_all(
    request: Request, after: params.After = "", limit: params.SymbolLimit = params.SYMBOLS_MAX
) -> Response:
    """The newest trade of every symbol, at one moment. If they are many: repeat with `after` = `next_after`."""
    context = context_of(request)
    # One more than asked for tells whether there are more.
    found = context.sessions.ask(lambda c: questions.latest_prices(c, datetime.now(UTC), after, limit + 1))
    shown, more = found[:limit], len(found) > limit
    next_after = shown[-1].trade.symbol if more else None
    return Json(
        shapes.LatestOfAll([context.newest.tell(one) for one in shown], next_after, sum(one.missing for one in shown))
    )


@router.get("/latest/{symbol}", **described(answers.Latest, 404, 422))
def latest(request: Request, symbol: params.Symbol) -> Response:
    """The newest trade, whose price is the latest price."""
    found = context_of(request).sessions.ask(lambda c: questions.latest_price(c, symbol, datetime.now(UTC)))
    if found is None:
        raise unknown(symbol)
    return Json(answers.latest(found))


@router.get("/at/{symbol}", **described(answers.Second, 404, 422))
def at(request: Request, symbol: params.Symbol, time: params.Moment) -> Response:
    """The price at a specific second: what traded in it, and the price as of `time` if nothing did.

    The price as of a time that has not come yet is not known: null.
    """
    context = context_of(request)
    check_known(context, symbol)
    second = time.replace(microsecond=0)
    outside, found = context.sessions.ask(
        lambda c: (
            questions.outside(c, symbol, second, second + timedelta(seconds=1)),
            questions.price_at(c, symbol, time),
        )
    )
    return Json(answers.second(found._replace(as_of=_come(found.as_of, time)), outside))


@router.get("/range/{symbol}", **described(answers.Range, 404, 422))
def low_and_high(request: Request, symbol: params.Symbol, start: params.Start, end: params.End) -> Response:
    """The low and the high of the price in [start, end), with the trade of each; as quick for years as for a minute."""
    context = context_of(request)
    check_known(context, symbol)
    params.check_range(start, end)
    outside, found = context.sessions.ask(
        lambda c: (questions.outside(c, symbol, start, end), questions.low_and_high(c, symbol, start, end))
    )
    return Json(answers.low_and_high(found._replace(as_of=_come(found.as_of, start)), outside))


def _come(as_of: questions.Aged | None, time: datetime) -> questions.Aged | None:
    """The price as of `time`, unless that has not come yet; the exchange's clock may run ahead of this machine's."""
    return None if as_of and time > max(datetime.now(UTC), as_of.trade.timestamp) else as_of


@router.get("/vwap/{symbol}", **described(answers.Volume, 404, 422))
def vwap(request: Request, symbol: params.Symbol, start: params.Start, end: params.End) -> Response:
    """The volume and the volume-weighted average price of [start, end); as quick for years as for a minute."""
    context = context_of(request)
    check_known(context, symbol)
    params.check_range(start, end)
    outside, found = context.sessions.ask(
        lambda c: (questions.outside(c, symbol, start, end), questions.volume(c, symbol, start, end))
    )
    return Json(answers.volume(found, outside))


@router.get("/candles/{symbol}", **described(answers.Candles, 404, 413, 422))
def candles(
    request: Request,
    symbol: params.Symbol,
    resolution: Annotated[
        Literal["1s", "1m", "5m", "15m", "1h", "4h", "1d"],
        Query(description="How long a candle is.", examples=["5m"]),
    ] = "1m",
    start: params.MaybeStart = EARLIEST,
    end: params.MaybeEnd = LATEST,
) -> Response:
    """The candles that begin in [start, end), at most 5,000; without a `start` the last 500 that begin before `end`."""
    context = context_of(request)
    check_known(context, symbol)
    params.check_range(start, end)
    seconds = answers.RESOLUTIONS[resolution]
    if start == EARLIEST:
        last = context.sessions.ask(lambda c: questions.last_candles(c, symbol, seconds, end, CANDLES_DEFAULT))
        found = last or questions.Candles(symbol, seconds, start, end, [], [])
    else:
        found = context.sessions.ask(lambda c: _candles(c, symbol, seconds, (start, end)))
    return Json(answers.candles(found))


def _candles(connection: Connection, symbol: str, seconds: int, times: tuple[datetime, datetime]) -> questions.Candles:
    """The candles of a range; answers 413 when they may be too many."""
    stored = pages.ends(connection, symbol) or (LATEST, LATEST)
    step = timedelta(seconds=seconds)
    # Outside of what is stored there are none, so that it does not count.
    start, end = max(times[0], stored[0] - step), min(times[1], stored[1] + step)
    if (end - start) // step > CANDLES_MAX:
        why = f"that would be up to {(end - start) // step:,} candles, and {CANDLES_MAX:,} is the most for one answer"
        raise HTTPException(413, f"{why}: ask for a shorter range, piece by piece, or for a coarser resolution")
    return questions.candles(connection, symbol, seconds, start, end)._replace(start=times[0], end=times[1])


@router.get("/trades/{symbol}", **described(shapes.Page, 404, 422))
def trades(request: Request, symbol: params.Symbol, wanted: Annotated[params.Page, Query()]) -> Response:
    """The trades of [start, end), oldest first, in pages: repeat with `after_id` = `next_after_id` until it is null."""
    context = context_of(request)
    check_known(context, symbol)
    params.check_range(wanted.start, wanted.end)

    times, after_id = (wanted.start, wanted.end), wanted.after_id
    found, more, missing = context.sessions.ask(
        lambda c: pages.page_and_missing(c, symbol, times, after_id, wanted.limit)
    )
    next_after_id = found[-1].trade_id if more else None
    return Json(shapes.Page(symbol, [answers.trade(trade) for trade in found], next_after_id, missing))


@router.get("/trades/{symbol}/newest", **described(shapes.Newest, 404, 422))
def newest(request: Request, symbol: params.Symbol, limit: params.Limit = 50) -> Response:
    """The last trades, newest first."""
    found, missing = context_of(request).sessions.ask(lambda c: pages.newest_and_missing(c, symbol, limit))
    if not found:
        raise unknown(symbol)
    return Json(shapes.Newest(symbol, [answers.trade(trade) for trade in found], missing))


@router.get("/gaps", **described(shapes.Gaps, 404, 422))
def gaps(
    request: Request,
    symbol: params.MaybeSymbol = None,
    start: params.MaybeStart = EARLIEST,
    end: params.MaybeEnd = LATEST,
    limit: params.GapLimit = 100,
) -> Response:
    """The runs of trade ids that are missing now, of one symbol or of all; those with the highest ids first.

    With `start` or `end`, which need a `symbol`: those that reach into the range; if they are too many, the longest.
    """
    context = context_of(request)
    if symbol is not None:
        check_known(context, symbol)
    if (start, end) != (EARLIEST, LATEST):
        params.check_range(start, end)
        if symbol is None:
            params.refuse("query", "symbol", "give one: gaps in a range of time are those of a symbol")
        return _gaps_in(context, (symbol, start, end), limit)
    counts, listed = context.sessions.ask(
        lambda c: (stored_gaps.count_open_gaps(c), stored_gaps.last_open_gaps(c, symbol, limit))
    )
    total = [count for name, count in counts.items() if symbol in (None, name)]
    numbers = sum(count.gaps for count in total), sum(count.missing for count in total)
    return Json(shapes.Gaps(*numbers, [shapes.gap(gap) for gap in listed]))


def _gaps_in(context: Context, asked: tuple[str, datetime, datetime], limit: int) -> Response:
    counts, listed = context.sessions.ask(
        lambda c: (stored_gaps.count_gaps_in(c, *asked), stored_gaps.gaps_in(c, *asked, limit))
    )
    return Json(shapes.Gaps(*counts, [shapes.gap(gap) for gap in reversed(listed)]))


@router.get(
    "/health",
    response_class=Json,
    responses={
        200: content(shapes.Health, 200),
        422: content(shapes.Mistakes, 422),
        503: content(shapes.Health, 503),
    },
)
def health(request: Request) -> Response:
    """Whether trades are coming in: 503 when the database is away or a captured symbol has had none for too long."""
    answer = _ask_health(context_of(request))
    return Json(answer, 200 if answer.status == "ok" else 503, _health_headers(answer))


@open_router.get(
    "/healthz",
    response_class=PlainTextResponse,
    responses={
        200: {"description": "Trades are coming in.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        503: {"description": "None are, or the database is away.", "content": {"text/plain": {}}},
        422: content(shapes.Mistakes, 422),
    },
)
def healthz(request: Request) -> Response:
    """The same as one word, for who watches over the server: it needs no token and tells nothing else."""
    answer = _ask_health(context_of(request))
    good = answer.status == "ok"
    return PlainTextResponse("ok\n" if good else "not ok\n", 200 if good else 503, _health_headers(answer))


def _health_headers(answer: shapes.Health) -> dict[str, str]:
    return {"Cache-Control": "no-store"} | ({} if answer.status == "ok" else {"Retry-After": str(RETRY_AFTER_S)})


def _ask_health(context: Context) -> shapes.Health:
    found: dict[str, shapes.SymbolHealth] = {}
    missing: tuple[int | None, int | None] = (None, None)
    try:
        found = context.sessions.ask(lambda c: _health(c, context.settings))
        silent = context.settings.is_silent({symbol: one.age_ms for symbol, one in found.items()})
        status = "stale" if silent or any(one.stale for one in found.values()) else "ok"
        missing = sum(one.open_gaps for one in found.values()), sum(one.missing for one in found.values())
    except AwayError:
        status = "down"
    about = (status != "down", context.settings.settings.demo, context.settings.stale_after_s)
    return shapes.Health(status, answers.time(datetime.now(UTC)), *about, *missing, found)


class Login(BaseModel):
    """What logs a browser in."""

    model_config = ConfigDict(extra="forbid")

    token: str = Field(max_length=1_000, description="The API_TOKEN.", examples=["3f2a9c…"])


@open_router.post(
    LOGIN,
    status_code=204,
    response_class=Response,
    # 400: a body that is not UTF-8.
    responses={
        **{status: content(shapes.Problem, status) for status in (400, 401, 411, 413)},
        422: content(shapes.Mistakes, 422),
    },
)
def login(request: Request, wanted: Login) -> Response:
    """Logs a browser in: gives it a cookie in place of the token, which scripts of the page cannot read."""
    keys = context_of(request).keys
    if keys is None:
        return Response(status_code=204)
    if not is_token(keys, wanted.token):
        return Refusal(shapes.problem(401, "that is not the API_TOKEN that the server was started with"))
    return Response(status_code=204, headers={"Set-Cookie": set_cookie(keys, request.headers)})


@open_router.delete(LOGIN, status_code=204, response_class=Response, responses={422: content(shapes.Mistakes, 422)})
def logout(request: Request) -> Response:
    """Logs a browser out: takes the cookie away."""
    return Response(status_code=204, headers={"Set-Cookie": set_cookie(None, request.headers)})


def _health(connection: Connection, settings: ApiSettings) -> dict[str, shapes.SymbolHealth]:
    missing = stored_gaps.count_open_gaps(connection)
    newest = {trade.symbol: trade for trade in db.latest_of_all(connection)}
    return {
        name: shapes.symbol_health(newest.get(name), missing.get(name, _NOTHING), settings.stale_s(name))
        for name in sorted(settings.captured.union(newest))
    }


@router.get(
    "/stream",
    response_class=Response,
    responses={
        200: {
            "description": "Events, without an end. Their data are JSON: Trade, Tick or Status.",
            "content": {"text/event-stream": {"example": _EVENTS}},
        }
    }
    | {status: content(shapes.Problem, status) for status in (404, 503)}
    | {422: content(shapes.Mistakes, 422)},
)
async def stream(
    request: Request,
    symbols: Annotated[
        str,
        Query(
            max_length=1_000,
            description=f"Up to {STREAM_SYMBOLS_MAX} symbols with commas between them; default: those of the capture.",
            examples=["BTCUSDT,ETHUSDT"],
        ),
    ] = "",
    mode: Annotated[
        Literal["trades", "ticks"], Query(description="Every trade, or a summary every 250 ms.", examples=["ticks"])
    ] = "trades",
    last_event_id: Annotated[
        str | None,
        Header(
            max_length=16_000,
            description="The id of the last event that was read: what was missed since comes first.",
            examples=["BTCUSDT:4000000123"],
        ),
    ] = None,
) -> Response:
    """Server-sent events: every new trade, or a tick per symbol and 250 ms.

    - `mode=trades` (the default): an event `trade` for every new trade, and for one that is back-filled later.
    - `mode=ticks`: an event `tick` per symbol every 250 ms in which something traded, and `status` every second.
    - `begin` says where the stream begins, `status` when the database goes and comes back.
    - Come back with the header `Last-Event-ID` (an `EventSource` does so by itself), and what was missed comes first:
      every trade, or a tick that counts them all. `reset` says that this cannot be done, and that it begins anew.
    """
    context = context_of(request)
    wanted = [part.strip().upper() for part in symbols.split(",") if part.strip()]
    wanted = wanted or list(context.settings.settings.names)
    if not wanted:
        params.refuse("query", "symbols", "SYMBOLS has only patterns: name the symbols")
    if len(wanted) > STREAM_SYMBOLS_MAX:
        params.refuse("query", "symbols", f"{len(wanted)} symbols, and {STREAM_SYMBOLS_MAX} is the most for a stream")
    # One that is to be captured may be waited for.
    for symbol in {*wanted} - context.settings.captured:
        await run_in_threadpool(check_known, context, symbol)
    seen: dict[str, cursor.Seen] = {}
    if last_event_id:
        try:
            seen = cursor.read(last_event_id)
        except ValueError as error:
            params.refuse("header", "Last-Event-ID", str(error))
    listener = Listener(frozenset(wanted), mode == "ticks", seen)
    try:
        context.hub.join(listener)
    except FullError:
        raise away("there are as many streams as there may be") from None
    return respond(context.hub, context.sessions, listener)
