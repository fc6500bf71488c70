"""The units of systemd: nothing in them is misspelt, and they may do little."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from process.child import ROOT

UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
EXPOSURE_MAX = 2.5
PYTHON = "/opt/binance-recorder/.venv/bin/python"

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    """What systemd-analyze says."""
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=60)


def unit(path: Path, folder: Path, wrong: str = "", right: str = "") -> str:
    """The unit with a program that is there, because verify looks for it, and `wrong` in place of `right`."""
    text = path.read_text().replace(PYTHON, sys.executable)
    assert sys.executable in text
    assert right in text
    target = folder / path.name
    target.write_text(text.replace(right, wrong) if right else text)
    return str(target)


def test_the_units_are_sound(tmp_path: Path) -> None:
    """It exits with 0 for a misspelt setting too, so its words count."""
    done = analyze("verify", "--man=no", *(unit(path, tmp_path) for path in UNITS))
    assert (len(UNITS), done.returncode, done.stderr) == (2, 0, "")


def test_a_misspelt_setting_is_seen(tmp_path: Path) -> None:
    """So that the test above can fail."""
    done = analyze("verify", "--man=no", unit(UNITS[0], tmp_path, wrong="ProtectHomes=", right="ProtectHome="))
    assert "ProtectHomes" in done.stderr


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_the_units_may_do_little(path: Path, tmp_path: Path) -> None:
    """By systemd's own measure, from 0 to 10."""
    done = analyze("security", "--offline=true", unit(path, tmp_path))
    found = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stderr
    assert float(found[1]) <= EXPOSURE_MAX
