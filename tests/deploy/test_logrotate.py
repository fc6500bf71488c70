"""The settings for logrotate, with Debian's: nothing is misspelt, and a program that goes on writing loses no place."""

import os
import subprocess
from pathlib import Path

import pytest

from process.child import ROOT

SETTINGS = ROOT / "deploy" / "logrotate" / "binance-recorder"
PLACE = ROOT / ".cache" / "logrotate"
PROGRAM = PLACE / "usr" / "sbin" / "logrotate"
S_MAX = 30.0

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="no logrotate; `make test` fetches it on Debian")


def rotate(folder: Path, text: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """logrotate with these settings, for the log in `folder`."""
    path = folder / "settings"
    path.write_text(text.replace("/opt/binance-recorder", str(folder)))
    path.chmod(0o644)
    libraries = os.pathsep.join(map(str, PLACE.glob("usr/lib/*-linux-gnu*")))
    return subprocess.run(
        [str(PROGRAM), "--state", str(folder / "state"), *flags, str(path)],
        env=os.environ | {"LD_LIBRARY_PATH": libraries},
        capture_output=True,
        text=True,
        timeout=S_MAX,
    )


def test_a_log_that_is_written_on(tmp_path: Path) -> None:
    """What was written is in the old file, what comes is at the start of the new one: no hole, nothing twice."""
    tmp_path.chmod(0o755)
    log = tmp_path / "capture.log"
    with log.open("a") as capture:
        for number in (1, 2, 3):
            capture.write(f"line {number}\n")
            capture.flush()
            done = rotate(tmp_path, SETTINGS.read_text(), "--force")
            assert (done.returncode, done.stderr) == (0, "")
        capture.write("line 4\n")
    assert (log.read_text(), (tmp_path / "capture.log.1").read_text()) == ("line 4\n", "line 3\n")
    assert {path.name for path in tmp_path.glob("capture.log.*")} == {f"capture.log.{n}" for n in ("1", "2.gz", "3.gz")}


def test_a_misspelt_setting_is_seen(tmp_path: Path) -> None:
    """So that the test above can fail."""
    assert (
        "unknown option" in rotate(tmp_path, SETTINGS.read_text().replace("notifempty", "notifempy"), "--debug").stderr
    )
