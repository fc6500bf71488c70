"""The live commands of a stream connection: SUBSCRIBE, UNSUBSCRIBE, LIST_SUBSCRIPTIONS, SET_PROPERTY, GET_PROPERTY.

Pure: a command's text goes in, the answer's object comes out, the connection's subscriptions change.
"""

import json
from collections.abc import Callable

STREAMS_MAX = 1024
"""Streams on one connection."""

COMMAND_BYTES_MAX = 4096
"""A longer command, including its frame header, gets no answer at all (reported by users, not documented)."""

_ID_CHARACTERS_MAX = 36
_METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "SET_PROPERTY", "GET_PROPERTY", "LIST_SUBSCRIPTIONS")

Answer = dict[str, object]


class Refused(Exception):
    """A command that the exchange answers with an error; `code` is Binance's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class TooManyStreams(Refused):
    """More than STREAMS_MAX streams: answered, then the connection is closed."""

    def __init__(self) -> None:
        super().__init__(4, "Too many subscriptions")


class Subscriptions:
    """The streams of one connection (names as given, in order) and whether its frames are wrapped."""

    def __init__(self, streams: list[str], combined: bool) -> None:
        self.streams = dict.fromkeys(streams)
        self.combined = combined


def answer(subscriptions: Subscriptions, text: str) -> Answer:
    """Carries out one command. Returns the answer.

    Raises Refused if the command is invalid; error_of() turns that into the answer.
    """
    command = _parsed(text)
    method = command.get("method")
    if method not in _METHODS:
        names = ", ".join(f"`{name}`" for name in _METHODS)
        where = f"at line 1 column {len(text)}"
        raise Refused(
            2,
            f"Invalid request: missing field `method` {where}"
            if method is None
            else f"Invalid request: unknown variant `{method}`, expected one of {names} {where}",
        )
    if not _is_id(command.get("id")):
        raise Refused(2, "Invalid request: request ID must be an unsigned integer")
    params = command.get("params", [])
    if not isinstance(params, list):
        raise Refused(2, "Invalid request: params must be a list")
    return {"result": _DO[str(method)](subscriptions, params), "id": command.get("id")}


def error_of(refused: Refused, text: str, nested: bool) -> Answer:
    """The error object, flat as documented or nested as observed; with the command's id if it has a usable one."""
    body: Answer = {"code": refused.code, "msg": str(refused)}
    try:
        command = json.loads(text)
    except ValueError:
        command = None
    given = command.get("id") if isinstance(command, dict) else None
    identity: Answer = {"id": given} if given is not None and _is_id(given) else {}
    return {"error": body, **identity} if nested else {**body, **identity}


def _parsed(text: str) -> dict[str, object]:
    try:
        command = json.loads(text)
    except json.JSONDecodeError as error:
        message = f"Invalid JSON: expected value at line {error.lineno} column {error.colno}"
        raise Refused(3, message) from error
    except (ValueError, RecursionError) as error:
        raise Refused(3, "Invalid JSON: expected value at line 1 column 1") from error
    if not isinstance(command, dict):
        raise Refused(2, f"Invalid request: missing field `method` at line 1 column {len(text)}")
    return command


def _is_id(given: object) -> bool:
    if given is None:
        return True
    if isinstance(given, str):
        # "Alphanumeric", the documents say, and mean hyphens too: the exchange's own library sends a UUID.
        return given.replace("-", "").isalnum() and len(given) <= _ID_CHARACTERS_MAX
    return isinstance(given, int) and not isinstance(given, bool) and -(2**63) <= given < 2**63


def _stream_names(params: list[object]) -> list[str]:
    names = [name for name in params if isinstance(name, str) and "@" in name.strip("@")]
    if len(names) != len(params):
        raise Refused(2, "Invalid request: invalid stream")
    return names


def _subscribe(subscriptions: Subscriptions, params: list[object]) -> object:
    # A well-formed name without a stream (wrong case, unknown symbol) is acknowledged too, and stays silent.
    wanted = subscriptions.streams | dict.fromkeys(_stream_names(params))
    if len(wanted) > STREAMS_MAX:
        raise TooManyStreams
    subscriptions.streams = wanted
    return None


def _unsubscribe(subscriptions: Subscriptions, params: list[object]) -> object:
    gone = set(_stream_names(params))
    subscriptions.streams = {name: None for name in subscriptions.streams if name not in gone}
    return None


def _list(subscriptions: Subscriptions, params: list[object]) -> object:
    if params:
        raise Refused(2, "Invalid request: too many parameters")
    return list(subscriptions.streams)


def _property(params: list[object], count: int) -> None:
    if len(params) > count:
        raise Refused(2, "Invalid request: too many parameters")
    if not params or not isinstance(params[0], str):
        raise Refused(2, "Invalid request: property name must be a string")
    if params[0] != "combined":
        raise Refused(0, "Unknown property")


def _set_property(subscriptions: Subscriptions, params: list[object]) -> object:
    _property(params, 2)
    if len(params) < 2 or not isinstance(params[1], bool):
        raise Refused(1, "Invalid value type: expected Boolean")
    subscriptions.combined = params[1]
    return None


def _get_property(subscriptions: Subscriptions, params: list[object]) -> object:
    _property(params, 1)
    return subscriptions.combined


_DO: dict[str, Callable[[Subscriptions, list[object]], object]] = {
    "SUBSCRIBE": _subscribe,
    "UNSUBSCRIBE": _unsubscribe,
    "LIST_SUBSCRIPTIONS": _list,
    "SET_PROPERTY": _set_property,
    "GET_PROPERTY": _get_property,
}
