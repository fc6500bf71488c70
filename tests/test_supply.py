"""What is known against the packages is an error, what cannot be asked is a line; and the lists have all of them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from process.child import ROOT
from tests.support import supply

S_MAX = 60.0
CLEAN_PIP = {"dependencies": [{"name": "urllib3", "version": "2.8.0", "vulns": []}], "fixes": []}
KNOWN_PIP = {
    "dependencies": [
        {"name": "urllib3", "version": "1.0", "vulns": [{"id": "CVE-2020-1", "fix_versions": ["1.1"]}]},
        {"name": "tqdm", "skip_reason": "not found"},
    ]
}
CLEAN_NPM: dict[str, object] = {"vulnerabilities": {}}
KNOWN_NPM = {"vulnerabilities": {"x": {"range": "<2", "severity": "high", "via": [{"title": "reads all"}, "y"]}}}

Audit = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    """The audit with programs that say this instead of pip-audit and npm (None: there is no such program)."""

    def run(pip: str | None, npm: str | None) -> tuple[int, list[str]]:
        for name, script in (("pip-audit", pip), ("npm", npm)):
            if script is not None:
                (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
                (tmp_path / name).chmod(0o755)
        # Their shell must be found, and no real program of theirs.
        (tmp_path / "cat").symlink_to("/bin/cat")
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.supply", "audit"],
            cwd=ROOT,
            env=os.environ | {"PATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=S_MAX,
        )
        assert done.stdout == ""
        return done.returncode, done.stderr.splitlines()

    return run


def says(answer: object, code: int = 0) -> str:
    """A script that prints an answer."""
    return f"cat <<'END'\n{json.dumps(answer)}\nEND\nexit {code}"


def test_nothing_is_known(audit: Audit) -> None:
    """Then nothing is said."""
    assert audit(says(CLEAN_PIP), says(CLEAN_NPM)) == (0, [])


def test_what_is_known_fails(audit: Audit) -> None:
    """Each with its package; and packages of which the service knows nothing are not passed over in silence."""
    assert audit(says(KNOWN_PIP, 1), says(KNOWN_NPM, 1)) == (
        1,
        [
            "1 of 2 Python packages are not checked: not known to the service",
            "pip-audit: urllib3 1.0: CVE-2020-1 (mended in: 1.1)",
            "npm: x <2: high: reads all",
        ],
    )


def test_a_service_that_cannot_be_reached(audit: Audit) -> None:
    """A line for each, and no failure; so for a program that is not there."""
    refused = says({"message": "405 Method Not Allowed"}, 1)
    assert audit("echo 'ERROR: Could not connect to the feed' >&2; exit 1", refused) == (
        0,
        [
            "the Python packages are not checked: the service of pip-audit cannot be reached"
            " (ERROR: Could not connect to the feed)",
            "the dashboard's packages are not checked: the service of npm cannot be reached"
            ' ({"message": "405 Method Not Allowed"})',
        ],
    )


def test_a_program_that_is_not_there_or_is_broken(audit: Audit) -> None:
    """The first is said, the second is an error."""
    code, lines = audit("echo 'KeyError: 7' >&2; exit 1", None)
    assert (code, lines[0]) == (1, "pip-audit failed (exit code 1): KeyError: 7")
    assert lines[1] == "the dashboard's packages are not checked: there is no npm"


def test_a_service_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Is not waited for longer than a bound."""
    monkeypatch.setattr(supply, "AUDIT_S_MAX", 0.01)
    slow = supply.Program("the slow packages", (sys.executable, "-c", "input()"), lambda _: iter(()))
    monkeypatch.setattr(supply, "PROGRAMS", (slow._replace(command=("sleep", "600")),))
    assert supply.audit() == 0
    assert "had no answer after" in capsys.readouterr().err


def test_the_lists_have_all_packages_and_are_valid(tmp_path: Path) -> None:
    """By the schema of CycloneDX; the capture's has what requirements.txt brings along, and nothing of the tools."""
    assert supply.sbom(tmp_path) == 0
    names = {}
    for path in tmp_path.iterdir():
        text = path.read_text()
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
        names[path.stem] = {one["name"].lower(): one["version"] for one in json.loads(text)["components"]}
    assert names["capture"]["msgspec"] == metadata.version("msgspec")
    assert "aiohttp" not in names["capture"]
    assert names["capture"].items() <= names["all"].items()
    # What is named, what that needs, and what an extra brings along; nothing of the tests; the dashboard's.
    assert {"fastapi", "starlette", "psycopg-binary", "pyarrow", "lightweight-charts"} <= set(names["all"])
    assert not {"pytest", "mypy", "duckdb"} & set(names["all"])


def test_the_vendored_packages_are_those_of_the_lock() -> None:
    """With the versions that the dashboard's files are of."""
    readme = (ROOT / "tools" / "api" / "dashboard" / "vendor" / "README.md").read_text()
    named = {one["name"]: one["version"] for one in supply._vendored()}
    assert [name for name, version in named.items() if f"| {name} {version}" not in readme] == []
    assert readme.count("\n| ") == len(named) + 1
