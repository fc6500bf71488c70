"""The folder for files of the archive: of one process at a time, and empty when it begins."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from history import place
from process import lock
from process.child import ROOT

HOLDER = "from history import place; from pathlib import Path; import sys\n"
HOLDER += "with place.taken(Path(sys.argv[1])) as folder:\n"
HOLDER += "    (folder / 'half.zip').write_bytes(b'half'); print('taken', flush=True); sys.stdin.read()\n"


def holder(folder: Path) -> "subprocess.Popen[str]":
    """Another process that has taken the place, and a file in it."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "taken\n"
    return process


def test_a_place_of_one_process(tmp_path: Path) -> None:
    """It is made, empty, held during the block, and free afterwards."""
    assert not place.is_taken(tmp_path)
    with place.taken(tmp_path / "data") as folder:
        assert folder == tmp_path / "data" / "history"
        assert place.is_taken(tmp_path / "data")
    assert not place.is_taken(tmp_path / "data")


def test_a_second_process_is_told_at_once(tmp_path: Path) -> None:
    """Which lock it is; the first one's files stay, also when it is killed: then they are removed."""
    with holder(tmp_path) as other:
        assert place.is_taken(tmp_path)
        with pytest.raises(place.BusyError, match=r"another process brings history in \(.*lock is locked\)"):
            place.taken(tmp_path).__enter__()
        assert (tmp_path / "history" / "half.zip").exists()
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert not place.is_taken(tmp_path)
    with place.taken(tmp_path) as folder:
        assert [path.name for path in folder.iterdir()] == ["lock"]


def test_one_that_only_looks_is_in_nobodys_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A capture looks each second whether the place is taken, for which it has the lock for an instant."""
    # On a busy machine it may be late to release it.
    monkeypatch.setattr(place, "LOOK_S_MAX", 30.0)
    (tmp_path / "history").mkdir()
    descriptor = lock.open_lock(tmp_path / "history" / "lock")
    assert lock.try_shared(descriptor)
    looking = threading.Timer(0.05, os.close, [descriptor])
    looking.start()
    with place.taken(tmp_path):
        assert place.is_taken(tmp_path)
    looking.join()
