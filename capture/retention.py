"""Lets old days leave the table beside the capture: runs `python -m tools.retain` as a child, once a day."""

import importlib.util
import logging
import threading

import config
from capture import aside
from process.retry import doubled, jittered

log = logging.getLogger("retention")

EVERY_S = 86_400.0
AGAIN_S, AGAIN_S_MAX = 60.0, 3_600.0
"""The wait after a run that failed grows from this up to an hour."""
PACKAGE = "pyarrow"


def check(settings: config.Settings) -> None:
    """Raises ConfigError if days are to leave, and what writes their files is not installed."""
    if settings.retention_days is not None and importlib.util.find_spec(PACKAGE) is None:
        raise config.ConfigError(
            f"RETENTION_DAYS={settings.retention_days}: days in Parquet files need another package: pip install -r"
            " requirements-tools.txt"
        )


class Retention(threading.Thread):
    """The thread of the capture that starts the child and passes on what it says; without RETENTION_DAYS it ends at
    once."""

    def __init__(self, settings: config.Settings) -> None:
        super().__init__(name="retention", daemon=True)
        self._settings = settings
        self._stop_asked = threading.Event()
        self._attempt = 0

    def stop(self) -> None:
        """Asks the thread to end; the child is ended, and the next one goes on where it was."""
        self._stop_asked.set()

    def run(self) -> None:
        while self._settings.retention_days is not None and not self._stop_asked.is_set():
            try:
                wait_s = self._step(self._settings.retention_days)
            except Exception:
                # A defect here must not end the capture.
                log.exception("old days stay in the table; the next try is in %.0f s", AGAIN_S_MAX)
                wait_s = AGAIN_S_MAX
            self._stop_asked.wait(wait_s)

    def _step(self, days: int) -> float:
        """Runs the child; the seconds until the next time."""
        words = ["-m", "tools.retain", "--keep", f"{days}d"]
        code = aside.run(words, self._settings, log, "retention", self._stop_asked)
        if code in (0, 1):
            self._attempt = 0
            if code:
                log.warning("days that should have left the table need a look: python -m tools.retain --keep %dd", days)
            return EVERY_S
        self._attempt += 1
        wait_s = jittered(doubled(AGAIN_S, self._attempt - 1, AGAIN_S_MAX))
        if not self._stop_asked.is_set():
            log.warning("old days could not leave the table (exit code %d); next try in %.0f s", code, wait_s)
        return wait_s
