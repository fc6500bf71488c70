"""What the OpenAPI description says of the answers of a route."""

from typing import Any

from tools.api import shapes
from tools.api.shapes import Json, Refusal

_REASONS = {
    401: "The token is missing or wrong.",
    404: "No trade of that symbol is stored.",
    413: "Too much for one answer; the text says how much is not, and the way out.",
    422: "A parameter cannot be used; the answer names it.",
    503: "The database is away, or too many ask at once; Retry-After says when to come back.",
}


def described(shape: type, *statuses: int) -> dict[str, Any]:
    """What FastAPI is told of a route that answers with `shape`, or with 503 or one of these statuses."""
    given = {200: shape} | {status: shapes.Problem for status in (*statuses, 503)}
    # Any route is told of a parameter that it does not know.
    given[422] = shapes.Mistakes
    return {"response_class": Json, "responses": {status: content(given[status], status) for status in given}}


def content(shape: type, status: int) -> dict[str, Any]:
    """What it is told of the answer `status`, which has that shape."""
    schema = {"$ref": f"#/components/schemas/{shape.__name__}"}
    description = _REASONS.get(status) or (shape.__doc__ or "").partition(".")[0] + "."
    kind = Refusal.media_type if issubclass(shape, shapes.Problem) else Json.media_type
    return {"description": " ".join(description.split()), "content": {str(kind): {"schema": schema}}}


NO_TOKEN = content(shapes.Problem, 401)
