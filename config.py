"""The settings of every script: environment or `.env` (python-dotenv), then the default; read once, at the edge."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from dotenv import dotenv_values

SYMBOLS_MAX = 1024
"""Streams on one connection (Binance's limit, web-socket-streams.md, "General WSS information")."""

# Binance's names are upper case; since 2025-12 some are not ASCII, hence isalnum() and not [A-Z0-9].
_SYMBOL_EXTRA = str.maketrans("", "", "-_.")
_SYMBOL_LENGTH_MAX = 32
_DATABASE_NAME = re.compile(r"[0-9A-Za-z_]{1,64}")


class ConfigError(Exception):
    """A setting that cannot be used; the message names the variable, the value and the way out."""


class Settings(NamedTuple):
    """Everything that the environment decides. `mysql_host` and `mysql_unix_socket` both None: the private server."""

    mysql_host: str | None = None
    mysql_port: int = 3306
    mysql_unix_socket: str | None = None
    mysql_user: str = "root"
    mysql_password: str = ""
    mysql_database: str = "binance"
    mysql_ssl_ca: str | None = None
    symbols: tuple[str, ...] = ("BTCUSDT", "ETHUSDT")
    ws_url: str = "wss://stream.binance.com:9443"
    rest_url: str = "https://api.binance.com"
    archive_url: str = "https://data.binance.vision"
    data_dir: Path = Path("data")
    demo: bool = False

    @property
    def private(self) -> bool:
        """Whether the private server is used because no other server was named."""
        return self.mysql_host is None and self.mysql_unix_socket is None

    @property
    def capture_dir(self) -> Path:
        """The folder of the spool and of the rejects; the demo has its own."""
        return self.data_dir / "demo" if self.demo else self.data_dir


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of `environ` (default: `.env` in the working directory, overridden by the process's environment).

    An empty value counts as not set. Raises ConfigError.
    """
    environ = environment() if environ is None else environ
    given = {name: value.strip() for name, value in environ.items() if value.strip()}
    default = Settings()
    return Settings(
        mysql_host=given.get("MYSQL_HOST"),
        mysql_port=_port("MYSQL_PORT", given.get("MYSQL_PORT", str(default.mysql_port))),
        mysql_unix_socket=given.get("MYSQL_UNIX_SOCKET"),
        mysql_user=given.get("MYSQL_USER", default.mysql_user),
        # A password may start or end with a space, so it is the one value that is not stripped.
        mysql_password=environ.get("MYSQL_PASSWORD", ""),
        mysql_database=_database("MYSQL_DATABASE", given.get("MYSQL_DATABASE", default.mysql_database)),
        mysql_ssl_ca=_file("MYSQL_SSL_CA", given.get("MYSQL_SSL_CA")),
        symbols=parse_symbols("SYMBOLS", given["SYMBOLS"]) if "SYMBOLS" in given else default.symbols,
        ws_url=_url("BINANCE_WS_URL", given.get("BINANCE_WS_URL", default.ws_url), ("ws", "wss")),
        rest_url=_url("BINANCE_REST_URL", given.get("BINANCE_REST_URL", default.rest_url), ("http", "https")),
        archive_url=_url(
            "BINANCE_ARCHIVE_URL", given.get("BINANCE_ARCHIVE_URL", default.archive_url), ("http", "https")
        ),
        data_dir=_folder("DATA_DIR", given.get("DATA_DIR", str(default.data_dir))),
    )


def environment() -> dict[str, str]:
    """The environment, on top of `.env` in the current folder."""
    # Not interpolated: a password with ${…} in it must arrive as it was written.
    in_file = dotenv_values(".env", interpolate=False)
    return {name: value for name, value in in_file.items() if value is not None} | dict(os.environ)


def demo_of(settings: Settings) -> Settings:
    """The settings that keep the stand-in exchange's trades apart, in a database and a folder of their own.

    Raises ConfigError if the longer database name is too long.
    """
    return settings._replace(mysql_database=_database("MYSQL_DATABASE", f"{settings.mysql_database}_demo"), demo=True)


def is_symbol(text: str) -> bool:
    """Whether `text` has the shape of a Binance symbol (upper case, letters, digits, `-_.`, at most 32)."""
    bare = text.translate(_SYMBOL_EXTRA)
    return len(text) <= _SYMBOL_LENGTH_MAX and bare.isalnum() and text == text.upper()


def parse_symbols(name: str, text: str) -> tuple[str, ...]:
    """The symbols of a comma-separated list, in upper case, each once. Raises ConfigError, naming `name`."""
    symbols = tuple(dict.fromkeys(part.strip().upper() for part in text.split(",") if part.strip()))
    wrong = [symbol for symbol in symbols if not is_symbol(symbol)]
    if wrong or not 1 <= len(symbols) <= SYMBOLS_MAX:
        what = f"{wrong[0]!r} is not a symbol" if wrong else f"{len(symbols)} symbols"
        raise ConfigError(f"{name}={text!r}: {what}; give 1 to {SYMBOLS_MAX}, such as BTCUSDT,ETHUSDT")
    return symbols


def _port(name: str, text: str) -> int:
    # int() raises for thousands of digits, hence the length.
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise ConfigError(f"{name}={text!r} is not a port; give a number from 1 to 65535")
    return int(text)


def _database(name: str, text: str) -> str:
    # The name goes into CREATE DATABASE, where no parameter can stand.
    if not _DATABASE_NAME.fullmatch(text):
        raise ConfigError(f"{name}={text!r} is not a database name; use up to 64 letters, digits and _")
    return text


def _file(name: str, text: str | None) -> str | None:
    if text is not None and not Path(text).is_file():
        raise ConfigError(f"{name}={text!r} is not a file; give the path of the server's CA certificate (PEM)")
    return text


def _folder(name: str, text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{name}={text!r} starts with the home directory of an unknown user") from error


def _url(name: str, text: str, schemes: tuple[str, ...]) -> str:
    try:
        parts = urlsplit(text)
        good = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
        # A path is appended to it, so it must not have a query or a fragment, not even an empty one.
        good = good and not re.search(r"[?#\s]", text)
    except ValueError:
        good = False
    if not good:
        raise ConfigError(f"{name}={text!r} is not a base address; it looks like {schemes[-1]}://host[:port]")
    return text.rstrip("/")
