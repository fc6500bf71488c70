"""Which symbols are silent, and when they are back: by a clock of the tests."""

from itertools import pairwise

from capture.silence import NAMES_MAX, SILENT_OF_MANY_S, SILENT_S, SILENT_S_MAX, Change, Silence, named

SYMBOLS = ("BTCUSDT", "ETHUSDT")


def test_a_symbol_without_a_trade_is_said_once_and_again_when_it_is_back() -> None:
    """With its age; the other symbol goes on."""
    silence = Silence(SYMBOLS, 0.0)
    found = []
    for second in range(1, 200):
        newest = {"BTCUSDT": second, "ETHUSDT": 5 if second < 150 else 6}
        changes = silence.look(newest, float(second), is_open=True)
        if any(changes):
            found.append((second, *changes))

    assert found == [(61, [Change("ETHUSDT", 60.0)], []), (150, [], [Change("ETHUSDT", 149.0)])]
    assert silence.silent == 0


def test_a_symbol_that_never_trades_is_silent_since_the_start() -> None:
    """A mistyped one, for example."""
    silence = Silence(SYMBOLS, 100.0)

    assert silence.look({"BTCUSDT": 1}, 100.0 + SILENT_S, is_open=True)[0] == [Change("ETHUSDT", SILENT_S)]
    assert silence.silent == 1


def test_one_that_is_quiet_by_nature_is_told_less_and_less() -> None:
    """Each time twice as long as it was silent before, up to a day."""
    silence, now, said = Silence(("QUIET",), 0.0), 0.0, []
    for trade_id in range(1, 15):
        silence.look({"QUIET": trade_id}, now, is_open=True)
        since = now
        while not silence.look({"QUIET": trade_id}, now, is_open=True)[0]:
            now += 10.0
        said.append(now - since)
        now += 1.0

    assert said[0] == SILENT_S
    assert all(later >= earlier for earlier, later in pairwise(said))
    assert said[-1] <= SILENT_S_MAX + 10
    assert said[5] > 10 * said[0]


def test_without_a_connection_nobody_becomes_silent() -> None:
    """That there is none is said elsewhere; afterwards the time begins anew, and the age is the whole one."""
    silence = Silence(SYMBOLS, 0.0)
    for second in range(1, 500):
        assert silence.look({}, float(second), is_open=False) == ([], [])

    assert silence.look({}, 500.0, is_open=True) == ([], [])
    assert silence.look({}, 499.0 + SILENT_S, is_open=True)[0][0] == Change("BTCUSDT", 499.0 + SILENT_S)


def test_of_very_many_the_first_are_named() -> None:
    """A line is a line."""
    many = [Change(f"S{number}USDT", 61.4) for number in range(1_500)]

    assert named(many[:2]) == "S0USDT (61 s), S1USDT (61 s)"
    assert named(many).endswith(f" and {1_500 - NAMES_MAX:,} more")


def test_symbols_that_come_and_go_are_followed() -> None:
    """A new one has its time from then on, what is known of another stays, and one that left is not missed."""
    silence = Silence(SYMBOLS, 0.0)
    silence.look({}, SILENT_S, is_open=True)
    assert silence.silent == 2
    silence.follow(("ETHUSDT", "SOLUSDT"), SILENT_S)
    assert silence.silent == 1
    assert silence.look({"SOLUSDT": 5}, SILENT_S + 1, is_open=True) == ([], [])
    silent, back = silence.look({"SOLUSDT": 5, "ETHUSDT": 1}, 2 * SILENT_S + 1, is_open=True)
    assert ([one.symbol for one in silent], [one.symbol for one in back]) == (["SOLUSDT"], ["ETHUSDT"])


def test_among_many_symbols_a_minute_is_no_silence() -> None:
    """Most of 1,500 have no trade for a minute at times: it is said after a quarter of an hour."""
    many = Silence([f"S{number}" for number in range(1_500)], 0.0)
    assert many.look({}, SILENT_S, is_open=True) == ([], [])
    assert len(many.look({}, SILENT_OF_MANY_S, is_open=True)[0]) == 1_500
