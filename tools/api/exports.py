"""The questions whose answer is a file: the trades of a range as CSV or Parquet."""

from fastapi import APIRouter, Depends, Request, Response

from storage.pages import EARLIEST, LATEST
from tools.api import download, params, shapes
from tools.api.context import check_known, context_of
from tools.api.described import content

router = APIRouter(prefix="/api", tags=["Questions"], dependencies=[Depends(params.refuse_unknown)])


@router.get(
    "/export/{symbol}.csv",
    response_class=Response,
    responses={200: {"description": "The trades.", "content": {"text/csv": {"schema": {"type": "string"}}}}}
    | {status: content(shapes.Problem, status) for status in (404, 503)}
    | {422: content(shapes.Mistakes, 422)},
)
def export(
    request: Request,
    symbol: params.Symbol,
    start: params.MaybeStart = EARLIEST,
    end: params.MaybeEnd = LATEST,
) -> Response:
    """The trades of [start, end) as CSV, however many, in constant memory. An answer that breaks off is incomplete.

    The header Missing-Ids says how many trade ids were missing in the range when the answer began.
    """
    return _answer(request, symbol, (start, end), download.CSV)


@router.get(
    "/export/{symbol}.parquet",
    response_class=Response,
    responses={200: {"description": "The trades.", "content": {download.PARQUET.media_type: {}}}}
    | {status: content(shapes.Problem, status) for status in (404, 501, 503)}
    | {422: content(shapes.Mistakes, 422)},
)
def export_parquet(
    request: Request,
    symbol: params.Symbol,
    start: params.MaybeStart = EARLIEST,
    end: params.MaybeEnd = LATEST,
) -> Response:
    """The trades of [start, end) as Parquet, with exact decimals; otherwise as the CSV.

    An answer that breaks off lacks the end, without which no reader takes it.
    """
    return _answer(request, symbol, (start, end), download.PARQUET)


def _answer(request: Request, symbol: str, times: download.Times, format_: download.Format) -> Response:
    context = context_of(request)
    check_known(context, symbol)
    params.check_range(*times)
    return context.exports.answer(symbol, times, format_)
