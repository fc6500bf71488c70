"""parse_trade and binance/checks.py: what is a trade, what is not, and that nothing in between comes out."""

import contextlib
import functools
import json
import random
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from binance import checks
from model.trade import Trade
from tools.exchange import malformed
from ws_client import NotATrade, parse_trade

AT = datetime(2024, 8, 8, 23, 54, 16, 1, tzinfo=UTC)
SYMBOLS = frozenset({"BTCUSDT", "ETHUSDT"})
PAYLOAD = (
    '{"e":"trade","E":1723161255343210,"s":"BTCUSDT","t":3735683259,"p":"61837.63000000","q":"0.02000000",'
    '"T":1723161255342789,"m":true,"M":true}'
)
COMBINED = f'{{"stream":"btcusdt@trade","data":{PAYLOAD}}}'
TRADE = Trade(
    "BTCUSDT",
    datetime(2024, 8, 8, 23, 54, 15, 342_000, tzinfo=UTC),
    3735683259,
    Decimal("61837.63000000"),
    Decimal("0.02000000"),
    True,
    AT,
)
HUGE = 10 * 2**20
FUZZ_FRAMES = 200_000
FUZZ_S_MAX = 10.0


def with_field(name: str, token: str) -> str:
    """The combined frame whose payload has another JSON token for `name`."""
    return re.sub(rf'("{name}":)("[^"]*"|[^,}}]*)', lambda found: found[1] + token, COMBINED, count=1)


def refusal(frame: str | bytes, symbols: frozenset[str] | None = SYMBOLS) -> checks.Refusal:
    """Why `frame` is refused."""
    with pytest.raises(checks.Refusal) as caught:
        parse_trade(frame, AT, symbols)
    return caught.value


# What is a trade.


@pytest.mark.parametrize("frame", [COMBINED, PAYLOAD])
def test_text_and_bytes_of_both_forms_give_the_same_whole_trade(frame: str) -> None:
    """Raw and combined, str and bytes, with and without the list of symbols."""
    for given_frame in (frame, frame.encode()):
        for symbols in (SYMBOLS, None):
            assert parse_trade(given_frame, AT, symbols) == TRADE


def test_values_have_their_types() -> None:
    """Decimal, int, bool and a UTC-aware time; equality alone would also hold for a float or for True."""
    trade = parse_trade(COMBINED, None)
    assert [type(value) for value in trade] == [str, datetime, int, Decimal, Decimal, bool, type(None)]
    assert trade.timestamp.utcoffset() == timedelta()
    assert (str(trade.price), str(trade.quantity)) == ("61837.63000000", "0.02000000")


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        ("1723161255342", "2024-08-08T23:54:15.342+00:00"),
        ("1723161255342000", "2024-08-08T23:54:15.342+00:00"),
        ("1723161255342001", "2024-08-08T23:54:15.342+00:00"),
        ("1723161255342999", "2024-08-08T23:54:15.342+00:00"),
        ("1483228800000", "2017-01-01T00:00:00.000+00:00"),
        ("1483228800000000", "2017-01-01T00:00:00.000+00:00"),
        ("4102444799999", "2099-12-31T23:59:59.999+00:00"),
        ("4102444799999999", "2099-12-31T23:59:59.999+00:00"),
    ],
)
def test_a_stamp_in_milliseconds_or_microseconds_is_floored(stamp: str, expected: str) -> None:
    """13 and 16 digits, and the first and last time that is believed."""
    assert parse_trade(with_field("T", stamp), AT).timestamp.isoformat(timespec="milliseconds") == expected


@pytest.mark.parametrize("name", sorted(malformed.HARMLESS))
@pytest.mark.parametrize("frame", [COMBINED, PAYLOAD])
def test_the_same_trade_written_otherwise_is_the_same_trade(name: str, frame: str) -> None:
    """Old frames' keys, new keys, another order, spaces, escapes, fewer zeros."""
    assert parse_trade(malformed.HARMLESS[name](frame.encode()), AT, SYMBOLS) == TRADE


@pytest.mark.parametrize(
    ("token", "value"),
    [
        ('"0.00000001"', "0.00000001"),
        ('"999999999999.99999999"', "999999999999.99999999"),
        ('"1"', "1"),
        ('"000000000001.5"', "1.5"),
        (r'"\u0031.5"', "1.5"),
    ],
)
def test_a_price_at_the_ends_of_the_column_is_exact(token: str, value: str) -> None:
    """12 integer digits and 8 decimals, whatever the width."""
    assert parse_trade(with_field("p", token), AT).price == Decimal(value)


def test_the_largest_id_is_an_int64() -> None:
    """2**63 - 1 is accepted and one more is not."""
    assert parse_trade(with_field("t", str(2**63 - 1)), AT).trade_id == 2**63 - 1
    assert "trade id" in str(refusal(with_field("t", str(2**63))))


@pytest.mark.parametrize("symbol", ["币安人生USDT", "ÄUSDT", "BTC-USDT", "1000SATSUSDT", "B" * 32])
def test_symbols_that_binance_has_are_symbols(symbol: str) -> None:
    """Non-ASCII symbols, in text and in bytes, written out or escaped."""
    written = with_field("s", f'"{symbol}"')
    escaped = with_field("s", json.dumps(symbol))
    for frame in (written, written.encode(), escaped, escaped.encode()):
        assert parse_trade(frame, AT, frozenset({symbol})).symbol == symbol
        assert parse_trade(frame, AT).symbol == symbol


def test_of_a_repeated_key_the_last_counts() -> None:
    """As every JSON parser does it, so that one frame cannot mean two things to two readers."""
    assert parse_trade(COMBINED.replace('"M":true', '"M":true,"t":7'), AT).trade_id == 7
    refusal(COMBINED.replace('"M":true', '"M":true,"t":"7"'))
    refusal(COMBINED[:-1] + ',"data":null}')
    refusal(COMBINED.replace('"M":true', '"e":"aggTrade"'))


# What is refused.

REFUSED: list[tuple[str, str | bytes, str]] = [
    ("empty", "", "malformed JSON"),
    ("truncated", COMBINED[:-20], "malformed JSON"),
    ("no end", COMBINED[:-1], "malformed JSON"),
    ("twice", COMBINED * 2, "malformed JSON"),
    ("comma too many", COMBINED.replace("true}", "true,}"), "malformed JSON"),
    ("nul behind it", COMBINED + "\0", "malformed JSON"),
    ("BOM in text", "\ufeff" + COMBINED, "malformed JSON"),
    ("control character", with_field("s", '"BTC\nUSDT"'), "malformed JSON"),
    ("bad escape", with_field("s", r'"BTC\qUSDT"'), "malformed JSON"),
    ("UTF-8 in the symbol", COMBINED.encode().replace(b"BTCUSDT", b"BTC\xffUSDT"), "invalid UTF-8"),
    ("UTF-8 in a key", COMBINED.encode().replace(b'"M"', b'"\xfe"'), "invalid UTF-8"),
    ("UTF-8 in a value that is ignored", COMBINED.encode().replace(b'"M":true', b'"M":"\xc3"'), "invalid UTF-8"),
    ("overlong UTF-8", COMBINED.encode().replace(b'"M":true', b'"M":"\xc0\xaf"'), "invalid UTF-8"),
    ("UTF-8 surrogate", COMBINED.encode().replace(b'"M":true', b'"M":"\xed\xa0\x80"'), "invalid UTF-8"),
    ("UTF-8 behind it", COMBINED.encode() + b"\xff", "invalid UTF-8"),
    ("surrogate in text", COMBINED.replace('"M":true', '"M":"\ud800"'), "invalid UTF-8"),
    ("UTF-16", COMBINED.encode("utf-16"), "invalid UTF-8"),
    ("null", "null", "JSON"),
    ("a list", f"[{COMBINED}]", "a JSON list"),
    ("a number", "12", "a JSON int"),
    ("a string", json.dumps(COMBINED), "a JSON str"),
    ("data null", '{"stream":"btcusdt@trade","data":null}', "not a trade"),
    ("data a list", f'{{"stream":"btcusdt@trade","data":[{PAYLOAD}]}}', "not a trade"),
    ("data a text", f'{{"stream":"btcusdt@trade","data":{json.dumps(PAYLOAD)}}}', "not a trade"),
    ("object", "{}", "not a trade"),
    ("event null", with_field("e", "null"), "not a trade"),
    ("event a number", with_field("e", "1"), "not a trade"),
    ("event a list", with_field("e", '["trade"]'), "not a trade"),
]
REFUSED += [
    (f"without {name}", re.sub(rf'"{name}":("[^"]*"|[^,]*),', "", COMBINED), "not a trade") for name in "eEstpqTm"
]
REFUSED += [
    (f"{name} is {token}", with_field(name, token), "not a trade")
    for name, tokens in {
        "t": ('"3735683259"', "1.0", "3735683259.0", "1e3", "true", "null", "[1]", "{}"),
        "T": ('"1723161255342"', "1723161255342.0", "1.723161255342e12", "true", "null"),
        "E": ('"1723161255342"', "1.5", "null"),
        "p": ("61837.63", "61837", "null", "true", '["1"]', "-0"),
        "q": ("0.02", "1", "null", "{}"),
        "s": ("1", "null", '["BTCUSDT"]', "true"),
        "m": ('"true"', "1", "0", "null", "1.0", '""'),
    }.items()
    for token in tokens
]
REFUSED += [
    (f"{name} is a bare {token}", with_field(name, token), "malformed JSON")
    for name in "ptTm"
    for token in ("NaN", "Infinity", "-Infinity", "01", "+1", ".5", "1.", "0x1", "True", "None", "")
]
_NUMBERS: tuple[str, ...] = (
    "NaN",
    "Infinity",
    "-Infinity",
    "sNaN",
    "1e3",
    "1E-8",
    "-1",
    "+1",
    "-0",
    "",
    " ",
    " 1",
    "1 ",
    "1\\n",
    "1_0",
)
_NUMBERS += (".5", "1.", "1,5", "0x1", "٣", "１", "1.٣", "1.123456789", "1.100000000", "1234567890123", "1" * 5_000)
REFUSED += [
    (f"{name} is {text[:20]!r}", with_field(name, f'"{text}"'), f"{word} ")
    for name, word in (("p", "price"), ("q", "quantity"))
    for text in (*_NUMBERS, "0", "0.00000000", "000000000000.0")
]
REFUSED += [
    (f"id {number}", with_field("t", number), "trade id")
    for number in ("0", "-0", "-1", "9223372036854775808", "18446744073709551616", "9" * 300)
]
REFUSED += [
    (f"time {number}", with_field("T", number), "time ")
    for number in (
        *("0", "-1", "1723161255", "1483228799999", "4102444800000", "17231612553420", "-1723161255342"),
        *("1483228799999999", "4102444800000000", "1723161255342000000", "9" * 300),
    )
]
REFUSED += [(f"{name} of 5,000 digits", with_field(name, "1" * 5_000), "") for name in "tTE"]
REFUSED += [
    (f"symbol {symbol[:20]}", with_field("s", json.dumps(symbol)), "symbol ")
    for symbol in (
        "DOGEUSDT",
        "btcusdt",
        "BTCUSDT ",
        " BTCUSDT",
        "",
        "BTC\0USDT",
        "'; DROP TABLE trades; --",
        "B" * 10_000,
    )
]


@pytest.mark.parametrize(
    ("frame", "reason"), [(frame, reason) for _, frame, reason in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_what_is_no_trade_is_refused_with_its_reason(frame: str | bytes, reason: str) -> None:
    """One Refusal, no NotATrade, and a reason that is short enough for a log."""
    error = refusal(frame)
    assert not isinstance(error, NotATrade)
    assert reason in str(error)
    assert len(str(error)) < 500


@pytest.mark.parametrize(
    "symbol", ["'; DROP TABLE trades; --", "BTCUSDT ", "btcusdt", "", "B" * 33, "BTC USDT", "%", "🚀"]
)
def test_without_a_list_a_symbol_must_have_the_shape_of_one(symbol: str) -> None:
    """SQL text is no symbol, whoever asks."""
    assert "symbol" in str(refusal(with_field("s", json.dumps(symbol)), None))


def test_escaped_surrogates_are_no_symbol() -> None:
    """Such a text cannot be written as UTF-8 into any database or file."""
    refusal(with_field("s", r'"BTC\ud800USDT"'), None)


@pytest.mark.parametrize("name", sorted(malformed.MALFORMED))
@pytest.mark.parametrize("frame", [COMBINED, PAYLOAD])
def test_no_malformed_variant_is_taken_for_a_trade(name: str, frame: str) -> None:
    """All that the stand-in exchange can inject."""
    refusal(malformed.MALFORMED[name](frame.encode()))


# What is sent beside trades.


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        ('{"result":null,"id":1}', "answer"),
        ('{"result":["btcusdt@trade"],"id":3}', "answer"),
        ('{"result":true,"id":"abc"}', "answer"),
        ('{"id":null,"result":null}', "answer"),
        ('{"code":2,"msg":"Invalid request: invalid stream","id":1}', "error"),
        ('{"code":0,"msg":"Unknown property"}', "error"),
        ('{"error":{"code":2,"msg":"Invalid request: invalid stream"},"id":2}', "error"),
        ('{"error":{"code":4,"msg":"Too many subscriptions"},"id":19}', "error"),
        ('{"e":"serverShutdown","E":1770123456789}', "serverShutdown"),
        ('{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}', "serverShutdown"),
        ('{"e":"aggTrade","E":1,"s":"BTCUSDT","a":1,"p":"1","q":"1","f":1,"l":1,"T":1,"m":true}', "aggTrade"),
        ('{"stream":"btcusdt@blockTrade","data":{"e":"blockTrade","E":1,"s":"BTCUSDT","t":1}}', "blockTrade"),
        ('{"stream":"btcusdt@depth","data":{"lastUpdateId":1,"bids":[],"asks":[]}}', "depth"),
        ('{"stream":"btcusdt@kline_1m","data":{"e":"kline","k":{}}}', "kline"),
        ('{"stream":"!ticker@arr","data":[{"e":"24hrTicker"}]}', "arr"),
    ],
)
def test_what_the_exchange_sends_beside_trades_has_a_name(frame: str, kind: str) -> None:
    """Answers, both shapes of errors, serverShutdown raw and combined, other streams."""
    for given_frame in (frame, frame.encode()):
        error = refusal(given_frame)
        assert isinstance(error, NotATrade)
        assert error.kind == kind


def test_an_error_says_what_the_exchange_said() -> None:
    """Code and text, in both shapes, and bounded."""
    assert "2: Invalid" in str(refusal('{"error":{"code":2,"msg":"Invalid request"},"id":2}'))
    assert "2: Invalid" in str(refusal('{"code":2,"msg":"Invalid request"}'))
    assert len(str(refusal(json.dumps({"code": "9" * 10_000, "msg": "x" * 10_000})))) < 300
    assert len(str(refusal(json.dumps({"result": None, "id": "x" * 10_000})))) < 300


@pytest.mark.parametrize(
    "frame",
    [
        '{"error":null}',
        '{"error":"gone","id":1}',
        '{"error":{"code":1}}',
        '{"error":[{"code":1,"msg":"x"}]}',
        '{"code":1}',
        '{"result":null}',
        '{"stream":5,"data":{"e":7}}',
        '{"stream":null,"data":null}',
        '{"stream":["a"],"data":{}}',
        '{"data":{"data":{"e":"trade"}}}',
    ],
)
def test_halves_of_known_messages_are_refused_and_no_crash(frame: str) -> None:
    """Whatever has a key of a known message but not its shape."""
    refusal(frame)


def test_a_kind_is_bounded() -> None:
    """A name out of a hostile frame cannot fill the counters' memory or a log line."""
    for frame in ('{"e":"' + "x" * 10_000 + '"}', '{"stream":"a@' + "x" * 10_000 + '","data":{}}'):
        error = refusal(frame)
        assert isinstance(error, NotATrade)
        assert len(error.kind) <= 40
        assert len(str(error)) < 200


# Hostile frames.


@pytest.mark.parametrize(
    "frame",
    [
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"data":' * 100_000 + "1" + "}" * 100_000,
        COMBINED.replace('"M":true', '"M":' + "[" * 100_000 + "]" * 100_000),
        with_field("p", "[" * 100_000 + "]" * 100_000),
        with_field("p", '{"a":' * 100_000 + "1" + "}" * 100_000),
    ],
    ids=["open", "lists", "objects", "in an ignored key", "as price", "objects as price"],
)
def test_deep_nesting_costs_a_refusal(frame: str) -> None:
    """100,000 levels."""
    refusal(frame)
    refusal(frame.encode())


@pytest.mark.parametrize("kind", malformed.BIG_KINDS)
def test_a_frame_of_10_mb_costs_a_refusal_and_little_time(kind: str) -> None:
    """Each kind that the stand-in exchange can send, and a reason that does not repeat the frame."""
    frame = malformed.big(kind, HUGE, COMBINED.encode())
    began = time.process_time()
    assert len(str(refusal(frame))) < 500
    assert time.process_time() - began < 2.0


def test_a_trade_with_10_mb_of_unknown_keys_is_a_trade() -> None:
    """Size alone is no reason to lose a trade."""
    assert parse_trade(COMBINED.replace('"M":true', '"M":"' + "x" * HUGE + '"'), AT) == TRADE


# Properties.

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.sampled_from("eEstpqTmM"), inner, max_size=8)
    ),
    max_leaves=20,
)
payloads = st.fixed_dictionaries(
    {
        "e": st.sampled_from(["trade", "aggTrade"]) | json_values,
        "E": st.integers() | json_values,
        "s": st.sampled_from(sorted(SYMBOLS)) | json_values,
        "t": st.integers(-5, 2**65) | json_values,
        "p": st.decimals(allow_nan=True).map(str) | json_values,
        "q": st.decimals(min_value=0, places=8).map(str) | json_values,
        "T": st.integers(10**12, 10**16) | json_values,
        "m": st.booleans() | json_values,
    }
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.binary() | st.text() | json_values.map(json.dumps) | payloads.map(json.dumps))
@example(b"\xef\xbb\xbf{}")
@example('"\\ud800"')
def test_no_input_raises_anything_but_a_refusal(frame: str | bytes) -> None:
    """Bytes, text and JSON of any shape, most of them no trades at all."""
    with contextlib.suppress(checks.Refusal):
        parse_trade(frame, AT, SYMBOLS)


decimals = st.tuples(st.integers(0, 10**12 - 1), st.integers(0, 10**8 - 1), st.integers(0, 8)).map(
    lambda parts: f"{parts[0]}" + (f".{parts[1]:08d}"[: parts[2] + 1] if parts[2] else "")
)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 2**63 - 1),
    decimals.filter(lambda text: Decimal(text) > 0),
    decimals.filter(lambda text: Decimal(text) > 0),
    st.datetimes(datetime(2017, 1, 1), datetime(2099, 12, 31, 23, 59, 59, 999_999)),  # noqa: DTZ001
    st.booleans(),
)
def test_what_is_accepted_is_exactly_what_was_sent(
    trade_id: int, price: str, quantity: str, when: datetime, maker: bool
) -> None:
    """Id, digits, time to the millisecond and side, in both units of time."""
    micros = (when.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    for stamp in (micros, micros // 1000):
        data = {"e": "trade", "E": 1, "s": "ETHUSDT", "t": trade_id, "p": price, "q": quantity, "T": stamp, "m": maker}
        trade = parse_trade(json.dumps({"stream": "ethusdt@trade", "data": data}), AT, SYMBOLS)
        assert (str(trade.price), str(trade.quantity)) == (price, quantity)
        floored = when.replace(microsecond=when.microsecond // 1000 * 1000, tzinfo=UTC)
        assert trade == Trade("ETHUSDT", floored, trade_id, Decimal(price), Decimal(quantity), maker, AT)


# Mutated frames, compared with a second, slow and independent reader.


def _no_constant(name: str) -> object:
    raise ValueError(name)


def _each_key_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key comes twice")
    return dict(pairs)


def oracle(frame: bytes, strict: bool = False) -> Trade | None:
    """What a reader written with the json module makes of `frame`; None: no trade.

    `strict`: what two parsers may see differently, control characters and repeated keys, is no trade either.
    """
    hook = _each_key_once if strict else None
    try:
        whole = json.loads(frame.decode(), parse_constant=_no_constant, strict=strict, object_pairs_hook=hook)
    except (ValueError, RecursionError):
        return None
    if not isinstance(whole, dict):
        return None
    data = whole["data"] if isinstance(whole.get("data"), dict) else whole
    kinds = {"e": str, "E": int, "s": str, "t": int, "p": str, "q": str, "T": int, "m": bool}
    if any(type(data.get(name)) is not kind for name, kind in kinds.items()) or data["e"] != "trade":
        return None
    stamp = data["T"] if len(str(data["T"])) == 16 else data["T"] * 1000
    number = r"\d{1,12}(\.\d{1,8})?"
    good = all(re.fullmatch(number, data[name], re.ASCII) and float(data[name]) > 0 for name in "pq")
    if not (
        good
        and data["s"] in SYMBOLS
        and 0 < data["t"] < 2**63
        and 1_483_228_800 * 10**6 <= stamp < 4_102_444_800 * 10**6
    ):
        return None
    at = datetime.fromtimestamp(stamp // 10**6, UTC).replace(microsecond=stamp % 10**6 // 1000 * 1000)
    return Trade(data["s"], at, data["t"], Decimal(data["p"]), Decimal(data["q"]), data["m"], AT)


_BYTES = b'0123456789{}[]",:.-+eEnN\\/ \x00\x1f\x7f\x80\xc3\xff'
_TOKENS = [
    b"1",
    b"-1",
    b"0",
    b"1.0",
    b"1e3",
    b"null",
    b"true",
    b"NaN",
    b'"1"',
    b'"0"',
    b'"1.123456789"',
    b'"trade"',
    b"[]",
]
_TOKENS += [
    b"{}",
    b'"BTCUSDT"',
    b'"btcusdt"',
    b"1723161255342",
    b"1723161255342999",
    b"99999999999999999999",
    b'"\\u0031"',
]


def mutate(frame: bytes, chance: random.Random) -> bytes:
    """`frame` with one to three changes: a byte put, taken, doubled or flipped, a cut, a value or a key exchanged."""
    for _ in range(chance.choice((1, 1, 2, 3))):
        at = chance.randrange(len(frame) + 1)
        kind = chance.randrange(8)
        if kind == 0:
            frame = frame[:at] + bytes([chance.choice(_BYTES)]) + frame[at:]
        elif kind == 1:
            frame = frame[:at] + frame[at + chance.randrange(1, 9) :]
        elif kind == 2:
            frame = frame[:at] + bytes([chance.choice(_BYTES)]) + frame[at + 1 :]
        elif kind == 3:
            frame = frame[:at] + frame[max(0, at - chance.randrange(1, 30)) : at] + frame[at:]
        elif kind == 4 and frame:
            frame = frame[: at - 1] + bytes([frame[at - 1] ^ (1 << chance.randrange(8))]) + frame[at:]
        else:
            # From one of the colons to the next comma stands one value.
            start = frame.find(b":", at) + 1
            end = frame.find(b",", start)
            if start and end > 0:
                frame = frame[:start] + chance.choice(_TOKENS) + frame[end:]
    return frame


def _outcome(frame: bytes) -> Trade | None:
    try:
        return parse_trade(frame, AT, SYMBOLS)
    except checks.Refusal:
        return None


@pytest.mark.slow
def test_200_000_mutated_frames_are_read_as_an_independent_reader_reads_them() -> None:
    """Nothing but a Refusal is raised, and what is accepted is what the other reader found, field by field."""
    chance = random.Random(20240808)
    originals = [
        frame.encode() for frame in (COMBINED, PAYLOAD, COMBINED.replace("BTC", "ETH").replace("342", "342999"))
    ]
    frames = [mutate(chance.choice(originals), chance) for _ in range(FUZZ_FRAMES)]
    began = time.process_time()
    found = [_outcome(frame) for frame in frames]
    assert time.process_time() - began < FUZZ_S_MAX
    accepted = [(frame, trade) for frame, trade in zip(frames, found, strict=True) if trade is not None]
    assert FUZZ_FRAMES // 20 < len(accepted) < FUZZ_FRAMES * 19 // 20
    for frame, trade in accepted:
        assert (frame, oracle(frame)) == (frame, trade)
    # What is refused although the other reader takes it would be a trade lost.
    for frame, outcome in zip(frames[:20_000], found, strict=False):
        assert outcome is not None or oracle(frame, strict=True) is None, frame


# The values on their own (binance/checks.py).


@pytest.mark.parametrize("check", [functools.partial(checks.decimal, "price"), checks.time, checks.trade_id])
def test_a_refusal_is_the_same_the_second_time(check: Callable[[object], object]) -> None:
    """The values that are remembered do not let through what was refused, nor what only equals a good one."""
    for _ in range(2):
        with pytest.raises(checks.Refusal):
            check("x" if isinstance(check, functools.partial) else 0)


def test_trades_of_a_millisecond_share_its_time() -> None:
    """One object for all stamps of it, in either unit: trades that wait take less memory."""
    assert checks.time(1_723_161_255_342_001) is checks.time(1_723_161_255_342_999) is checks.time(1_723_161_255_342)
    assert checks.time(1_723_161_255_343_000) == checks.time(1_723_161_255_342_999) + timedelta(milliseconds=1)


def test_what_is_remembered_is_bounded() -> None:
    """Prices without end do not fill the memory, and a remembered one is right."""
    for n in range(1, 20_001):
        assert checks.decimal("price", f"{n}.5") == Decimal(n) + Decimal("0.5")
        assert checks.time(1_723_161_255_000_999 + 1_000 * n) == datetime(
            2024, 8, 8, 23, 54, 15, tzinfo=UTC
        ) + timedelta(milliseconds=n)
    for cached in (checks.decimal, checks.time):
        size = cached.cache_info().maxsize
        assert cached.cache_info().currsize == size
