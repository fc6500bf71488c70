"""The settings of every script: environment or `.env` (python-dotenv), then the default; read once, at the edge."""

import codecs
import difflib
import io
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from dotenv import dotenv_values

log = logging.getLogger("config")

ROOT = Path(__file__).resolve().parent
API_NAMES = ("API_HOST", "API_PORT", "API_TOKEN", "API_CORS_ORIGINS", "API_ALLOWED_HOSTS")
"""What tools/api/settings.py reads."""
SYMBOLS_MAX = 1024
"""Streams on one connection (Binance's limit, web-socket-streams.md, "General WSS information")."""

# Binance's names are upper case; since 2025-12 some are not ASCII, hence isalnum() and not [A-Z0-9].
_SYMBOL_EXTRA = str.maketrans("", "", "-_.")
_SYMBOL_LENGTH_MAX = 32
_DEMO = "_demo"
"""At the end of the name of the demo's database."""
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
    def place(self) -> str:
        """The database and its server, in words: `binance on 127.0.0.1:3306`."""
        return f"{self.mysql_database} on {self.server}"

    @property
    def server(self) -> str:
        """The server in words."""
        if self.private:
            return f"the private server in {self.data_dir}"
        if self.mysql_unix_socket:
            return f"the server at {self.mysql_unix_socket}"
        return f"{self.mysql_host}:{self.mysql_port}"

    @property
    def capture_dir(self) -> Path:
        """The folder of the spool and of the rejects; the demo has its own."""
        return self.data_dir / "demo" if self.demo else self.data_dir


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of `environ` (default: those of environment()).

    An empty value counts as not set; one that is set but not used is named in the log. Raises ConfigError.
    """
    environ = environment() if environ is None else environ
    given = {name: value.strip() for name, value in environ.items() if value.strip()}
    default = Settings()
    settings = Settings(
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
    # Only now: of what is wrong there is one line and no other.
    _name_the_unused(given)
    return settings


def environment() -> dict[str, str]:
    """The environment, on top of `.env` in the current folder or, if there is none, beside the scripts.

    Raises ConfigError for a file that cannot be read.
    """
    path = env_file()
    return (_read(path) if path else {}) | dict(os.environ)


def env_file() -> Path | None:
    """The `.env` that is read; None: there is none."""
    return next((path for path in (Path(".env"), ROOT / ".env") if path.is_file()), None)


_PATHS = ("DATA_DIR", "MYSQL_SSL_CA", "MYSQL_UNIX_SOCKET")
# The longer mark first: that of UTF-32 begins like that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def _read(path: Path) -> dict[str, str]:
    """The settings in a `.env`. One that is not in the current folder has paths that are relative to its own."""
    # Not interpolated: a password with ${…} in it must arrive as it was written.
    values = dotenv_values(stream=io.StringIO(_text(path)), interpolate=False)
    found = {name: value for name, value in values.items() if value is not None}
    for name in found:
        _name_the_unknown(path, name)
    if path.is_absolute():
        for name in _PATHS:
            value = found.get(name, "").strip()
            if value and not value.startswith("~"):
                found[name] = str(path.parent / value)
    return found


def _text(path: Path) -> str:
    """What the file says: UTF-8, or what its mark says, as PowerShell's `>` writes it. Raises ConfigError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; make it readable for this account") from error
    encoding = next((encoding for mark, encoding in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
        if "\0" not in text:
            return text
        why = "it has zero bytes, as UTF-16 without a mark has"
    except UnicodeError as error:
        why = str(error)
    raise ConfigError(f"{path} is not {encoding.removesuffix('-sig').upper()} text ({why[:100]}); save it as UTF-8")


_said: set[str] = set()
"""What was said already: each once, however often the settings are read."""


def _say(words: str) -> None:
    if words not in _said:
        _said.add(words)
        log.warning("%s", words)


def _name_the_unused(given: Mapping[str, str]) -> None:
    if "MYSQL_UNIX_SOCKET" in given:
        names: tuple[str, ...] = ("MYSQL_HOST", "MYSQL_PORT", "MYSQL_SSL_CA")
        why = "MYSQL_UNIX_SOCKET is set too, and comes first"
    elif "MYSQL_HOST" not in given:
        names = ("MYSQL_PORT", "MYSQL_USER", "MYSQL_PASSWORD", "MYSQL_SSL_CA")
        why = "neither MYSQL_HOST nor MYSQL_UNIX_SOCKET is, so the private server is used"
    else:
        return
    if unused := [name for name in names if name in given]:
        _say(f"{', '.join(unused)}: set, but not used: {why}")


def _name_the_unknown(path: Path, name: str) -> None:
    """A name in `.env` that looks like one of ours, and is none."""
    if name in _NAMES:
        return
    near = difflib.get_close_matches(name, _NAMES, 1)
    if near or name.startswith(("MYSQL_", "BINANCE_", "API_")):
        _say(f"{name} in {path} is no setting{f'; did you mean {near[0]}?' if near else '; .env.example has them all'}")


_NAMES = (
    *("MYSQL_HOST", "MYSQL_PORT", "MYSQL_UNIX_SOCKET", "MYSQL_USER", "MYSQL_PASSWORD", "MYSQL_DATABASE"),
    *("MYSQL_SSL_CA", "SYMBOLS", "BINANCE_WS_URL", "BINANCE_REST_URL", "BINANCE_ARCHIVE_URL", "DATA_DIR"),
    *API_NAMES,
)


def demo_of(settings: Settings) -> Settings:
    """The settings that keep the stand-in exchange's trades apart, in a database and a folder of their own.

    Raises ConfigError if the longer database name is too long.
    """
    return settings._replace(mysql_database=_database("MYSQL_DATABASE", f"{settings.mysql_database}{_DEMO}"), demo=True)


def as_environment(settings: Settings) -> dict[str, str]:
    """The variables by which a child process has the same settings; that of the demo is to be called with --demo."""
    given = {
        "MYSQL_HOST": settings.mysql_host,
        "MYSQL_PORT": str(settings.mysql_port) if settings.mysql_host else None,
        "MYSQL_UNIX_SOCKET": settings.mysql_unix_socket and str(Path(settings.mysql_unix_socket).resolve()),
        "MYSQL_USER": None if settings.private else settings.mysql_user,
        "MYSQL_PASSWORD": None if settings.private else settings.mysql_password,
        "MYSQL_DATABASE": settings.mysql_database.removesuffix(_DEMO) if settings.demo else settings.mysql_database,
        "MYSQL_SSL_CA": settings.mysql_ssl_ca and str(Path(settings.mysql_ssl_ca).resolve()),
        "SYMBOLS": ",".join(settings.symbols),
        "BINANCE_WS_URL": settings.ws_url,
        "BINANCE_REST_URL": settings.rest_url,
        "BINANCE_ARCHIVE_URL": settings.archive_url,
        "DATA_DIR": str(settings.data_dir.resolve()),
    }
    # An empty one counts as not set, even where .env sets it.
    return {name: value or "" for name, value in given.items()}


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
    path = parts.path.rstrip("/")
    if path.rpartition("/")[2].lower() in _APPENDED:
        raise ConfigError(f"{name}={text!r} is more than a base address: leave out {path!r}, which is added by itself")
    # Scheme and host mean the same in capitals, but not to every library.
    account, at, host = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{account}{at}{host.lower()}{path}"


_APPENDED = ("ws", "stream", "api", "v1", "v3", "data")
