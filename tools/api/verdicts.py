"""How many days have each verdict, kept for a minute: counting them reads the index of all proofs."""

import threading
import time

from db import Connection
from storage import proofs

AUDIT_S = 60.0


class Verdicts:
    """The days of each verdict, as they were at most AUDIT_S ago."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked_at = -AUDIT_S
        self._found: dict[str, int] = {}

    def ask(self, connection: Connection) -> dict[str, int]:
        """How many days have each verdict."""
        with self._lock:
            if time.monotonic() - self._asked_at >= AUDIT_S:
                self._found = proofs.count_verdicts(connection)
                self._asked_at = time.monotonic()
            return self._found
