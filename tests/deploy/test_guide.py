"""What deploy/README.md says to type on a server with systemd: where the units and the server are."""

import re
import shlex

from process.child import ROOT

GUIDE = (ROOT / "deploy" / "README.md").read_text().partition("## In containers")[0]
UNITS = {path.stem: path.read_text() for path in (ROOT / "deploy" / "systemd").glob("*.service")}


def setting(unit: str, name: str) -> str:
    """The value of a setting that a unit has once."""
    (value,) = re.findall(rf"^{name}=(.*)$", UNITS[unit], re.MULTILINE)
    return str(value)


def test_a_command_runs_as_the_capture_does() -> None:
    """With its account, settings and folders; a right that is missing, or another database, would be the answer."""
    (line,) = re.findall(r"^ *(systemd-run .*)$", GUIDE.replace("\\\n", " "), re.MULTILINE)
    words = shlex.split(line)
    capture = "binance-recorder"
    assert f"--uid={setting(capture, 'User')}" in words
    assert f"--working-directory={setting(capture, 'WorkingDirectory')}" in words
    assert f"EnvironmentFile={setting(capture, 'EnvironmentFile')}" in words
    assert f"UMask={setting(capture, 'UMask')}" in words
    assert set(words) & set(setting(capture, "Environment").split()) == {"DATA_DIR=/var/lib/binance-recorder"}
    assert setting(capture, "ExecStart").split()[0] in words


def test_a_new_version_is_granted_to_the_accounts() -> None:
    """On the server of the installation: a line that names none would make a private one."""
    install, update = GUIDE.partition("- A new version")[::2]
    (first,) = re.findall(r"^export (MYSQL_UNIX_SOCKET=\S+);", install, re.MULTILINE)
    (made,) = re.findall(r"^(MYSQL_USER=.*)$", install, re.MULTILINE)
    assert re.findall(r"`(MYSQL_\w+=.* -m tools\..*?)`", update) == [f"{first} {made}"]


def test_the_api_may_see_whether_the_capture_runs() -> None:
    """By /proc/locks, which ProcSubset=pid takes away, and /proc/PID/stat, which ProtectProc=invisible does."""
    hidden = "^(?:ProcSubset|ProtectProc)="
    assert len(re.findall(hidden, UNITS["binance-recorder"], re.MULTILINE)) == 2
    assert re.findall(hidden, UNITS["binance-recorder-api"], re.MULTILINE) == []
