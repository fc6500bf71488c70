"""The stand-in exchange as a child of the capture (`ws_client.py --demo`)."""

import contextlib
import subprocess

import config
import db
from capture.pipeline import CaptureError
from process import child

END_S_MAX = 10.0
"""For the stand-in exchange to end when it is told to; then it is killed."""
INSTALL_HINT = "`pip install -r requirements-demo.txt`, or use `make demo`"


def start(settings: config.Settings) -> tuple[subprocess.Popen[str], config.Settings]:
    """The running exchange, and the settings that point to it; its trades continue the stored ones. Raises
    CaptureError, db.DatabaseError."""
    connection = db.connect(settings)
    newest = {symbol: db.latest(connection, symbol) for symbol in settings.symbols}
    db.close(connection)
    starts = [f"{symbol}={trade.trade_id + 1}" for symbol, trade in newest.items() if trade is not None]
    arguments = ["-m", "tools.exchange", "--port", "0", "--symbols", ",".join(settings.symbols)]
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
    return exchange, settings._replace(ws_url=words[1], rest_url=words[2])


def end(exchange: subprocess.Popen[str]) -> None:
    """Ends the exchange."""
    child.end(exchange, "the stand-in exchange", END_S_MAX)
