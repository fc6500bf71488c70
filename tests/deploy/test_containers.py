"""The image's recipe and compose.yaml: sound, with what they name, hardened, and without a secret."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import compose_spec
import pytest
import yaml  # type: ignore[import-untyped]

import config
from process.child import ROOT
from tests.support.tls import needs_openssl
from tests.test_architecture import FOLDERS, SHOWN

DEPLOY = ROOT / "deploy"
RECIPE = DEPLOY / "Dockerfile"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
PROMTOOL = ROOT / ".cache" / "prometheus" / "usr" / "bin" / "promtool"


def hadolint(text: str) -> subprocess.CompletedProcess[str]:
    """What the linter says about a recipe."""
    program = Path(sys.executable).with_name("hadolint")
    return subprocess.run([str(program), "-"], input=text, capture_output=True, text=True, timeout=60)


def test_the_recipe_is_sound() -> None:
    """The linter finds nothing, not even in style."""
    done = hadolint(RECIPE.read_text())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_wrong_in_a_recipe_is_seen() -> None:
    """So that the test above can fail."""
    assert "DL3006" in hadolint(RECIPE.read_text().replace(":bookworm-slim", "")).stdout


def test_the_compose_file_is_one() -> None:
    """By the rules of the Compose specification; an unknown key is an error."""
    assert set(compose_spec.PyCompose.from_json(json.dumps(COMPOSE)).service_names()) == set(SERVICES)
    wrong = COMPOSE | {"services": {"api": SERVICES["api"] | {"read_onyl": True}}}
    with pytest.raises(ValueError, match="read_onyl"):
        compose_spec.PyCompose.from_json(json.dumps(wrong))


def mounts(service: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """What each mount of a service has, where, and whether it may be written."""
    for line in service.get("volumes", ()):
        source, target, *mode = line.split(":")
        yield source, target, mode != ["ro"]


def test_all_that_is_named_is_there() -> None:
    """Files, volumes, networks, services, and modules that are run."""
    named = {source for service in SERVICES.values() for source, _, _ in mounts(service)}
    files = {source for source in named if source.startswith(".")}
    assert len(files) == 5
    assert [source for source in files if not (DEPLOY / source).exists()] == []
    assert named - files == set(COMPOSE["volumes"])
    assert {name for service in SERVICES.values() for name in service.get("networks", ())} == set(COMPOSE["networks"])
    for service in OURS.values():
        build = service["build"]
        assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == RECIPE
        match service.get("command", ["ws_client.py"]):
            case ["-m", module, *_]:
                assert list(ROOT.glob(f"{module.replace('.', '/')}*"))
            case [script, *_]:
                assert (ROOT / script).exists()


def test_a_service_waits_only_for_what_is_started_with_it() -> None:
    """What has no profile does not need the demo; what is only waited for until it ends, ends."""
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            assert set(SERVICES[other].get("profiles", ())) <= set(service.get("profiles", ())), name
            ends = how["condition"] == "service_completed_successfully"
            assert ends == (SERVICES[other].get("restart") == "no"), name
            healthy = how["condition"] == "service_healthy"
            assert not healthy or "test" in SERVICES[other]["healthcheck"], name


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_may_do_little(name: str) -> None:
    """It writes to its volumes and /tmp, has no capability, and only this machine reaches it; its log is bounded."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "/tmp" in service["tmpfs"]
    assert service["logging"]["options"]["max-size"]
    assert [port for port in service.get("ports", ()) if not port.startswith("127.0.0.1:")] == []
    assert name in OURS or re.search(r":v?\d+\.\d+\.\d+$", service["image"])
    assert not service.get("privileged")
    assert set(service.get("profiles", ())) == ({"demo"} if name.startswith("demo") else set())


@pytest.mark.parametrize("name", OURS)
def test_settings_are_ours(name: str) -> None:
    """A misspelt one would be nobody's; the recipe's too."""
    asked = OURS[name].get("environment", {})
    assert set(asked) <= set(config._NAMES)
    assert {"DATA_DIR", "METRICS_PORT"} <= set(re.findall(r"\b([A-Z_]+)=", RECIPE.read_text()))


def test_nothing_secret_is_in_it() -> None:
    """Passwords and tokens come from files, each of a volume that the service mounts, to read only."""
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|TOKEN|SECRET|KEY", variable):
                assert variable.endswith("_FILE"), name
                assert value.startswith("/secrets/"), name
        mounted = {target for _, target, _ in mounts(service) if target.startswith("/secrets")}
        used = set(re.findall(r"/secrets/\w+", json.dumps([service.get("environment"), service.get("command")])))
        if name in OURS:
            assert used == mounted or name == "secrets", name
        assert used <= mounted, name
        written = {target for _, target, writes in mounts(service) if writes and target.startswith("/secrets")}
        # tools.users makes what is missing.
        assert written <= {"/secrets/accounts"} or name == "secrets", name


@needs_openssl
def test_what_is_secret_is_made_once(tmp_path: Path) -> None:
    """Every file that somebody mounts; a certificate for the name that the server has; the second time nothing."""
    folders = {target for _, target, _ in mounts(SERVICES["secrets"])}
    for folder in folders:
        (tmp_path / Path(folder).name).mkdir()
    line = ["sh", str(DEPLOY / "compose" / "secrets.sh"), str(tmp_path)]
    subprocess.run(line, check=True, capture_output=True, timeout=60)

    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    texts = [json.dumps(SERVICES), (DEPLOY / "compose" / "datasource.yaml").read_text()]
    texts.append((DEPLOY / "compose" / "prometheus.yml").read_text())
    wanted = {Path(path) for text in texts for path in re.findall(r"/secrets/(\w+/[\w.]+)", text)}
    assert wanted <= set(made)
    assert made[Path("writer/password")] == made[Path("accounts/writer")] != made[Path("reader/password")]
    assert all(len(made[path].strip()) >= 48 for path in made if path.suffix != ".pem")
    verify = ["openssl", "verify", "-verify_hostname", "db", "-CAfile", "ca/ca.pem", "server/cert.pem"]
    subprocess.run(verify, cwd=tmp_path, check=True, capture_output=True)
    assert b"CA:TRUE" not in subprocess.run(
        ["openssl", "x509", "-in", "server/cert.pem", "-noout", "-text"], cwd=tmp_path, check=True, capture_output=True
    ).stdout.replace(b" ", b"")

    subprocess.run(line, check=True, capture_output=True, timeout=60)
    assert {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == made


@needs_openssl
def test_a_secret_that_cannot_be_made_ends_it(tmp_path: Path) -> None:
    """Or all would be started without one, and say something else."""
    for folder in {target for _, target, _ in mounts(SERVICES["secrets"])}:
        (tmp_path / Path(folder).name).mkdir()
    (tmp_path / "grafana" / "password.new").mkdir()
    line = ["sh", str(DEPLOY / "compose" / "secrets.sh"), str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "password.new" in done.stderr
    assert done.stdout == ""


def test_the_image_gets_the_program_and_nothing_else() -> None:
    """Each folder and file that is run; no tests, no data, no .env."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    folders = FOLDERS - {"docs", "deploy", "tests"}
    needed = {f"requirements{part}.txt" for part in ("", "-demo", "-tools")}
    assert kept == {*folders, *needed, "*.py", "schema.sql", "LICENSE", "deploy/compose"}
    assert {name for name in SHOWN if not name.endswith(".py")} == {"schema.sql"}


def test_prometheus_asks_the_programs() -> None:
    """As deploy/prometheus does on one machine, but by their names, and with the token."""
    plain = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    ours = yaml.safe_load((DEPLOY / "compose" / "prometheus.yml").read_text())
    for job in ours["scrape_configs"]:
        (target,) = job["static_configs"][0]["targets"]
        service, port = target.split(":")
        job["static_configs"][0]["targets"] = [f"127.0.0.1:{port}"]
        assert {"METRICS_HOST", "API_HOST"} & set(OURS[service]["environment"])
        token = job.pop("authorization", None)
        assert (token is None) == ("API_TOKEN_FILE" not in OURS[service]["environment"])
    assert ours == plain


def test_grafana_reads_the_database() -> None:
    """As deploy/grafana does, but encrypted, and with the password from a file."""
    plain = yaml.safe_load((DEPLOY / "grafana" / "provisioning" / "datasources" / "mysql.yaml").read_text())
    ours = yaml.safe_load((DEPLOY / "compose" / "datasource.yaml").read_text())
    (before,), (after,) = plain["datasources"], ours["datasources"]
    assert after["url"] == "db:3306"
    assert after["user"] == OURS["api"]["environment"]["MYSQL_USER"]
    assert after["jsonData"].pop("tlsAuthWithCACert") is True
    assert after["jsonData"]["database"] == config.Settings().mysql_database
    for one in (before, after):
        one["jsonData"].pop("database")
        for name in ("url", "user", "secureJsonData"):
            one.pop(name)
    assert after == before


@pytest.mark.skipif(not PROMTOOL.exists(), reason="no Prometheus; `make test` fetches it on Debian")
def test_prometheus_takes_its_settings(tmp_path: Path) -> None:
    """By promtool, with the alert rules beside them as compose.yaml mounts them."""
    (tmp_path / "alerts.yml").write_text((DEPLOY / "prometheus" / "alerts.yml").read_text())
    (tmp_path / "token").touch()
    text = (DEPLOY / "compose" / "prometheus.yml").read_text().replace("/secrets/api/token", str(tmp_path / "token"))
    (tmp_path / "prometheus.yml").write_text(text)
    done = subprocess.run(
        [str(PROMTOOL), "check", "config", "prometheus.yml"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
