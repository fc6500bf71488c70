"""The tape of the stand-in exchange: what a trade is, how it is written, where it comes from, and the truth."""

import gzip
import itertools
import json
import struct
from collections import Counter
from pathlib import Path

import pytest

from tools.exchange import ledger as truth
from tools.exchange import tape
from tools.exchange.tape import Form, Trade

START_US = 1_735_689_600_000_000
PAIR = [tape.spec_of("BTCUSDT"), tape.spec_of("ETHUSDT")]
TRADE = Trade("BTCUSDT", 3735683259, 6_183_763_000_000, 2_000_000, 1_723_161_255_342_789, True)
LINE = (
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":3735683259,'
    b'"p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true,"M":true}}'
)


def market(seed: int = 1, rate: float = 50, specs: list[tape.Spec] | None = None) -> tape.Synthetic:
    return tape.Synthetic(specs or PAIR, seed, rate, [1000] * len(specs or PAIR))


def trades_of(synthetic: tape.Synthetic, orders: int) -> list[Trade]:
    found = itertools.islice(synthetic.orders(), orders)
    return [trade for order in found for trade in order.trades(START_US + order.offset_us)]


def test_a_trade_is_written_byte_for_byte_as_a_recorded_frame_is() -> None:
    """The synthetic encoder gives exactly the bytes of a real frame with the same values."""
    frame = tape.TradeFrame("btcusdt@trade", TRADE, 1_723_161_255_343_000)
    assert frame.text(Form(combined=True, micro=False)) == LINE


def test_a_raw_frame_in_microseconds_is_the_bare_payload_with_16_digits() -> None:
    """The form of the connection decides about the wrapper and the unit of E and T."""
    frame = tape.TradeFrame("btcusdt@trade", TRADE, 1_723_161_255_343_000)
    payload = json.loads(frame.text(Form(combined=False, micro=True)))
    assert (payload["E"], payload["T"]) == (1_723_161_255_343_000, 1_723_161_255_342_789)
    assert list(payload) == ["e", "E", "s", "t", "p", "q", "T", "m", "M"]


@pytest.mark.parametrize(
    ("size", "head"), [(0, b"\x81\x00"), (125, b"\x81\x7d"), (126, b"\x81\x7e\x00\x7e"), (65535, b"\x81\x7e\xff\xff")]
)
def test_a_frame_header_has_the_length_in_its_shortest_form(size: int, head: bytes) -> None:
    """7-bit and 16-bit lengths as RFC 6455 wants them."""
    assert tape.wrap(b"a" * size) == head + b"a" * size


def test_a_long_frame_has_a_64_bit_length() -> None:
    """A payload of 64 KiB or more has the long form."""
    assert tape.wrap(b"a" * 65536)[:10] == b"\x81\x7f" + struct.pack("!Q", 65536)


@pytest.mark.parametrize(("text", "value"), [("0.00000001", 1), ("60000", 6 * 10**12), ("1.50", 150_000_000)])
def test_decimal_text_becomes_an_exact_integer(text: str, value: int) -> None:
    """Money never passes through a float."""
    assert tape.to_e8(text) == value
    assert tape.to_e8(tape.from_e8(value)) == value


@pytest.mark.parametrize("text", ["", "-1", "1e5", "NaN", "0.000000001", "1_0", " 1", "٦"])
def test_text_that_is_no_plain_decimal_is_refused(text: str) -> None:
    """What cannot be held exactly is an error, not an approximation."""
    with pytest.raises(ValueError, match="decimal"):
        tape.to_e8(text)


def test_the_same_seed_gives_the_same_trades() -> None:
    """Ids, prices, quantities, sides and times depend on seed and rate alone."""
    assert trades_of(market(7), 500) == trades_of(market(7), 500)
    assert trades_of(market(7), 500) != trades_of(market(8), 500)


def test_the_rate_changes_only_the_times() -> None:
    """What is traded does not depend on how fast."""
    slow, fast = trades_of(market(rate=10), 500), trades_of(market(rate=10_000), 500)
    assert [trade._replace(time_us=0) for trade in slow] == [trade._replace(time_us=0) for trade in fast]
    assert slow[-1].time_us > fast[-1].time_us


def test_the_rate_is_the_one_that_was_asked_for() -> None:
    """Bursts and all, 50 trades/s are 50 trades/s."""
    found = trades_of(market(rate=50), 30_000)
    assert len(found) / ((found[-1].time_us - START_US) / 1e6) == pytest.approx(50, rel=0.1)


def test_ids_are_contiguous_per_symbol_and_times_never_go_back() -> None:
    """Each symbol counts on its own from the first id, and id order is time order."""
    found = trades_of(market(), 5000)
    for spec in PAIR:
        mine = [trade for trade in found if trade.symbol == spec.symbol]
        assert [trade.trade_id for trade in mine] == list(range(1000, 1000 + len(mine)))
        assert all(a.time_us <= b.time_us for a, b in itertools.pairwise(mine))


def test_about_two_trades_in_three_share_their_millisecond() -> None:
    """As on a recorded tape: a key without the trade id would lose most of it."""
    found = trades_of(market(), 20_000)
    shared = Counter((trade.symbol, trade.time_us // 1000) for trade in found)
    part = sum(count for count in shared.values() if count > 1) / len(found)
    assert 0.6 < part < 0.75
    assert max(shared.values()) >= 40


def test_prices_walk_on_the_tick_and_quantities_on_the_step() -> None:
    """Every price and quantity is positive, plausible and a multiple of the symbol's increments."""
    found = trades_of(market(), 20_000)
    for spec in PAIR:
        mine = [trade for trade in found if trade.symbol == spec.symbol]
        assert all(trade.price_e8 % spec.tick_e8 == 0 and trade.quantity_e8 % spec.step_e8 == 0 for trade in mine)
        assert all(trade.quantity_e8 > 0 for trade in mine)
        assert all(spec.price_e8 * 0.8 < trade.price_e8 < spec.price_e8 * 1.25 for trade in mine)
        assert len({trade.price_e8 for trade in mine}) > 100


def test_a_price_of_a_few_ticks_stays_positive() -> None:
    """A coin whose price is a handful of ticks never reaches zero."""
    spec = tape.spec_of("SHIBUSDT")._replace(price_e8=3)
    assert min(trade.price_e8 for trade in trades_of(market(specs=[spec]), 20_000)) >= 1


def test_history_ends_where_the_stream_begins() -> None:
    """History has the ids just below the first streamed one, in order, and is older than it."""
    synthetic = market()
    history = synthetic.history(300, START_US)
    for spec in PAIR:
        mine = [trade for trade in history if trade.symbol == spec.symbol]
        assert [trade.trade_id for trade in mine] == list(range(700, 1000))
        assert all(a.time_us <= b.time_us < START_US for a, b in itertools.pairwise(mine))
    assert next(synthetic.orders()).first_id == 1000


def test_history_never_reaches_below_the_first_id_there_is() -> None:
    """With 999 ids below the first streamed one, history is 999 trades."""
    history = market(specs=PAIR[:1]).history(5000, START_US)
    assert [trade.trade_id for trade in history] == list(range(1, 1000))


def test_a_replayed_line_keeps_its_bytes_in_both_forms(tmp_path: Path) -> None:
    """A combined client gets the recorded bytes; a raw one the very bytes of its payload."""
    path = tmp_path / "tape.ndjson.gz"
    with gzip.open(path, "wb") as file:
        file.write(b"1000000000 " + LINE + b"\n1002500000 " + LINE + b"\n")
    first, second = tape.replay(path)
    assert first.frame.text(Form(True, True)) == LINE
    assert first.frame.text(Form(False, False)) == LINE[len(b'{"stream":"btcusdt@trade","data":') : -1]
    assert first.frame.trade == TRADE._replace(time_us=1_723_161_255_342_000)
    assert (first.offset_us, second.offset_us) == (0, 2500)


def test_a_recorded_raw_frame_can_be_sent_combined() -> None:
    """A tape that was recorded from a raw stream is wrapped for combined clients."""
    bare = LINE[len(b'{"stream":"btcusdt@trade","data":') : -1]
    frame = tape.recorded_frame(bare)
    assert (frame.stream, frame.text(Form(True, False)), frame.text(Form(False, False))) == (
        "btcusdt@trade",
        LINE,
        bare,
    )


@pytest.mark.parametrize("text", [b"{", b'{"result":null,"id":1}', LINE.replace(b'"61837.63000000"', b"1"), b"\xff"])
def test_a_recorded_frame_that_is_no_trade_is_kept_but_not_counted(text: bytes) -> None:
    """It is sent as it is and is no part of the truth."""
    frame = tape.recorded_frame(text)
    assert frame.trade is None
    assert frame.text(Form(True, False)) == text


@pytest.mark.parametrize("content", [b"no number {}\n", b"\n", b"x"])
def test_a_replay_file_of_another_shape_is_refused_with_its_line(tmp_path: Path, content: bytes) -> None:
    """The error names the file and the line."""
    path = tmp_path / "tape.ndjson"
    path.write_bytes(b"1 " + LINE + b"\n" + content)
    with pytest.raises(tape.ReplayError, match=r"tape\.ndjson, line 2"):
        list(tape.replay(path))


def test_a_torn_gzip_file_is_refused(tmp_path: Path) -> None:
    """A truncated archive is an error and not a short tape."""
    path = tmp_path / "tape.ndjson.gz"
    path.write_bytes(gzip.compress(b"".join(b"%d %b\n" % (n, LINE) for n in range(1000)))[:-100])
    with pytest.raises(tape.ReplayError):
        list(tape.replay(path))


def test_a_rest_row_has_the_documented_keys_and_an_exact_quote_quantity() -> None:
    """Price times quantity, cut to eight decimals, and the unit that was asked for."""
    row = tape.rest_row(TRADE, micro=False)
    assert row == {
        "id": 3735683259,
        "price": "61837.63000000",
        "qty": "0.02000000",
        "quoteQty": "1236.75260000",
        "time": 1_723_161_255_342,
        "isBuyerMaker": True,
        "isBestMatch": True,
    }
    assert list(row) == ["id", "price", "qty", "quoteQty", "time", "isBuyerMaker", "isBestMatch"]
    assert tape.rest_row(TRADE, micro=True)["time"] == 1_723_161_255_342_789


def ledger_of(count: int, history: int = 0) -> truth.Ledger:
    ledger = truth.Ledger("BTCUSDT")
    for trade_id in range(100, 100 + history):
        ledger.add_history(TRADE._replace(trade_id=trade_id, time_us=START_US))
    for n in range(count):
        ledger.add(TRADE._replace(trade_id=100 + history + n, time_us=START_US + n // 2 * 1000), at_s=float(n))
    return ledger


def test_rest_shows_a_trade_only_after_the_lag() -> None:
    """At second 5 with a lag of 2, the trades of the seconds 0 to 3 are shown."""
    ledger = ledger_of(10)
    assert ledger.shown(5.0, 2.0) == 4
    assert ledger.shown(100.0, 2.0) == 10


def test_a_hole_is_jumped_over_silently() -> None:
    """The page starts at the next id that there is, without an error."""
    ledger = ledger_of(10)
    ledger.holes.append((102, 106))
    assert [trade.trade_id for trade in ledger.from_id(101, 3, 10)] == [101, 107, 108]
    assert [trade.trade_id for trade in ledger.from_id(103, 1, 10)] == [107]
    assert [trade.trade_id for trade in ledger.newest(4, 10)] == [107, 108, 109]


def test_history_is_no_part_of_the_truth() -> None:
    """The summary counts what was emitted and lists the history apart."""
    summary = ledger_of(10, history=5).summary()
    assert (summary["count"], summary["first_id"], summary["last_id"]) == (10, 105, 114)
    assert (summary["history_count"], summary["history_first_id"]) == (5, 100)
    assert [trade.trade_id for trade in ledger_of(10, history=5).emitted(0, 3)] == [105, 106, 107]


def test_a_ledger_without_trades_has_an_empty_summary() -> None:
    """A symbol that never traded has no first and no last id."""
    summary = truth.Ledger("BTCUSDT").summary()
    assert (summary["count"], summary["first_id"], summary["last_id"]) == (0, None, None)


def test_a_tape_out_of_order_gives_the_same_ledger(tmp_path: Path) -> None:
    """A recorded tape may have shuffled ids and repetitions; the store has each id once, in order, with one hash."""
    trades = [TRADE._replace(trade_id=n, price_e8=n) for n in range(1, 50)]
    straight, shuffled = truth.Ledger("BTCUSDT"), truth.Ledger("BTCUSDT")
    for trade in trades:
        straight.add(trade, 0.0)
    for trade in [*trades[10:], *trades[:10], *trades[5:15]]:
        shuffled.add(trade, 0.0)
        shuffled.summary()
    assert shuffled.summary() == straight.summary()


def test_aggregates_join_trades_of_one_order_at_one_price() -> None:
    """Two trades a millisecond at one price make one aggregate; ids count on; f and l are trade ids."""
    ledger = ledger_of(10)
    rows = ledger.aggregates(3, 2, (None, None))
    assert [(row.aggregate_id, row.first.trade_id, row.last.trade_id, row.quantity_e8) for row in rows] == [
        (2, 102, 103, 4_000_000),
        (3, 104, 105, 4_000_000),
        (4, 106, 107, 4_000_000),
    ]
    by_time = ledger.aggregates(1000, None, (START_US + 1000, START_US + 2000))
    assert [row.aggregate_id for row in by_time] == [2, 3]
    assert [row.aggregate_id for row in ledger.aggregates(2, None, (None, None))] == [4, 5]


def test_the_store_forgets_the_oldest_trades_at_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded; counts, hash and aggregate ids go on as if nothing had been forgotten."""
    whole = ledger_of(300, history=20)
    monkeypatch.setattr(truth, "TRADES_MAX", 100)
    bounded = ledger_of(300, history=20)
    assert len(bounded.ids) <= 100
    for name in ("count", "first_id", "last_id", "sha256", "history_count"):
        assert bounded.summary()[name] == whole.summary()[name]
    assert bounded.aggregates(3, None, (None, None)) == whole.aggregates(3, None, (None, None))
