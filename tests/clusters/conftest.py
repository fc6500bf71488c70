"""Fixtures: the clusters, which all tests of a module share."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import mysql.connector
import pytest

from mysqld import program
from process.child import ROOT
from tests.conftest import _Farm
from tools.lab import clusters


def _fetched(file: Path) -> None:
    """Skips if `file` could not be had."""
    if not file.exists():
        why = file.parent / "why"
        pytest.skip(
            why.read_text().strip() if why.exists() else f"no {file.relative_to(ROOT)}: `make clusters` fetches it"
        )


def _of(farm: _Farm, family: str) -> tuple[program.Binary, Path]:
    return farm._template(family)


@pytest.fixture(scope="module")
def galera(_farm: _Farm) -> Iterator[clusters.Galera]:
    """A Galera cluster of three nodes of MariaDB."""
    _fetched(clusters.GALERA)
    with clusters.galera(*_of(_farm, "mariadb")) as running:
        yield running


@pytest.fixture(scope="module")
def group(_farm: _Farm) -> Iterator[clusters.Group]:
    """A group of three nodes of MySQL with one primary."""
    with ExitStack() as stack:
        try:
            running = stack.enter_context(clusters.group(*_of(_farm, "mysql")))
        except mysql.connector.Error as error:
            pytest.skip(f"this MySQL has no group replication: {error}")
        yield running


@pytest.fixture(scope="module")
def spider(_farm: _Farm) -> Iterator[clusters.Spider]:
    """A server with Spider, and two shards."""
    _fetched(clusters.SPIDER)
    with clusters.spider(*_of(_farm, "mariadb")) as running:
        yield running
