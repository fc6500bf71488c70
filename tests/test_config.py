"""The settings: where each one comes from, and that a wrong one is refused by a line that names it."""

import argparse
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import config
from process import env_file as files
from tools.api.settings import ApiSettings
from tools.api.settings import load as load_api

CA = Path(__file__)
"""A file that exists, where the test is about something else than what is in it."""

WRONG = [
    ("MYSQL_PORT", "0"),
    ("MYSQL_PORT", "65536"),
    ("MYSQL_PORT", "-1"),
    ("MYSQL_PORT", "3306.0"),
    ("MYSQL_PORT", "٣٣٠٦"),
    ("MYSQL_PORT", "9" * 5_000),
    ("MYSQL_HOST", "a,,b"),
    ("MYSQL_HOST", ","),
    ("MYSQL_HOST", "a b"),
    ("MYSQL_HOST", "a:"),
    ("MYSQL_HOST", "a:port"),
    ("MYSQL_HOST", "a,b:0"),
    ("MYSQL_HOST", "a,b:65536"),
    ("MYSQL_HOST", "a:٣٣٠٦"),
    ("MYSQL_HOST", "[::1"),
    ("MYSQL_HOST", "mysql://a"),
    ("MYSQL_HOST", "me@a"),
    ("MYSQL_HOST", ",".join("abcdefghijklmnopq")),
    ("MYSQL_DATABASE", "bin`ance"),
    ("MYSQL_DATABASE", "binance; DROP DATABASE mysql"),
    ("MYSQL_DATABASE", "a" * 65),
    ("MYSQL_DATABASE", "börse"),
    ("MYSQL_SSL_CA", "/nowhere/ca.pem"),
    ("MYSQL_SSL_CA", "/"),
    ("MYSQL_TLS", "on"),
    ("MYSQL_TLS", "preferred"),
    ("MYSQL_COMPRESS", "2"),
    ("MYSQL_COMPRESS", "zlib"),
    ("SYMBOLS", ","),
    ("SYMBOLS", "BTCUSDT,ETH/USDT"),
    ("SYMBOLS", "BTCUSDT;DROP TABLE trades"),
    ("SYMBOLS", "A" * 33),
    ("SYMBOLS", "..."),
    ("SYMBOLS", "BTC?USDT"),
    ("SYMBOLS", "*/USDT"),
    ("SYMBOLS", "*" + "A" * 33),
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
    ("RETENTION_DAYS", "0"),
    ("RETENTION_DAYS", "90d"),
    ("RETENTION_DAYS", "36501"),
    ("RETENTION_DAYS", "9" * 5_000),
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
        retention_days=None,
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
            "MYSQL_TLS": "required",
            "MYSQL_COMPRESS": "Yes",
            "SYMBOLS": "bnbbtc, SOLUSDT ,,bnbbtc",
            "BINANCE_WS_URL": "ws://127.0.0.1:8080/",
            "BINANCE_REST_URL": "http://127.0.0.1:8080",
            "BINANCE_ARCHIVE_URL": "http://127.0.0.1:8080/archive/",
            "DATA_DIR": "/srv/ticks",
            "RETENTION_DAYS": "90",
            "METRICS_PORT": "9109",
            "METRICS_HOST": "0.0.0.0",
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
        mysql_tls=True,
        mysql_compress=True,
        symbols=("BNBBTC", "SOLUSDT"),
        ws_url="ws://127.0.0.1:8080",
        rest_url="http://127.0.0.1:8080",
        archive_url="http://127.0.0.1:8080/archive",
        data_dir=Path("/srv/ticks"),
        retention_days=90,
        metrics_port=9109,
        metrics_host="0.0.0.0",
    )
    assert not settings.private


@pytest.mark.parametrize("name", ["MYSQL_HOST", "MYSQL_UNIX_SOCKET"])
def test_either_address_means_a_server_of_the_user(name: str) -> None:
    """A host or a socket, either is enough for the private server not to be used."""
    assert not config.load({name: "there"}).private


@pytest.mark.parametrize(
    ("host", "nodes", "words"),
    [
        ("a", [("a", 3306)], "a:3306"),
        ("a:3307", [("a", 3307)], "a:3307"),
        ("a,b:3307, c.example ", [("a", 3306), ("b", 3307), ("c.example", 3306)], "a:3306, b:3307, c.example:3306"),
        ("::1", [("::1", 3306)], "[::1]:3306"),
        ("[::1]:3307,fe80::1%eth0", [("::1", 3307), ("fe80::1%eth0", 3306)], "[::1]:3307, [fe80::1%eth0]:3306"),
        ("a,a:3306", [("a", 3306)], "a:3306"),
    ],
)
def test_the_host_may_be_a_list_of_nodes(host: str, nodes: list[tuple[str, int]], words: str) -> None:
    """In order, each once; those without a port have MYSQL_PORT's."""
    settings = config.load({"MYSQL_HOST": host})
    assert list(settings.nodes) == nodes
    assert settings.server == words
    assert [port for _, port in config.load({"MYSQL_HOST": "a,b:1", "MYSQL_PORT": "9"}).nodes] == [9, 1]


@pytest.mark.parametrize(
    ("given", "needed"),
    [
        ({}, False),
        ({"MYSQL_UNIX_SOCKET": "/run/x.sock"}, False),
        ({"MYSQL_UNIX_SOCKET": "/run/x.sock", "MYSQL_HOST": "db", "MYSQL_TLS": "required"}, False),
        ({"MYSQL_HOST": "localhost"}, False),
        ({"MYSQL_HOST": "LocalHost"}, False),
        ({"MYSQL_HOST": "127.0.0.1"}, False),
        ({"MYSQL_HOST": "127.3.2.1:3307"}, False),
        ({"MYSQL_HOST": "[::1]:3307"}, False),
        ({"MYSQL_HOST": "localhost", "MYSQL_TLS": "required"}, True),
        ({"MYSQL_HOST": "localhost", "MYSQL_SSL_CA": str(CA)}, True),
        ({"MYSQL_HOST": "db"}, True),
        ({"MYSQL_HOST": "db", "MYSQL_TLS": "Required"}, True),
        ({"MYSQL_HOST": "db", "MYSQL_TLS": "OFF"}, False),
        ({"MYSQL_HOST": "128.0.0.1"}, True),
        ({"MYSQL_HOST": "10.0.0.1"}, True),
        ({"MYSQL_HOST": "::"}, True),
        ({"MYSQL_HOST": "localhost.example.org"}, True),
    ],
)
def test_tls_is_required_off_the_loopback(given: dict[str, str], needed: bool) -> None:
    """Unless MYSQL_TLS says otherwise; with a CA always, and never over a socket."""
    settings = config.load(given)
    host = settings.nodes[0][0] if settings.mysql_host else None
    assert settings._replace(mysql_host=host).needs_tls == needed


def test_each_node_has_its_own_answer() -> None:
    """One on this machine may be plain, the others not."""
    settings = config.load({"MYSQL_HOST": "a,127.0.0.1"})
    assert [settings._replace(mysql_host=host).needs_tls for host, _ in settings.nodes] == [True, False]


def test_a_ca_without_tls_is_refused() -> None:
    """Since one of the two is a mistake."""
    with pytest.raises(config.ConfigError, match="MYSQL_TLS='off', but MYSQL_SSL_CA"):
        config.load({"MYSQL_HOST": "a", "MYSQL_TLS": "off", "MYSQL_SSL_CA": str(CA)})


def test_an_empty_value_counts_as_not_set() -> None:
    """Empty and blank values give the defaults, so that a line of .env.example may be left as it is."""
    names = ["MYSQL_HOST", "MYSQL_PORT", "MYSQL_UNIX_SOCKET", "MYSQL_USER", "MYSQL_DATABASE", "MYSQL_SSL_CA", "SYMBOLS"]
    names += ["MYSQL_COMPRESS", "BINANCE_WS_URL", "BINANCE_REST_URL", "BINANCE_ARCHIVE_URL", "DATA_DIR"]
    names += ["RETENTION_DAYS", "MYSQL_TLS", *config.SECRET_FILES]

    assert config.load(dict.fromkeys(names, "")) == config.load(dict.fromkeys(names, " \t")) == config.Settings()


def test_a_password_keeps_its_blanks() -> None:
    """The password is taken as it is, the other values without the blanks around them."""
    settings = config.load({"MYSQL_PASSWORD": "  two words ", "MYSQL_USER": " capture "})

    assert (settings.mysql_password, settings.mysql_user) == ("  two words ", "capture")


@pytest.mark.parametrize(
    ("content", "password"),
    [
        (b"  two words \n", "  two words "),
        (b"no line end", "no line end"),
        (b"of Windows\r\nanother line\n", "of Windows"),
        ("\ufeffmarked ä".encode(), "marked ä"),
        (b"x" * files.SECRET_BYTES_MAX, "x" * files.SECRET_BYTES_MAX),
    ],
    ids=["blanks", "no line end", "of Windows", "marked", "long"],
)
def test_a_secret_may_be_in_a_file(tmp_path: Path, content: bytes, password: str) -> None:
    """Its first line without its line end; a blank variable beside it counts as not set."""
    path = tmp_path / "secret"
    path.write_bytes(content)

    assert config.load({"MYSQL_PASSWORD_FILE": f" {path} ", "MYSQL_PASSWORD": ""}).mysql_password == password
    path.write_text("t0ken\n")
    assert config.recorder_token({"RECORDER_TOKEN_FILE": str(path)}) == "t0ken"
    assert api_settings(API_TOKEN_FILE=str(path)).token == "t0ken"


def api_settings(**environ: str) -> ApiSettings:
    """The settings of an API without flags."""
    options = argparse.Namespace(host=None, port=None, demo=False, cors_origins=None, stale_after=1.0)
    return load_api(options, environ)


@pytest.mark.parametrize("name", config.SECRET_FILES)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "its first line is empty"),
        (b"\nsecond\n", "its first line is empty"),
        (b"s\xe4cret", "is not UTF-8 text"),
        (b"s\0cret", "is no secret"),
        (b"s" * (files.SECRET_BYTES_MAX + 1), "is no secret"),
    ],
    ids=["missing", "empty", "empty line", "latin-1", "zero byte", "too long"],
)
def test_a_file_without_a_secret_is_one_line_that_names_it(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    """And shows nothing of what is in it."""
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(config.ConfigError) as caught:
        config.secret({name: str(path)}, name.removesuffix("_FILE"))

    said = str(caught.value)
    assert said.startswith(f"{name}={str(path)!r}")
    assert words in said
    assert "\n" not in said
    assert "cret" not in said.replace("secret", "")
    assert caught.value.__cause__ is None


def test_a_secret_in_both_ways_is_refused(tmp_path: Path) -> None:
    """Which of them is meant cannot be known; neither is shown."""
    (tmp_path / "file").write_text("one")
    given = {"MYSQL_PASSWORD_FILE": str(tmp_path / "file"), "MYSQL_PASSWORD": "other"}
    with pytest.raises(config.ConfigError, match=r"MYSQL_PASSWORD_FILE=.*, and MYSQL_PASSWORD is set too") as caught:
        config.load(given)
    assert "other" not in str(caught.value)


@pytest.mark.parametrize(("name", "value"), WRONG, ids=[f"{name}={value[:30]}" for name, value in WRONG])
def test_a_wrong_value_is_one_line_that_names_variable_and_value(name: str, value: str) -> None:
    """What cannot be used is a ConfigError whose message is one line with the variable and the value."""
    with pytest.raises(config.ConfigError) as caught:
        config.load({name: value})

    # Of a value of many kilobytes only the start.
    assert f"{name}={value[:200]!r}"[:-1] in str(caught.value)
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


# The file.


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, in which nothing is set, and from which nothing was said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "ROOT", tmp_path / "scripts")
    monkeypatch.setattr(config, "_said", set())
    (tmp_path / "scripts").mkdir()
    for name in config._NAMES:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_file_in_any_encoding_that_says_so(folder: Path, encoding: str) -> None:
    """What Notepad and PowerShell's `>` write; UTF-16 without its mark is refused in one line, as is any other."""
    text = "MYSQL_DATABASE=boerse\r\nMYSQL_PASSWORD='pässwörd'\r\n"
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")
    (folder / ".env").write_bytes(mark + text.encode(encoding))

    settings = config.load()

    assert (settings.mysql_database, settings.mysql_password) == ("boerse", "pässwörd")


@pytest.mark.parametrize(
    "content",
    ["MYSQL_USER=me\n".encode("utf-16-le"), "MYSQL_PASSWORD=pässwörd".encode("latin-1"), b"\xff\xfeM"],
    ids=["no mark", "latin-1", "half a character"],
)
def test_a_file_that_is_no_text_is_one_line(folder: Path, content: bytes) -> None:
    """It names the file, the encoding and the way out."""
    (folder / ".env").write_bytes(content)

    with pytest.raises(config.ConfigError, match=r"^\.env is not UTF-\d+ text \(.*\); save it as UTF-8$") as error:
        config.load()
    assert "\n" not in str(error.value)


def test_the_file_beside_the_scripts_is_read_from_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its paths as seen from there; one in the current folder comes first."""
    (folder / "scripts" / "password").write_text("secret\n")
    text = "MYSQL_DATABASE=beside\nDATA_DIR=./data\nMYSQL_PASSWORD_FILE=password\n"
    (folder / "scripts" / ".env").write_text(text)
    assert config.load().mysql_password == "secret"
    assert config.env_file() == folder / "scripts" / ".env"
    assert (config.load().mysql_database, config.load().data_dir) == ("beside", folder / "scripts" / "data")

    (folder / ".env").write_text("MYSQL_DATABASE=here\nDATA_DIR=./data\n")
    assert (config.load().mysql_database, config.load().data_dir) == ("here", Path("data"))
    monkeypatch.setenv("MYSQL_DATABASE", "environment")
    assert config.load().mysql_database == "environment"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("MYSQL_USER=me\nMYSQL_PASSWORD=x\n", "MYSQL_USER, MYSQL_PASSWORD: set, but not used: neither MYSQL_HOST nor"),
        ("MYSQL_PORT=3307\n", "MYSQL_PORT: set, but not used"),
        ("METRICS_HOST=0.0.0.0\n", "METRICS_HOST: set, but not used: METRICS_PORT is not"),
        ("MYSQL_HOST=a:1,b:2\nMYSQL_PORT=3\n", "MYSQL_PORT: set, but not used: each node in MYSQL_HOST"),
        (
            "MYSQL_UNIX_SOCKET=/run/x.sock\nMYSQL_HOST=db\n",
            "MYSQL_HOST: set, but not used: MYSQL_UNIX_SOCKET is set too",
        ),
        ("MYSQL_HOST=db\nMYSQL_USR=me\n", "MYSQL_USR in .env is no setting; did you mean MYSQL_USER?"),
        ("MYSQL_HOST=db\nBINANCE_KEY=x\n", "BINANCE_KEY in .env is no setting"),
        ("SYMBOL=BTCUSDT\n", "SYMBOL in .env is no setting; did you mean SYMBOLS?"),
    ],
)
def test_what_is_set_but_not_used_is_named(
    folder: Path, caplog: pytest.LogCaptureFixture, text: str, words: str
) -> None:
    """Once, however often the settings are read, and never with its value."""
    (folder / ".env").write_text(text)
    for _ in range(3):
        config.load()

    (record,) = caplog.records
    assert words in record.getMessage()


def test_what_is_used_is_not_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nor what has nothing to do with this program."""
    (folder / ".env").write_text("MYSQL_HOST=db\nMYSQL_USER=me\nSYMBOLS=BTCUSDT\nEDITOR=vi\nAPI_PORT=1\nLANG=C\n")
    config.load()

    assert caplog.records == []


def test_scheme_and_host_in_capitals(folder: Path) -> None:
    """Mean the same, but not to every library."""
    settings = config.load(
        {"BINANCE_WS_URL": "WSS://Stream.Binance.COM:443/", "BINANCE_REST_URL": "Https://API.binance.com"}
    )

    assert (settings.ws_url, settings.rest_url) == ("wss://stream.binance.com:443", "https://api.binance.com")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BINANCE_WS_URL", "wss://stream.binance.com:9443/ws"),
        ("BINANCE_WS_URL", "wss://stream.binance.com:9443/stream/"),
        ("BINANCE_WS_URL", "wss://proxy.example.org/binance/WS"),
        ("BINANCE_REST_URL", "https://api.binance.com/api/v3"),
        ("BINANCE_REST_URL", "https://api.binance.com/api"),
        ("BINANCE_ARCHIVE_URL", "https://data.binance.vision/data"),
    ],
)
def test_an_address_that_has_what_is_added_to_it(name: str, value: str) -> None:
    """It would never find anything: one line names what to leave out."""
    with pytest.raises(config.ConfigError, match=f"{name}=.*leave out"):
        config.load({name: value})
    assert (
        config.load({"BINANCE_WS_URL": "wss://proxy.example.org/binance"}).ws_url == "wss://proxy.example.org/binance"
    )


def test_the_database_in_words() -> None:
    """Its name and its server, without the account."""
    server = config.Settings(mysql_host="db.example.org", mysql_port=3307, mysql_password="secret")

    assert server.place == "binance on db.example.org:3307"
    assert server._replace(mysql_unix_socket="/run/x.sock").place == "binance on the server at /run/x.sock"
    assert config.Settings(data_dir=Path("data")).place == "binance on the private server in data"


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"MYSQL_HOST": "db.example", "MYSQL_PORT": "3307", "MYSQL_USER": "me", "MYSQL_PASSWORD": " p w "},
        {"MYSQL_HOST": "a,b:3307,[::1]:3308", "MYSQL_PORT": "3309", "MYSQL_PASSWORD_FILE": str(CA)},
        {"MYSQL_HOST": "db", "MYSQL_TLS": "off"},
        {"MYSQL_HOST": "db", "MYSQL_TLS": "required"},
        {"MYSQL_UNIX_SOCKET": "/run/mysqld/mysqld.sock", "MYSQL_DATABASE": "other", "SYMBOLS": "币安人生USDT,BTCUSDT"},
        {
            "BINANCE_WS_URL": "ws://127.0.0.1:1",
            "BINANCE_REST_URL": "http://127.0.0.1:2/x",
            "BINANCE_ARCHIVE_URL": "http://127.0.0.1:3",
            "DATA_DIR": "/somewhere/else",
            "RETENTION_DAYS": "7",
        },
    ],
    ids=["nothing", "host", "nodes", "plain", "encrypted", "socket", "addresses"],
)
def test_a_child_gets_the_same_settings(given: dict[str, str]) -> None:
    """By its environment, whatever else is in it; those of the demo with --demo."""
    settings = config.load(given)
    settings = settings._replace(data_dir=settings.data_dir.resolve())
    assert config.load(given | config.as_environment(settings)) == settings
    demo = config.demo_of(settings)
    assert config.demo_of(config.load(config.as_environment(demo))) == demo


def test_a_child_in_another_folder_finds_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths that are relative to our folder are whole ones for it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ca.pem").touch()
    names = {"MYSQL_HOST": "a", "MYSQL_SSL_CA": "ca.pem", "MYSQL_COMPRESS": "on", "DATA_DIR": "here"}
    environ = config.as_environment(config.load(names)) | {"MYSQL_HOST": ""}
    assert (environ["MYSQL_SSL_CA"], environ["DATA_DIR"]) == (str(tmp_path / "ca.pem"), str(tmp_path / "here"))
    assert environ["MYSQL_COMPRESS"] == "1"
    environ = config.as_environment(config.load({"MYSQL_UNIX_SOCKET": "mysqld.sock"}))
    assert environ["MYSQL_UNIX_SOCKET"] == str(tmp_path / "mysqld.sock")


@pytest.mark.parametrize(
    ("text", "wishes", "names", "wanted"),
    [
        ("btcusdt, *eth ,BTCUSDT", ("BTCUSDT", "*ETH"), ("BTCUSDT",), {"BTCUSDT", "BTCETH"}),
        ("all", ("*",), (), {"BTCUSDT", "BTCETH", "ETHUSDT", "ALLUSDT", "币安人生USDT"}),
        ("*USDT", ("*USDT",), (), {"BTCUSDT", "ETHUSDT", "ALLUSDT", "币安人生USDT"}),
        ("B*T", ("B*T",), (), {"BTCUSDT"}),
        ("ALLUSDT", ("ALLUSDT",), ("ALLUSDT",), {"ALLUSDT"}),
        ("币*", ("币*",), (), {"币安人生USDT"}),
    ],
)
def test_symbols_may_be_patterns(text: str, wishes: tuple[str, ...], names: tuple[str, ...], wanted: set[str]) -> None:
    """A star stands for any characters, ALL for every symbol; a name that begins with ALL is a name."""
    settings = config.load({"SYMBOLS": text})
    assert (settings.symbols, settings.names) == (wishes, names)
    known = ["BTCUSDT", "BTCETH", "ETHUSDT", "ALLUSDT", "币安人生USDT"]
    assert settings.wanted(known) == wanted
    assert settings.chosen(known) == (*names, *sorted(wanted - set(names)))


def test_a_pattern_where_only_names_can_be_is_refused() -> None:
    """Of a report, say; the message says so."""
    with pytest.raises(config.ConfigError, match="'\\*USDT' is a pattern"):
        config.parse_symbols("--symbol", "BTCUSDT,*USDT")
