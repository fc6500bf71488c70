"""What has to reach the disk, so that a loss of power does not take it away."""

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Makes a new file's name as durable as its content; Windows neither needs this nor offers it. Raises OSError."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
