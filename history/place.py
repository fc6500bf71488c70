"""Where files of the archive are while they are used, in DATA_DIR: one process at a time brings history in."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from process import lock

FOLDER, LOCK = "history", "lock"
LOOK_S_MAX = 0.5
"""Who only looks whether the place is taken has the lock for an instant; for so long it is waited for."""


class BusyError(Exception):
    """Another process brings history in."""


@contextmanager
def taken(data_dir: Path) -> Iterator[Path]:
    """A block with the folder, empty of what a process that was killed has left, and ours alone. Raises BusyError."""
    folder = data_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = lock.open_lock(folder / LOCK) if lock.AVAILABLE else None
    try:
        if descriptor is not None and not lock.wait_alone(descriptor, LOOK_S_MAX):
            raise BusyError(f"another process brings history in ({folder / LOCK} is locked): wait until it has ended")
        for left in folder.iterdir():
            if left.name != LOCK:
                left.unlink(missing_ok=True)
        yield folder
    finally:
        if descriptor is not None:
            os.close(descriptor)


def is_taken(data_dir: Path) -> bool:
    """Whether a process brings history in now."""
    return lock.AVAILABLE and lock.is_held_alone(data_dir / FOLDER / LOCK)
