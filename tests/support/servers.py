"""Database servers for the tests: those of tools/lab/servers.py, and the one that the environment names."""

from pathlib import Path

from tools.lab.servers import (
    MYSQL_CACHE,
    POLL_S,
    PrivateServer,
    Server,
    copy_sparse,
    find_server,
    short_folder,
)

__all__ = [
    "MYSQL_CACHE",
    "POLL_S",
    "SETTING_NAMES",
    "EnvironmentServer",
    "PrivateServer",
    "Server",
    "copy_sparse",
    "find_server",
    "short_folder",
]

SETTING_NAMES = (
    "MYSQL_HOST",
    "MYSQL_PORT",
    "MYSQL_UNIX_SOCKET",
    "MYSQL_USER",
    "MYSQL_PASSWORD",
    "MYSQL_PASSWORD_FILE",
    "MYSQL_DATABASE",
    "MYSQL_SSL_CA",
    "MYSQL_TLS",
    "MYSQL_COMPRESS",
    "SYMBOLS",
    "BINANCE_WS_URL",
    "BINANCE_REST_URL",
    "BINANCE_ARCHIVE_URL",
    "DATA_DIR",
    "RETENTION_DAYS",
    "RECORDER_TOKEN",
    "RECORDER_TOKEN_FILE",
)


class EnvironmentServer(Server):
    """The server that MYSQL_* named when the tests began."""

    family = "environment"

    def __init__(self, environ: dict[str, str]) -> None:
        self.socket_path = Path(environ["MYSQL_UNIX_SOCKET"]) if environ.get("MYSQL_UNIX_SOCKET") else None
        self.host = environ.get("MYSQL_HOST", "")
        self.port = int(environ.get("MYSQL_PORT") or 3306)
        self.user = environ.get("MYSQL_USER") or "root"
        self.password = environ.get("MYSQL_PASSWORD", "")
        self._ssl_ca = environ.get("MYSQL_SSL_CA", "")

    @property
    def environ(self) -> dict[str, str]:
        """The MYSQL_* variables, for a subprocess."""
        return super().environ | {"MYSQL_UNIX_SOCKET": str(self.socket_path or ""), "MYSQL_SSL_CA": self._ssl_ca}
