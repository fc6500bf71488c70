"""The question how each day is proven: the newest audit of it, and what is stored and missing now."""

from datetime import date

from fastapi import APIRouter, Depends, Request, Response

from db import Connection
from report import answers
from storage import pages, proofs
from tools.api import params
from tools.api.context import check_known, context_of
from tools.api.described import described
from tools.api.shapes import Json

router = APIRouter(prefix="/api", tags=["Questions"], dependencies=[Depends(params.refuse_unknown)])


@router.get("/coverage/{symbol}", **described(answers.Coverage, 404, 422))
def coverage(
    request: Request,
    symbol: params.Symbol,
    first: params.FirstDay = params.FIRST_DAY,
    last: params.LastDay = params.LAST_DAY,
) -> Response:
    """Each UTC day: the verdict of its last audit, and how much is stored and missing now. At most 400, the newest.

    The days between the first and the last stored trade, oldest first; both `from` and `to` are included.
    """
    context = context_of(request)
    check_known(context, symbol)
    if first > last:
        params.refuse("query", "from", "the range is empty: from must not be after to")
    return Json(answers.coverage(context.sessions.ask(lambda c: _stored(c, symbol, first, last))))


def _stored(connection: Connection, symbol: str, first: date, last: date) -> proofs.Coverage:
    """Of the days that are asked for those of which anything can be stored."""
    ends = pages.ends(connection, symbol)
    if ends is None:
        return proofs.Coverage(symbol, [], 0)
    return proofs.whole_coverage(connection, symbol, max(first, ends[0].date()), min(last, ends[1].date()))
