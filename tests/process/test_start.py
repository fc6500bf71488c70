"""The first moments of a script: Ctrl-C during the imports, and a Python without the packages."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from process.child import ROOT
from tests.support.child import wait_until

WAIT_S_MAX = 60.0
MOMENTS = 4
LATEST_S = 1.2
SCRIPTS = [[path.name] for path in sorted(ROOT.glob("*.py")) if "start.prepare()" in path.read_text()]
SCRIPTS += [["-m", f"tools.{path.parent.name}"] for path in sorted(ROOT.glob("tools/*/__main__.py"))]
SCRIPTS += [["-m", "tools.demo"]]

READY = """
import runpy, sys
print("ready", flush=True)
sys.path.insert(0, "")
del sys.argv[0]
if sys.argv[0].endswith(".py"):
    runpy.run_path(sys.argv[0], run_name="__main__")
else:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""Runs the script or the module that its first argument names, as Python does, but says when Python itself is ready."""

RUNNING = {
    "ws_client.py": ["--demo"],
    "query_examples.py": [],
    "backfill.py": [],
    "private_mysql.py": ["status"],
    "tools.exchange": ["--port", "0"],
    "tools.api": ["--port", "0"],
    "tools.export": ["csv", "/dev/null/x"],
    "tools.mirror": ["--sql", "BTCUSDT"],
    "tools.demo": [],
}


def test_every_script_is_here() -> None:
    """Each root script with a main() prepares itself, and so does each tool."""
    names = [path.name for path in ROOT.glob("*.py") if "\ndef main(" in path.read_text()]
    tools = [path for path in ROOT.glob("tools/*/__main__.py") if "start.prepare()" not in path.read_text()]

    assert sorted(names) == sorted(arguments[-1] for arguments in SCRIPTS if arguments[0] != "-m")
    assert tools == []


@pytest.mark.parametrize("arguments", SCRIPTS, ids=lambda arguments: arguments[-1])
def test_a_python_without_the_packages_is_one_line(arguments: list[str], tmp_path: Path) -> None:
    """It names the package, this Python, and the command that works; run from any folder."""
    # -I and -S: without the environment's and this installation's packages, wherever they come from.
    script = [str(ROOT / arguments[0])] if arguments[0] != "-m" else arguments
    code = "import runpy, sys; sys.path.insert(0, sys.argv[1]); sys.argv = sys.argv[2:]; "
    run = 'runpy.run_path(sys.argv[0], run_name="__main__")'
    if arguments[0] == "-m":
        script = [str(ROOT / "tools" / arguments[1].removeprefix("tools.") / "__main__.py")]
        script = script if Path(script[0]).exists() else [str(ROOT / "tools" / "demo.py")]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code + run, str(ROOT), *script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=WAIT_S_MAX,
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"{arguments[-1]}: the package '")
    assert f"is not installed for {sys.executable}; " in done.stderr


@pytest.mark.parametrize(
    ("script", "files"),
    [
        ("backfill.py", ["requirements.txt"]),
        ("tools/demo.py", ["requirements.txt", "requirements-demo.txt"]),
        ("tools/export/__main__.py", ["requirements.txt", "requirements-tools.txt"]),
    ],
)
def test_a_virtual_environment_that_lacks_a_package_is_told_what_to_install(script: str, files: list[str]) -> None:
    """The files that hold all that the script needs."""
    code = f"import sys\nfrom process import start\nsys.argv = [{str(ROOT / script)!r}]\nsys.prefix = '.venv'\n"
    code += "start.prepare()\nraise ModuleNotFoundError(name='absent.part')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S_MAX)

    wanted = " ".join(f"-r {file}" for file in files)
    assert done.returncode == 2
    assert done.stderr.endswith(f"run `.venv/bin/python -m pip install {wanted}`\n")
    assert all((ROOT / file).exists() for file in files)


@pytest.mark.parametrize(
    ("then", "code", "words"),
    [
        ("sys.version_info = (3, 10, 2)\nstart.prepare()", 2, "tools.api: this is Python "),
        ("start.prepare()\nraise KeyboardInterrupt", 130, ""),
        ("start.prepare()\nraise ValueError('x')", 1, "Traceback"),
    ],
    ids=["an old Python", "Ctrl-C between two handlers", "a defect"],
)
def test_what_ends_a_script_outside_of_its_work(then: str, code: int, words: str) -> None:
    """An old Python is one line, a late Ctrl-C nothing, a defect its traceback."""
    api = str(ROOT / "tools" / "api" / "__main__.py")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nfrom process import start\nsys.argv = [{api!r}]\n{then}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WAIT_S_MAX,
    )

    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(words)
    assert done.stderr.count("\n") == 1 or code != 2
    assert words or not done.stderr


def _catches_ctrl_c(pid: int) -> bool:
    caught = Path(f"/proc/{pid}/status").read_text().partition("SigCgt:")[2].split()[0]
    return bool(int(caught, 16) >> (signal.SIGINT - 1) & 1)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="which signals a process catches is read from /proc")
@pytest.mark.parametrize("name", RUNNING)
def test_ctrl_c_at_any_moment_of_a_start_leaves_no_traceback(name: str, tmp_path: Path) -> None:
    """At most one line of its own, whether the imports, the database's start or the work itself is interrupted."""
    chance = random.Random(name)
    for number in range(MOMENTS):
        environ = {"PATH": "/usr/sbin:/usr/bin:/bin", "DATA_DIR": str(tmp_path / "data"), "HOME": str(tmp_path)}
        with subprocess.Popen(
            [sys.executable, "-c", READY, name, *RUNNING[name]],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            # Python catches Ctrl-C from its own start on; not so any more once the script's first lines have run.
            wait_until(lambda pid=process.pid: not _catches_ctrl_c(pid), WAIT_S_MAX)  # type: ignore[misc]
            time.sleep((number + chance.random()) * LATEST_S / MOMENTS)
            process.send_signal(signal.SIGINT)
            try:
                _, err = process.communicate(timeout=WAIT_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert "Traceback" not in err, err
        assert "Exception ignored" not in err, err
