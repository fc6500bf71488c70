"""Settings that are in files: those of `.env`, and secrets, each in a file of its own."""

import codecs
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from dotenv import dotenv_values

SECRET_BYTES_MAX = 4_096
"""Of the first line of a file with a secret."""

# The longer mark first: that of UTF-32 begins like that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class ConfigError(Exception):
    """A setting that cannot be used; the message names the variable, the value and the way out."""


def read(path: Path, places: Iterable[str]) -> dict[str, str]:
    """The settings in a `.env`; those in `places` are paths, which are relative to its folder if it is not in the
    current one. Raises ConfigError."""
    # Not interpolated: a password with ${…} in it must arrive as it was written.
    values = dotenv_values(stream=io.StringIO(_text(path)), interpolate=False)
    found = {name: value for name, value in values.items() if value is not None}
    if path.is_absolute():
        for name in places:
            value = found.get(name, "").strip()
            if value and not value.startswith("~"):
                found[name] = str(path.parent / value)
    return found


def _text(path: Path) -> str:
    """What the file says: UTF-8, or what its mark says, as PowerShell's `>` writes it. Raises ConfigError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; make it readable for this account") from error
    encoding = next((encoding for mark, encoding in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
        if "\0" not in text:
            return text
        why = "it has zero bytes, as UTF-16 without a mark has"
    except UnicodeError as error:
        why = str(error)
    raise ConfigError(f"{path} is not {encoding.removesuffix('-sig').upper()} text ({why[:100]}); save it as UTF-8")


def secret(environ: Mapping[str, str], name: str) -> str:
    """The secret in the variable `name`, or else the first line of the file in `name`_FILE; empty: neither is set.

    Raises ConfigError, which never shows it.
    """
    given, place = environ.get(name, ""), environ.get(f"{name}_FILE", "").strip()
    if not place:
        return given
    where = f"{name}_FILE={place!r}"
    if given.strip():
        raise ConfigError(f"{where}, and {name} is set too: give the secret in one of them")
    try:
        with open(place, "rb") as file:
            line = file.readline(SECRET_BYTES_MAX + 1)
        text = line.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise ConfigError(f"{where} cannot be read: {error.strerror}; name a file that this account can read") from None
    except ValueError:
        # Not the decoder's words, which have a byte of it; open() refuses a name with a zero byte.
        raise ConfigError(f"{where} is not UTF-8 text; save it as UTF-8") from None
    if not text or "\0" in text or len(line) > SECRET_BYTES_MAX:
        what = "is empty" if not text else f"is no secret: it has more than {SECRET_BYTES_MAX} bytes, or a zero byte"
        raise ConfigError(f"{where}: its first line {what}; write the secret there, and nothing else")
    return text
