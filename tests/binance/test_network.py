"""The way to the exchange: which proxy, which addresses, and whose fault it is when there is none."""

import base64
import socket
import threading
from collections.abc import Iterator

import pytest
import urllib3

from binance import network
from binance.limits import Cooldown
from binance.network import Proxy, WayError, open_stream, proxy_for
from binance.rest import LastingError, Rest, RestError
from tests.support.scripted_rest import ScriptedRest, rows
from tools.lab import proxy as lab
from tools.lab.proxy import NAME

S_MAX = 5.0
_VARIABLES = [name for one in ("http", "https", "all", "no") for name in (f"{one}_proxy", f"{one.upper()}_PROXY")]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine has set."""
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(network, "_said", set())


@pytest.fixture
def port() -> Iterator[int]:
    """A port on which somebody listens and answers with what was sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def echo() -> None:
            while True:
                try:
                    one, _ = listener.accept()
                except OSError:
                    return
                with one:
                    one.sendall(one.recv(100))

        threading.Thread(target=echo, daemon=True).start()
        yield listener.getsockname()[1]


def proxied(monkeypatch: pytest.MonkeyPatch, url: str, **variables: str) -> Proxy | None:
    """The proxy for `url` with these variables."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return proxy_for(url)


@pytest.mark.parametrize(
    ("url", "variables", "port"),
    [
        ("wss://stream.binance.com:9443", {}, None),
        ("wss://stream.binance.com:9443", {"https_proxy": "http://p:1"}, 1),
        ("https://api.binance.com", {"HTTPS_PROXY": "http://p:2"}, 2),
        ("https://api.binance.com", {"HTTPS_PROXY": "http://p:2", "https_proxy": "http://p:3"}, 3),
        ("ws://stream.binance.com", {"https_proxy": "http://p:1"}, None),
        ("ws://stream.binance.com", {"http_proxy": "http://p:4"}, 4),
        ("http://api.binance.com", {"all_proxy": "p:5"}, 5),
        ("wss://stream.binance.com", {"ALL_PROXY": "http://p:6", "https_proxy": ""}, 6),
        ("wss://stream.binance.com", {"all_proxy": "http://p"}, network.PROXY_PORT),
        # This machine is never reached through one.
        ("ws://127.0.0.1:8765", {"http_proxy": "http://p:1"}, None),
        ("ws://localhost:8765", {"all_proxy": "http://p:1"}, None),
        ("http://[::1]:8765", {"all_proxy": "http://p:1"}, None),
        ("http://127.8.9.10", {"http_proxy": "http://p:1"}, None),
        # Nor is what no_proxy lists.
        ("wss://stream.binance.com", {"https_proxy": "http://p:1", "no_proxy": "binance.com"}, None),
        ("wss://stream.binance.com", {"https_proxy": "http://p:1", "NO_PROXY": "x.org, .binance.com"}, None),
        ("wss://stream.binance.com", {"https_proxy": "http://p:1", "no_proxy": "*"}, None),
        ("wss://stream.binance.com", {"https_proxy": "http://p:1", "no_proxy": "nance.com"}, 1),
        ("http://10.1.2.3", {"http_proxy": "http://p:1", "no_proxy": "10.0.0.0/8"}, None),
        ("http://11.1.2.3", {"http_proxy": "http://p:1", "no_proxy": "10.0.0.0/8"}, 1),
    ],
)
def test_which_proxy(monkeypatch: pytest.MonkeyPatch, url: str, variables: dict[str, str], port: int | None) -> None:
    """One policy for the streams and for REST: the usual variables, small letters first."""
    found = proxied(monkeypatch, url, **variables)

    assert (found.port if found else None) == port


def test_a_kind_that_is_not_supported_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And is not used, which is said too; the address with its password is not."""
    for _ in range(3):
        assert proxied(monkeypatch, "wss://stream.binance.com", all_proxy="socks5://me:secret@p:1080") is None

    (record,) = caplog.records
    assert "all_proxy" in record.getMessage()
    assert "socks5" in record.getMessage()
    assert "secret" not in caplog.text


def test_a_stream_through_a_proxy(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """The proxy finds the host, so no name needs to be known here; it is told the user and the password."""
    login = f"Basic {base64.b64encode(b'me:s3cret/').decode()}"
    with lab.Proxy(login) as proxy:
        monkeypatch.setenv("http_proxy", f"http://me:s3cret%2F@127.0.0.1:{proxy.port}")
        with open_stream(f"ws://{NAME}:{port}/stream", S_MAX) as stream:
            stream.sendall(b"hello")
            assert stream.recv(5) == b"hello"
        assert (proxy.asked, proxy.served) == ({NAME}, 1)


@pytest.mark.parametrize("fault", ["login", "502", "down"])
def test_a_failure_of_the_proxy_names_the_proxy(monkeypatch: pytest.MonkeyPatch, port: int, fault: str) -> None:
    """For a stream and for REST, and without its password."""
    with lab.Proxy("Basic other" if fault == "login" else None) as proxy:
        proxy.answers = 502 if fault == "502" else None
        if fault == "down":
            proxy.stop()
        monkeypatch.setenv("http_proxy", f"http://me:s3cret@127.0.0.1:{proxy.port}")
        with pytest.raises(WayError) as stream:
            open_stream(f"ws://{NAME}:{port}/stream", S_MAX)
        rest = Rest(f"http://{NAME}:{port}", Cooldown())
        with pytest.raises(RestError) as answer:
            rest.fetch_trades("BTCUSDT", 1)
        rest.close()
    for error in (stream, answer):
        assert f"the proxy 127.0.0.1:{proxy.port} (http_proxy)" in str(error.value)
        assert "s3cret" not in str(error.value)
    assert isinstance(answer.value, LastingError) == (fault == "login")


def test_rest_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls arrive there, and the answers here."""
    with lab.Proxy() as proxy, ScriptedRest(lambda _symbol, query: rows(int(query["fromId"]), 3)) as there:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        rest = Rest(there.url.replace("127.0.0.1", NAME), Cooldown())
        assert [trade.trade_id for trade in rest.fetch_trades("BTCUSDT", 7).trades] == [7, 8, 9]
        rest.close()
        assert proxy.asked == {NAME}


def test_a_proxy_in_the_environment_does_not_stop_this_machine(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """As in `make demo`, behind the proxy of a company that is not there today."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with open_stream(f"ws://localhost:{port}", S_MAX) as stream:
        stream.sendall(b"hello")
        assert stream.recv(5) == b"hello"
    assert isinstance(network.pool("http://127.0.0.1", urllib3.Timeout(1.0))[0], urllib3.PoolManager)
    assert network.pool("http://127.0.0.1", urllib3.Timeout(1.0))[1] is None


@pytest.mark.parametrize("bad", ["192.0.2.1", "127.0.0.3"])
def test_all_addresses_of_a_name_are_tried(monkeypatch: pytest.MonkeyPatch, port: int, bad: str) -> None:
    """Whatever the first one's error is: refused, or no way there."""
    real = socket.getaddrinfo

    def two(host: str, *arguments: object, **options: object) -> list[object]:
        if host != NAME:
            return list(real(host, *arguments, **options))  # type: ignore[arg-type]
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, (bad, port)), (*kind, ("127.0.0.1", port))]

    real_connect = socket.socket.connect

    def connect(self: socket.socket, address: tuple[str, int]) -> None:
        if address[0] == "192.0.2.1":
            raise OSError(113, "No route to host")
        real_connect(self, address)

    monkeypatch.setattr(socket, "getaddrinfo", two)
    monkeypatch.setattr(socket.socket, "connect", connect)
    with open_stream(f"ws://{NAME}:{port}", S_MAX) as stream:
        stream.sendall(b"hello")
        assert stream.recv(5) == b"hello"


def test_a_name_that_is_not_known_is_told_as_such() -> None:
    """It is nobody's fault but the name's."""
    with pytest.raises(socket.gaierror):
        open_stream(f"ws://{NAME}:80", S_MAX)
