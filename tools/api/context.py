"""What the routes of one app share, and how they refuse a symbol that nobody knows."""

from typing import NamedTuple

from fastapi import HTTPException, Request

import db
from tools.api.door import Keys
from tools.api.download import Exports
from tools.api.hub import Hub
from tools.api.newest import Newest
from tools.api.sessions import Sessions
from tools.api.settings import ApiSettings
from tools.api.verdicts import Verdicts

RETRY_AFTER_S = 1


class Context(NamedTuple):
    """What the routes of one app share."""

    settings: ApiSettings
    sessions: Sessions
    hub: Hub
    exports: Exports
    symbols: set[str]
    newest: Newest
    keys: Keys | None
    verdicts: Verdicts


def context_of(request: Request) -> Context:
    """The context that the app of `request` was made with."""
    context: Context = request.app.state.context
    return context


def away(why: str) -> HTTPException:
    """The answer 503, which says when to come back."""
    return HTTPException(503, why, {"Retry-After": str(RETRY_AFTER_S)})


def check_known(context: Context, symbol: str) -> None:
    """Answers 404 for a symbol without a trade. Those that have one keep it, so they are remembered."""
    if symbol not in context.symbols:
        context.symbols.update(context.sessions.ask(db.symbols))
    if symbol not in context.symbols:
        raise unknown(symbol)


def unknown(symbol: str) -> HTTPException:
    """The answer 404, which says where the symbols are."""
    return HTTPException(404, f"no trade of {symbol[:40]!r} is stored; /api/symbols lists the symbols")
