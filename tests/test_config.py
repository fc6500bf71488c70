"""The settings: where each one comes from, and that a wrong one is refused by a line that names it."""

import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import config

CA = Path(__file__)
"""A file that exists, where the test is about something else than what is in it."""

WRONG = [
    ("MYSQL_PORT", "0"),
    ("MYSQL_PORT", "65536"),
    ("MYSQL_PORT", "-1"),
    ("MYSQL_PORT", "3306.0"),
    ("MYSQL_PORT", "٣٣٠٦"),
    ("MYSQL_PORT", "9" * 5_000),
    ("MYSQL_DATABASE", "bin`ance"),
    ("MYSQL_DATABASE", "binance; DROP DATABASE mysql"),
    ("MYSQL_DATABASE", "a" * 65),
    ("MYSQL_DATABASE", "börse"),
    ("MYSQL_SSL_CA", "/nowhere/ca.pem"),
    ("MYSQL_SSL_CA", "/"),
    ("SYMBOLS", ","),
    ("SYMBOLS", "BTCUSDT,ETH/USDT"),
    ("SYMBOLS", "BTCUSDT;DROP TABLE trades"),
    ("SYMBOLS", "A" * 33),
    ("SYMBOLS", "..."),
    ("SYMBOLS", ",".join(f"A{number}" for number in range(config.SYMBOLS_MAX + 1))),
    ("BINANCE_WS_URL", "https://stream.binance.com"),
    ("BINANCE_WS_URL", "stream.binance.com:9443"),
    ("BINANCE_WS_URL", "wss://"),
    ("BINANCE_WS_URL", "wss://host:port"),
    ("BINANCE_WS_URL", "wss://host:0"),
    ("BINANCE_WS_URL", "wss://host:65536"),
    ("BINANCE_WS_URL", "wss://host/stream?streams=btcusdt@trade"),
    ("BINANCE_WS_URL", "wss://host/?"),
    ("BINANCE_WS_URL", "wss://host/#fragment"),
    ("BINANCE_WS_URL", "wss://two words"),
    ("BINANCE_WS_URL", "wss://[::1"),
    ("BINANCE_REST_URL", "wss://api.binance.com"),
    ("BINANCE_REST_URL", "file:///etc/passwd"),
    ("BINANCE_ARCHIVE_URL", "ftp://data.binance.vision"),
    ("DATA_DIR", "~no-such-user-here/data"),
]


def test_nothing_set_is_the_documented_default() -> None:
    """Without any variable every setting has the default of the README's table, and the private server is used."""
    settings = config.load({})

    assert settings == config.Settings(
        mysql_host=None,
        mysql_port=3306,
        mysql_unix_socket=None,
        mysql_user="root",
        mysql_password="",
        mysql_database="binance",
        mysql_ssl_ca=None,
        symbols=("BTCUSDT", "ETHUSDT"),
        ws_url="wss://stream.binance.com:9443",
        rest_url="https://api.binance.com",
        archive_url="https://data.binance.vision",
        data_dir=Path("data"),
        demo=False,
    )
    assert settings.private


def test_every_variable_arrives_in_its_setting() -> None:
    """Each of the variables sets its own field, and nothing else does."""
    settings = config.load(
        {
            "MYSQL_HOST": "db.example",
            "MYSQL_PORT": "3307",
            "MYSQL_UNIX_SOCKET": "/run/mysqld.sock",
            "MYSQL_USER": "capture",
            "MYSQL_PASSWORD": "secret",
            "MYSQL_DATABASE": "ticks_2025",
            "MYSQL_SSL_CA": str(CA),
            "SYMBOLS": "bnbbtc, SOLUSDT ,,bnbbtc",
            "BINANCE_WS_URL": "ws://127.0.0.1:8080/",
            "BINANCE_REST_URL": "http://127.0.0.1:8080",
            "BINANCE_ARCHIVE_URL": "http://127.0.0.1:8080/archive/",
            "DATA_DIR": "/srv/ticks",
        }
    )

    assert settings == config.Settings(
        mysql_host="db.example",
        mysql_port=3307,
        mysql_unix_socket="/run/mysqld.sock",
        mysql_user="capture",
        mysql_password="secret",
        mysql_database="ticks_2025",
        mysql_ssl_ca=str(CA),
        symbols=("BNBBTC", "SOLUSDT"),
        ws_url="ws://127.0.0.1:8080",
        rest_url="http://127.0.0.1:8080",
        archive_url="http://127.0.0.1:8080/archive",
        data_dir=Path("/srv/ticks"),
    )
    assert not settings.private


@pytest.mark.parametrize("name", ["MYSQL_HOST", "MYSQL_UNIX_SOCKET"])
def test_either_address_means_a_server_of_the_user(name: str) -> None:
    """A host or a socket, either is enough for the private server not to be used."""
    assert not config.load({name: "there"}).private


def test_an_empty_value_counts_as_not_set() -> None:
    """Empty and blank values give the defaults, so that a line of .env.example may be left as it is."""
    names = ["MYSQL_HOST", "MYSQL_PORT", "MYSQL_UNIX_SOCKET", "MYSQL_USER", "MYSQL_DATABASE", "MYSQL_SSL_CA", "SYMBOLS"]
    names += ["BINANCE_WS_URL", "BINANCE_REST_URL", "BINANCE_ARCHIVE_URL", "DATA_DIR"]

    assert config.load(dict.fromkeys(names, "")) == config.load(dict.fromkeys(names, " \t")) == config.Settings()


def test_a_password_keeps_its_blanks() -> None:
    """The password is taken as it is, the other values without the blanks around them."""
    settings = config.load({"MYSQL_PASSWORD": "  two words ", "MYSQL_USER": " capture "})

    assert (settings.mysql_password, settings.mysql_user) == ("  two words ", "capture")


@pytest.mark.parametrize(("name", "value"), WRONG, ids=[f"{name}={value[:30]}" for name, value in WRONG])
def test_a_wrong_value_is_one_line_that_names_variable_and_value(name: str, value: str) -> None:
    """What cannot be used is a ConfigError whose message is one line with the variable and the value."""
    with pytest.raises(config.ConfigError) as caught:
        config.load({name: value})

    assert f"{name}={value!r}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_environment_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """.env in the working directory sets what the environment does not; os.environ itself stays as it was."""
    (tmp_path / ".env").write_text("MYSQL_HOST=file\nMYSQL_USER=file\nSYMBOLS\n# MYSQL_PORT=1\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("MYSQL_", "BINANCE_")) or name == "SYMBOLS"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MYSQL_USER", "environment")

    settings = config.load()

    assert (settings.mysql_host, settings.mysql_user, settings.mysql_port) == ("file", "environment", 3306)
    assert settings.symbols == ("BTCUSDT", "ETHUSDT")
    assert "MYSQL_HOST" not in os.environ


def test_a_password_in_the_file_is_not_interpolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password with ${…} in it reaches the server as it was written."""
    (tmp_path / ".env").write_text("MYSQL_PASSWORD='a${HOME}b$c'\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MYSQL_PASSWORD", raising=False)

    assert config.load().mysql_password == "a${HOME}b$c"


def test_a_home_directory_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    """DATA_DIR may begin with ~, which only a shell would expand."""
    monkeypatch.setenv("HOME", "/home/someone")

    assert config.load({"DATA_DIR": "~/ticks"}).data_dir == Path("/home/someone/ticks")


def test_the_demo_is_kept_apart() -> None:
    """The demo has its own database and its own folder, everything else is the same."""
    real = config.load({"MYSQL_DATABASE": "ticks", "DATA_DIR": "/srv"})
    demo = config.demo_of(real)

    assert demo == real._replace(mysql_database="ticks_demo", demo=True)
    assert (real.capture_dir, demo.capture_dir) == (Path("/srv"), Path("/srv/demo"))


def test_a_demo_database_that_gets_too_long_a_name_is_refused() -> None:
    """The name with _demo must fit as well, and the error says so before the server would."""
    with pytest.raises(config.ConfigError, match="MYSQL_DATABASE"):
        config.demo_of(config.load({"MYSQL_DATABASE": "a" * 60}))


@pytest.mark.parametrize("symbol", ["BTCUSDT", "1000SATSUSDT", "币安人生USDT", "A-B_C.D", "A" * 32, "É"])
def test_symbols_of_the_exchange_are_symbols(symbol: str) -> None:
    """Upper case letters of any script, digits and -_. are what Binance's names are made of."""
    assert config.is_symbol(symbol)


@pytest.mark.parametrize(
    "symbol",
    ["", "btcusdt", "BTC USDT", "BTCUSDT ", "A'B", 'A"B', "A\\B", "A%B", "A;B", "A\0B", "-", "A" * 33, "ß", "A\n"],
)
def test_anything_else_is_no_symbol(symbol: str) -> None:
    """Lower case, blanks, quotes and everything with a meaning in SQL is refused."""
    assert not config.is_symbol(symbol)


@given(st.text())
def test_any_list_of_symbols_is_taken_or_refused(text: str) -> None:
    """No text raises anything but ConfigError, and what is taken is a list of distinct symbols."""
    with suppress(config.ConfigError):
        symbols = config.parse_symbols("--symbols", text)

        assert symbols
        assert len(set(symbols)) == len(symbols)
        assert all(config.is_symbol(symbol) for symbol in symbols)


@given(st.sampled_from(["MYSQL_PORT", "MYSQL_DATABASE", "BINANCE_WS_URL", "BINANCE_REST_URL", "DATA_DIR"]), st.text())
def test_any_value_is_taken_or_refused(name: str, value: str) -> None:
    """No value of a variable raises anything but ConfigError."""
    with suppress(config.ConfigError):
        assert config.load({name: value})
