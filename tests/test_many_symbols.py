"""Hundreds of symbols by a pattern: listed and delisted ones, cuts, and every trade in the end."""

from pathlib import Path

import pytest

from tests.support.harness import PATCHED, QUICK, Rig
from tests.support.servers import Server
from tools.lab.children import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

NAMES = tuple(f"S{number:03}USDT" for number in range(420))
LISTED, OTHER = "NEWUSDT", "ETHBTC"
FLAGS = ("--rate", "900", "--ping-interval", "0.5", "--weight-limit", "200000", "--history", "10")
PATCHES = QUICK | {"capture.roster.LOOK_S": 0.5}
WAIT_S_MAX = 60.0


def test_a_pattern_s_symbols_are_captured_whatever_happens(any_server: Server, tmp_path: Path) -> None:
    """Three groups of connections: all of them are cut, one is lost for good, a symbol is listed meanwhile. In the end
    the tables are what was traded, of each symbol, and of no symbol that the pattern does not match."""
    symbols = (*NAMES, LISTED)
    flags = (*FLAGS, "--symbols", ",".join((*symbols, OTHER)), "--fault", f"rest_symbol=symbol:{LISTED}")
    with Rig(any_server, tmp_path, flags, NAMES) as rig:
        with rig.capture(PATCHED, PATCHES, SYMBOLS="*USDT") as capture:
            rig.stores(WAIT_S_MAX)
            assert {tuple(sorted(one["streams"])) for one in rig.exchange.state()["connections"]} == {
                tuple(sorted(f"{name.lower()}@trade" for name in NAMES[first::3])) for first in range(3)
            }
            rig.exchange.fault("reset", target="all")
            rig.exchange.fault("freeze", target=-1, seconds=0)
            rig.exchange.clear()
            rig.symbols = symbols
            wait_for(f"{LISTED} is stored", lambda: rig.newest_stored()[LISTED] > 0, WAIT_S_MAX)
            rig.settle(WAIT_S_MAX)
            words = capture.process.log.read_text()
            assert f"the exchange lists {LISTED}: captured from now on" in words
        assert rig.rows("SELECT DISTINCT symbol FROM {}.trades ORDER BY symbol") == [
            (name,) for name in sorted(symbols)
        ]
