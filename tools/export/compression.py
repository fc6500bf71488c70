"""Compressed files: the ending of a name says how. Between a format's writer and the file that it goes into."""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from tools.export.files import ExportError, Output


class Sink(Protocol):
    """What a format's writer writes to."""

    def write(self, data: bytes) -> int:
        """The number of bytes; all of them are written."""


class Gzip:
    """Compresses into `output` as gzip does, without a name and a time, so that the same trades are the same file."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._deflate = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)

    def write(self, data: bytes) -> int:
        """The number of bytes; all of them are taken."""
        self._output.write(self._deflate.compress(data))
        return len(data)

    def close(self) -> None:
        """Writes what is left, and the checksum."""
        self._output.write(self._deflate.flush())


def _zstd(output: Output) -> Any:
    try:
        import pyarrow as pa  # type: ignore[import-untyped]
    except ImportError as error:
        raise ExportError(f".zst needs another package: pip install -r requirements-tools.txt ({error})") from error
    return pa.CompressedOutputStream(output, "zstd")


COMPRESSORS: dict[str, Callable[[Output], Any]] = {".gz": Gzip, ".zst": _zstd}
"""What is opened around a file whose name has the ending; it takes write(), and close() at the end."""


def ending_of(path: Path) -> str | None:
    """The ending of a name that asks for compression; None: it asks for none."""
    ending = path.suffix.lower()
    return ending if ending in COMPRESSORS else None
