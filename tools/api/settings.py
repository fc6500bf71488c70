"""The settings of the API: flag, then environment or `.env`, then default; read once, at the edge."""

import argparse
import ipaddress
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import config

STALE_S = 60.0
"""A captured symbol whose newest trade is older makes the API's health bad."""


class ApiSettings(NamedTuple):
    """`token` None: nobody has to show one. `origins`: the web pages that may ask (CORS). `port` 0: any free one."""

    settings: config.Settings
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    origins: tuple[str, ...] = ()
    stale_after_s: float = STALE_S

    def stale_s(self, symbol: str) -> float | None:
        """The age in seconds from which the newest trade of `symbol` is too old; None: it is not captured."""
        return self.stale_after_s if symbol in self.settings.symbols else None


def load(options: argparse.Namespace, environ: Mapping[str, str] | None = None) -> ApiSettings:
    """The settings for these flags. Raises ConfigError."""
    environ = config.environment() if environ is None else environ
    settings = config.load(environ)
    given = {name: environ.get(name, "").strip() for name in ("API_HOST", "API_PORT", "API_TOKEN", "API_CORS_ORIGINS")}
    host = options.host or given["API_HOST"] or "127.0.0.1"
    token = given["API_TOKEN"] or None
    if not is_loopback(host) and token is None:
        raise config.ConfigError(
            f"API_HOST={host!r} can be reached by others: set API_TOKEN to a secret, which they must then show as "
            "`Authorization: Bearer …`; or keep to 127.0.0.1"
        )
    return ApiSettings(
        config.demo_of(settings) if options.demo else settings,
        host,
        options.port if options.port is not None else parse_port("API_PORT", given["API_PORT"] or "8000"),
        token,
        parse_origins("API_CORS_ORIGINS", options.cors_origins or given["API_CORS_ORIGINS"]),
        options.stale_after,
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that is bound to `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_port(name: str, text: str) -> int:
    """The port of a text, 0 for any that is free. Raises ConfigError, naming `name`."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535):
        raise config.ConfigError(f"{name}={text!r} is not a port; give a number from 0 (any) to 65535")
    return int(text)


def parse_origins(name: str, text: str) -> tuple[str, ...]:
    """The origins of a comma-separated list; `*` is one. Raises ConfigError, naming `name`."""
    origins = tuple(part.strip().rstrip("/") for part in text.split(",") if part.strip())
    for origin in origins:
        parts = urlsplit(origin)
        if origin != "*" and (parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}"):
            raise config.ConfigError(f"{name}: {origin!r} is no origin; it looks like https://example.org, or is *")
    return origins
