"""The metrics of the capture and of the API: sound by promtool, scraped by a real Prometheus, with rules that fire."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import db
from capture import metrics
from capture.metrics import SYMBOLS_MAX, CaptureCollector
from capture.progress import Lags, Snapshot
from process.child import ROOT
from tests.makers import MIDNIGHT, trade
from tests.support.child import wait_until
from tests.support.harness import REAL, Rig
from tests.support.servers import Server
from tests.support.serving import serving
from tests.support.until_stdin_closes import running
from tools.lab.children import wait_for
from tools.lab.servers import free_port
from tools.lab.verdict import DIRECT

pytestmark = pytest.mark.slow

DEPLOY = ROOT / "deploy" / "prometheus"
PROGRAMS = ROOT / ".cache" / "prometheus" / "usr" / "bin"
S_MAX = 40.0
needs_prometheus = pytest.mark.skipif(
    not (PROGRAMS / "promtool").exists(), reason="no Prometheus; `make test` fetches it on Debian"
)


def fetch(url: str) -> str:
    """The body of a GET; empty while nobody answers."""
    try:
        with DIRECT.open(url, timeout=S_MAX) as reply:
            return str(reply.read().decode())
    except urllib.error.URLError:
        return ""


def values(text: str) -> dict[str, float]:
    """Each sample by its name and labels."""
    return {
        sample.name + "".join(f"{{{name}={value}}}" for name, value in sample.labels.items()): float(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def promtool(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """What promtool says."""
    return subprocess.run(
        [str(PROGRAMS / "promtool"), *words], input=text, capture_output=True, text=True, timeout=S_MAX
    )


# What a capture of 300 trades tells at last: each of its two connections received them all, one of the two stored each.
FINAL = {
    "recorder_trades_received_total 600.0",
    "recorder_trades_stored_total 300.0",
    "recorder_trades_duplicate_total 300.0",
}


@needs_prometheus
def test_a_capture_tells_what_its_summary_tells(any_server: Server, tmp_path: Path) -> None:
    """Sound by promtool; each counter is that of the summary; the lag has as many samples as it says."""
    port = free_port()
    with Rig(
        any_server, tmp_path, ("--rate", "100", "--trades", "300", "--wait-clients", "2", "--after-end", "stay")
    ) as rig:
        capture = rig.capture(REAL, METRICS_PORT=str(port), METRICS_HOST="127.0.0.2")
        capture.start()
        wait_for(
            "each connection has received all",
            lambda: set(fetch(f"http://127.0.0.2:{port}/metrics").splitlines()) >= FINAL,
            S_MAX,
        )
        text = fetch(f"http://127.0.0.2:{port}/metrics")
        summary = capture.stop()
    checked = promtool("check", "metrics", text=text)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    found = values(text)
    parsed, inserted, duplicate, dropped = re.findall(r"\d+", summary.splitlines()[0])[:4]
    assert found["recorder_trades_received_total"] == int(parsed)
    assert found["recorder_trades_stored_total"] == int(inserted) == 300
    assert found["recorder_trades_duplicate_total"] == int(duplicate)
    assert found["recorder_trades_dropped_total"] == int(dropped) == 0
    assert (found["recorder_database_up"], found["recorder_connections_open"]) == (1, 2)
    assert (found["recorder_groups"], found["recorder_groups_closed"], found["recorder_spool_trades"]) == (1, 0, 0)
    assert 0 < found["recorder_trade_lag_seconds_count"] == found["recorder_trade_lag_seconds_bucket{le=+Inf}"] <= 300
    newest = found["recorder_newest_trade_timestamp_seconds"]
    assert newest == max(found[f"recorder_last_trade_timestamp_seconds{{symbol={name}}}"] for name in rig.symbols)
    assert abs(newest - time.time()) < S_MAX + 30


def test_a_port_that_is_taken_is_a_mistake(any_server: Server, tmp_path: Path) -> None:
    """One line, and nothing is captured without what was asked for."""
    with Rig(any_server, tmp_path) as rig, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        capture = rig.capture(REAL, METRICS_PORT=str(port))
        capture.start()
        assert capture.process.wait(S_MAX) == 2
    assert capture.process.last_words().splitlines()[-1].startswith(f"ws_client.py: METRICS_PORT={port}: ")


def test_a_capture_without_metrics_does_not_load_their_library() -> None:
    """It costs megabytes that most captures need not."""
    code = "import sys, ws_client; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=S_MAX).returncode == 0


def test_many_symbols_are_few_series() -> None:
    """Those whose newest trade is the oldest; and the newest of all."""
    last_at = {f"S{number:04}": MIDNIGHT + timedelta(seconds=number) for number in range(1_500)}
    names = (*metrics._COUNTERS, *metrics._GAUGES)
    snapshot = Snapshot(dict.fromkeys(names, 0), last_at, Lags(), 0, True, 2, 1, 0)
    families = {one.name: one for one in CaptureCollector(lambda: snapshot).collect()}
    each = families["recorder_last_trade_timestamp_seconds"].samples
    assert [one.labels["symbol"] for one in each] == [f"S{number:04}" for number in range(SYMBOLS_MAX)]
    (newest,) = families["recorder_newest_trade_timestamp_seconds"].samples
    assert newest.value == last_at["S1499"].timestamp()


@needs_prometheus
def test_the_api_tells_what_is_stored(any_server: Server, tmp_path: Path) -> None:
    """Open gaps, newest trades and verdicts; sound by promtool; with a token only for who shows it."""
    settings = any_server.settings("test_metrics", tmp_path)
    environ = any_server.environ | {"MYSQL_DATABASE": "test_metrics", "DATA_DIR": str(tmp_path)}
    connection = db.connect(settings)
    try:
        db.insert_trades(connection, [trade(1), trade(5), trade(6, symbol="ETHUSDT")])
        with serving(environ) as api, serving(environ | {"API_TOKEN": "s" * 20}) as guarded:
            for one in (api, guarded):
                wait_until(lambda one=one: one.get("/healthz").status in (200, 503))  # type: ignore[misc]
            wait_until(lambda: "recorder_api_database_up 1.0" in api.get("/metrics").body)
            reply, refused = api.get("/metrics"), guarded.get("/metrics")
            shown = guarded.get("/metrics", {"Authorization": f"Bearer {'s' * 20}"})
    finally:
        with any_server.connect() as root, root.cursor() as cursor:
            cursor.execute("DROP DATABASE test_metrics")
        db.close(connection)
    assert (reply.status, refused.status, shown.status) == (200, 401, 200)
    checked = promtool("check", "metrics", text=reply.body)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    found = values(reply.body)
    assert (found["recorder_stored_gaps_open"], found["recorder_stored_ids_missing"]) == (1, 3)
    assert found["recorder_stored_symbols"] == 2
    assert found["recorder_stored_trade_timestamp_seconds{symbol=ETHUSDT}"] == MIDNIGHT.timestamp()


@needs_prometheus
def test_the_rules_are_sound_and_each_is_tested() -> None:
    """An alert that no test makes fire, or keeps quiet, would not be known to work."""
    for words in (("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")):
        done = subprocess.run(
            [str(PROGRAMS / "promtool"), *words], cwd=DEPLOY, capture_output=True, text=True, timeout=S_MAX
        )
        assert done.returncode == 0, done.stdout + done.stderr
    alerts = re.findall(r"alert: (\w+)", (DEPLOY / "alerts.yml").read_text())
    quiet, loud = (DEPLOY / "alerts_test.yml").read_text().split("name: each alert comes")
    assert len(alerts) == 11
    for alert in alerts:
        assert re.search(rf"alertname: {alert}\b", quiet)
        assert re.search(rf"alertname: {alert}\s+exp_alerts", loud)


def test_the_rules_use_metrics_that_there_are() -> None:
    """A misspelt name would never fire."""
    told = (ROOT / "capture" / "metrics.py").read_text() + (ROOT / "tools" / "api" / "metrics.py").read_text()
    for name in set(re.findall(r"recorder_\w+", (DEPLOY / "alerts.yml").read_text())):
        assert f'"{re.sub("_(total|bucket)$", "", name)}"' in told, name


@contextmanager
def prometheus(folder: Path, capture_port: int, api: str) -> Iterator[str]:
    """A Prometheus with our configuration for these two addresses; its own."""
    text = (DEPLOY / "prometheus.yml").read_text()
    for ours, theirs in (("127.0.0.1:9109", f"127.0.0.1:{capture_port}"), ("127.0.0.1:8000", api), ("5s", "1s")):
        assert ours in text
        text = text.replace(ours, theirs)
    (folder / "prometheus.yml").write_text(text)
    (folder / "alerts.yml").write_text((DEPLOY / "alerts.yml").read_text())
    port = free_port()
    command = [str(PROGRAMS / "prometheus"), f"--config.file={folder / 'prometheus.yml'}"]
    command += [f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}"]
    with running(command, folder / "prometheus.log"):
        yield f"http://127.0.0.1:{port}"


def ask(url: str, query: str) -> list[float]:
    """What Prometheus answers to a query, now."""
    body = fetch(f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}")
    found: Any = json.loads(body) if body else {"data": {"result": []}}
    return [float(one["value"][1]) for one in found["data"]["result"]]


@needs_prometheus
def test_a_real_prometheus_scrapes_both(any_server: Server, tmp_path: Path) -> None:
    """It has the trades that were stored, and the alert that the database is away once it is."""
    port = free_port()
    with Rig(any_server, tmp_path, ("--rate", "100")) as rig:
        capture = rig.capture(REAL, METRICS_PORT=str(port))
        capture.start()
        rig.stores()
        with serving(rig.environ) as api, prometheus(tmp_path, port, api.address.removeprefix("http://")) as url:
            wait_for("both are scraped", lambda: ask(url, "sum(up)") == [2], S_MAX)
            wait_for("trades are counted", lambda: sum(ask(url, "recorder_trades_stored_total")) > 100, S_MAX)
            wait_for("the table is told", lambda: ask(url, "recorder_stored_symbols") == [2], S_MAX)
            # One that is not firing waits to see whether what it saw goes on.
            assert ask(url, 'ALERTS{alertname!="RecorderGapOpen",alertstate="firing"}') == []
            capture.stop()
            wait_for("it is missed", lambda: ask(url, 'ALERTS{alertname="RecorderDown"}') == [1], S_MAX)
