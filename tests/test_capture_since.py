"""`ws_client.py --since` from the terminal: a day that cannot be brought in is refused before anything is started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from process.child import ROOT
from tests.support.audited import SCRIPT_S_MAX, days_ago

# Of a run that begins before midnight, tomorrow is today when its turn comes.
FUTURE = "2125-03-01"


@pytest.mark.parametrize(
    ("day", "words"),
    [(FUTURE, f"--since={FUTURE} is not over yet: today is {{today}} (UTC)"), ("soon", "'soon' is not a day")],
)
def test_a_day_that_is_none_yet(tmp_path: Path, day: str, words: str) -> None:
    """One line and exit code 2: a child that brings it in would fail again and again."""
    command = [sys.executable, "ws_client.py", "--since", day]
    # Should it be started after all, it finds no server, and leaves none.
    environ = os.environ | {"DATA_DIR": str(tmp_path / "data"), "MYSQL_HOST": "127.0.0.1", "MYSQL_PORT": "9"}
    begun = days_ago(0)
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=SCRIPT_S_MAX)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert any(words.format(today=day) in done.stderr for day in (begun, days_ago(0)))
    assert not (tmp_path / "data").exists()
