"""What a script does before its other imports, which take a moment and may fail. Needs the standard library only."""

# Or a Python that is too old would stumble over the annotations before it is told so.
from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import TracebackType

PYTHON_MIN = (3, 11)


def prepare() -> None:
    """Ctrl-C during the imports ends the script silently; a missing package becomes one line and exit code 2.

    For a script that runs, not for one that is imported. command.run() handles Ctrl-C once the imports are done.
    """
    # A script that was started in the background ignores Ctrl-C, and must continue to.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.excepthook = _explain
    if sys.version_info < PYTHON_MIN:
        _end(f"this is Python {sys.version.split()[0]}, and 3.11 or newer is needed")


def _explain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """As Python does, except that a missing package is explained to a person, and that Ctrl-C needs no words."""
    if isinstance(error, KeyboardInterrupt):
        # It came in the moment between two places that handle it.
        raise SystemExit(128 + signal.SIGINT)
    if isinstance(error, ModuleNotFoundError) and error.name and not _is_ours(error.name):
        _end(f"the package {error.name.partition('.')[0]!r} is not installed for {sys.executable}")
    sys.__excepthook__(kind, error, trace)


def _is_ours(module: str) -> bool:
    root, name = Path(__file__).resolve().parents[1], module.partition(".")[0]
    return (root / name).is_dir() or (root / f"{name}.py").is_file()


def _end(why: str) -> None:
    """Prints the one line, with the command that works, and ends the script."""
    root = Path(__file__).resolve().parents[1]
    script = Path(sys.argv[0]).resolve()
    # `python -m tools.api` is known here by the path of its module.
    place = script.parent if script.name == "__main__.py" else script
    module = ".".join(place.with_suffix("").relative_to(root).parts)
    name, what = (module, f"-m {module}") if place.parent != root else (script.name, _shortest(script))
    python = root / ".venv" / "bin" / "python"
    shown = _shortest(python)
    if Path(sys.prefix).resolve() == python.parents[1].resolve():
        needed = "requirements.txt" if place.parent == root else "requirements-tools.txt"
        way_out = f"run `{shown} -m pip install -r {_shortest(root / needed)}`"
    elif python.exists():
        way_out = f"run `{shown} {what}`"
    else:
        way_out = f"`make run` sets up .venv; then run `{shown} {what}`"
    print(f"{name}: {why}; {way_out}", file=sys.stderr)
    # Within the hook too, this ends Python with this exit code.
    raise SystemExit(2)


def _shortest(path: Path) -> str:
    """`path` from the working directory, if it is below it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_absolute() and path.is_relative_to(here) else str(path)
