"""What a script does before its other imports, which take a moment and may fail. Needs the standard library only.

What is imported here is loaded by Python itself in any case: until prepare() is done, Ctrl-C is a traceback.
"""

import os
import sys

PYTHON_MIN = (3, 11)
ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
INTERRUPTED = 130
LARGE_TOOLS = dict.fromkeys(("tools.export", "tools.mirror"), "requirements-tools.txt")


def prepare() -> None:
    """Ctrl-C during the imports ends the script silently; a missing package becomes one line and exit code 2.

    Call it only if the script is run, not if it is imported. After the imports, command.run() handles Ctrl-C.
    """
    sys.excepthook = _explain
    _open_what_is_closed()
    import signal

    # The hook alone is not enough: an interrupted import may fail in other ways. A script started in the background
    # ignores Ctrl-C, and must continue to do so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.version_info < PYTHON_MIN:
        _end(f"this is Python {sys.version.split()[0]}, and 3.11 or newer is needed")


def _open_what_is_closed() -> None:
    """Puts the null device in place of a closed standard stream (`2>&-`, pythonw, a service): otherwise the next file
    or socket would get its number, and what is printed would end there, or in an exception."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number, which is this one.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for the whole process


def _explain(kind: type[BaseException], error: BaseException, _trace: object) -> None:
    """Prints the traceback, as Python does, but one line for a missing package and nothing for Ctrl-C."""
    if isinstance(error, KeyboardInterrupt):
        raise SystemExit(INTERRUPTED)
    if isinstance(error, ModuleNotFoundError) and error.name and not _is_ours(error.name):
        _end(f"the package {error.name.partition('.')[0]!r} is not installed for {sys.executable}")
    sys.__excepthook__(kind, error, error.__traceback__)


def _is_ours(module: str) -> bool:
    path = os.path.join(ROOT, module.partition(".")[0])
    return os.path.isdir(path) or os.path.isfile(f"{path}.py")


def _end(why: str) -> None:
    """Prints the one line, with the command that works, and ends the script."""
    script = os.path.realpath(sys.argv[0])
    # For `python -m tools.api`, argv[0] is the path of its module.
    place = os.path.dirname(script) if os.path.basename(script) == "__main__.py" else script
    in_root = os.path.dirname(place) == ROOT
    module = os.path.splitext(os.path.relpath(place, ROOT))[0].replace(os.sep, ".")
    name, what = (os.path.basename(script), _shortest(script)) if in_root else (module, f"-m {module}")
    venv = os.path.join(ROOT, ".venv")
    python = os.path.join(venv, "bin", "python")
    if os.path.realpath(sys.prefix) == os.path.realpath(venv):
        more = [] if in_root else [LARGE_TOOLS.get(module, "requirements-demo.txt")]
        files = [f"-r {_shortest(os.path.join(ROOT, file))}" for file in ["requirements.txt", *more]]
        way_out = f"run `{_shortest(python)} -m pip install {' '.join(files)}`"
    else:
        way_out = "" if os.path.exists(python) else "`make run` sets up .venv; then "
        way_out += f"run `{_shortest(python)} {what}`"
    print(f"{name}: {why}; {way_out}", file=sys.stderr)
    # Even inside the hook, this ends Python with exit code 2.
    raise SystemExit(2)


def _shortest(path: str) -> str:
    """`path` relative to the working directory if it is below it, else `path`."""
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative
