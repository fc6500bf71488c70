"""The question which trades have given ids: with it, another recorder fills its gaps (backfill.py --from-recorder)."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from report import answers
from storage import pages
from tools.api import params, shapes
from tools.api.context import check_known, context_of
from tools.api.described import described

router = APIRouter(prefix="/api", tags=["Questions"], dependencies=[Depends(params.refuse_unknown)])

FirstId = Annotated[int, Query(ge=0, le=params.ID_MAX, description="The lowest id.", examples=[4000000123])]
LastId = Annotated[int, Query(ge=0, le=params.ID_MAX, description="The highest id, inclusive.", examples=[4000000200])]


@router.get("/trades/{symbol}/by-id", **described(shapes.Numbered, 404, 422))
def trades_by_id(
    request: Request,
    symbol: params.Symbol,
    first_id: FirstId,
    last_id: LastId,
    limit: params.Limit = params.LIMIT_DEFAULT,
) -> Response:
    """The trades with the ids `first_id` to `last_id` (inclusive), lowest first, in pages: repeat with `first_id` =
    `next_id` until it is null."""
    context = context_of(request)
    check_known(context, symbol)
    if first_id > last_id:
        params.refuse("query", "first_id", "there are no such ids: first_id must not be above last_id")
    found, next_id, missing = context.sessions.ask(lambda c: pages.by_id(c, symbol, (first_id, last_id), limit))
    return shapes.Json(shapes.Numbered(symbol, [answers.trade(trade) for trade in found], next_id, missing))
