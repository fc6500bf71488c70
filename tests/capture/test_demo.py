"""Where the exchange of a running demo is found, by commands beside it."""

from pathlib import Path

import pytest

import config
from capture import demo
from capture.demo import ADDRESS


def test_the_exchange_of_the_running_demo(tmp_path: Path) -> None:
    """Its address, for REST and for the archive; other settings stay as they are."""
    settings = config.demo_of(config.Settings(data_dir=tmp_path))
    settings.capture_dir.mkdir()
    (settings.capture_dir / ADDRESS).write_text("http://127.0.0.1:4321")
    wanted = settings._replace(rest_url="http://127.0.0.1:4321", archive_url="http://127.0.0.1:4321")
    assert demo.found(settings) == wanted


def test_no_demo_runs(tmp_path: Path) -> None:
    """Made-up trades are not compared with those of the real exchange; an address that was given is used."""
    settings = config.demo_of(config.Settings(data_dir=tmp_path))
    with pytest.raises(config.ConfigError, match="the stand-in exchange does not run; start `make demo`"):
        demo.found(settings)
    given = settings._replace(rest_url="http://127.0.0.1:1")
    assert demo.found(given) == given
