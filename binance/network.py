"""The way to the exchange, for the streams and for REST alike: by which proxy, if any, and by which of its addresses.

The proxy is what the usual variables say, in small or in capital letters: https_proxy for wss:// and https://,
http_proxy for ws:// and http://, all_proxy where that is not set; no_proxy lists the hosts (with those below them),
addresses and networks that are reached directly. What runs on this machine is never reached through a proxy. Whom TLS
trusts is OpenSSL's choice: the system's authorities, or those in SSL_CERT_FILE or SSL_CERT_DIR.
"""

import base64
import http.client
import ipaddress
import logging
import socket
import ssl
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

import urllib3

log = logging.getLogger("network")

PROXY_PORT = 80
"""Of a proxy that is given without one."""
KEEP_ALIVE_S, KEEP_ALIVE_EVERY_S, KEEP_ALIVE_TIMES = 30, 10, 3
"""The kernel finds out that a peer is gone after about a minute."""

_said: set[str] = set()
"""Proxies that cannot be used, each said once."""


class WayError(OSError):
    """The exchange was not reached; the message says whose fault it is."""


class Proxy(NamedTuple):
    """An HTTP proxy; `variable` is where it comes from."""

    host: str
    port: int
    headers: dict[str, str]
    variable: str

    def __str__(self) -> str:
        """Without the password."""
        return f"the proxy {self.host}:{self.port} ({self.variable})"


def proxy_for(url: str) -> Proxy | None:
    """The proxy by which `url` is reached; None: directly. One of a kind that is not supported is said, once."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_this_machine(host):
        return None
    given = getproxies_environment()
    variable = "https" if parts.scheme in ("wss", "https") else "http"
    variable = variable if given.get(variable) else "all"
    text = given.get(variable, "")
    if not text or _is_exempt(host, given):
        return None
    return _parse(text, f"{variable}_proxy")


def is_this_machine(host: str) -> bool:
    """Whether `host` is a name or an address of the loopback."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def _is_exempt(host: str, given: dict[str, str]) -> bool:
    if proxy_bypass_environment(host, given):
        return True
    for part in given.get("no", "").split(","):
        # A network, which Python's own reading does not know.
        with suppress(ValueError):
            if ipaddress.ip_address(host) in ipaddress.ip_network(part.strip(), strict=False):
                return True
    return False


def _parse(text: str, variable: str) -> Proxy | None:
    with suppress(ValueError):
        parts = urlsplit(text if "://" in text else f"http://{text}")
        if parts.scheme == "http" and parts.hostname:
            return Proxy(parts.hostname, parts.port or PROXY_PORT, _login(parts), variable)
    if variable not in _said:
        _said.add(variable)
        kind = text.partition("://")[0] if "://" in text else "what it says"
        log.warning(
            "%s is not used: %s is no kind of proxy that is supported; give http://host:port. The exchange is reached"
            " directly",
            variable,
            kind,
        )
    return None


def _login(parts: SplitResult) -> dict[str, str]:
    if parts.username is None:
        return {}
    secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(secret).decode()}"}


def open_stream(url: str, seconds: float) -> socket.socket:
    """A socket to the host of a ws:// or wss:// address, with TLS for the latter; `seconds` is its time-out, and that
    of each step on the way. All addresses of the name are tried. Raises OSError; WayError names the proxy."""
    parts = urlsplit(url)
    secure = parts.scheme == "wss"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    proxy = proxy_for(url)
    first = (proxy.host, proxy.port) if proxy else (host, port)
    way = (
        http.client.HTTPSConnection(*first, timeout=seconds, context=ssl.create_default_context())
        if secure
        else http.client.HTTPConnection(*first, timeout=seconds)
    )
    if proxy:
        way.set_tunnel(host, port, proxy.headers)
    try:
        way.connect()
    except ssl.SSLError as error:
        way.close()
        raise WayError(f"TLS with {host}: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        way.close()
        if proxy:
            raise WayError(f"{proxy}: {error}") from error
        raise
    found: socket.socket = way.sock
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEP_ALIVE_S),
        ("TCP_KEEPINTVL", KEEP_ALIVE_EVERY_S),
        ("TCP_KEEPCNT", KEEP_ALIVE_TIMES),
    ):
        if hasattr(socket, name):
            found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return found


def pool(url: str, timeout: urllib3.Timeout) -> tuple[urllib3.PoolManager, Proxy | None]:
    """What keeps a connection to the host of an http:// or https:// address, and the proxy that it goes through."""
    proxy = proxy_for(url)
    if proxy is None:
        return urllib3.PoolManager(1, timeout=timeout, retries=False), None
    host = f"[{proxy.host}]" if ":" in proxy.host else proxy.host
    address = f"http://{host}:{proxy.port}"
    manager = urllib3.ProxyManager(address, 1, proxy_headers=proxy.headers, timeout=timeout, retries=False)
    return manager, proxy
