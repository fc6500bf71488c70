"""The settings of the API: flag, then environment or `.env`, then default; read once, at the edge."""

import argparse
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import config

TOKEN_CHARS_MIN = 16
"""Of a token that others can try to guess."""
STALE_S = 60.0
"""A captured symbol whose newest trade is older makes the API's health bad."""


class ApiSettings(NamedTuple):
    """`token` None: nobody has to show one. `origins`: the web pages that may ask (CORS). `port` 0: any free one.
    `hosts`: the names by which it may be called, beside those of this machine; None: any. `captured`: the symbols that
    SYMBOLS names; of those that a pattern matches many are quiet, and nobody asked for just them."""

    settings: config.Settings
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    origins: tuple[str, ...] = ()
    stale_after_s: float = STALE_S
    hosts: frozenset[str] | None = frozenset()
    captured: frozenset[str] = frozenset()

    def stale_s(self, symbol: str) -> float | None:
        """The age in seconds from which the newest trade of `symbol` is too old; None: it is not captured."""
        return self.stale_after_s if symbol in self.captured else None

    def is_silent(self, ages_ms: Mapping[str, int | None]) -> bool:
        """Whether SYMBOLS has patterns, and of all that they match nothing is newer than `stale_after_s`: some are
        quiet at any time, but not all of them."""
        asked = self.settings
        if asked.names == asked.symbols:
            return False
        ages = (ages_ms[symbol] for symbol in asked.wanted(ages_ms))
        return not any(age is not None and age <= self.stale_after_s * 1000 for age in ages)


def load(options: argparse.Namespace, environ: Mapping[str, str] | None = None) -> ApiSettings:
    """The settings for these flags. Raises ConfigError."""
    environ = config.environment() if environ is None else environ
    settings = config.load(environ)
    given = {name: environ.get(name, "").strip() for name in config.API_NAMES}
    host = options.host or given["API_HOST"] or "127.0.0.1"
    token = config.secret(environ, "API_TOKEN").strip() or None
    if not config.is_loopback(host) and token is None:
        raise config.ConfigError(
            f"API_HOST={host!r} can be reached by others: set API_TOKEN or API_TOKEN_FILE to a secret, which they must"
            " then show as `Authorization: Bearer …`; or keep to 127.0.0.1"
        )
    if token is not None:
        _check_token(token, public=not config.is_loopback(host))
    hosts = parse_hosts("API_ALLOWED_HOSTS", given["API_ALLOWED_HOSTS"])
    return ApiSettings(
        config.demo_of(settings) if options.demo else settings,
        host,
        options.port if options.port is not None else parse_port("API_PORT", given["API_PORT"] or "8000"),
        token,
        parse_origins("API_CORS_ORIGINS", options.cors_origins or given["API_CORS_ORIGINS"]),
        options.stale_after,
        # Whoever must show a token cannot be tricked by the name of a host.
        hosts if hosts or config.is_loopback(host) else None,
        frozenset(settings.names),
    )


def _check_token(token: str, public: bool) -> None:
    # The token itself must not be in an error.
    if not config.fits_header(token):
        raise config.ConfigError(
            "API_TOKEN has a character that a header cannot carry; use ASCII letters, digits and signs, no spaces, such"
            " as what `openssl rand -hex 24` prints"
        )
    if public and len(token) < TOKEN_CHARS_MIN:
        raise config.ConfigError(
            f"API_TOKEN has {len(token)} characters, which can be guessed: on an address that others can reach it needs"
            f" {TOKEN_CHARS_MIN} or more, such as what `openssl rand -hex 24` prints"
        )


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


def parse_hosts(name: str, text: str) -> frozenset[str]:
    """The host names of a comma-separated list, in lower case. Raises ConfigError, naming `name`."""
    hosts = [part.strip().lower().rstrip(".") for part in text.split(",") if part.strip()]
    for host in hosts:
        if not re.fullmatch(r"[a-z0-9.-]{1,253}|[0-9a-f:.]{2,45}", host):
            raise config.ConfigError(
                f"{name}: {host!r} is no host; give names such as trades.example.org, without port"
            )
    return frozenset(hosts)
