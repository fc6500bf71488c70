"""Makes a database of schema version 1, as the release before sealed candles left it: run it to have one to migrate.

    MYSQL_UNIX_SOCKET=… MYSQL_DATABASE=old python -m tests.support.version_1 1000000

The tables are those of that release's schema.sql, without its comments. The trades are made by the server: one in
250 ms of each of two symbols, with a run of ids missing, an open gap for it, and candles without volumes.
"""

import sys
from contextlib import closing
from typing import Any

import mysql.connector

import config

SCHEMA = """
CREATE TABLE IF NOT EXISTS trades (
    symbol         VARCHAR(32) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    `timestamp`    DATETIME(3)     NOT NULL,
    trade_id       BIGINT UNSIGNED NOT NULL,
    price          DECIMAL(20,8)   NOT NULL,
    quantity       DECIMAL(20,8)   NOT NULL,
    buyer_is_maker BOOLEAN         NOT NULL,
    received_at    DATETIME(6)     NULL,
    PRIMARY KEY (symbol, `timestamp`, trade_id)
) ENGINE = InnoDB;
CREATE TABLE IF NOT EXISTS candles (
    symbol         VARCHAR(32) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    resolution     INT UNSIGNED    NOT NULL,
    `timestamp`    DATETIME(3)     NOT NULL,
    open           DECIMAL(20,8)   NOT NULL,
    high           DECIMAL(20,8)   NOT NULL,
    low            DECIMAL(20,8)   NOT NULL,
    close          DECIMAL(20,8)   NOT NULL,
    first_trade_id BIGINT UNSIGNED NOT NULL,
    last_trade_id  BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (symbol, resolution, `timestamp`)
) ENGINE = InnoDB;
CREATE TABLE IF NOT EXISTS gaps (
    symbol           VARCHAR(32) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    first_trade_id   BIGINT UNSIGNED NOT NULL,
    last_trade_id    BIGINT UNSIGNED NOT NULL,
    reason           VARCHAR(255)    NOT NULL,
    detected_at      DATETIME(6)     NOT NULL,
    filled_at        DATETIME(6)     NULL,
    timestamp_before DATETIME(3)     NOT NULL,
    timestamp_after  DATETIME(3)     NOT NULL,
    PRIMARY KEY (symbol, first_trade_id),
    KEY open_gaps (filled_at, symbol, first_trade_id)
) ENGINE = InnoDB;
CREATE TABLE IF NOT EXISTS writers (
    symbol VARCHAR(32) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    token  BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (symbol)
) ENGINE = InnoDB;
CREATE OR REPLACE VIEW prices AS SELECT `timestamp`, symbol, price FROM trades;
CREATE TABLE IF NOT EXISTS schema_version (
    version    INT UNSIGNED NOT NULL,
    applied_at TIMESTAMP    NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (version)
) ENGINE = InnoDB;
INSERT INTO schema_version (version) VALUES (1) ON DUPLICATE KEY UPDATE version = schema_version.version;
"""

ROWS = 20_000
MISSING = (5_001, 5_010)
"""Ids of BTCUSDT that are in no row."""

_DIGITS = " UNION ALL ".join(f"SELECT {digit} AS d" for digit in range(10))
_TRADES = (
    "INSERT INTO trades SELECT '{symbol}', TIMESTAMP('2025-03-01 22:00:00') + INTERVAL n * 250000 MICROSECOND, n + 1,"
    " 60000 + MOD(n * 7919, 100003) / 100, 0.00001 * (1 + MOD(n, 977)), MOD(n, 3) = 0, NULL"
    " FROM (SELECT {number} AS n FROM {digits}) AS numbers"
    " WHERE n < {rows} AND NOT ('{symbol}' = 'BTCUSDT' AND n + 1 BETWEEN {first} AND {last})"
)
_CANDLES = (
    "INSERT INTO candles SELECT symbol, {resolution}, CAST(DATE_FORMAT(timestamp, '{form}') AS DATETIME(3)) AS begin,"
    " CAST(SUBSTR(MIN(CONCAT(LPAD(trade_id, 20, '0'), price)), 21) AS DECIMAL(20,8)), MAX(price), MIN(price),"
    " CAST(SUBSTR(MAX(CONCAT(LPAD(trade_id, 20, '0'), price)), 21) AS DECIMAL(20,8)), MIN(trade_id), MAX(trade_id)"
    " FROM trades GROUP BY symbol, begin"
)
_GAP = (
    "INSERT INTO gaps SELECT 'BTCUSDT', {first}, {last}, 'missing in the stream', '2025-03-02', NULL, a.timestamp,"
    " b.timestamp FROM trades AS a, trades AS b WHERE a.symbol = 'BTCUSDT' AND a.trade_id = {first} - 1"
    " AND b.symbol = 'BTCUSDT' AND b.trade_id = {last} + 1"
)


def make(connection: Any, rows: int = ROWS) -> None:
    """Fills the connection's database, which must be empty, with `rows` ids of each of two symbols."""
    first, last = MISSING
    statements = [statement for statement in SCHEMA.split(";\n") if statement.strip()]
    powers = range(len(str(rows)))
    number = " + ".join(f"{10**power} * d{power}.d" for power in powers)
    digits = ", ".join(f"({_DIGITS}) AS d{power}" for power in powers)
    statements += [
        _TRADES.format(symbol=symbol, rows=rows, first=first, last=last, number=number, digits=digits)
        for symbol in ("BTCUSDT", "ETHUSDT")
    ]
    forms = {60: "%Y-%m-%d %H:%i:00", 3_600: "%Y-%m-%d %H:00:00", 86_400: "%Y-%m-%d 00:00:00"}
    statements += [_CANDLES.format(resolution=resolution, form=form) for resolution, form in forms.items()]
    if rows > last:
        statements.append(_GAP.format(first=first, last=last))
    statements.append("INSERT INTO writers SELECT DISTINCT symbol, 17 FROM candles")
    with connection.cursor() as cursor:
        cursor.execute("SET time_zone = '+00:00'")
        for statement in statements:
            cursor.execute(statement)


def main() -> int:
    """Makes one in the configured database, which is created."""
    settings = config.load()
    options = (
        {"unix_socket": settings.mysql_unix_socket} if settings.mysql_unix_socket else {"host": settings.mysql_host}
    )
    user, password = settings.mysql_user, settings.mysql_password
    with closing(mysql.connector.connect(user=user, password=password, autocommit=True, **options)) as connection:
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE `{settings.mysql_database}` CHARACTER SET utf8mb4")
            cursor.execute(f"USE `{settings.mysql_database}`")
        make(connection, int(sys.argv[1]) if len(sys.argv) > 1 else ROWS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
