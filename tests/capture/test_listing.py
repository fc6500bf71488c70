"""What the exchange says of the symbols is told once, and a stream that is dead is found out."""

import pytest

import config
from binance.limits import Cooldown
from binance.rest import LastingError, Rest, UnknownSymbolError
from capture.listing import Listing
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
        listing.ask_again({"ETHUSDT": 0})
        exchange.clear()
        listing.ask_again({"ETHUSDT": 0})
        wait_until(lambda: "the exchange trades ETHUSDT again" in caplog.text, S_MAX)

    assert caplog.text.count("the exchange says HALT of ETHUSDT") == 1


def test_a_silent_symbol_that_trades_has_a_dead_stream(exchange: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    """REST has a newer trade than the streams brought; one that has none is only quiet."""
    newest = exchange.json("/api/v3/trades?symbol=BTCUSDT&limit=1")[0]["id"]
    with Asked(exchange, "BTCUSDT", "ETHUSDT") as listing:
        wait_until(lambda: not listing._wanted, S_MAX)
        listing.ask_again({"BTCUSDT": newest})
        wait_until(lambda: not listing._wanted, S_MAX)
        assert not listing.stream_is_dead.wait(0.2)
        listing.ask_again({"BTCUSDT": newest - 3})
        assert listing.stream_is_dead.wait(S_MAX)

    assert f"BTCUSDT trades (its newest id is {newest})" in caplog.text


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
