"""The capture: connections, writer and back-fill, joined, watched and stopped in order."""

import logging
import math
import threading
import time
from collections.abc import Callable
from datetime import date
from typing import Protocol

import config
from binance.limits import ConnectBudget, Cooldown
from capture import listing, progress
from capture.checker import Checker
from capture.gap_filler import Backfill
from capture.historian import Historian
from capture.inbox import Inbox
from capture.rejects import Rejects
from capture.retention import Retention
from capture.roster import Roster, RosterError
from capture.sealer import Sealer
from capture.shards import Shards
from capture.shared import Downs, Shared
from capture.silence import Silence, first_of, named
from capture.standby import Limits, Totals, Watched
from capture.writer import Writer
from process import command
from process import log as console

log = logging.getLogger("capture")

TICK_S = 0.25
LINE_S = 10.0
LOOK_S = 1.0
"""How often it is looked whether a symbol is silent."""
UNKNOWN_S = 5.0
"""The streams have so long to prove that the exchange does know a symbol."""
READY_S_MAX = 300.0
"""For the writer to find the database: a private server may have to be initialised or to recover first."""
FINISH_S_MAX = 120.0
STOP_S_MAX = 15.0


class _Beside(command.Joinable, Protocol):
    """A thread beside the capture."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


class CaptureError(Exception):
    """The capture cannot continue without the operator; the message is one line."""


class Capture:
    """Connections → inbox → writer, and beside them the back-fill and the sealing of bars. `stop_asked` ends it."""

    def __init__(
        self,
        settings: config.Settings,
        connect: Callable[[str, Shared], Watched],
        size: int,
        since: date | None = None,
        limits: Limits | None = None,
    ) -> None:
        cooldown = Cooldown()
        self.stop_asked = threading.Event()
        self._settings = settings
        self._connect = connect
        self._size = size
        self._limits = limits or Limits()
        self._rejects = Rejects(settings.capture_dir)
        self._inbox = Inbox()
        self._writer = Writer(settings, self._inbox, self._rejects)
        self._backfill = Backfill(settings, cooldown, self._rejects)
        self._sealer = Sealer(settings, self._writer.newest)
        self._listing = listing.Listing(settings, cooldown)
        self._roster = Roster(settings, cooldown)
        checker = Checker(settings, cooldown, lambda: self._symbols)
        others = checker, Historian(settings, since), Retention(settings)
        self._beside: tuple[_Beside, ...] = (self._backfill, self._sealer, self._listing, self._roster, *others)
        self._failure: str | None = None
        self._symbols: tuple[str, ...] = ()
        self._cooldown = cooldown
        self._shards: Shards | None = None
        self._listened_at = -math.inf

    def run(self, duration_s: float | None = None) -> None:
        """Captures until `stop_asked` is set or `duration_s` is over, then stores what was received. Raises
        CaptureError if only the operator can help."""
        end = math.inf if duration_s is None else time.monotonic() + duration_s
        end_metrics = self._tell_prometheus()
        self._rejects.start()
        self._writer.start()
        self._await_database()
        if self._writer.failure is None and self._know_symbols(end):
            for thread in self._beside:
                thread.start()
            common = self._inbox, self._rejects, self._cooldown, ConnectBudget(), Downs()
            shared = Shared(self._symbols, self._settings.ws_url, *common)
            self._shards = Shards(self._connect, shared, self._size, self._limits, time.monotonic())
            self._watch(end)
        self._say_that_it_stops()
        if self._shards is not None:
            self._shards.stop()
        for thread in self._beside:
            thread.stop()
        end_metrics()
        self._finish()

    def _tell_prometheus(self) -> Callable[[], None]:
        """Serves the metrics, if METRICS_PORT is set, until what it returns is called. Raises CaptureError."""
        host, port = self._settings.metrics_host, self._settings.metrics_port
        if port is None:
            return lambda: None
        # Only now: its library costs megabytes that most captures need not.
        from capture import metrics

        try:
            return metrics.serve(host, port, self._snapshot)
        except OSError as error:
            where = f"METRICS_PORT={port}" if host == "127.0.0.1" else f"METRICS_PORT={port}, METRICS_HOST={host!r}"
            raise CaptureError(f"{where}: {error.strerror}; give a port that nobody listens on") from error

    def _snapshot(self) -> progress.Snapshot:
        shards, writer = self._shards, self._writer
        return progress.Snapshot(
            counters=self.counters(),
            last_at=writer.stats.last_at(),
            lags=writer.stats.lags,
            on_disk=writer.on_disk,
            online=writer.online,
            connections=shards.open if shards else 0,
            groups=shards.groups if shards else 0,
            closed_groups=shards.closed if shards else 0,
        )

    def _await_database(self) -> None:
        deadline = time.monotonic() + READY_S_MAX
        while not self._writer.ready.wait(TICK_S) and not self.stop_asked.is_set() and time.monotonic() < deadline:
            pass

    def _know_symbols(self, end: float) -> bool:
        """Whether it is known what to capture, and nobody has asked to stop meanwhile, nor is `end` over."""
        try:
            self._roster.fill(self.stop_asked, end)
        except RosterError as error:
            self._failure = str(error)
            return False
        self._symbols = self._roster.symbols
        if len(self._symbols) > len(self._settings.names):
            log.info("%s symbols: %s", f"{len(self._symbols):,}", first_of(self._symbols, listing.NAMES_MAX))
        return bool(self._symbols) and not self.stop_asked.is_set()

    def _say_that_it_stops(self) -> None:
        """Here and not in the handler of the signal, where logging could wait for a lock of its own thread."""
        if self.stop_asked.is_set():
            log.info(
                "stopping; trades still to be stored: %d. A second Ctrl-C exits at once: trades on the disk are then"
                " stored by the next start, and those in memory become a gap that it fills",
                self._writer.left_over,
            )

    def _watch(self, end: float) -> None:
        assert self._shards is not None
        began = line_at = look_at = time.monotonic()
        silence = Silence(self._symbols, began)
        while not self.stop_asked.wait(TICK_S) and self._writer.is_alive() and self._writer.failure is None:
            now = time.monotonic()
            self._shards.tick(now)
            if now >= end:
                self._fail_if_no_symbol_is_known()
                break
            if now - look_at >= LOOK_S:
                look_at = now
                self._follow_roster(silence, now)
                self._listen(silence, now)
                if now - began >= UNKNOWN_S and self._fail_if_no_symbol_is_known():
                    break
            if now - line_at >= LINE_S:
                log.info("%s", self._line(now - line_at))
                line_at = now

    def _follow_roster(self, silence: Silence, now: float) -> None:
        """Takes in symbols that the exchange lists now, and lets those go that it does not trade any more."""
        assert self._shards is not None
        symbols = self._roster.symbols
        if symbols is self._symbols or symbols == self._symbols:
            return
        before, after = frozenset(self._symbols), frozenset(symbols)
        joined = [symbol for symbol in symbols if symbol not in before]
        left = [symbol for symbol in self._symbols if symbol not in after]
        self._symbols = symbols
        if joined:
            log.info("the exchange lists %s: captured from now on", first_of(joined, listing.NAMES_MAX))
        if left:
            log.info("the exchange does not trade %s any more: not captured", first_of(left, listing.NAMES_MAX))
        self._shards.change(joined, left, now)
        silence.follow(symbols, now)

    def _listen(self, silence: Silence, now: float) -> None:
        """Says which symbols bring no trades any more, or bring them again, and renews the connections of those that
        are traded all the same."""
        assert self._shards is not None
        # Since the look before: connections that were cut together are often back within a second.
        silent, back = silence.look(self._shards.newest(), now, self._shards.unread(self._listened_at))
        self._listened_at = now
        if silent:
            log.warning("no trade for a while of %s: asking the exchange about it", named(silent))
        if back:
            log.warning("trades come again of %s", named(back))
        self._listing.ask_again(silence.to_ask(now))
        silence.hear(self._listing.answers(), now)
        dead = silence.dead(now)
        for one in dead:
            log.error(
                "%s trades (its newest id is %d), but the streams bring nothing of it after id %d: its connections"
                " are renewed; what is missing is filled as soon as a trade comes",
                *(one.symbol, one.theirs, one.ours),
            )
        if dead:
            silence.restart(self._shards.renew([one.symbol for one in dead], now))

    def _fail_if_no_symbol_is_known(self) -> bool:
        """Whether the exchange knows no symbol at all, and nothing has come: so nothing ever will, which is said."""
        symbols = self._symbols
        assert self._shards is not None
        if not self._listing.unknown.issuperset(symbols) or self._shards.newest():
            return False
        self._failure = (
            f"the exchange knows no symbol {listing.named(symbols)}: set SYMBOLS or --symbols to what it"
            " trades, such as BTCUSDT"
        )
        return True

    def _finish(self) -> None:
        self._inbox.stop()
        command.join(self._writer, FINISH_S_MAX)
        for thread in self._beside:
            command.join(thread, STOP_S_MAX)
        self._rejects.close()
        if failure := self._writer.failure or self._failure:
            raise CaptureError(failure)

    def _line(self, seconds: float) -> str:
        assert self._shards is not None
        lines = self._writer.stats.take(self._symbols, progress.SYMBOLS_SHOWN_MAX)
        counters = self.counters()
        shown = ("queue", "committed", "rejected", "not kept", "reconnects", "gaps open", "missing", "spooled")
        state = [] if self._writer.online else ["DATABASE AWAY"]
        if (closed := self._shards.closed) == self._shards.groups:
            state += ["NO CONNECTION"]
        elif closed:
            state += [f"NO CONNECTION of {closed} of {self._shards.groups} groups"]
        numbers = _shown_text(counters, shown)
        return " · ".join([*state, *(progress.symbol_text(line, seconds) for line in lines), numbers])

    def _totals(self) -> Totals:
        return self._shards.totals() if self._shards else Totals()

    def counters(self) -> dict[str, int]:
        """All counters, in trades unless named otherwise: parsed = inserted + duplicate + dropped + left over."""
        streams = self._totals()
        verdicts = streams.verdicts
        writer, filler = self._writer, self._backfill.filler
        return {
            "frames": streams.frames,
            "parsed": streams.parsed,
            "inserted": writer.inserted,
            "duplicate": writer.duplicate + verdicts["repeated"],
            "dropped": writer.refused + verdicts["dropped"],
            "left over": writer.left_over,
            "rejected": self._rejects.counted,
            "not kept": self._rejects.unkept,
            "queue": len(self._inbox),
            "committed": writer.inserted + writer.duplicate,
            "reconnects": streams.reconnects,
            "gaps opened": writer.gaps_opened,
            "gaps open": self._backfill.open,
            "missing": self._backfill.missing,
            "filled": filler.filled,
            "given up": filler.given_up,
            "spooled": writer.spooled,
            "recovered": writer.recovered,
        }

    def summary(self) -> str:
        """What was captured and what became of it, in a few lines, for the end."""
        counters = self.counters()
        others = self._totals().others
        fates = ("inserted", "duplicate", "dropped", "left over")
        lines = [f"parsed {counters['parsed']} = " + " + ".join(f"{name} {counters[name]}" for name in fates)]
        rows: tuple[tuple[str, ...], ...] = (
            ("frames", "rejected", "not kept", "reconnects"),
            ("gaps opened", "filled", "gaps open", "missing", "given up"),
        )
        lines += [_shown_text(counters, names) for names in rows]
        spooled, left = counters["spooled"], self._writer.on_disk
        lines.append(
            f"spooled {spooled}, of these stored {spooled - left}, left on the disk {left};"
            f" from an earlier run recovered {counters['recovered']}"
        )
        if others:
            lines.append("frames that are not trades: " + console.counters_text(sorted(others.items())))
        return "\n".join(lines)


def _shown_text(counters: dict[str, int], names: tuple[str, ...]) -> str:
    """The named counters; "not kept", the rejected frames that are not in the file, only when there are any."""
    return console.counters_text([(name, counters[name]) for name in names if counters[name] or name != "not kept"])
