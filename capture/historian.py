"""Brings history in beside the capture, and heals old gaps: runs backfill.py as a child, which cannot hold it up.

With --since first all trades from a day on. Then, as long as ids of days that are over are missing, the archive is
asked for them: the file of a day is published some time during the next one.
"""

import logging
import threading
from collections.abc import Container, Sequence
from datetime import UTC, date, datetime

import config
import db
from capture import aside
from model.gaps import Gap
from process.retry import doubled, jittered

log = logging.getLogger("history")

LOOK_S = 600.0
"""How often it is looked whether old gaps are open."""
AGAIN_S, AGAIN_S_MAX = 60.0, 86_400.0
"""The wait after a run that could not bring in all grows from this up to a day."""
SINCE_AGAIN_S_MAX = 3_600.0
OLD_S = 3 * 3_600.0
"""A gap is REST's business for this long; then the archive is asked too."""


class Historian(threading.Thread):
    """The thread of the capture that starts the child and passes on what it says. `since`: None without --since."""

    def __init__(self, settings: config.Settings, since: date | None) -> None:
        super().__init__(name="history", daemon=True)
        self._settings = settings
        self._since = since
        self._stop_asked = threading.Event()
        self._attempt = 0

    def stop(self) -> None:
        """Asks the thread to end; the child is ended, which loses nothing."""
        self._stop_asked.set()

    def run(self) -> None:
        while not self._stop_asked.is_set():
            try:
                wait_s = self._step()
            except Exception:
                # A defect here must not end the capture.
                log.exception("history could not be brought in; the next try is in %.0f s", AGAIN_S_MAX)
                wait_s = AGAIN_S_MAX
            self._stop_asked.wait(wait_s)

    def _step(self) -> float:
        """Starts the child if there is something to bring in; the seconds until the next look."""
        if self._since is not None:
            if self._run(["--since", str(self._since)]):
                self._since, self._attempt = None, 0
                return LOOK_S
            return self._later(SINCE_AGAIN_S_MAX)
        if not self._has_old_gaps():
            self._attempt = 0
            return LOOK_S
        self._run(["--from-archive"])
        return max(LOOK_S, self._later(AGAIN_S_MAX))

    def _later(self, most_s: float) -> float:
        self._attempt += 1
        return jittered(doubled(AGAIN_S, self._attempt - 1, most_s))

    def _has_old_gaps(self) -> bool:
        try:
            connection = db.connect(self._settings, read_only=True)
        except db.DatabaseError as error:
            log.debug("the gaps cannot be read now: %s", error)
            return False
        try:
            gaps = db.open_gaps(connection)
            wanted = self._settings.wanted({gap.symbol for gap in gaps})
            return bool(old_gaps(gaps, wanted, datetime.now(UTC)))
        except db.DatabaseError as error:
            log.debug("the gaps cannot be read now: %s", error)
            return False
        finally:
            db.close(connection)

    def _run(self, flags: Sequence[str]) -> bool:
        """Whether the child could do its work."""
        code = aside.run(["backfill.py", *flags], self._settings, log, "history", self._stop_asked)
        # With 1 ids are missing still: they are gaps now, which REST or a later run fills.
        return code in (0, 1)


def old_gaps(gaps: Sequence[Gap], symbols: Container[str], now: datetime) -> list[Gap]:
    """Those of `gaps` that the archive may fill: of our symbols, of a day that is over, and not found just now (nor in
    the future, by a clock that was set back since)."""
    today = now.date()
    return [
        gap
        for gap in gaps
        if gap.symbol in symbols
        and gap.timestamp_before.date() < today
        and abs((now - gap.detected_at).total_seconds()) >= OLD_S
    ]
