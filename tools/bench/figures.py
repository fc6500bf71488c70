"""The figures of the benchmark: the values of several runs, their bounds, the table, the JSON, and the machine."""

import os
import platform
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import db

PACKAGES = ("websocket-client", "mysql-connector-python", "msgspec")
DIGITS = 3
"""Significant digits in the table; the JSON has them all."""


class Bound(NamedTuple):
    """What a figure must reach, and what it aims at; `at_least`: more is better."""

    must: float
    aim: float
    at_least: bool

    def verdict(self, value: float) -> str:
        """ "aim" if the aim is met, "must" if only the other bound is, "MISSED" if neither is."""
        for name, bound in (("aim", self.aim), ("must", self.must)):
            if value >= bound if self.at_least else value <= bound:
                return name
        return "MISSED"


def at_least(must: float, aim: float) -> Bound:
    """The bound of a figure for which more is better."""
    return Bound(must, aim, True)


def at_most(must: float, aim: float) -> Bound:
    """The bound of a figure for which less is better."""
    return Bound(must, aim, False)


class Figure(NamedTuple):
    """One figure: a value per run. Without a bound it is information."""

    part: str
    name: str
    unit: str
    values: list[float]
    bound: Bound | None = None

    @property
    def median(self) -> float:
        """The value that is compared with the bound."""
        return float(median(self.values))

    @property
    def verdict(self) -> str:
        """Whether the bound is met, in a word; empty without a bound."""
        return self.bound.verdict(self.median) if self.bound else ""

    def as_json(self) -> dict[str, Any]:
        """The figure with all its values, for programs."""
        bound = {"must": self.bound.must, "aim": self.bound.aim, "at_least": self.bound.at_least} if self.bound else {}
        return {
            "part": self.part,
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "min": min(self.values),
            "max": max(self.values),
            "values": self.values,
            **bound,
            "verdict": self.verdict,
        }


def table(figures: Sequence[Figure]) -> str:
    """The figures in columns, each beside its bounds."""
    rows = [("part", "figure", "median", "min – max", "unit", "must", "aim", "met")]
    for figure in figures:
        sign = {True: "≥", False: "≤"}[figure.bound.at_least] if figure.bound else ""
        rows.append(
            (
                figure.part,
                figure.name,
                number(figure.median),
                f"{number(min(figure.values))} – {number(max(figure.values))}" if len(figure.values) > 1 else "",
                figure.unit,
                f"{sign} {number(figure.bound.must)}" if figure.bound else "",
                f"{sign} {number(figure.bound.aim)}" if figure.bound else "",
                figure.verdict,
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numeric = (False, False, True, True, False, True, True, False)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in rows
    )


def number(value: float) -> str:
    """Three significant digits, but a whole number as it is: 0.0123, 1.23, 12.3, 12,345."""
    if abs(value) >= 10**DIGITS or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.{DIGITS}g}"


def machine(folder: Path) -> dict[str, Any]:
    """What the figures depend on besides the program; `folder` is where the database is."""
    return {
        "cpu": _first(r"^model name\s*: (.*)$", Path("/proc/cpuinfo")) or platform.processor(),
        "cores": os.cpu_count(),
        "memory_mb": int(_first(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo")) or 0) // 1024,
        "load_before": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.release()}",
        "file_system": _file_system(folder),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "c_extension": db.is_fast(),
    }


def _first(pattern: str, path: Path) -> str:
    try:
        found = re.search(pattern, path.read_text(), re.M)
    except OSError:
        return ""
    return found[1] if found else ""


def _file_system(folder: Path) -> str:
    """The file system of `folder`, such as "ext4"; a database on tmpfs has no disk to wait for."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return ""
    around = [(len(point), kind) for point, kind in mounts if folder.resolve().is_relative_to(point)]
    return max(around)[1] if around else ""
