"""The stand-in exchange as a child of the capture (`ws_client.py --demo`)."""

import contextlib
import subprocess

import config
import db
from capture.pipeline import CaptureError
from process import child

END_S_MAX = 10.0
"""For the stand-in exchange to end when it is told to; then it is killed."""
DAYS, DAY_TRADES = 7, 20_000
"""The history of the demo's exchange, and how many trades a symbol has in a day of it."""
STATE, ADDRESS = "exchange", "exchange.address"
"""In its folder: what it has traded so far, and where it is while it runs."""
MARKET = ("BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT", "XRPUSDT", "ETHBTC")
"""What it trades of the patterns in SYMBOLS."""
INSTALL_HINT = "`pip install -r requirements-demo.txt`, or use `make demo`"


def start(settings: config.Settings) -> tuple[subprocess.Popen[str], config.Settings]:
    """The running exchange, and the settings that point to it; its trades continue the stored ones. Raises
    CaptureError, db.DatabaseError."""
    connection = db.connect(settings)
    symbols = settings.chosen(MARKET)
    newest = {symbol: db.latest(connection, symbol) for symbol in symbols}
    db.close(connection)
    starts = [f"{symbol}={trade.trade_id + 1}" for symbol, trade in newest.items() if trade is not None]
    arguments = ["-m", "tools.exchange", "--port", "0", "--symbols", ",".join(symbols)]
    arguments += ["--days", str(DAYS), "--day-trades", str(DAY_TRADES), "--state", str(settings.capture_dir / STATE)]
    arguments += ["--start-id", ",".join(starts)] if starts else []
    exchange = child.start([*arguments, "--until-stdin-closes"])
    words = child.first_line(exchange).split()
    if len(words) != 3 or words[0] != "listening":
        with contextlib.suppress(subprocess.TimeoutExpired):
            exchange.wait(END_S_MAX)
        end(exchange)
        # With status 2 it has said itself, in one line, what is wrong.
        hint = "the line above says why" if exchange.returncode == 2 else INSTALL_HINT
        raise CaptureError(f"the stand-in exchange did not start; {hint}")
    settings.capture_dir.mkdir(parents=True, exist_ok=True)
    (settings.capture_dir / ADDRESS).write_text(words[2])
    return exchange, settings._replace(ws_url=words[1], rest_url=words[2], archive_url=words[2])


def end(exchange: subprocess.Popen[str], settings: config.Settings | None = None) -> None:
    """Ends the exchange of `settings`, if it is the one that others find."""
    if settings is not None:
        (settings.capture_dir / ADDRESS).unlink(missing_ok=True)
    child.end(exchange, "the stand-in exchange", END_S_MAX)


def found(settings: config.Settings) -> config.Settings:
    """The settings that point to the exchange of the running demo. Raises ConfigError if there is none: made-up trades
    are not to be compared with those of a real exchange."""
    with contextlib.suppress(FileNotFoundError):
        url = (settings.capture_dir / ADDRESS).read_text()
        return settings._replace(rest_url=url, archive_url=url)
    if settings.rest_url == config.Settings().rest_url:
        raise config.ConfigError("--demo: the stand-in exchange does not run; start `make demo` in another terminal")
    return settings
