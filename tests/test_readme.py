"""The README shows each script's help as it is, and mentions every tool; UPDATE_README=1 pastes the help anew."""

import os
import re
import subprocess
import sys

import pytest

from process.child import ROOT

README = ROOT / "README.md"
_HELP = re.compile(r"```console\n\$ python (?P<command>[^\n]+ --help)\n(?P<output>.*?)```", re.DOTALL)


def _output(command: str) -> str:
    """What `python COMMAND` prints at 100 columns."""
    run = subprocess.run(
        [sys.executable, *command.split()],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return run.stdout


def _commands() -> list[str]:
    return [match["command"] for match in _HELP.finditer(README.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("command", _commands())
def test_help_in_the_readme(command: str) -> None:
    """The help in the README is what the script prints."""
    text = README.read_text(encoding="utf-8")
    shown = next(match["output"] for match in _HELP.finditer(text) if match["command"] == command)
    actual = _output(command)
    if os.environ.get("UPDATE_README"):
        head = f"$ python {command}\n"
        README.write_text(text.replace(f"{head}{shown}```", f"{head}{actual}```"), encoding="utf-8")
        return

    assert shown == actual


def test_every_script_is_in_the_readme() -> None:
    """Each root script and each tool with a command line has its help in the README; parts of a tool have not."""
    scripts = [path.name for path in ROOT.glob("*.py") if 'if __name__ == "__main__"' in path.read_text()]
    tools = [f"-m tools.{path.stem}" for path in ROOT.glob("tools/*.py") if "\ndef main(" in path.read_text()]
    tools += [f"-m tools.{path.parent.name}" for path in ROOT.glob("tools/*/__main__.py")]

    assert {f"{name} --help" for name in scripts + tools} == set(_commands())


def test_the_proof_of_completeness() -> None:
    """The statement in the README is the one that the tests of the gaps run."""
    from tests.support.tables import COMPLETENESS

    assert COMPLETENESS.strip() in README.read_text(encoding="utf-8")


def test_every_setting_is_in_the_example() -> None:
    """Each variable that the configuration reads is in .env.example and in the README."""
    names = set(re.findall(r'"((?:MYSQL|BINANCE)_[A-Z_]+|SYMBOLS|DATA_DIR)"', (ROOT / "config.py").read_text()))
    example, readme = (ROOT / ".env.example").read_text(), README.read_text(encoding="utf-8")

    assert names
    assert [name for name in sorted(names) if f"#{name}=" not in example or name not in readme] == []
