"""A lock between processes on one machine: a flock, which the kernel releases when the process that holds it ends.

It belongs to the open file, so a child that inherits the descriptor holds it too; closing the last one releases it.
"""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no flock.
    fcntl = None  # type: ignore[assignment]

AVAILABLE = fcntl is not None
POLL_S = 0.02


def open_lock(path: Path) -> int:
    """A descriptor of the lock file `path`, which is created if missing; it is not locked yet."""
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def try_shared(descriptor: int) -> bool:
    """Whether the lock could be taken at once, shared with other holders."""
    return _try(descriptor, fcntl.LOCK_SH)


def try_alone(descriptor: int) -> bool:
    """Whether the lock could be taken at once, exclusively; a shared lock on `descriptor` is released either way."""
    return _try(descriptor, fcntl.LOCK_EX)


def wait_alone(descriptor: int, s_max: float) -> bool:
    """Whether the lock could be taken exclusively within `s_max` seconds."""
    deadline = time.monotonic() + s_max
    while not try_alone(descriptor):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


@contextlib.contextmanager
def alone(path: Path, s_max: float) -> Iterator[bool]:
    """Holds the lock file `path` exclusively during the block; yields whether it got it within `s_max` seconds."""
    descriptor = open_lock(path)
    try:
        yield wait_alone(descriptor, s_max)
    finally:
        os.close(descriptor)


def is_held_alone(path: Path) -> bool:
    """Whether some process holds the lock file `path` exclusively."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not try_shared(descriptor)
    finally:
        os.close(descriptor)


def find_holders(path: Path) -> list[int]:
    """The pids of the processes that share the lock file `path`; empty if the system does not tell, as on macOS."""
    try:
        inode = path.stat().st_ino
        locks = Path("/proc/locks").read_text()
    except OSError:
        return []
    # A process of another container has no line (seen with Linux 6.18), or pid 0.
    return [int(pid) for pid in re.findall(rf"FLOCK +ADVISORY +READ +(\d+) +\S+:{inode} ", locks) if int(pid)]


def find_owner(path: Path) -> int | None:
    """The pid of the process that holds the lock file `path` exclusively; 0: one that cannot be seen from here; None:
    none is known, as in another container, or on systems that do not tell. It never takes the lock, not even for a
    moment."""
    try:
        inode = path.stat().st_ino
        locks = Path("/proc/locks").read_text()
    except OSError:
        return None
    found = re.search(rf"FLOCK +ADVISORY +WRITE +(\d+) +\S+:{inode} ", locks)
    return int(found[1]) if found else None


def _try(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
