"""The arrows of the house: which room may import which, and what the root shows."""

import ast
import subprocess
from collections.abc import Container, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.harness import QUICK

ROOT = Path(__file__).parent.parent
SCRIPTS = {"ws_client", "query_examples", "backfill", "audit", "private_mysql"}
SHOWN = {*(f"{name}.py" for name in (*SCRIPTS, "db", "config")), "schema.sql"}
FOLDERS = {
    "model",
    "binance",
    "capture",
    "history",
    "proof",
    "storage",
    "mysqld",
    "process",
    "report",
    "tools",
    "docs",
    "deploy",
    "tests",
}
PAPERS = {
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "SECURITY.md",
    "Makefile",
    "README.md",
    "pyproject.toml",
    "schemathesis.toml",
}
REQUIREMENTS = {f"requirements{part}.txt" for part in ("", "-demo", "-dev", "-tools")}

BELOW_SCRIPTS = "capture history proof report db storage binance model mysqld process config"
BELOW_TOOLS = "db storage history proof report binance process model mysqld config"
ALLOWED = {
    "model": "",
    "process": "",
    "config": "process model",
    "binance": "model process",
    "mysqld": "process model config",
    "storage": "model mysqld process config",
    "db": "storage model process config",
    "report": "db storage model process config",
    "history": "db binance model process config",
    "proof": "db storage binance model process config",
    "capture": "db history proof binance model process config",
    "tools.lab": BELOW_TOOLS,
    "tools.exchange": BELOW_TOOLS,
    "tools.export": BELOW_TOOLS,
    "tools.mirror": BELOW_TOOLS,
    "tools.api": BELOW_TOOLS,
    "tools.reseal": BELOW_TOOLS,
    "tools.retain": BELOW_TOOLS,
    "tools.restore": BELOW_TOOLS,
    "tools.users": BELOW_TOOLS,
    "tools.migrate": BELOW_TOOLS,
    "tools.load": BELOW_TOOLS,
    # The benchmark measures the capture's and the stand-in's parts one by one, which no process of theirs would show.
    "tools.bench": f"{BELOW_TOOLS} capture deploy tools.lab tools.exchange",
    "tools.soak": f"{BELOW_TOOLS} tools.lab",
    # The demo is the capture with the API beside it: one process in the terminal, and one Ctrl-C.
    "tools.demo": f"{BELOW_TOOLS} ws_client",
}
"""What each room may import beside itself; a room that is missing here may import nothing of the project."""


class Arrow(NamedTuple):
    """An import, from module to module; `name` is what is taken out of the module, if not the module itself."""

    source: str
    target: str
    name: str | None = None


def room(module: str) -> str:
    """The package or file of the root that a module is in; the packages of tools/ are rooms of their own."""
    return ".".join(module.split(".")[: 2 if module.startswith("tools.") else 1])


def tracked() -> list[str]:
    """The files of the project: those that git knows and that are there."""
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in names.splitlines() if (ROOT / name).exists()]


def modules() -> dict[str, Path]:
    """The file of each module of the project, tests included."""
    names = (name for name in tracked() if name.endswith(".py"))
    return {name.removesuffix(".py").replace("/", ".").removesuffix(".__init__"): ROOT / name for name in names}


def arrows(source: str, text: str, known: Container[str]) -> Iterator[Arrow]:
    """The imports of `known` modules in the text of `source`, wherever in it they stand."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (Arrow(source, alias.name) for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                module = str(node.module)
                whole = f"{module}.{alias.name}"
                if whole in known:
                    yield Arrow(source, whole)
                elif module in known:
                    yield Arrow(source, module, alias.name)


def is_allowed(arrow: Arrow) -> bool:
    """Whether the table has the arrow: a script imports what is below scripts."""
    one, other = room(arrow.source), room(arrow.target)
    wanted = BELOW_SCRIPTS if one in SCRIPTS else ALLOWED.get(one, "")
    return one == other or other in wanted.split()


FILES = modules()
ARROWS = [arrow for source, path in FILES.items() for arrow in arrows(source, path.read_text(), FILES)]
PRODUCTION = [arrow for arrow in ARROWS if room(arrow.source) != "tests"]


def test_the_root_shows_what_people_run_or_everybody_imports() -> None:
    """A newcomer sees the architecture in the list of files."""
    names = {name.split("/")[0] for name in tracked() if not name.startswith(".")}
    assert names <= SHOWN | FOLDERS | PAPERS | REQUIREMENTS


def test_arrows_run_down_only() -> None:
    """No room imports what is above it or beside it, no module imports a script, and `storage` does not import `db`."""
    assert [arrow for arrow in PRODUCTION if not is_allowed(arrow)] == []


def test_imports_form_no_circle() -> None:
    """Each module can be read after those that it imports, inside a room too."""
    below: dict[str, set[str]] = {source: set() for source in FILES}
    for arrow in PRODUCTION:
        below[arrow.source].add(arrow.target)
    try:
        TopologicalSorter(below).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' → '.join(error.args[1])}")


def test_constants_that_tests_shorten_are_read_through_their_module() -> None:
    """`from m import CONSTANT` keeps the value of the import, so that a test that sets `m.CONSTANT` has no effect."""
    assert [arrow for arrow in ARROWS if f"{arrow.target}.{arrow.name}" in QUICK] == []


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("storage.gaps", "import db"),
        ("model.gaps", "from storage import ranges"),
        ("process.lock", "from model.trade import Trade"),
        ("report.text", "import query_examples"),
        ("capture.writer", "from storage.errors import GoneError"),
        ("tools.api.app", "from capture.inbox import Inbox"),
        ("tools.export.files", "def later():\n    import ws_client"),
        ("binance.rest", "import db"),
    ],
)
def test_an_arrow_that_runs_up_is_found(source: str, line: str) -> None:
    """The table above refuses what it does not list, inside functions too."""
    assert [is_allowed(arrow) for arrow in arrows(source, line, FILES)] == [False]
