"""Whether the capture runs, as far as this machine can tell: a quiet symbol is no stopped capture."""

import re
from pathlib import Path

from process import lock


class CaptureWatch:
    """Looks at the lock that a capture holds in `folder` as long as it lives."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "capture.lock"
        self._seen = False

    def look(self) -> str | None:
        """`running`; `frozen`: its process is suspended; `stopped`: it ran before and does not now; None: not known,
        since no capture was seen here: it may run on another machine."""
        pid = lock.find_owner(self._path)
        if pid is None:
            return "stopped" if self._seen else None
        self._seen = True
        return "frozen" if pid and _is_suspended(pid) else "running"


def _is_suspended(pid: int) -> bool:
    try:
        # The name of the program, in brackets, may have anything in it; the state is the letter behind it.
        found = re.search(r"\) (\S)[^)]*$", Path(f"/proc/{pid}/stat").read_text())
    except OSError:
        return False
    return found is not None and found[1] in "Tt"
