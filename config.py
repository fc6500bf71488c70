"""The settings of every script: environment or `.env` (python-dotenv), then the default; read once, at the edge."""

import difflib
import ipaddress
import logging
import os
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from process import env_file as files
from process.env_file import ConfigError as ConfigError
from process.env_file import secret as secret

log = logging.getLogger("config")

ROOT = Path(__file__).resolve().parent
API_NAMES = ("API_HOST", "API_PORT", "API_TOKEN", "API_CORS_ORIGINS", "API_ALLOWED_HOSTS")
"""What tools/api/settings.py reads."""
RECORDER_TOKEN = "RECORDER_TOKEN"
"""The API_TOKEN of the recorder that `backfill.py --from-recorder` asks."""
SECRET_FILES = ("MYSQL_PASSWORD_FILE", "API_TOKEN_FILE", "RECORDER_TOKEN_FILE")
"""Each names a file that has the secret, in place of the variable without _FILE."""
SYMBOLS_MAX = 10_000
"""Several times as many as Binance has ever listed: more is a mistake in the list."""
NODES_MAX = 16
"""More than any cluster of these servers has: more is a mistake in the list."""
RETENTION_DAYS_MAX = 36_500
ALL = "ALL"
"""Stands for the pattern `*`: every symbol."""

# Binance's names are upper case; since 2025-12 some are not ASCII, hence isalnum() and not [A-Z0-9].
_SYMBOL_EXTRA = str.maketrans("", "", "-_.")
_SYMBOL_LENGTH_MAX = 32
_DEMO = "_demo"
"""At the end of the name of the demo's database."""
_DATABASE_NAME = re.compile(r"[0-9A-Za-z_]{1,64}")


class Settings(NamedTuple):
    """Everything that the environment decides. `mysql_host` and `mysql_unix_socket` both None: the private server."""

    mysql_host: str | None = None
    """A host, or several nodes of a cluster: `a,b:3307,c`."""
    mysql_port: int = 3306
    mysql_unix_socket: str | None = None
    mysql_user: str = "root"
    mysql_password: str = ""
    mysql_database: str = "binance"
    mysql_ssl_ca: str | None = None
    mysql_tls: bool | None = None
    """Whether a connection to `mysql_host` must be encrypted; None: off the loopback."""
    mysql_compress: bool = False
    symbols: tuple[str, ...] = ("BTCUSDT", "ETHUSDT")
    """Names, and patterns such as `*USDT`, which stand for what the exchange trades of them."""
    ws_url: str = "wss://stream.binance.com:9443"
    rest_url: str = "https://api.binance.com"
    archive_url: str = "https://data.binance.vision"
    data_dir: Path = Path("data")
    retention_days: int | None = None
    """How many days stay in the table; None: all."""
    metrics_port: int | None = None
    """Where the capture tells Prometheus about itself; None: nowhere."""
    metrics_host: str = "127.0.0.1"
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
        return ", ".join(address(*node) for node in self.nodes)

    @property
    def nodes(self) -> tuple[tuple[str, int], ...]:
        """The host and port of each node in `mysql_host`, in order. Raises ConfigError."""
        return parse_nodes("MYSQL_HOST", self.mysql_host or "", self.mysql_port)

    @property
    def needs_tls(self) -> bool:
        """Whether a connection to `mysql_host`, if that is one node, must be encrypted."""
        if self.mysql_unix_socket or self.mysql_host is None:
            return False
        if self.mysql_tls is not None:
            return self.mysql_tls
        return self.mysql_ssl_ca is not None or not is_loopback(self.mysql_host)

    @property
    def names(self) -> tuple[str, ...]:
        """Those of `symbols` that are no patterns."""
        return tuple(symbol for symbol in self.symbols if not is_pattern(symbol))

    def wanted(self, known: Iterable[str]) -> frozenset[str]:
        """Those of `known` that are in `symbols` or match one of its patterns."""
        names, patterns = frozenset(self.names), [one for one in self.symbols if is_pattern(one)]
        return frozenset(
            symbol for symbol in known if symbol in names or any(fnmatchcase(symbol, one) for one in patterns)
        )

    def chosen(self, known: Iterable[str]) -> tuple[str, ...]:
        """The names in `symbols`, and those of `known` that match one of its patterns, in order and each once."""
        return tuple(dict.fromkeys([*self.names, *sorted(self.wanted(known))]))

    @property
    def capture_dir(self) -> Path:
        """The folder of the spool and of the rejects; the demo has its own."""
        return self.data_dir / "demo" if self.demo else self.data_dir

    @property
    def retained_dir(self) -> Path:
        """The folder of the days that were moved to Parquet files, of this database."""
        return self.data_dir / "parquet" / self.mysql_database


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
        mysql_password=secret(environ, "MYSQL_PASSWORD"),
        mysql_database=_database("MYSQL_DATABASE", given.get("MYSQL_DATABASE", default.mysql_database)),
        mysql_ssl_ca=_file("MYSQL_SSL_CA", given.get("MYSQL_SSL_CA")),
        mysql_tls=_tls("MYSQL_TLS", given.get("MYSQL_TLS")),
        mysql_compress=_switch("MYSQL_COMPRESS", given.get("MYSQL_COMPRESS", "0")),
        symbols=parse_wishes("SYMBOLS", given["SYMBOLS"]) if "SYMBOLS" in given else default.symbols,
        ws_url=parse_url("BINANCE_WS_URL", given.get("BINANCE_WS_URL", default.ws_url), ("ws", "wss")),
        rest_url=parse_url("BINANCE_REST_URL", given.get("BINANCE_REST_URL", default.rest_url), ("http", "https")),
        archive_url=parse_url(
            "BINANCE_ARCHIVE_URL", given.get("BINANCE_ARCHIVE_URL", default.archive_url), ("http", "https")
        ),
        data_dir=_folder("DATA_DIR", given.get("DATA_DIR", str(default.data_dir))),
        retention_days=_days("RETENTION_DAYS", given["RETENTION_DAYS"]) if "RETENTION_DAYS" in given else None,
        metrics_port=_port("METRICS_PORT", given["METRICS_PORT"]) if "METRICS_PORT" in given else None,
        metrics_host=given.get("METRICS_HOST", default.metrics_host),
    )
    if settings.mysql_host:
        parse_nodes("MYSQL_HOST", settings.mysql_host, settings.mysql_port)
    if settings.mysql_ssl_ca and settings.mysql_tls is False:
        raise ConfigError(f"MYSQL_TLS={given['MYSQL_TLS']!r}, but MYSQL_SSL_CA asks for TLS: leave one of them out")
    # Only now: of what is wrong there is one line and no other.
    _name_the_unused(given)
    return settings


def recorder_token(environ: Mapping[str, str] | None = None) -> str | None:
    """The secret in RECORDER_TOKEN, or in its file; None: it is not set. Raises ConfigError, which does not show it."""
    environ = environment() if environ is None else environ
    token = secret(environ, RECORDER_TOKEN).strip()
    if not fits_header(token):
        raise ConfigError(f"{RECORDER_TOKEN} has a character that a header cannot carry; give the other's API_TOKEN")
    return token or None


def fits_header(token: str) -> bool:
    """Whether a header can carry `token` as it is: ASCII that can be printed, without spaces."""
    return token.isascii() and token.isprintable() and " " not in token


def environment() -> dict[str, str]:
    """The environment, on top of `.env` in the current folder or, if there is none, beside the scripts.

    Raises ConfigError for a file that cannot be read.
    """
    path = env_file()
    if path is None:
        return dict(os.environ)
    found = files.read(path, _PATHS)
    for name in found:
        _name_the_unknown(path, name)
    return found | dict(os.environ)


def env_file() -> Path | None:
    """The `.env` that is read; None: there is none."""
    return next((path for path in (Path(".env"), ROOT / ".env") if path.is_file()), None)


_PATHS = ("DATA_DIR", "MYSQL_SSL_CA", "MYSQL_UNIX_SOCKET", *SECRET_FILES)
_said: set[str] = set()
"""What was said already: each once, however often the settings are read."""


def _say(words: str) -> None:
    if words not in _said:
        _said.add(words)
        log.warning("%s", words)


def _name_the_unused(given: Mapping[str, str]) -> None:
    if "METRICS_HOST" in given and "METRICS_PORT" not in given:
        _say("METRICS_HOST: set, but not used: METRICS_PORT is not, so no metrics are served")
    if "MYSQL_UNIX_SOCKET" in given:
        names: tuple[str, ...] = ("MYSQL_HOST", "MYSQL_PORT", "MYSQL_SSL_CA", "MYSQL_TLS", "MYSQL_COMPRESS")
        why = "MYSQL_UNIX_SOCKET is set too, and comes first"
    elif "MYSQL_HOST" not in given:
        names = ("MYSQL_PORT", "MYSQL_USER", "MYSQL_PASSWORD", "MYSQL_PASSWORD_FILE", "MYSQL_SSL_CA", "MYSQL_TLS")
        names += ("MYSQL_COMPRESS",)
        why = "neither MYSQL_HOST nor MYSQL_UNIX_SOCKET is, so the private server is used"
    elif all(port for _, port in parse_nodes("MYSQL_HOST", given["MYSQL_HOST"], 0)):
        names, why = ("MYSQL_PORT",), "each node in MYSQL_HOST has a port of its own"
    else:
        return
    if unused := [name for name in names if name in given]:
        _say(f"{', '.join(unused)}: set, but not used: {why}")


def _name_the_unknown(path: Path, name: str) -> None:
    """A name in `.env` that looks like one of ours, and is none."""
    if name in _NAMES:
        return
    near = difflib.get_close_matches(name, _NAMES, 1)
    if near or name.startswith(("MYSQL_", "BINANCE_", "API_", "RECORDER_")):
        _say(f"{name} in {path} is no setting{f'; did you mean {near[0]}?' if near else '; .env.example has them all'}")


_NAMES = (
    *("MYSQL_HOST", "MYSQL_PORT", "MYSQL_UNIX_SOCKET", "MYSQL_USER", "MYSQL_PASSWORD", "MYSQL_DATABASE"),
    *("MYSQL_SSL_CA", "MYSQL_TLS", "MYSQL_COMPRESS"),
    *("SYMBOLS", "BINANCE_WS_URL", "BINANCE_REST_URL", "BINANCE_ARCHIVE_URL"),
    *("DATA_DIR", "RETENTION_DAYS", "METRICS_PORT", "METRICS_HOST", *API_NAMES, RECORDER_TOKEN, *SECRET_FILES),
)


def demo_of(settings: Settings) -> Settings:
    """The settings that keep the stand-in exchange's trades apart, in a database and a folder of their own.

    Raises ConfigError if the longer database name is too long.
    """
    return settings._replace(mysql_database=_database("MYSQL_DATABASE", f"{settings.mysql_database}{_DEMO}"), demo=True)


def asked_for(settings: Settings, name: str, text: str | None) -> Settings:
    """The settings with the symbols and patterns of a flag, if it is given. Raises ConfigError, naming `name`."""
    return settings if text is None else settings._replace(symbols=parse_wishes(name, text))


def as_environment(settings: Settings) -> dict[str, str]:
    """The variables by which a child process has the same settings; that of the demo is to be called with --demo."""
    given = {
        "MYSQL_HOST": settings.mysql_host,
        "MYSQL_PORT": str(settings.mysql_port) if settings.mysql_host else None,
        "MYSQL_UNIX_SOCKET": settings.mysql_unix_socket and str(Path(settings.mysql_unix_socket).resolve()),
        "MYSQL_USER": None if settings.private else settings.mysql_user,
        "MYSQL_PASSWORD": None if settings.private else settings.mysql_password,
        "MYSQL_PASSWORD_FILE": None,
        "MYSQL_DATABASE": settings.mysql_database.removesuffix(_DEMO) if settings.demo else settings.mysql_database,
        "MYSQL_SSL_CA": settings.mysql_ssl_ca and str(Path(settings.mysql_ssl_ca).resolve()),
        "MYSQL_TLS": next((word for word, wish in _TLS.items() if wish == settings.mysql_tls), None),
        "MYSQL_COMPRESS": "1" if settings.mysql_compress else None,
        "SYMBOLS": ",".join(settings.symbols),
        "BINANCE_WS_URL": settings.ws_url,
        "BINANCE_REST_URL": settings.rest_url,
        "BINANCE_ARCHIVE_URL": settings.archive_url,
        "DATA_DIR": str(settings.data_dir.resolve()),
        "RETENTION_DAYS": str(settings.retention_days) if settings.retention_days is not None else None,
    }
    # An empty one counts as not set, even where .env sets it.
    return {name: value or "" for name, value in given.items()}


def is_symbol(text: str) -> bool:
    """Whether `text` has the shape of a Binance symbol (upper case, letters, digits, `-_.`, at most 32)."""
    bare = text.translate(_SYMBOL_EXTRA)
    return len(text) <= _SYMBOL_LENGTH_MAX and bare.isalnum() and text == text.upper()


def is_pattern(text: str) -> bool:
    """Whether one of SYMBOLS stands for many: `*USDT`."""
    return "*" in text


def parse_symbols(name: str, text: str) -> tuple[str, ...]:
    """The symbols of a comma-separated list, in upper case, each once. Raises ConfigError, naming `name`."""
    symbols = _listed(text)
    wrong = next((symbol for symbol in symbols if not is_symbol(symbol)), None)
    if wrong and is_pattern(wrong):
        raise ConfigError(f"{name}={_short(text)}: {wrong!r} is a pattern, which only the capture takes; give names")
    return _counted(name, text, symbols, wrong)


def parse_wishes(name: str, text: str) -> tuple[str, ...]:
    """The same of a list that may have patterns: `*USDT`, or ALL for every symbol. Raises ConfigError."""
    wishes = tuple("*" if one == ALL else one for one in _listed(text))
    wrong = next((one for one in wishes if not is_symbol(one) and not _is_good_pattern(one)), None)
    return _counted(name, text, wishes, wrong)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip().upper() for part in text.split(",") if part.strip()))


def _is_good_pattern(text: str) -> bool:
    return is_pattern(text) and (not (bare := text.replace("*", "")) or is_symbol(bare))


def _counted(name: str, text: str, symbols: tuple[str, ...], wrong: str | None) -> tuple[str, ...]:
    if wrong or not 1 <= len(symbols) <= SYMBOLS_MAX:
        what = f"{wrong!r} is not a symbol" if wrong else f"{len(symbols)} symbols"
        raise ConfigError(f"{name}={_short(text)}: {what}; give 1 to {SYMBOLS_MAX}, such as BTCUSDT,ETHUSDT")
    return symbols


def _short(text: str) -> str:
    """A value in words; of a long one only its start."""
    return repr(text if len(text) <= _SHOWN_CHARS_MAX else text[:_SHOWN_CHARS_MAX] + "…")


_SHOWN_CHARS_MAX = 200


def parse_nodes(name: str, text: str, port: int) -> tuple[tuple[str, int], ...]:
    """The host and port (default: `port`) of each node in `a,b:3307,[::1]:3308`, each once. Raises ConfigError."""
    nodes, entries = [], [entry.strip() for entry in text.split(",")]
    for entry in entries:
        found = _NODE.fullmatch(entry)
        if not found or not 0 < int(found["port"] or 1) <= 65535 or len(entries) > NODES_MAX:
            what = f"{len(entries)} nodes" if len(entries) > NODES_MAX else f"{entry[:50]!r} is not a node"
            raise ConfigError(f"{name}={_short(text)}: {what}; give 1 to {NODES_MAX}, such as a,b:3307,[::1]:3308")
        nodes.append((found["host"] or found["ipv6"] or found["bare"], int(found["port"] or port)))
    return tuple(dict.fromkeys(nodes))


# More than one colon without brackets: an IPv6 address without a port.
_NODE = re.compile(
    r"(?:(?P<host>[^\s,:/@\[\]]+)|\[(?P<ipv6>[\w:.%]+)\])(?::(?P<port>[0-9]{1,5}))?|(?P<bare>[\w.%]*(?::[\w.%]*){2,})"
)


def address(host: str, port: int) -> str:
    """A node in words: `a:3306`, `[::1]:3306`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _port(name: str, text: str) -> int:
    # int() raises for thousands of digits, hence the length.
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise ConfigError(f"{name}={text!r} is not a port; give a number from 1 to 65535")
    return int(text)


def _days(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= RETENTION_DAYS_MAX):
        raise ConfigError(f"{name}={_short(text)} is not a number of days; give one from 1 to {RETENTION_DAYS_MAX}")
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


def _tls(name: str, text: str | None) -> bool | None:
    if text is not None and text.lower() not in _TLS:
        raise ConfigError(f"{name}={_short(text)} is neither required nor off")
    return None if text is None else _TLS[text.lower()]


_TLS = {"required": True, "off": False}


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine's own: localhost, or an address that no other machine can reach or be at."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _switch(name: str, text: str) -> bool:
    if text.lower() not in _ON + _OFF:
        raise ConfigError(f"{name}={_short(text)} is neither on nor off; give 1 or 0")
    return text.lower() in _ON


_ON, _OFF = ("1", "on", "yes", "true"), ("0", "off", "no", "false")


def _folder(name: str, text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{name}={text!r} starts with the home directory of an unknown user") from error


def parse_url(name: str, text: str, schemes: tuple[str, ...]) -> str:
    """The base address in `text`, without a slash at its end. Raises ConfigError, naming `name`."""
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
