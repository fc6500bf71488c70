-- The data model. The program runs this file itself, statement by statement; each statement can be run repeatedly.
-- A database of an earlier version is changed first (storage/schema.py).
--
-- Conventions: every time is UTC (each connection sets time_zone = '+00:00'; the mysql CLI shows the stored values),
-- every range is half-open (>= start AND < end), prices and quantities are exact decimals, never floats.
-- Two clocks: `timestamp` is the exchange's, received_at is this machine's; neither replaces the other.
-- Symbols are utf8mb4 because some of Binance's are not ASCII, and _bin because names are compared exactly.

-- One row is one trade, as the exchange numbered it (its ids run 1, 2, 3 … per symbol, without holes).
-- The key needs the id: two trades of three share their millisecond with another trade of the symbol.
-- One clustered index serves the latest price, the price at a second, and every range.
CREATE TABLE IF NOT EXISTS trades (
    symbol         VARCHAR(32) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    `timestamp`    DATETIME(3)     NOT NULL COMMENT 'when it traded: the exchange''s clock, UTC, floored to a millisecond',
    trade_id       BIGINT UNSIGNED NOT NULL COMMENT 'the exchange''s number, consecutive per symbol',
    price          DECIMAL(20,8)   NOT NULL COMMENT 'quote asset (USDT) for one unit of the base asset',
    quantity       DECIMAL(20,8)   NOT NULL COMMENT 'of the base asset (BTC, ETH)',
    buyer_is_maker BOOLEAN         NOT NULL COMMENT 'TRUE: the taker sold; FALSE: the taker bought',
    received_at    DATETIME(6)     NULL     COMMENT 'this machine''s clock when the frame arrived; NULL: back-filled',
    PRIMARY KEY (symbol, `timestamp`, trade_id)
) ENGINE = InnoDB;

-- One row is one bar of a symbol: what traded in [timestamp, timestamp + resolution). A bar is sealed, once its time is
-- over: made from the trades themselves, and made again in every transaction that stores a trade in it. Nothing else
-- has a row: up to when the bars of a symbol are sealed is told by `symbols`, and later trades are in no bar yet.
CREATE TABLE IF NOT EXISTS candles (
    symbol                 VARCHAR(32) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    resolution             INT UNSIGNED    NOT NULL COMMENT 'seconds: 60, 3600, 86400; 1 in a minute that is sealed in part',
    `timestamp`            DATETIME(3)     NOT NULL COMMENT 'start of the bar, UTC',
    open                   DECIMAL(20,8)   NOT NULL,
    high                   DECIMAL(20,8)   NOT NULL,
    low                    DECIMAL(20,8)   NOT NULL,
    close                  DECIMAL(20,8)   NOT NULL,
    volume                 DECIMAL(28,8)   NOT NULL COMMENT 'sum of quantity: of the base asset',
    quote_volume           DECIMAL(48,16)  NOT NULL COMMENT 'sum of price * quantity, exact',
    taker_buy_volume       DECIMAL(28,8)   NOT NULL COMMENT 'the part of volume in which the taker bought',
    taker_buy_quote_volume DECIMAL(48,16)  NOT NULL COMMENT 'the part of quote_volume in which the taker bought',
    trades                 INT UNSIGNED    NOT NULL COMMENT 'how many',
    first_trade_id         BIGINT UNSIGNED NOT NULL COMMENT 'the trade of `open`',
    last_trade_id          BIGINT UNSIGNED NOT NULL COMMENT 'the trade of `close`',
    PRIMARY KEY (symbol, resolution, `timestamp`)
) ENGINE = InnoDB;

-- One row is a run of ids between two stored trades. While filled_at is NULL every id of the run is missing from trades;
-- the stored ids and the open gaps together are every id from the first stored to the last.
CREATE TABLE IF NOT EXISTS gaps (
    symbol           VARCHAR(32) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    first_trade_id   BIGINT UNSIGNED NOT NULL COMMENT 'first missing id',
    last_trade_id    BIGINT UNSIGNED NOT NULL COMMENT 'last missing id (inclusive)',
    reason           VARCHAR(255)    NOT NULL COMMENT 'why it is missing, or why it cannot be filled',
    detected_at      DATETIME(6)     NOT NULL COMMENT 'this machine''s clock, UTC',
    filled_at        DATETIME(6)     NULL     COMMENT 'when the last missing id was stored; NULL: still open',
    timestamp_before DATETIME(3)     NOT NULL COMMENT 'of the stored trade just below',
    timestamp_after  DATETIME(3)     NOT NULL COMMENT 'of the stored trade just above',
    PRIMARY KEY (symbol, first_trade_id),
    KEY open_gaps (filled_at, symbol, first_trade_id) -- lists the open gaps quickly, however many were filled
) ENGINE = InnoDB;

-- One row per symbol, locked by every transaction that stores trades of that symbol, so that two captures and a back-fill
-- on one database agree on which ids are missing, and on which bars are sealed. `token` belongs to the last writer: a
-- writer that finds its own token knows that nobody else has written since. `fence` is what a sealing that is under way
-- will seal up to (and a part of a second more, by which it knows its own): who stores a trade before it pulls it down.
CREATE TABLE IF NOT EXISTS symbols (
    symbol       VARCHAR(32) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    token        BIGINT UNSIGNED NOT NULL,
    sealed_until DATETIME(3)     NULL     COMMENT 'all bars that end by then are sealed; NULL: none is',
    fence        DATETIME(6)     NOT NULL DEFAULT '1970-01-01 00:00:00' COMMENT 'never before sealed_until',
    PRIMARY KEY (symbol)
) ENGINE = InnoDB;

-- One row is one audit of a symbol and UTC day (audit.py): what was found, compared with what. Rows are only ever added,
-- and chained: `hash` is the SHA-256 of `previous`, which is the hash of the row before, and the other columns but
-- `blocks`, a line each (model/proof.py). The newest row of a day is what is known of it.
CREATE TABLE IF NOT EXISTS proofs (
    number         BIGINT UNSIGNED NOT NULL COMMENT '1, 2, 3 …, the order of the chain',
    symbol         VARCHAR(32) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    day            DATE            NOT NULL COMMENT 'UTC',
    verdict        VARCHAR(16)     NOT NULL COMMENT 'equal, agrees, contiguous, gapped, different or unverifiable',
    reason         VARCHAR(500)    NOT NULL COMMENT 'why it is not better, in words; empty: it is the best there is',
    first_trade_id BIGINT UNSIGNED NULL     COMMENT 'of the stored trades of the day; NULL: there is none',
    last_trade_id  BIGINT UNSIGNED NULL,
    trades         BIGINT UNSIGNED NOT NULL COMMENT 'how many are stored',
    missing        BIGINT UNSIGNED NOT NULL COMMENT 'ids of the day that are not stored',
    sha256         CHAR(64)        NOT NULL COMMENT 'of the canonical lines of the stored trades',
    merkle_root    CHAR(64)        NOT NULL COMMENT 'of the blocks of 65,536 ids (RFC 6962)',
    compared_with  VARCHAR(500)    NOT NULL COMMENT 'the address of a file, klines, or empty',
    source_sha256  CHAR(64)        NOT NULL COMMENT 'of that file, as it was published; empty: it is no file',
    proven_at      DATETIME(6)     NOT NULL COMMENT 'this machine''s clock, UTC',
    previous       CHAR(64)        NOT NULL,
    hash           CHAR(64)        NOT NULL,
    blocks         MEDIUMTEXT      NOT NULL COMMENT 'number and hash of each block, a line each',
    PRIMARY KEY (number),
    KEY proofs_of_day (symbol, day, number)
) ENGINE = InnoDB;

-- One row is a file of the exchange's archive that was loaded: the exchange replaces files without a word, so that a day
-- whose file has another hash later is a new revision of the day.
CREATE TABLE IF NOT EXISTS archive_files (
    symbol         VARCHAR(32) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    day            DATE            NOT NULL COMMENT 'UTC',
    sha256         CHAR(64)        NOT NULL COMMENT 'of the zip file',
    address        VARCHAR(500)    NOT NULL,
    first_trade_id BIGINT UNSIGNED NOT NULL,
    last_trade_id  BIGINT UNSIGNED NOT NULL,
    loaded_at      DATETIME(6)     NOT NULL COMMENT 'this machine''s clock, UTC: when all its trades were stored',
    PRIMARY KEY (symbol, day, sha256)
) ENGINE = InnoDB;

-- One row is a UTC day of a symbol whose trades were written to a Parquet file (tools/retain.py): `state` says where they
-- are now. `leaving`: the file is the day, and its rows go from `trades`; `gone`: they went; `returning`: the file is the
-- day still, and its rows come back (tools/restore.py); `restored`: `trades` is the day again. Candles, gaps and proofs stay.
CREATE TABLE IF NOT EXISTS retained (
    symbol          VARCHAR(32) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    day             DATE            NOT NULL COMMENT 'UTC',
    state           VARCHAR(16)     NOT NULL COMMENT 'leaving, gone, returning or restored',
    first_trade_id  BIGINT UNSIGNED NOT NULL COMMENT 'the lowest id of the day',
    last_trade_id   BIGINT UNSIGNED NOT NULL COMMENT 'the highest',
    first_timestamp DATETIME(3)     NOT NULL COMMENT 'of the first trade by time',
    last_timestamp  DATETIME(3)     NOT NULL,
    trades          BIGINT UNSIGNED NOT NULL COMMENT 'how many',
    sha256          CHAR(64)        NOT NULL COMMENT 'of their canonical lines, as in proofs',
    path            VARCHAR(500)    NOT NULL COMMENT 'of the file, in the folder parquet/<database> of DATA_DIR',
    file_sha256     CHAR(64)        NOT NULL COMMENT 'of the file itself',
    retained_at     DATETIME(6)     NOT NULL COMMENT 'this machine''s clock, UTC: since when the file is the day',
    PRIMARY KEY (symbol, day)
) ENGINE = InnoDB;

-- The plain table that most people look for:
-- SELECT * FROM prices WHERE symbol = 'BTCUSDT' ORDER BY timestamp DESC LIMIT 1
CREATE OR REPLACE SQL SECURITY INVOKER VIEW prices AS SELECT `timestamp`, symbol, price FROM trades;

CREATE TABLE IF NOT EXISTS schema_version (
    version    INT UNSIGNED NOT NULL,
    applied_at TIMESTAMP    NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (version)
) ENGINE = InnoDB;

-- Last, so that a database has a version only once everything above is in it.
INSERT INTO schema_version (version) VALUES (4) ON DUPLICATE KEY UPDATE version = schema_version.version;
