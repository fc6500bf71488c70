"""Files that appear complete or not at all: written under another name, hashed while written, renamed at the end.

Or stdout, where nothing is renamed: whoever reads it sees from the exit code whether it is complete.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

FOLDER_MANIFEST = "_manifest.json"
"""It starts with an underscore so that readers of a partitioned Parquet folder skip it."""


class ExportError(Exception):
    """The export failed; one line that says what to do."""


class Place(NamedTuple):
    """Where an export goes: `target` is its final name, `stage` its name until then."""

    target: Path
    stage: Path
    folder: bool

    @property
    def manifest(self) -> Path:
        """The final name of the manifest: beside a file, inside a folder."""
        if self.folder:
            return self.target / FOLDER_MANIFEST
        return self.target.with_name(f"{self.target.name}.manifest.json")


@contextmanager
def staged(target: Path, folder: bool, force: bool) -> Iterator[Place]:
    """A place to write to, removed if the block raises; publish() renames it.

    Raises OSError, and unless `force`, ExportError if something is already there.
    """
    stage = target.with_name(f".{target.name}.{os.getpid()}.part")
    place = Place(target, stage, folder)
    _refuse(place, force)
    try:
        if folder:
            stage.mkdir()
        yield place
    finally:
        _remove(stage)


def _refuse(place: Place, force: bool) -> None:
    target = place.target
    if not target.parent.is_dir():
        raise ExportError(f"the folder {target.parent} does not exist; create it, or give another name")
    if not os.path.lexists(target) and (place.folder or not place.manifest.exists()):
        return
    if not force:
        raise ExportError(f"{target} already exists; give another name, or --force to replace it")
    # Only an earlier export is replaced as a whole: a typing mistake must not delete a home directory.
    if target.is_dir() and not (place.folder and place.manifest.exists()):
        raise ExportError(f"{target} is a folder, but not an earlier export; give another name")
    if place.folder and target.exists() and not target.is_dir():
        raise ExportError(f"{target} is a file, but --partition creates a folder; give another name")


def publish(place: Place, manifest: dict[str, Any]) -> None:
    """Gives the export and its manifest their final names. Raises OSError."""
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    if place.folder:
        _write(place.stage / FOLDER_MANIFEST, text)
        aside = place.stage.with_name(place.stage.name + "-old")
        if place.target.exists():
            place.target.rename(aside)
        place.stage.rename(place.target)
        _remove(aside)
        return
    # A manifest must never stand beside a file that it does not describe.
    place.manifest.unlink(missing_ok=True)
    place.stage.replace(place.target)
    hidden = place.stage.with_name(place.stage.name + "-manifest")
    _write(hidden, text)
    hidden.replace(place.manifest)


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


class Output:
    """A new binary file, or stdout if there is no path, written from start to end, that knows its size and its SHA-256.

    As a context manager it ends by waiting until everything is on disk. After the block has raised, it discards
    whatever a format's library still writes during its own clean-up.
    """

    def __init__(self, path: Path | None) -> None:
        self.bytes = 0
        self._abandoned = False
        self._is_stdout = path is None
        if path is None:
            self._file = sys.stdout.buffer
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("xb")
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """The number of bytes; all of them are written."""
        if self._abandoned:
            return memoryview(data).nbytes
        self._file.write(data)
        self._hash.update(data)
        size = memoryview(data).nbytes
        self.bytes += size
        return size

    def tell(self) -> int:
        """The position, which is always the end."""
        return self.bytes

    def flush(self) -> None:
        """Hands everything to the operating system."""
        self._file.flush()

    @property
    def closed(self) -> bool:
        """Whether no more can be written."""
        return self._file.closed

    def close(self) -> None:
        """Does nothing: the block closes the file, because a format's library may call this too early."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._abandoned = kind is not None
        if self._is_stdout:
            if not self._abandoned:
                self._file.flush()
            return
        with self._file:
            if not self._abandoned:
                self._file.flush()
                os.fsync(self._file.fileno())

    @property
    def sha256(self) -> str:
        """The hash of everything written, in hexadecimal."""
        return self._hash.hexdigest()
