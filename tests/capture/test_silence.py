"""Which symbols are silent, and when they are back: by a clock of the tests."""

from collections.abc import Collection, Mapping
from itertools import pairwise

from capture.silence import (
    AGAIN_S_MAX,
    LATE_S,
    NAMES_MAX,
    SILENT_OF_MANY_S,
    SILENT_S,
    SILENT_S_MAX,
    Change,
    Dead,
    Silence,
    named,
)

SYMBOLS = ("BTCUSDT", "ETHUSDT")


def test_a_symbol_without_a_trade_is_said_once_and_again_when_it_is_back() -> None:
    """With its age; the other symbol goes on."""
    silence = Silence(SYMBOLS, 0.0)
    found = []
    for second in range(1, 200):
        newest = {"BTCUSDT": second, "ETHUSDT": 5 if second < 150 else 6}
        changes = silence.look(newest, float(second))
        if any(changes):
            found.append((second, *changes))

    assert found == [(61, [Change("ETHUSDT", 60.0)], []), (150, [], [Change("ETHUSDT", 149.0)])]
    assert silence.silent == 0


def test_a_symbol_that_never_trades_is_silent_since_the_start() -> None:
    """A mistyped one, for example."""
    silence = Silence(SYMBOLS, 100.0)

    assert silence.look({"BTCUSDT": 1}, 100.0 + SILENT_S)[0] == [Change("ETHUSDT", SILENT_S)]
    assert silence.silent == 1


def test_one_that_is_quiet_by_nature_is_told_less_and_less() -> None:
    """Each time twice as long as it was silent before, up to a day."""
    silence, now, said = Silence(("QUIET",), 0.0), 0.0, []
    for trade_id in range(1, 15):
        silence.look({"QUIET": trade_id}, now)
        since = now
        while not silence.look({"QUIET": trade_id}, now)[0]:
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
        assert silence.look({}, float(second), unread=SYMBOLS) == ([], [])

    assert silence.look({}, 500.0) == ([], [])
    assert silence.look({}, 499.0 + SILENT_S)[0][0] == Change("BTCUSDT", 499.0 + SILENT_S)


def test_a_group_without_a_connection_concerns_its_own_symbols_only() -> None:
    """The others are looked at as ever; these get their time again once a connection reads them."""
    silence = Silence(SYMBOLS, 0.0)
    found = []
    for second in range(1, 300):
        silent, _back = silence.look({}, float(second), unread={"ETHUSDT"} if second <= 100 else ())
        found += [(second, change.symbol) for change in silent]

    assert found == [(60, "BTCUSDT"), (160, "ETHUSDT")]


def test_of_very_many_the_first_are_named() -> None:
    """A line is a line."""
    many = [Change(f"S{number}USDT", 61.4) for number in range(1_500)]

    assert named(many[:2]) == "S0USDT (61 s), S1USDT (61 s)"
    assert named(many).endswith(f" and {1_500 - NAMES_MAX:,} more")


def test_symbols_that_come_and_go_are_followed() -> None:
    """A new one has its time from then on, what is known of another stays, and one that left is not missed."""
    silence = Silence(SYMBOLS, 0.0)
    silence.look({}, SILENT_S)
    assert silence.silent == 2
    silence.follow(("ETHUSDT", "SOLUSDT"), SILENT_S)
    assert silence.silent == 1
    assert silence.look({"SOLUSDT": 5}, SILENT_S + 1) == ([], [])
    silent, back = silence.look({"SOLUSDT": 5, "ETHUSDT": 1}, 2 * SILENT_S + 1)
    assert ([one.symbol for one in silent], [one.symbol for one in back]) == (["SOLUSDT"], ["ETHUSDT"])


def test_among_many_symbols_a_minute_is_no_silence() -> None:
    """Most of 1,500 have no trade for a minute at times: it is said after a quarter of an hour."""
    many = Silence([f"S{number}" for number in range(1_500)], 0.0)
    assert many.look({}, SILENT_S) == ([], [])
    assert len(many.look({}, SILENT_OF_MANY_S)[0]) == 1_500


class Quiet:
    """One symbol that is silent, and what the exchange tells when it is asked about it."""

    def __init__(self, newest: int) -> None:
        self.newest = newest
        self.silence = Silence(("QUIET",), 0.0)
        self.now = 0.0
        self.asked: list[float] = []
        self.look()

    def look(self, unread: Collection[str] = ()) -> None:
        self.silence.look({"QUIET": self.newest} if self.newest else {}, self.now, unread)

    def until_asked(self) -> None:
        """Time passes without a trade until the exchange is asked."""
        before = len(self.asked)
        while len(self.asked) == before:
            self.now += 1.0
            self.look()
            self.asked += [self.now for _symbol in self.silence.to_ask(self.now)]

    def judged(self, answers: Mapping[str, int]) -> list[Dead]:
        """What is dead after an answer, once the streams have had their time."""
        self.silence.hear(answers, self.now)
        assert self.silence.dead(self.now) == []
        self.now += LATE_S
        self.look()
        return self.silence.dead(self.now)


def test_a_stream_is_dead_that_does_not_bring_what_is_traded() -> None:
    """Once: what the new connections missed meanwhile is not theirs."""
    quiet = Quiet(7)
    quiet.until_asked()
    assert quiet.judged({"QUIET": 7}) == []
    quiet.until_asked()
    assert quiet.judged({"QUIET": 9}) == [Dead("QUIET", 7, 9)]
    assert quiet.silence.dead(quiet.now) == []
    quiet.until_asked()
    assert quiet.judged({"QUIET": 10}) == []
    quiet.until_asked()
    assert quiet.judged({"QUIET": 11}) == [Dead("QUIET", 10, 11)]


def test_what_was_traded_before_the_start_proves_nothing() -> None:
    """Nor before the connections of its group came back; only what is traded afterwards does."""
    quiet = Quiet(0)
    quiet.until_asked()
    assert quiet.judged({"QUIET": 1_000}) == []
    quiet.look(unread={"QUIET"})
    quiet.until_asked()
    assert quiet.judged({"QUIET": 1_001}) == []
    quiet.until_asked()
    assert quiet.judged({"QUIET": 1_001}) == []
    quiet.until_asked()
    assert quiet.judged({"QUIET": 1_002}) == [Dead("QUIET", 1_001, 1_002)]


def test_a_trade_that_comes_while_the_exchange_is_asked_is_no_miss() -> None:
    """However the answer and the trade overtake each other; answers about other symbols change nothing."""
    for comes_first in (True, False):
        quiet = Quiet(7)
        quiet.until_asked()
        if comes_first:
            quiet.newest = 8
            quiet.look()
        quiet.silence.hear({"QUIET": 8, "LEFTUSDT": 5}, quiet.now)
        quiet.newest, quiet.now = 8, quiet.now + 2 * LATE_S
        quiet.look()
        assert quiet.silence.dead(quiet.now) == []
        assert quiet.silence.silent == 0


def test_a_symbol_that_stays_silent_is_asked_about_again() -> None:
    """Ever less often, up to an hour: its stream may die while it is quiet."""
    quiet = Quiet(7)
    for _ in range(12):
        quiet.until_asked()
    waits = [after - before for before, after in pairwise(quiet.asked)]
    assert waits[:3] == [SILENT_S, 2 * SILENT_S, 4 * SILENT_S]
    assert waits[-1] == AGAIN_S_MAX
