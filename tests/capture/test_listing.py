"""What the exchange says of the symbols is told once, and the newest trade of a silent one is asked for."""

from collections.abc import Sequence
from contextlib import suppress

import pytest

import config
from binance.limits import Cooldown
from binance.rest import TRADING, LastingError, Rest, RestError, UnknownSymbolError
from capture.listing import NEWEST_CALLS_MAX, Listing
from tests.support.child import wait_until
from tests.support.stand_in import StandIn

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_filling")]

S_MAX = 10.0


class Asked:
    """A listing that runs until the block ends."""

    def __init__(self, exchange: StandIn, *symbols: str, url: str | None = None) -> None:
        settings = config.Settings(symbols=symbols, rest_url=url or exchange.http)
        self.thread = Listing(settings, Cooldown())

    def __enter__(self) -> Listing:
        self.thread.start()
        return self.thread

    def __exit__(self, *_error: object) -> None:
        self.thread.stop()
        self.thread.join(S_MAX)


def test_a_symbol_that_does_not_exist_is_named(exchange: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    """Among others, and how it is written; those that exist are not."""
    with Asked(exchange, "BTCUSDT", "BTC-USDT", "ETHUSDT") as listing:
        wait_until(lambda: bool(listing.unknown), S_MAX)

    assert listing.unknown == {"BTC-USDT"}
    assert (
        "the exchange knows no symbol BTC-USDT: no trade of it will come; it is written without a sign" in caplog.text
    )


def test_a_symbol_that_is_halted_is_named_and_again_when_it_trades(
    exchange: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    """Each once."""
    exchange.fault("rest_symbol", symbol="ETHUSDT", reason="HALT")
    with Asked(exchange, "BTCUSDT", "ETHUSDT") as listing:
        wait_until(lambda: "HALT" in caplog.text, S_MAX)
        listing.ask_again(["ETHUSDT"])
        exchange.clear()
        listing.ask_again(["ETHUSDT"])
        wait_until(lambda: "the exchange trades ETHUSDT again" in caplog.text, S_MAX)

    assert caplog.text.count("the exchange says HALT of ETHUSDT") == 1


def test_of_a_silent_symbol_the_newest_trade_is_told(exchange: StandIn) -> None:
    """Once; not of one that is not traded, nor of one that nobody asks about."""
    newest = exchange.json("/api/v3/trades?symbol=BTCUSDT&limit=1")[0]["id"]
    exchange.fault("rest_symbol", symbol="ETHUSDT", reason="HALT")
    told: dict[str, int] = {}
    with Asked(exchange, "BTCUSDT", "ETHUSDT") as listing:
        listing.ask_again(["ETHUSDT", "BTCUSDT"])
        wait_until(lambda: bool(told.update(listing.answers()) or told), S_MAX)

    assert told == {"BTCUSDT": newest}
    assert listing.answers() == {}


def test_an_exchange_that_cannot_be_asked_is_said_once(exchange: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    """And asked again until it can."""
    exchange.fault("rest_status", status=503, count=4)
    with Asked(exchange, "BTCUSDT", "NOSUCH") as listing:
        wait_until(lambda: bool(listing.unknown), S_MAX)

    assert caplog.text.count("the symbols cannot be checked with the exchange") == 1


def test_a_thousand_symbols_cost_a_few_calls(exchange: StandIn) -> None:
    """Fifty at once; only where one is unknown they are halved."""
    before = exchange.state()["rest_calls"].get("/api/v3/exchangeInfo", 0)
    rest = Rest(exchange.http, Cooldown())
    with pytest.raises(UnknownSymbolError):
        rest._statuses(["BTCUSDT", "NOSUCH"])
    names = ["BTCUSDT", "ETHUSDT"] * 24
    assert rest.fetch_statuses(names) == {"BTCUSDT": "TRADING", "ETHUSDT": "TRADING"}
    found = rest.fetch_statuses([*names, "NOSUCH"])
    rest.close()

    assert found == {"BTCUSDT": "TRADING", "ETHUSDT": "TRADING", "NOSUCH": None}
    assert exchange.state()["rest_calls"]["/api/v3/exchangeInfo"] - before < 20


def test_months_of_refusals_end_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    """The wait between two tries stays within its bound, and it is said once."""
    listing = Listing(config.Settings(symbols=("BTCUSDT",)), Cooldown())
    listing.stop()
    for attempt in range(1, 2_000):
        listing._wait(LastingError("an API key is wanted"), attempt)
    assert caplog.text.count("an API key is wanted") == 1


class Answering:
    """In the place of Rest: knows all symbols, refuses the calls that a test says, and counts."""

    def __init__(self, refuses_at: Sequence[int] = ()) -> None:
        self.asked: list[str] = []
        self._refuses_at = refuses_at
        self._calls = 0

    def fetch_statuses(self, symbols: Sequence[str]) -> dict[str, str | None]:
        return dict.fromkeys(symbols, TRADING)

    def fetch_newest_id(self, symbol: str) -> int:
        self._calls += 1
        if self._calls in self._refuses_at:
            raise RestError("HTTP 503")
        self.asked.append(symbol)
        return 7


def test_all_that_are_silent_are_asked_about_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is forgotten, after a refusal neither: who was refused waits behind the others, and each is asked once."""
    listing, rest = Listing(config.Settings(symbols=("BTCUSDT",)), Cooldown()), Answering(refuses_at=[3, 15])
    monkeypatch.setattr(listing, "_rest", rest)
    silent = [f"S{number}USDT" for number in range(35)]
    listing.ask_again(silent)
    looks, answers = 0, dict[str, int]()
    while listing._wanted:
        looks, before = looks + 1, len(rest.asked)
        with suppress(RestError):
            assert listing.look() == bool(listing._wanted)
        assert len(rest.asked) - before <= NEWEST_CALLS_MAX
        answers |= listing.answers()

    assert sorted(rest.asked) == sorted(silent)
    assert answers == dict.fromkeys(silent, 7)
    assert looks <= 6
