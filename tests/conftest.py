"""Fixtures: a real database server per family, an empty database per test, and an environment without settings."""

import os
import shutil
import signal
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings as examples

import config
import db
from capture import gap_filler, pages
from mysqld import program, shared
from process import lock, log, retry
from process.child import ROOT
from tests.support import private, servers
from tests.support.child import wait_until
from tests.support.history import HISTORY
from tests.support.stand_in import StandIn

FAMILIES = ("mariadb", "mysql")
TEMPLATES = ROOT / ".cache" / "servers"
_GIVEN = {name: os.environ.get(name, "") for name in servers.SETTING_NAMES}
# A run must not fail for an example that the run before did not try, nor because the machine is busy. To look for new
# ones: make test ARGS="--hypothesis-profile=search tests/model"
examples.register_profile("same", derandomize=True, deadline=None)
examples.register_profile("search", max_examples=2_000, deadline=None)
examples.load_profile("same")
_ENVIRONMENT = bool(_GIVEN["MYSQL_HOST"] or _GIVEN["MYSQL_UNIX_SOCKET"])


def pytest_configure() -> None:
    """Take the user's settings out of the tests' sight: an empty value counts as not set and overrides `.env`."""
    # A run in the background of a shell ignores Ctrl-C, and so would each child that a test wants to interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(dict.fromkeys(servers.SETTING_NAMES, ""))
    # A script that a test starts without a DATA_DIR must not find the user's data.
    os.environ["DATA_DIR"] = str(Path(tempfile.gettempdir()) / f"trades-tests-{os.getpid()}")


# Where SQL is made, and what the two families do differently. What the rest asks of the database was asked there.
ON_BOTH = ("tests/storage/", "tests/capture/", "tests/mysqld/", "tests/test_db.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the second turn of the rest, so that `make test` is short; `make endure` runs it."""
    if isinstance(servers.find_server(FAMILIES[0]), str):
        # It is the only turn.
        return
    for item in items:
        turn = getattr(item, "callspec", None)
        families = [turn.params.get(name) for name in ("server", "killable_server")] if turn else []
        if FAMILIES[1] in families and not item.location[0].startswith(ON_BOTH):
            item.add_marker("second")


def pytest_unconfigure() -> None:
    """Remove what such scripts left."""
    shutil.rmtree(os.environ["DATA_DIR"], ignore_errors=True)


class _Farm:
    """Starts servers from copies of a data folder, which is initialised once per family and version and kept."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._templates: dict[str, tuple[program.Binary, Path]] = {}
        self._shared: dict[str, servers.PrivateServer] = {}

    def shared(self, family: str) -> servers.PrivateServer:
        """The one server of `family` that all tests of a process share: pytest asks for it anew in each file, and too
        many servers would need more of the kernel's asynchronous I/O than there is."""
        if family not in self._shared:
            self._shared[family] = self.create(family)
        return self._shared[family]

    def create(self, family: str, stack: ExitStack | None = None) -> servers.PrivateServer:
        """A running server of `family`, which ends with `stack` (the session's if None); skips if there is none."""
        stack = stack or self._stack
        binary, template = self._template(family)
        server = servers.PrivateServer(binary, template, stack.enter_context(servers.short_folder()))
        server.start()
        stack.callback(server.kill)
        return server

    def _template(self, family: str) -> tuple[program.Binary, Path]:
        if family not in self._templates:
            binary = servers.find_server(family)
            if isinstance(binary, str):
                pytest.skip(f"no {family}: {binary}")
            self._templates[family] = binary, _template_of(binary)
        return self._templates[family]


def _template_of(binary: program.Binary) -> Path:
    """A data folder that no server has touched yet: initialising one takes as long as dozens of tests."""
    TEMPLATES.mkdir(parents=True, exist_ok=True)
    template = TEMPLATES / f"{binary.family}-{binary.version}"
    with lock.alone(TEMPLATES / "lock", program.INITIALISE_S_MAX) as ours:
        assert ours, "another run of the tests does not end initialising a server"
        if not template.exists():
            program.initialise(binary, template)
    return template


@pytest.fixture(scope="session")
def _farm() -> Iterator[_Farm]:
    with ExitStack() as stack:
        yield _Farm(stack)


@pytest.fixture(scope="session", params=["environment"] if _ENVIRONMENT else FAMILIES)
def server(request: pytest.FixtureRequest, _farm: _Farm) -> servers.Server:
    """A server that all tests share: of each family in turn, or only the one that MYSQL_* names."""
    return servers.EnvironmentServer(_GIVEN) if request.param == "environment" else _farm.shared(request.param)


@pytest.fixture(scope="session")
def any_server(_farm: _Farm) -> servers.Server:
    """A server that tests share for which its family does not matter; MariaDB's where there are both."""
    if _ENVIRONMENT:
        return servers.EnvironmentServer(_GIVEN)
    there = [family for family in FAMILIES if not isinstance(servers.find_server(family), str)]
    return _farm.shared((there or [FAMILIES[0]])[0])


@pytest.fixture(params=FAMILIES)
def killable_server(request: pytest.FixtureRequest, _farm: _Farm) -> Iterator[servers.PrivateServer]:
    """A server of one test's own, to be killed, suspended and started again; of each family in turn."""
    if _ENVIRONMENT:
        pytest.skip("the server that MYSQL_* names is not ours to kill")
    with ExitStack() as stack:
        yield _farm.create(request.param, stack)


@pytest.fixture(autouse=True)
def _end_of_log() -> Iterator[None]:
    """The log that a command of this test set up writes to a stream that is closed after the test."""
    yield
    log.write_out()


@pytest.fixture
def database(server: servers.Server) -> Iterator[str]:
    """The name of a database of this test's own on `server`: it does not exist yet, and is dropped afterwards."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    yield name
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {name}")


@pytest.fixture
def settings(server: servers.Server, database: str, tmp_path: Path) -> config.Settings:
    """The settings for `database` on `server`, with a DATA_DIR of this test's own."""
    return server.settings(database, tmp_path)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A TCP port of 127.0.0.1 on which nobody listens, and which nobody else is given while the test runs."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture
def connection(settings: config.Settings) -> Iterator[db.Connection]:
    """A connection to an empty database with the schema."""
    opened = db.connect(settings)
    yield opened
    db.close(opened)


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A DATA_DIR that does not exist yet, with a space in its name; whatever runs in it ends with the test."""
    if isinstance(servers.find_server("mariadb"), str):
        pytest.skip(str(servers.find_server("mariadb")))
    with servers.short_folder() as folder:
        place = folder / "my data"
        yield place
        shared.leave(place)
        if private.is_running(place):
            os.kill(private.pid_of(place), signal.SIGKILL)
            wait_until(lambda: not private.is_running(place), private.WAIT_S_MAX)


@pytest.fixture
def new_user(data_dir: Path) -> Iterator[Callable[[], private.User]]:
    """Starts a User of `data_dir`; all are gone after the test."""
    with ExitStack() as stack:

        def start() -> private.User:
            user = private.User(data_dir)
            stack.callback(user.kill)
            return user

        yield start


@pytest.fixture(scope="module")
def market() -> Iterator[StandIn]:
    """An exchange whose tape waits for a client for ever: there is its history, and nothing changes."""
    flags = ("--wait-clients", "1", "--rest-lag", "0", "--weight-limit", "1000000", "--history", str(HISTORY))
    with StandIn(*flags) as running:
        yield running


@pytest.fixture
def exchange(market: StandIn) -> Iterator[StandIn]:
    """That exchange without faults of other tests."""
    market.clear()
    yield market
    market.clear()


@pytest.fixture
def quick_filling(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wait of a back-fill is a real one, but for that of an answer, which a busy machine may need."""
    monkeypatch.setattr(retry, "BACKOFF_S_MIN", 0.01)
    monkeypatch.setattr(retry, "BACKOFF_S_MAX", 0.05)
    monkeypatch.setattr(gap_filler, "LOOK_S", 0.05)
    monkeypatch.setattr(gap_filler, "GRACE_S", 0.0)
    monkeypatch.setattr(gap_filler, "CONFIRM_S", 0.01)
    monkeypatch.setattr(gap_filler, "HAND_S", 0.01)
    monkeypatch.setattr(gap_filler, "AGAIN_S", 0.01)
    monkeypatch.setattr(gap_filler, "AGAIN_S_MAX", 0.05)
    monkeypatch.setattr(pages, "PAGES_MAX", 1)
