"""The image, run as it is meant to be: read-only, without a capability; killed and started again."""

import json
import subprocess
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from process.child import ROOT
from tests.conftest import _Farm
from tests.support.harness import Rig
from tests.support.servers import PrivateServer, short_folder
from tools.lab.children import wait_for
from tools.lab.servers import free_port
from tools.lab.verdict import DIRECT

pytestmark = pytest.mark.containers

IMAGE = "localhost/binance-recorder-test"
WAIT_S_MAX = 90.0
CACHE = ROOT / ".cache" / "containers"
# runc with these limits also runs where a container may not have more of its own, as in some virtual machines.
RUN = ("run", "--network", "host", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
ACCOUNT = "boxed"


def podman(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """What podman says; a failure fails the test with its words."""
    done = subprocess.run(["podman", "--runtime", "runc", *words], capture_output=True, text=True, timeout=180)
    assert not check or done.returncode == 0, f"{words}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
    return done


class Contained:
    """A program in a container, in the place of the rig's capture; `volumes` by the folder that they are mounted at."""

    starts = 1

    def __init__(self, name: str, environ: Mapping[str, str], volumes: Mapping[str, str], *command: str) -> None:
        self.name = name
        podman(*RUN, *HARDENED, "--detach", "--name", name, *_given(environ, volumes), IMAGE, *command)

    @property
    def process(self) -> "Contained":
        """As of a capture: it tells its last words."""
        return self

    def state(self) -> dict[str, Any]:
        """What podman knows of it."""
        return dict(json.loads(podman("inspect", self.name).stdout)[0]["State"])

    def running(self) -> bool:
        """Whether it runs."""
        return bool(self.state()["Running"])

    def last_words(self) -> str:
        """The end of its log."""
        done = podman("logs", self.name)
        return (done.stdout + done.stderr)[-3000:]


def _given(environ: Mapping[str, str], volumes: Mapping[str, str]) -> list[str]:
    words = [word for name, value in environ.items() for word in ("--env", f"{name}={value}")]
    return words + [word for folder, volume in volumes.items() for word in ("--volume", f"{volume}:{folder}")]


@pytest.fixture(scope="module")
def image() -> str:
    """The image, or a skip with the reason why there is none."""
    if (CACHE / "why").exists():
        pytest.skip((CACHE / "why").read_text().strip())
    try:
        there = podman("image", "exists", IMAGE, check=False).returncode == 0
    except FileNotFoundError:
        there = False
    if not there:
        pytest.skip("no image: `make containers` builds it")
    return IMAGE


@pytest.fixture(scope="module")
def volumes(image: str) -> Iterator[dict[str, str]]:
    """The volumes of the secrets as compose.yaml has them, by their folder, after the service `secrets` has run."""
    service = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]["secrets"]
    run = f"recorder-test-{uuid.uuid4().hex[:8]}"
    found = {line.partition(":")[2]: f"{run}-{line.partition(':')[0]}" for line in service["volumes"]}
    try:
        shell, *script = service["entrypoint"]
        podman("run", "--rm", *RUN[1:], *HARDENED, *_given({}, found), "--entrypoint", shell, image, *script)
        yield found
    finally:
        for volume in found.values():
            podman("volume", "rm", "--force", volume, check=False)


@pytest.fixture
def encrypted(volumes: dict[str, str], _farm: _Farm) -> Iterator[PrivateServer]:
    """A server with that certificate, which takes nothing plain over the network."""
    where = podman("volume", "inspect", "--format", "{{.Mountpoint}}", volumes["/secrets/server"]).stdout.strip()
    options = ["--require-secure-transport=ON", *(f"--ssl-{part}={where}/{part}.pem" for part in ("ca", "cert", "key"))]
    with short_folder() as folder:
        server = PrivateServer(*_farm._template("mariadb"), folder, options)
        server.start()
        yield server
        server.kill()


def only(volumes: Mapping[str, str], *names: str) -> dict[str, str]:
    """Those of the secrets, to be read; tools.users may make those of the accounts."""
    modes = {name: "" if name == "accounts" else ":ro" for name in names}
    return {f"/secrets/{name}{mode}": volumes[f"/secrets/{name}"] for name, mode in modes.items()}


def test_the_image_has_what_runs_and_no_more(image: str) -> None:
    """No root, no write but to its data and /tmp, no compiler, no pip, and no file of the project that is not run."""
    script = """
        id -u; touch /opt/recorder/x /etc/x 2>/dev/null && echo writes; touch /data/x /tmp/x || echo cannot
        for one in pip pip3 gcc cc make curl wget; do command -v $one; done
        python -m pip --version 2>/dev/null; ls -d tests docs data .env .git deploy/grafana 2>/dev/null
        grep -h CapEff /proc/self/status; python -c "import _mysql_connector, aiohttp, fastapi"
    """
    done = podman("run", "--rm", *RUN[1:], *HARDENED, "--volume", "/data", "--entrypoint", "sh", image, "-c", script)
    assert done.stdout == "10001\nCapEff:\t0000000000000000\n", done.stderr


@pytest.fixture
def rig(encrypted: PrivateServer, volumes: dict[str, str], tmp_path: Path) -> Iterator[Rig]:
    """An exchange, and a database with the accounts that tools.users made in a container."""
    with Rig(encrypted, tmp_path, ("--rate", "50")) as made:
        users = ["-m", "tools.users", "--name", ACCOUNT, "--host", "%", "--passwords", "/secrets/accounts"]
        given = _given(settings(made, "root"), only(volumes, "accounts", "ca"))
        podman("run", "--rm", *RUN[1:], *HARDENED, *given, IMAGE, *users)
        yield made


def settings(rig: Rig, user: str) -> dict[str, str]:
    """What a program in a container is told; all but root have a password, in a file."""
    environ = rig.environ | {"MYSQL_USER": user, "MYSQL_SSL_CA": "/secrets/ca/ca.pem", "DATA_DIR": "/data"}
    if user != "root":
        environ["MYSQL_PASSWORD_FILE"] = f"/secrets/{user.removeprefix(f'{ACCOUNT}_')}/password"
    return environ


def test_a_capture_that_is_killed_goes_on_without_a_loss(rig: Rig, volumes: dict[str, str]) -> None:
    """With the accounts of tools.users, passwords in files and TLS; the API beside it reads; the end is clean."""
    name = f"recorder-test-{uuid.uuid4().hex[:8]}"
    data = f"{name}-data"
    with ExitStack() as stack:
        stack.callback(podman, "volume", "rm", "--force", data, check=False)
        stack.callback(podman, "rm", "--force", "--time", "0", name, f"{name}-api", check=False)
        environ = settings(rig, f"{ACCOUNT}_writer") | {"METRICS_PORT": str(free_port())}
        capture = Contained(name, environ, {"/data": data, **only(volumes, "ca", "writer")})
        rig._captures.append(capture)  # type: ignore[arg-type]
        rig.stores(WAIT_S_MAX)
        podman("healthcheck", "run", name)

        podman("kill", "--signal", "KILL", name)
        wait_for("it is gone", lambda: not capture.running(), WAIT_S_MAX)
        before = rig.exchange.newest()
        wait_for("trades are missed", lambda: all(rig.exchange.newest()[s] > before[s] for s in before), WAIT_S_MAX)
        podman("start", name)
        rig.settle(WAIT_S_MAX)

        port = str(free_port())
        environ = settings(rig, f"{ACCOUNT}_reader") | {"API_TOKEN_FILE": "/secrets/api/token", "API_PORT": port}
        mounted = {"/data:ro": data, **only(volumes, "api", "ca", "reader")}
        api = Contained(f"{name}-api", environ, mounted, "-m", "tools.api")
        wait_for("the API lets in who has the token", lambda: _asked(port, _token(api)) == 200, WAIT_S_MAX)
        assert _asked(port, "wrong") == 401

        podman("stop", "--time", "120", name)
        assert capture.state()["ExitCode"] == 0, capture.last_words()
        assert "left over 0" in capture.last_words()
        assert rig.open_gaps() == []
        assert all(one.exact for one in rig.compared())


def _token(api: Contained) -> str:
    return podman("exec", api.name, "cat", "/secrets/api/token").stdout.strip()


def _asked(port: str, token: str) -> int:
    """The status of an answer about the newest trades; 0: nobody answers."""
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/api/latest", headers={"Authorization": f"Bearer {token}"})
    try:
        with DIRECT.open(asked, timeout=WAIT_S_MAX) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0
