"""Requests for a fault of the stand-in exchange: their fields and bounds, as JSON or as a flag of the command line."""

import json
from collections.abc import Container
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tools.exchange.malformed import BIG_KINDS, HARMLESS, MALFORMED
from tools.exchange.stream_faults import CONNECTIONS, Args

SECONDS_MAX = 86400.0
COUNT_MAX = 1_000_000
SIZE_MAX = 64 << 20
"""Bytes of a big frame."""

Seconds = Annotated[float, Meta(ge=0, le=SECONDS_MAX)]
Count = Annotated[int, Meta(ge=1, le=COUNT_MAX)]
Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class _Fields(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """The fields of a request for a fault; UNSET if not given."""

    fault: str
    target: Literal["all", "current"] | int = "all"
    variant: str | UnsetType = UNSET
    symbol: str | UnsetType = UNSET
    path: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    count: Count | UnsetType = UNSET
    after: Annotated[int, Meta(ge=0, le=COUNT_MAX)] | UnsetType = UNSET
    times: Count | UnsetType = UNSET
    code: Annotated[int, Meta(ge=1000, le=4999)] | UnsetType = UNSET
    status: Annotated[int, Meta(ge=400, le=599)] | UnsetType = UNSET
    retry_after: Annotated[int, Meta(ge=0, le=int(SECONDS_MAX))] | UnsetType = UNSET
    size: Annotated[int, Meta(ge=1, le=1 << 40)] | UnsetType = UNSET
    first: Id | UnsetType = UNSET
    last: Id | UnsetType = UNSET
    rows: Count | UnsetType = UNSET
    seed: int | UnsetType = UNSET
    seconds: Seconds | UnsetType = UNSET
    at: Seconds | UnsetType = UNSET
    every: Annotated[float, Meta(ge=0.01, le=SECONDS_MAX)] | UnsetType = UNSET
    delay: Seconds | UnsetType = UNSET
    lag: Seconds | UnsetType = UNSET
    probability: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET


_DEFAULTS: dict[str, dict[str, Any]] = {
    "freeze": {"delay": 0.0},
    "shutdown": {"delay": 0.0},
    "handshake_status": {"status": 429},
    "archive_status": {"status": 503},
    "archive_bomb": {"size": 20 << 30},
    "kline_wrong": {"path": "klines"},
}
_VARIANTS = {"replace": set(MALFORMED), "inject": set(MALFORMED), "restyle": set(HARMLESS), "big": set(BIG_KINDS)}
_MAIN = {
    "freeze": "seconds",
    "shutdown": "seconds",
    "refuse": "seconds",
    "close": "code",
    "big": "size",
    "inject": "variant",
    "rest_lag": "lag",
    "rest_status": "status",
    "handshake_status": "status",
    "archive_status": "status",
    "archive_slow": "delay",
    "archive_cut_short": "rows",
    "archive_bomb": "size",
}
"""The field that a bare argument on the command line sets; for every other fault it is the count."""


class FaultError(Exception):
    """An invalid request for a fault; the message names the field and the value."""


class Wish(NamedTuple):
    """A request for a fault, checked."""

    name: str
    args: Args
    target: str | int
    fields: dict[str, Any]


def checked(body: object, names: Container[str]) -> Wish:
    """The request in a body of JSON for one of the faults `names`. Raises FaultError."""
    try:
        wanted = msgspec.convert(body, _Fields)
    except msgspec.ValidationError as error:
        raise FaultError(f"{error}; GET /_faults lists the faults") from None
    fields: dict[str, Any] = msgspec.to_builtins(wanted)
    name, target = fields.pop("fault"), wanted.target
    fields.pop("target", None)
    if name not in names:
        raise FaultError(f"fault={name!r}: there is no such fault; GET /_faults lists them")
    if fields.get("variant") and fields["variant"] not in _VARIANTS.get(name, set()):
        raise FaultError(f"variant={fields['variant']!r}: {name} has {sorted(_VARIANTS.get(name, set()))}")
    if name != "archive_bomb" and fields.get("size", 0) > SIZE_MAX:
        raise FaultError(f"size={fields['size']}: give {SIZE_MAX} or less")
    given: dict[str, Any] = {key: value for key, value in fields.items() if key in Args._fields}
    if name in CONNECTIONS and "seconds" in fields:
        given.setdefault("delay", fields["seconds"])
    return Wish(name, Args(**{**_DEFAULTS.get(name, {}), **given}), target, fields)


def parse_flag(text: str) -> dict[str, object]:
    """The request in a --fault: NAME, NAME=ARGUMENT, NAME=field:value,field:value or NAME={JSON}. Raises FaultError."""
    name, _, rest = text.partition("=")
    if not rest:
        return {"fault": name}
    if rest.startswith("{"):
        try:
            return {"fault": name, **json.loads(rest)}
        except ValueError as error:
            raise FaultError(f"--fault {text}: {error}") from error
    if ":" not in rest:
        return {"fault": name, _MAIN.get(name, "count"): _value(rest)}
    pairs = [part.partition(":") for part in rest.split(",")]
    return {"fault": name, **{key: _value(value) for key, _, value in pairs}}


def _value(text: str) -> object:
    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float) and not isinstance(value, bool) else text
