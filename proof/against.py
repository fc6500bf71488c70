"""What a day is compared with: what a word names, a file of the archive on this disk, or a certificate."""

import re
from datetime import date
from pathlib import Path

from binance.archive_file import ArchiveFile, Defect
from proof.certificate import Certificate, sha256_of
from proof.days import ARCHIVE, AUTO, KLINES, NONE, Auditor, Finding, Other

_NAME = re.compile(r"(?P<symbol>.+)-trades-(?P<period>\d{4}-\d{2}(?:-\d{2})?)\.zip", re.ASCII)


class AgainstError(Exception):
    """What a day is to be compared with is not there, or of no use; the message names it."""


class Word:
    """The archive, the klines, whichever there is, or nothing."""

    is_file = False

    def __init__(self, word: str) -> None:
        self._word = word

    def covers(self, symbol: str, day: date) -> bool:
        """Whether it may say anything of that day."""
        return True

    def audit(self, auditor: Auditor, symbol: str, day: date) -> Finding:
        """What is found on a day."""
        return auditor.audit(symbol, day, self._word)


class File:
    """A daily or monthly file of the archive, under the name that it has there."""

    is_file = True

    def __init__(self, path: Path, symbol: str, period: str) -> None:
        self._path, self._symbol, self._period = path, symbol, period

    def covers(self, symbol: str, day: date) -> bool:
        """Whether it is of that day."""
        return symbol == self._symbol and str(day).startswith(self._period)

    def audit(self, auditor: Auditor, symbol: str, day: date) -> Finding:
        """What is found on a day. Raises AgainstError if the file is of no use."""
        path = self._path
        file = ArchiveFile(path, f"{path.stem}.csv", day, monthly=self._period != str(day))
        try:
            return auditor.audit(symbol, day, Other(str(path), sha256_of(path), file.canonical))
        except Defect as defect:
            raise AgainstError(f"--against={path}: {defect}") from None


class OfCertificate:
    """What another recorder has proven, or this one earlier."""

    is_file = True

    def __init__(self, path: Path) -> None:
        self._certificate = Certificate(path)

    def covers(self, symbol: str, day: date) -> bool:
        """Whether it says anything of that day."""
        return self._certificate.covers(symbol, day)

    def audit(self, auditor: Auditor, symbol: str, day: date) -> Finding:
        """What is found on a day. Raises CertificateError."""
        return self._certificate.beside(auditor.audit(symbol, day, NONE))


Against = Word | File | OfCertificate


def chosen(given: str) -> Against:
    """What `given` on the command line names. Raises AgainstError, CertificateError, OSError."""
    if given in (AUTO, ARCHIVE, KLINES, NONE):
        return Word(given)
    path = Path(given)
    if not path.is_file():
        raise AgainstError(f"--against={given}: give archive, klines, none, or a file that is there")
    if path.suffix == ".json":
        return OfCertificate(path)
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise AgainstError(
            f"--against={given}: a file of the archive has a name such as BTCUSDT-trades-2026-11-25.zip, which says"
            " what it is of; that of a certificate ends in .json"
        )
    return File(path, match["symbol"], match["period"])
