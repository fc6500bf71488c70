"""What the documents say is so: help texts, settings, log lines, links, paths. UPDATE_DOCS=1 pastes the help anew."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from process.child import ROOT

README = ROOT / "README.md"
COMMANDS = ROOT / "docs" / "commands.md"
OPERATIONS = ROOT / "docs" / "operations.md"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
README_LINES_MAX = 220

_HELP = re.compile(r"```console\n\$ python (?P<command>[^\n]+ --help)\n(?P<output>.*?)```", re.DOTALL)
_LINK = re.compile(r"\]\((?P<page>[^)#\s]*)(?:#(?P<heading>[^)\s]*))?\)")
_PATH = re.compile(r"(?<![\w/.:-])(?:[\w-]+/)*\w+\.(?:py|sql|md|sh|toml|png)\b(?!\.?\w)|(?<=`)(?:[a-z]+/)+(?=`)")
_MADE = re.compile(r"data/|(?:hour|FILE)\.png$")
"""What comes into being when the examples are run."""


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


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
    return [match["command"] for match in _HELP.finditer(_text(COMMANDS))]


def _anchors(page: Path) -> set[str]:
    """What a link to a heading of `page` ends with, as GitHub makes it."""
    headings = re.findall(r"^#+ (.+)$", _text(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("command", _commands())
def test_help_in_the_commands(command: str) -> None:
    """The help in docs/commands.md is what the script prints."""
    text = _text(COMMANDS)
    shown = next(match["output"] for match in _HELP.finditer(text) if match["command"] == command)
    actual = _output(command)
    if os.environ.get("UPDATE_DOCS"):
        head = f"$ python {command}\n"
        COMMANDS.write_text(text.replace(f"{head}{shown}```", f"{head}{actual}```"), encoding="utf-8")
        return

    assert shown == actual


def test_every_script_is_in_the_commands() -> None:
    """Each root script and each tool with a command line has its help in docs/commands.md; parts of a tool have not."""
    scripts = [path.name for path in ROOT.glob("*.py") if 'if __name__ == "__main__"' in path.read_text()]
    tools = [f"-m tools.{path.stem}" for path in ROOT.glob("tools/*.py") if "\ndef main(" in path.read_text()]
    tools += [f"-m tools.{path.parent.name}" for path in ROOT.glob("tools/*/__main__.py")]

    assert {f"{name} --help" for name in scripts + tools} == set(_commands())


def test_the_proof_of_completeness() -> None:
    """The statement in the README is the one that the tests of the gaps run."""
    from tests.support.tables import COMPLETENESS

    assert COMPLETENESS.strip() in _text(README)


def test_every_setting_is_in_the_example() -> None:
    """Each variable that the configuration reads is in .env.example and in the README."""
    code = (ROOT / "config.py").read_text() + (ROOT / "tools" / "api" / "settings.py").read_text()
    names = set(re.findall(r'"((?:MYSQL|BINANCE|API)_[A-Z_]+|SYMBOLS|DATA_DIR)"', code))
    example, readme = (ROOT / ".env.example").read_text(), _text(README)

    assert names
    assert [name for name in sorted(names) if f"#{name}=" not in example or name not in readme] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    """A link to a file finds it, and a link to a heading finds the heading."""
    for link in _LINK.finditer(_text(page)):
        if "://" in link["page"]:
            continue
        target = page.parent / link["page"] if link["page"] else page
        assert target.exists(), link[0]
        assert not link["heading"] or link["heading"] in _anchors(target), link[0]


# adding.md also names the files that its reader is going to make.
@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "adding.md"], ids=lambda page: page.name)
def test_every_path_exists(page: Path) -> None:
    """A file or folder that a document names is there, seen from the root or beside the document."""
    # A web page's path may end like a file of ours.
    text = re.sub(r"\w+://\S+", "", _text(page))
    named = {path for path in _PATH.findall(text) if not _MADE.search(path)}

    assert [path for path in sorted(named) if not (ROOT / path).exists() and not (page.parent / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_target_of_make_exists(page: Path) -> None:
    """What follows `make` in a command is a target of the Makefile."""
    named = set(re.findall(r"(?:^ *|`)make ([a-z]+)", _text(page), re.MULTILINE))

    assert named - set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)) == set()


def test_every_log_line_is_one_of_ours() -> None:
    """What docs/operations.md explains is what the code says; "…" stands for what differs, and 1 for a number."""
    rooms = ("capture", "binance", "storage")
    paths = [ROOT / "ws_client.py", *(path for room in rooms for path in (ROOT / room).glob("*.py"))]
    # Strings that go on in the next line are joined.
    code = re.sub(r'"\s*\n\s*f?"', "", "".join(map(_text, paths)))
    section = _text(OPERATIONS).partition("## What the log says")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
    pieces = [
        piece.strip() for line in lines for piece in re.split(r"[…:]|^connection 1|HTTP \d+", line) if piece.strip()
    ]

    assert pieces
    assert [piece for piece in pieces if piece not in code] == []


def test_the_readme_is_short() -> None:
    """The README has room for a user's questions only; the rest is in docs/."""
    assert len(_text(README).splitlines()) <= README_LINES_MAX
