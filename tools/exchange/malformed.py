"""Frames that a capture must survive: variants of a trade's JSON that are not trades, and some that still are.

Each variant takes the text of a good frame (bare or wrapped) and returns the bytes of a text message.
"""

import json
from collections.abc import Callable

NESTING = 100_000
"""Levels in the deeply nested frame: enough to exhaust a recursive parser's stack."""

Variant = Callable[[bytes], bytes]


def _dumped(message: object) -> bytes:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def _edit(change: Callable[[dict[str, object]], object]) -> Variant:
    """A variant whose payload `change` edits in place; the wrapper, if any, stays."""

    def vary(text: bytes) -> bytes:
        message = json.loads(text)
        change(message.get("data", message))
        return _dumped(message)

    return vary


def _with(**fields: object) -> Variant:
    return _edit(lambda payload: payload.update(fields))


def _without(name: str) -> Variant:
    return _edit(lambda payload: payload.pop(name))


def _payload(make: Callable[[dict[str, object]], object]) -> Variant:
    """A variant whose payload is replaced by what `make` returns for it."""

    def vary(text: bytes) -> bytes:
        message = json.loads(text)
        if "data" in message:
            return _dumped({**message, "data": make(message["data"])})
        return _dumped(make(message))

    return vary


def _always(message: object) -> Variant:
    return lambda text: message if isinstance(message, bytes) else _dumped(message)


def _price(literal: bytes) -> Variant:
    """A variant with the price as a bare JSON token, which json.dumps would not write."""

    def vary(text: bytes) -> bytes:
        before, _, after = text.partition(b'"p":"')
        return before + b'"p":' + literal + after[after.index(b'"') + 1 :]

    return vary


def _symbol_bytes(raw: bytes) -> Variant:
    def vary(text: bytes) -> bytes:
        before, _, after = text.partition(b'"s":"')
        return before + b'"s":"' + raw + after[after.index(b'"') :]

    return vary


_AGGREGATE = {
    "e": "aggTrade",
    "E": 1,
    "s": "BTCUSDT",
    "a": 1,
    "p": "1.0",
    "q": "1.0",
    "f": 1,
    "l": 1,
    "T": 1,
    "m": True,
}
_KLINE = {"e": "kline", "E": 1, "s": "BTCUSDT", "k": {"t": 1, "T": 2, "s": "BTCUSDT", "i": "1m", "f": 1, "L": 2}}

MALFORMED: dict[str, Variant] = {
    # Prices and quantities.
    "price_nan": _with(p="NaN"),
    "price_infinity": _with(p="Infinity"),
    "price_number": _price(b"60000.01"),
    "price_bare_nan": _price(b"NaN"),
    "price_null": _with(p=None),
    "price_empty": _with(p=""),
    "price_blank": _with(p=" 60000.00 "),
    "price_zero": _with(p="0.00000000"),
    "price_negative": _with(p="-60000.00000000"),
    "price_plus": _with(p="+60000.00"),
    "price_exponent": _with(p="6e4"),
    "price_comma": _with(p="60,000.00"),
    "price_underscore": _with(p="60_000.00"),
    "price_foreign_digits": _with(p="٦٠٠٠٠.٠٠"),
    "price_decimals": _with(p="60000.000000001"),
    "price_digits": _with(p="1234567890123.00000000"),
    "price_list": _with(p=["60000.00"]),
    "price_missing": _without("p"),
    "quantity_zero": _with(q="0.00000000"),
    "quantity_negative": _with(q="-0.00100000"),
    "quantity_decimals": _with(q="0.000000001"),
    "quantity_number": _with(q=0.001),
    "quantity_missing": _without("q"),
    # Ids.
    "id_string": _edit(lambda payload: payload.update(t=str(payload["t"]))),
    "id_float": _with(t=1.5),
    "id_zero": _with(t=0),
    "id_negative": _with(t=-1),
    "id_huge": _with(t=2**64),
    "id_bool": _with(t=True),
    "id_null": _with(t=None),
    "id_missing": _without("t"),
    # Times.
    "time_string": _edit(lambda payload: payload.update(T=str(payload["T"]))),
    "time_zero": _with(T=0),
    "time_negative": _with(T=-1),
    "time_seconds": _with(T=1_735_689_600),
    "time_2016": _with(T=1_483_228_799_999),
    "time_2100": _with(T=4_102_444_800_000),
    "time_huge": _with(T=10**30),
    "time_missing": _without("T"),
    # Symbols and sides.
    "symbol_sql": _with(s="BTCUSDT'; DROP TABLE trades; --"),
    "symbol_unsubscribed": _with(s="DOGEUSDT"),
    "symbol_lower": _edit(lambda payload: payload.update(s=str(payload["s"]).lower())),
    "symbol_empty": _with(s=""),
    "symbol_long": _with(s="B" * 10_000),
    "symbol_number": _with(s=1),
    "symbol_nul": _with(s="BTC\x00USDT"),
    "symbol_surrogate": _symbol_bytes(rb"BTC\ud800USDT"),
    "symbol_missing": _without("s"),
    "maker_string": _with(m="true"),
    "maker_number": _with(m=1),
    "maker_null": _with(m=None),
    "maker_missing": _without("m"),
    # JSON and UTF-8.
    "utf8_invalid": _symbol_bytes(b"BTC\xff\xfeUSDT"),
    "utf8_overlong": _symbol_bytes(b"BTC\xc0\xafUSDT"),
    "utf8_surrogate": _symbol_bytes(b"BTC\xed\xa0\x80USDT"),
    "json_truncated": lambda text: text[: len(text) // 2],
    "json_no_end": lambda text: text[:-1],
    "json_twice": lambda text: text + text,
    "json_garbage_after": lambda text: text + b"garbage",
    "json_single_quotes": lambda text: text.replace(b'"', b"'"),
    "json_comment": lambda text: b"/* trade */" + text,
    "json_bom": lambda text: b"\xef\xbb\xbf" + text,
    "json_nested": lambda text: b"[" * NESTING + b"]" * NESTING,
    "json_nested_price": _price(b"[" * NESTING + b"]" * NESTING),
    "json_nested_objects": lambda text: b'{"data":' * NESTING + b"1" + b"}" * NESTING,
    "json_empty": _always(b""),
    "json_space": _always(b" \n\t"),
    "json_null": _always(None),
    "json_number": _always(12),
    "json_string": _always("trade"),
    "json_list": lambda text: b"[" + text + b"]",
    "html": _always(b"<html><body><h1>502 Bad Gateway</h1></body></html>"),
    "payload_null": _payload(lambda payload: None),
    "payload_list": _payload(lambda payload: [payload]),
    "payload_string": _payload(json.dumps),
    "payload_empty": _payload(lambda payload: {}),
    # Messages that are not trades.
    "event_missing": _without("e"),
    "event_unknown": _with(e="somethingNew"),
    "event_aggregate": _payload(lambda payload: _AGGREGATE),
    "event_block": _with(e="blockTrade"),
    "event_kline": _payload(lambda payload: _KLINE),
    "error_flat": _always({"code": 2, "msg": "Invalid request: invalid stream", "id": 1}),
    "error_nested": _always({"error": {"code": 2, "msg": "Invalid request: invalid stream"}, "id": 2}),
    "error_without_id": _always({"code": 0, "msg": "Unknown property"}),
    "answer_null": _always({"result": None, "id": 1}),
    "answer_list": _always({"result": ["btcusdt@trade"], "id": 3}),
    "answer_bool": _always({"result": True, "id": 2}),
}
"""Variants that are not trades, by name. None of them may change a table or end a process."""


def _reordered(payload: dict[str, object]) -> dict[str, object]:
    return dict(reversed(list(payload.items())))


HARMLESS: dict[str, Variant] = {
    # Frames before 2024-06-18 carried the two order ids.
    "old_keys": _with(b=88, a=50),
    "new_key": _with(zz={"deep": [1, 2, {"x": None}]}),
    "reordered": _payload(_reordered),
    "spaced": lambda text: json.dumps(json.loads(text), indent=1).encode(),
    "escaped": lambda text: text.replace(b"USDT", rb"\u0055SDT"),
    "without_best_match": _without("M"),
    "without_zeros": _edit(lambda payload: payload.update(p=_short(payload["p"]), q=_short(payload["q"]))),
}
"""The same trade, written differently: it must still be stored."""


def _short(decimal: object) -> str:
    text = str(decimal).rstrip("0")
    return text[:-1] if text.endswith(".") else text


def big(kind: str, size: int, text: bytes) -> bytes:
    """A message of about `size` bytes: not JSON, one long string, a trade with a symbol of that length, or a list."""
    return {
        "garbage": lambda: b"a" * size,
        "string": lambda: b'"' + b"a" * size + b'"',
        "symbol": lambda: _symbol_bytes(b"B" * size)(text),
        "list": lambda: b"[" + b"0," * (size // 2) + b"0]",
    }[kind]()


BIG_KINDS = ("garbage", "string", "symbol", "list")
